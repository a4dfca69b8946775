import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmr_gym.core.errors import RMRError
from rmr_gym.data.sampling import split_episodes


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 5), st.integers(0, 99))
def test_parts_are_disjoint_and_of_the_size_asked_for(train, validation, spare, seed):
    first, second = split_episodes(train + validation + spare, train, validation, seed)
    assert (len(first), len(second)) == (train, validation)
    assert not set(first) & set(second)
    assert set(first) | set(second) <= set(range(train + validation + spare))
    assert first == sorted(first)
    assert second == sorted(second)


def test_the_seed_decides():
    assert split_episodes(96, 48, 48, 0) == split_episodes(96, 48, 48, 0)
    assert split_episodes(96, 48, 48, 0) != split_episodes(96, 48, 48, 1)
    train, _ = split_episodes(96, 48, 48, 0)
    assert train != list(range(48)), "the split must not be in the order of recording"


def test_anything_that_lists_episodes_can_be_split():
    class Listed:
        episodes = ("a", "b", "c")

    assert split_episodes(Listed(), 2, 1, 5) == split_episodes(3, 2, 1, 5)


def test_too_few_episodes():
    message = "at least 96 episodes to split into 48 for training and 48 for validation, found 95"
    with pytest.raises(RMRError, match=message):
        split_episodes(95, 48, 48, 0)


@pytest.mark.parametrize(("train", "validation"), [(0, 3), (2, -1)])
def test_sizes_out_of_range(train, validation):
    with pytest.raises(RMRError, match=f"found {train} and {validation}"):
        split_episodes(10, train, validation, 0)
