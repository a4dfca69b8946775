import pytest

from rmr_gym.errors import RMRError
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


def test_only_what_is_vital_must_not_fail_altogether():
    assert problems([FAILED, DONE], [DONE], "natural run") == ["c: no space left"]
    with pytest.raises(RMRError, match="every natural run failed; the first said: c: no space"):
        problems([DONE, FAILED], [FAILED], "natural run")
