import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmr_gym.core.errors import RMRError
from rmr_gym.data.sampling import bits_to_ram, byte_entropy, high_entropy_bytes, ram_to_bits


def test_the_most_significant_bit_comes_first():
    ram = np.array([[1, 128, 0b10110000]], dtype=np.uint8)
    assert ram_to_bits(ram)[0].tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 1, 1, 0, 0, 0, 0],
    ]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_bits_are_the_bytes_again(values):
    ram = np.array(values, dtype=np.uint8)
    assert (bits_to_ram(ram_to_bits(ram)) == ram).all()
    batched = np.stack([ram, 255 - ram])[:, None]
    assert (bits_to_ram(ram_to_bits(batched)) == batched).all()


def test_entropy_by_hand():
    ram = np.zeros((8, 4), dtype=np.uint8)
    ram[:4, 1] = 7
    ram[:, 2] = range(8)
    ram[:6, 3] = 200
    by_hand = [0.0, np.log(2), np.log(8), -0.75 * np.log(0.75) - 0.25 * np.log(0.25)]
    np.testing.assert_allclose(byte_entropy(ram), by_hand, atol=1e-12)


def test_slots_above_the_threshold():
    ram = np.zeros((8, 4), dtype=np.uint8)
    ram[:4, 1] = 7
    ram[:, 3] = range(8)
    assert high_entropy_bytes(ram).tolist() == [1, 3]
    assert high_entropy_bytes(ram, threshold=1.0).tolist() == [3]
    assert high_entropy_bytes(ram, threshold=np.log(2) - 1e-9).tolist() == [1, 3]


def test_no_slot_and_no_row():
    with pytest.raises(RMRError, match=r"more than 0\.6 nats .* found at most 0\.000"):
        high_entropy_bytes(np.zeros((8, 4), dtype=np.uint8))
    with pytest.raises(RMRError, match="at least one row"):
        byte_entropy(np.zeros((0, 128), dtype=np.uint8))
