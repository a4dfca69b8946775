import json
import os
import signal
import sys
import threading
import warnings
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.sweep import Cell, finished_cells, run_cells
from rmr_gym.protocol.sweep_folder import CellState, SweepFolder
from rmr_gym.protocol.sweep_log import cell_log
from rmr_gym.protocol.sweep_status import Kind, estimate, kinds


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
    assert "KeyError" in str(outcomes[2].error)
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


def test_cluster_gives_the_same_and_survives_a_killed_worker(tmp_path):
    cells = [Cell(str(value), pow, (value, 2)) for value in range(4)]
    cells += [Cell("dies", die_once, (str(tmp_path / "marker"),)), Cell("bad", poisoned, ())]
    outcomes = run_cells(cells, workers=2)
    assert [outcome.value for outcome in outcomes] == [0, 1, 4, 9, "alive", None]
    assert outcomes[-1].error == "bad cell"


def test_what_comes_after_waits_and_is_not_run_in_vain(tmp_path):
    cells = [
        Cell("last", square, (2,), after=("first",)),
        Cell("first", square, (3,)),
        Cell("in vain", square, (4,), after=("bad",)),
        Cell("bad", poisoned, ()),
    ]
    for workers in (1, 2):
        outcomes = run_cells(cells, workers=workers)
        assert [outcome.value for outcome in outcomes] == [4, 9, None, None]
        assert outcomes[2].error == "it needs 'bad', which failed"
    seen = []
    run_cells(cells, folder=tmp_path, grown=seen.append)
    assert [outcome.key for outcome in seen[-1]] == [cell.key for cell in cells]


@pytest.mark.parametrize(
    ("after", "message"),
    [(("c",), "did you mean"), (("b",), "wait for each other"), (("nothing",), "unknown cell")],
)
def test_cells_that_can_never_run_are_refused(after, message):
    cells = [Cell("aa", square, (1,), after), Cell("b", square, (1,), ("aa",))]
    cells += [Cell("cc", square, (1,))]
    with pytest.raises(RMRError, match=message):
        run_cells(cells)


def count(path):
    with Path(path).open("a") as file:
        file.write("x")
    return {"times": len(Path(path).read_text()), "ratio": 1 / 3}


def test_a_cell_that_is_done_is_not_computed_again(tmp_path):
    cells = [Cell("a", count, (str(tmp_path / "calls"),), inputs={"batch": 5})]
    first = run_cells(cells, folder=tmp_path / "out")
    assert run_cells(cells, folder=tmp_path / "out") == first
    assert first[0].value == {"times": 1, "ratio": 1 / 3}
    changed = [cells[0]._replace(inputs={"batch": 6})]
    with pytest.raises(RMRError, match=r"batch was 5, is 6; choose another folder"):
        run_cells(changed, folder=tmp_path / "out")


def test_two_sweeps_in_one_folder_are_refused_while_both_run(tmp_path):
    cells = [Cell("a", square, (2,)), Cell("b", square, (3,))]
    with closing(finished_cells(cells, folder=tmp_path)) as first:
        next(first)
        with pytest.raises(RMRError, match="no other command computes in"):
            run_cells(cells, folder=tmp_path)
        assert run_cells(cells, folder=tmp_path / "other")[1].value == 9
    assert [each.value for each in run_cells(cells, folder=tmp_path)] == [4, 9]


def test_results_of_another_version_are_refused(tmp_path):
    cells = [Cell("a", square, (2,))]
    run_cells(cells, folder=tmp_path)
    record = SweepFolder(tmp_path).record("a")
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"inputs": {"versions": {"torch": "1.0"}}}))
    with pytest.raises(RMRError, match=r"versions\.\S+ was"):
        run_cells(cells, folder=tmp_path)
    record.write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(RMRError, match="format 99, expected 1"):
        run_cells(cells, folder=tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "b"}'])
def test_a_damaged_record_counts_as_none(tmp_path, content):
    cells = [Cell("a", square, (2,))]
    run_cells(cells, folder=tmp_path)
    SweepFolder(tmp_path).record("a").write_text(content)
    assert run_cells(cells, folder=tmp_path)[0].value == 4


def fail_first(path):
    if not Path(path).exists():
        Path(path).touch()
        raise RMRError("not yet")
    return "now"


def test_a_failed_cell_is_kept_and_tried_again_by_the_next_run(tmp_path):
    cells = [Cell("a", fail_first, (str(tmp_path / "marker"),)), Cell("b", square, (2,))]
    outcomes = run_cells(cells, folder=tmp_path)
    assert (outcomes[0].error, outcomes[1].value) == ("not yet", 4)
    rows = {state.key: state for state in SweepFolder(tmp_path).read_states()}
    assert (rows["a"].state, rows["a"].error, rows["a"].attempts) == ("failed", "not yet", 1)
    assert run_cells(cells, folder=tmp_path)[0].value == "now"
    assert SweepFolder(tmp_path).read_states()[0][:2] == ("a", "done")
    assert SweepFolder(tmp_path).read_states()[0].attempts == 2


def talk(warn):
    sys.stdout.write("to stdout\n")
    sys.stderr.write("to stderr\n")
    if warn:
        warnings.warn("of something", stacklevel=1)
    return {}["nothing"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_log_has_prints_warnings_and_the_trace(tmp_path, workers, capsys):
    warn = workers == 2  # in this process pytest takes the warnings
    run_cells([Cell("a", talk, (warn,)), Cell("b", square, (2,))], folder=tmp_path, workers=workers)
    log = SweepFolder(tmp_path).log("a").read_text()
    for expected in ("attempt 1 at a", "to stdout", "to stderr", "KeyError"):
        assert expected in log
    assert ("UserWarning: of something" in log) == warn
    assert "to stdout" not in capsys.readouterr().out
    assert "to stdout" not in SweepFolder(tmp_path).log("b").read_text()


def test_other_threads_keep_their_output(tmp_path, capsys):
    with cell_log(tmp_path / "a.log", "title"):
        sys.stdout.write("mine\n")
        thread = threading.Thread(target=lambda: sys.stdout.write("theirs\n"))
        thread.start()
        thread.join()
    assert capsys.readouterr().out == "theirs\n"
    assert (tmp_path / "a.log").read_text() == "--- title\nmine\n"


def test_what_is_not_json_fails_that_cell(tmp_path):
    outcomes = run_cells([Cell("a", threading.Lock, ()), Cell("b", square, (2,))], folder=tmp_path)
    assert "not JSON" in str(outcomes[0].error)
    assert outcomes[1].value == 4


def test_a_full_disk_ends_the_sweep_and_loses_nothing(tmp_path, monkeypatch):
    from rmr_gym.core import files as atomic

    cells = [Cell(str(value), square, (value,)) for value in range(4)]
    write = atomic.write_file

    def full(path, content):
        if path.name.startswith("2-"):
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(atomic, "write_file", full)
    with pytest.raises(RMRError, match=r"No space left on device; what was finished is unharmed"):
        run_cells(cells, folder=tmp_path)
    monkeypatch.undo()
    states = [state.state for state in SweepFolder(tmp_path).read_states()]
    assert states == ["done", "done", "waiting", "waiting"]
    assert [outcome.value for outcome in run_cells(cells, folder=tmp_path)] == [0, 1, 4, 9]


def test_keys_that_look_alike_in_files_stay_apart(tmp_path):
    cells = [Cell("a b", square, (2,)), Cell("a/b", square, (3,)), Cell("x" * 300, square, (4,))]
    run_cells(cells, folder=tmp_path)
    assert [outcome.value for outcome in run_cells(cells, folder=tmp_path)] == [4, 9, 16]


def test_status_counts_kinds_and_estimates_what_is_left():
    states = [
        CellState("slow 1", "done", 100.0, 1),
        CellState("slow 2", "waiting"),
        CellState("fast 1", "done", 10.0, 1),
        CellState("fast 2", "done", 20.0, 1),
        CellState("fast 3", "failed", 1.0, 2, "why"),
        CellState("new 1", "waiting"),
    ]
    assert kinds(states)[1] == Kind("fast", 2, 1, 0, 15.0)
    times = [datetime(2026, 1, 1, 0, 0, second) for second in (0, 10, 20)]
    known = estimate(states, times)
    assert (known.spent, known.rest, known.unknown) == (131.0, 115.0, 1)
    assert (known.rate, known.left) == (0.1, 20.0)
    assert estimate(states, times[:1]).left is None
