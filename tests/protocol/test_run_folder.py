import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.run_folder import problems
from rmr_gym.protocol.sweep import Outcome

DONE = Outcome("a", {"rows": []}, None)
COLLAPSED = Outcome("b", {"collapsed": "all slots are dead"}, None)
FAILED = Outcome("c", None, "no space left\n")


def test_what_failed_and_what_collapsed_is_told_in_order():
    assert problems([FAILED, DONE, COLLAPSED]) == ["c: no space left", "b: all slots are dead"]
    assert problems([]) == []


def test_a_run_of_failures_alone_is_an_error():
    with pytest.raises(RMRError, match="every cell failed; the first said: c: no space left"):
        problems([FAILED, FAILED])


def test_that_cells_which_serve_others_worked_is_no_result():
    assert problems([FAILED, DONE], {"c"}) == ["c: no space left"]
    with pytest.raises(RMRError, match="every cell failed; the first said: c: no space"):
        problems([DONE, FAILED], {"a"})
