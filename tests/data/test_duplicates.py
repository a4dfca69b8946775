import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.data.verify import DuplicateReport, duplicate_report, duplicate_rows


def test_a_report_by_hand():
    first = np.array([[1, 2], [1, 2], [3, 4], [1, 2]])
    second = np.array([[3, 4], [5, 6], [5, 6], [3, 4]])
    assert duplicate_report([first, second]) == DuplicateReport(8, within=4, across=2, repeated=5)
    assert duplicate_report([]) == DuplicateReport(0, 0, 0, 0)


def test_duplicate_rows_by_hand():
    reference = np.array([[[1, 2]], [[3, 4]]], dtype=np.uint8)
    frames = np.array([[[3, 4]], [[4, 3]], [[1, 2]], [[1, 3]]], dtype=np.uint8)
    assert duplicate_rows(reference, frames).tolist() == [True, False, True, False]
    assert duplicate_rows(reference[:0], frames).tolist() == [False] * 4
    strided = np.repeat(frames, 2, axis=2)[:, :, ::2]
    assert duplicate_rows(reference, strided).tolist() == [True, False, True, False]


def test_duplicates_of_another_size():
    with pytest.raises(RMRError, match=r"found uint8\[2, 2\] and uint8\[2, 3\]"):
        duplicate_rows(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 3), np.uint8))
