import os
import signal
from pathlib import Path

import pytest
import torch

from rmr_gym.errors import RMRError
from rmr_gym.protocol.sweep import Cell, run_cells


def square(value):
    return value * value


def threads():
    return torch.get_num_threads()


def poisoned():
    raise RMRError("bad cell")


def broken():
    return {}["nothing"]


def die_once(path):
    marker = Path(path)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def test_order_progress_and_errors_in_process():
    seen = []
    cells = [
        Cell("a", square, (3,)),
        Cell("b", poisoned, ()),
        Cell("c", broken, ()),
        Cell("d", square, (4,)),
    ]
    outcomes = run_cells(cells, progress=lambda *values: seen.append(values))
    assert [outcome.value for outcome in outcomes] == [9, None, None, 16]
    assert outcomes[1].error == "bad cell"
    assert "KeyError" in outcomes[2].error
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_cells_compute_on_one_thread_and_the_setting_comes_back():
    before = torch.get_num_threads()
    assert run_cells([Cell("a", threads, ())])[0].value == 1
    assert torch.get_num_threads() == before


def test_interrupt_is_not_swallowed():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells([Cell("a", interrupt, ())])


@pytest.mark.parametrize(
    ("cells", "workers", "message"),
    [([Cell("a", square, (1,))] * 2, 1, "come twice: a"), ([], 0, "workers must be 1 or more")],
)
def test_bad_sweeps_are_refused(cells, workers, message):
    with pytest.raises(RMRError, match=message):
        run_cells(cells, workers=workers)


def test_a_result_whose_worker_died_is_waited_for():
    from concurrent.futures import Future

    from rmr_gym.protocol.sweep import Outcome, _gathered

    future = Future()
    future.set_result(Outcome("a", 1, None))
    assert _gathered("a", future).value == 1
    broken = Future()
    broken.set_exception(RuntimeError("killed four times"))
    assert "killed four times" in _gathered("b", broken).error


def test_cluster_gives_the_same_and_survives_a_killed_worker(tmp_path):
    cells = [Cell(str(value), pow, (value, 2)) for value in range(4)]
    cells += [Cell("dies", die_once, (str(tmp_path / "marker"),)), Cell("bad", poisoned, ())]
    outcomes = run_cells(cells, workers=2)
    assert [outcome.value for outcome in outcomes] == [0, 1, 4, 9, "alive", None]
    assert outcomes[-1].error == "bad cell"
