import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator, integer_seed


def test_a_stream_hangs_on_seed_and_names_alone():
    first, again = generator(3, "natural", 17), generator(3, "natural", 17)
    assert np.array_equal(first.random(5), again.random(5))
    others = [(4, "natural", 17), (3, "natural", 18), (3, "natural", "17"), (3, "natural")]
    draws = {generator(*other).random() for other in [(3, "natural", 17), *others]}
    assert len(draws) == 5


def test_integers_of_numpy_name_the_same_stream():
    assert generator(3, np.int64(17)).random() == generator(3, 17).random()
    assert integer_seed(3, "a", np.uint8(17)) == integer_seed(3, "a", 17)


def test_integers_fit_libraries():
    assert all(0 <= integer_seed(seed, "env") < 2**31 for seed in range(50))


def test_a_negative_seed_is_told():
    with pytest.raises(RMRError, match="a seed of 0 or more, found -1"):
        generator(-1, "natural")
