import multiprocessing
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest
import torch
from squares import (
    blas_threads,
    die_once,
    fail,
    interrupt,
    kill_self,
    lines,
    square,
    talk,
    total,
)
from threadpoolctl import threadpool_limits

from rmr_gym.core import files
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import WriteError
from rmr_gym.runs.status import (
    Estimate,
    JobState,
    estimate,
    kinds,
    read_plan,
    write_plan,
)
from rmr_gym.runs.store import Place, Store
from rmr_gym.runs.sweep import ATTEMPTS, Job, job_log, jobs_of, run_tasks, traces_of


def traces(store, task):
    return traces_of(store, Job(task.key, task.title, (task,)))


def errors(tasks, outcomes):
    return [outcomes[task.key].error if task.key in outcomes else None for task in tasks]


@pytest.fixture
def here(tmp_path):
    return Place(tmp_path)


class TestInProcess:
    def test_order_progress_and_errors(self, store, here, capsys):
        seen, ended = [], []
        tasks = [square(3, here), fail(), talk(warn=False), square(4, here)]
        outcomes = run_tasks(
            tasks,
            store,
            progress=lambda *values: seen.append(values),
            ended=lambda outcome: ended.append(outcome.key),
        )
        assert errors(tasks, outcomes)[:2] == [None, "bad job"]
        assert "KeyError" in str(outcomes[tasks[2].key].error)
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert ended == [task.key for task in tasks]
        assert store.record(tasks[3])["rows"] == [{"square": 16 / 7}]
        assert capsys.readouterr() == ("", "")

    def test_jobs_compute_on_one_thread_and_the_setting_comes_back(self, store, here):
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            with threadpool_limits(2, user_api="blas"):
                run_tasks([square(1, here)], store)
                assert max(blas_threads()) == 2
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        record = store.record(square(1, here))
        assert (record["threads"], record["blas"]) == (1, 1)

    def test_an_interrupt_is_not_swallowed_and_counts_as_no_crash(self, store):
        with pytest.raises(KeyboardInterrupt):
            run_tasks([interrupt()], store)
        assert (traces(store, interrupt()).attempts, traces(store, interrupt()).crashes) == (1, 0)

    def test_fewer_than_one_worker_is_refused(self, store):
        with pytest.raises(RMRError, match="at least 1 as workers, found 0"):
            run_tasks([], store, workers=0)

    def test_what_is_done_is_not_computed_again_nor_what_it_needed(self, store, here, tmp_path):
        task = total([square(1, here), square(2, here)])
        run_tasks([task, square(1, here)], store)
        assert lines(tmp_path) == ["1", "2"]
        assert run_tasks([task, square(1, here)], store) == {}
        assert jobs_of([task], store) == []
        (store.folder(square(2, here)) / "record.json").unlink()
        assert jobs_of([task], store) == []
        assert lines(tmp_path) == ["1", "2"]

    def test_a_failed_job_is_kept_and_tried_again_by_the_next_run(self, store, here):
        tasks = [fail("not yet", here), square(2, here)]
        assert errors(tasks, run_tasks(tasks, store)) == ["not yet", None]
        assert (traces(store, tasks[0]).failure, traces(store, tasks[0]).attempts) == ("not yet", 1)
        assert errors(tasks, run_tasks(tasks, store)) == [None, None]
        assert (traces(store, tasks[0]).failure, traces(store, tasks[0]).attempts) == (None, 2)
        assert store.has(tasks[0])

    def test_what_is_not_json_fails_that_job(self, store, here, monkeypatch):
        task = total([square(1, here)])
        monkeypatch.setattr(task.stage, "function", lambda parts: _artifact_of_a_lock())
        tasks = [task, square(2, here)]
        first, second = errors(tasks, run_tasks(tasks, store))
        assert "not JSON" in str(first)
        assert second is None

    def test_a_full_disk_ends_the_sweep_and_loses_nothing(self, store, here, monkeypatch):
        tasks = [square(value, here) for value in range(4)]
        fill = files.Path.rename

        def full(path, target):
            if target == store.folder(tasks[2]):
                raise OSError(28, "No space left on device")
            return fill(path, target)

        monkeypatch.setattr(files.Path, "rename", full)
        with pytest.raises(WriteError, match=r"No space left on device; what was finished is"):
            run_tasks(tasks, store)
        monkeypatch.undo()
        assert [store.has(task) for task in tasks] == [True, True, False, False]
        assert traces(store, tasks[2]).crashes == 0
        assert errors(tasks, run_tasks(tasks, store)) == [None] * 4

    def test_a_job_that_killed_its_process_comes_last_and_is_given_up(self, store, here):
        """What the only process of a sweep did before it died is kept; see test_kill, too."""
        tasks = [kill_self(), square(1, here), square(2, here)]
        deadly = traces(store, tasks[0])
        for _ in range(ATTEMPTS):
            deadly.start()
        outcomes = run_tasks(tasks, store)
        assert list(outcomes) == [task.key for task in (*tasks[1:], tasks[0])]
        assert f"died {ATTEMPTS} times in a row" in str(outcomes[tasks[0].key].error)
        assert deadly.failure == outcomes[tasks[0].key].error
        assert deadly.crashes == 0, "a later run may try again"


def _artifact_of_a_lock():
    from rmr_gym.runs.store import Artifact

    return Artifact({"lock": threading.Lock()})


class TestCluster:
    def test_it_gives_the_same_waits_survives_and_logs(self, store, here, capsys, tmp_path):
        parts = [square(value, here) for value in range(3)]
        tasks = [total(parts), die_once(here), fail(), talk(warn=True), total([square(9, here)])]
        seen = []
        outcomes = run_tasks(tasks, store, workers=2, progress=lambda *values: seen.append(values))
        assert errors(tasks[:3], outcomes) == [None, None, "bad job"]
        assert store.record(tasks[0])["value"] == sum(value**2 / 7 for value in range(3))
        assert store.record(tasks[1])["value"] == "alive"
        assert store.record(parts[0])["threads"] == 1
        assert seen[-1] == (9, 9)
        assert sorted(lines(tmp_path)) == ["0", "1", "2", "9"]
        log = traces(store, tasks[3]).log.read_text()
        for expected in ("attempt 1 at talk", "to stdout", "to stderr", "KeyError"):
            assert expected in log
        assert "UserWarning: of something" in log
        assert "attempt 2 at die_once" in traces(store, tasks[1]).log.read_text()
        assert "to stdout" not in capsys.readouterr().out
        assert "to stdout" not in traces(store, parts[0]).log.read_text()
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_needs_a_failed_job_is_not_run_in_vain(store, here, tmp_path, workers):
    tasks = [total([square(1, here), fail("no")]), square(2, here)]
    outcomes = run_tasks(tasks, store, workers=workers)
    assert errors(tasks, outcomes) == ["it needs 'fail no', which failed", None]
    assert sorted(lines(tmp_path)) == ["1", "2"]
    assert traces(store, tasks[0]).attempts == 0


class TestLog:
    def test_prints_and_the_trace_in_this_process(self, store, here, capsys):
        run_tasks([talk(warn=False), square(2, here)], store)
        log = traces(store, talk(warn=False)).log.read_text()
        for expected in ("attempt 1 at talk", "to stdout", "to stderr", "KeyError"):
            assert expected in log
        assert "to stdout" not in capsys.readouterr().out
        run_tasks([talk(warn=False)], store)
        assert "attempt 2 at talk" in traces(store, talk(warn=False)).log.read_text()

    def test_other_threads_keep_their_output(self, tmp_path, capsys):
        with job_log(tmp_path / "a.log", "title"):
            sys.stdout.write("mine\n")
            thread = threading.Thread(target=lambda: sys.stdout.write("theirs\n"))
            thread.start()
            thread.join()
        assert capsys.readouterr().out == "theirs\n"
        assert (tmp_path / "a.log").read_text() == "--- title\nmine\n"


class TestStatus:
    def test_kinds_are_counted_and_what_is_left_is_estimated(self):
        states = [
            JobState("slow 1", "done", 100.0, 1),
            JobState("slow 2", "waiting"),
            JobState("fast 1", "done", 10.0, 1),
            JobState("fast 2", "done", 20.0, 1),
            JobState("fast 3", "failed", None, 2, "why"),
            JobState("new 1", "waiting"),
        ]
        assert kinds(states).loc[1].tolist() == ["fast", 2, 1, 0, 15.0]
        times = [datetime(2026, 1, 1, 0, 0, second) for second in (0, 10, 20)]
        assert estimate(states, times) == Estimate(130.0, 115.0, 1, 0.1, 20.0)
        assert estimate(states, times[:1]).left is None

    def test_a_plan_is_held_against_the_store(self, store, here, tmp_path):
        tasks = [total([square(1, here), fail("no\nwhy not")]), square(2, here)]
        plan = write_plan(tmp_path, tasks, store)
        assert [job.title for job in plan] == ["square 1", "fail no\nwhy not", "total", "square 2"]
        assert [job.state().state for job in plan] == ["waiting"] * 4
        run_tasks(tasks, store)
        states = [job.state() for job in read_plan(tmp_path)]
        assert [state.state for state in states] == ["done", "failed", "waiting", "done"]
        assert (states[1].error, states[1].attempts) == ("why not", 1)
        assert plan[0].log == traces(store, square(1, here)).log
        assert plan[0].finished is not None
        assert plan[2].finished is None

    def test_jobs_of_equal_titles_are_told_apart(self, store, here, tmp_path):
        tasks = [total([square(value, here)]) for value in (1, 2)]
        titles = [job.title for job in write_plan(tmp_path, tasks, store)]
        assert titles[1::2] == [f"total ({task.key[:6]})" for task in tasks]

    def test_a_folder_without_a_plan_is_said_with_the_runs_in_it(self, store, here, tmp_path):
        with pytest.raises(RMRError, match=r"holds no run: expected a folder .* in it: none"):
            read_plan(tmp_path)
        (tmp_path / "first").mkdir()
        write_plan(tmp_path / "first", [square(1, here)], store)
        with pytest.raises(RMRError, match=r"runs in it: .*first"):
            read_plan(tmp_path)

    def test_a_store_may_be_looked_at_from_elsewhere(self, store, here, tmp_path, monkeypatch):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        run_tasks([square(1, here)], Store(Path("store")))
        write_plan(tmp_path, [square(1, here)], Store(Path("store")))
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert read_plan(tmp_path)[0].state().state == "done"
