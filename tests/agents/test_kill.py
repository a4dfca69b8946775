"""Recordings that are broken off at any instant: what is finished is whole, the rest is redone."""

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset, being_written
from rmr_gym.data.reader import read_info, verify_episode
from rmr_gym.data.schema import MANIFEST, episode_indices, episode_path, read_manifest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks, to import only once")

STEPS = 6
"""So short an episode that most of the time is spent on writing files."""

SETTINGS: dict[str, Any] = {"env": "Pong", "max_steps": STEPS, "players": "uniform"}

NURSERY = """
import json, logging, multiprocessing, os, signal, sys
from rmr_gym.core import processes
from rmr_gym.agents import record as collect

def forking(method):
    return multiprocessing.get_context("fork")

def say(*words):  # in one call, since a kill between two would leave half a line
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def told(done, total):
    say("finished", done)

def die_at(line):
    def count(frame, event, _):
        global run
        if not frame.f_code.co_filename.endswith("core/files.py"):
            return None
        if event == "line":
            run += 1
            if run == line:
                os.kill(os.getpid(), signal.SIGKILL)
        return count
    return count

run = 0
for line in sys.stdin:
    options = json.loads(line)
    logging.basicConfig(filename=options.pop("log"))
    fork, fatal_line = options.pop("fork"), options.pop("fatal_line")
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if fork:
            processes.get_context = forking
        if fatal_line:
            sys.settrace(die_at(fatal_line))
        try:
            collect.record(**options, progress=told)
        except KeyboardInterrupt:
            say("interrupted")
        except BaseException as error:
            say("failed", repr(error))
        finally:
            os._exit(0)
    os.setpgid(child, child)
    say("started", child)
    os.waitpid(child, 0)
    say("gone")
"""


class Nursery:
    """Starts recordings, each in a process group of its own, without importing all again."""

    def __init__(self, log: Path):
        self._log = str(log)
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def broken_off(
        self,
        path: Path,
        kind: signal.Signals,
        *,
        reports: int,
        delay: float,
        workers: int,
        fork: bool = True,
    ) -> list[str]:
        """Record without end and send a signal to all processes; return what was said after it.

        Args:
            path: Folder of the data set.
            kind: The signal.
            reports: Reports of progress before it; the first comes before the first episode.
            delay: Seconds between the last of them and the signal.
            workers: Processes that record.
            fork: Whether they are forked, which is faster, and not spawned.
        """
        self._start(path, workers=workers, fork=fork, fatal_line=None)
        said = self._lines(lambda lines: any(line.startswith("started") for line in lines))
        group = next(int(line.split()[1]) for line in said if line.startswith("started"))
        missing = reports - len(said) + 1
        self._lines(lambda lines: len(lines) >= missing and "gone" not in lines)
        time.sleep(delay)
        os.killpg(group, kind)
        return self._lines(lambda lines: "gone" in lines)

    def killed_while_writing(self, path: Path, line: int) -> None:
        """Record, and be killed before the ``line``-th line run of what writes files."""
        self._start(path, workers=1, fork=True, fatal_line=line)
        self._lines(lambda lines: "gone" in lines)

    def _start(self, path: Path, **options: Any) -> None:
        order = {**SETTINGS, "path": str(path), "episodes": 1000, "log": self._log, **options}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _lines(self, enough: Callable[[list[str]], bool]) -> list[str]:
        """Return the lines that come until there are enough."""
        assert self._process.stdout is not None
        lines: list[str] = []
        while not enough(lines):
            assert "gone" not in lines, f"the recording ended by itself: {lines}"
            lines.append(self._process.stdout.readline().strip())
            assert lines[-1], "the nursery died"
        return lines


@pytest.fixture
def nursery(tmp_path):
    nursery = Nursery(tmp_path / "log")
    yield nursery
    nursery.close()


def files(path: Path) -> dict[str, bytes]:
    found = (entry for entry in path.rglob("*") if entry.is_file())
    return {str(entry.relative_to(path)): entry.read_bytes() for entry in found}


def wait_until_alone(path: Path) -> None:
    deadline = time.monotonic() + 20
    while being_written(path):
        assert time.monotonic() < deadline, "a recorder outlived the signal"
        time.sleep(0.01)


def verify_what_is_new(path: Path, seen: dict[int, bytes]) -> None:
    """Check that finished episodes stay as they were and that new ones are whole."""
    if not (path / MANIFEST).exists():
        assert episode_indices(path) == []
        return
    there = {index: episode_path(path, index).read_bytes() for index in episode_indices(path)}
    assert {index: there.get(index) for index in seen} == seen
    manifest = read_manifest(path)
    for index in there.keys() - seen.keys():
        verify_episode(read_info(episode_path(path, index)), manifest)
    seen.update(there)


def goes_on_as_if_unbroken(path: Path, episodes: int) -> None:
    """Record the rest, and compare every byte with a recording that was never broken off."""
    unbroken = path.with_name("unbroken")
    for folder in (path, unbroken):
        record(path=folder, episodes=episodes, **SETTINGS)
    assert files(path) == files(unbroken)


def leftovers(path: Path) -> set[str]:
    return {entry.name for entry in path.rglob("*.tmp")}


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_instant(nursery, tmp_path, caplog, workers):
    """Kill a recording 24 times, resuming it each time; then let it end, as if unbroken."""
    path, draw = tmp_path / "killed", random.Random(workers)
    seen: dict[int, bytes] = {}
    torn: set[str] = set()
    for _ in range(24):
        reports = draw.choice((0, 1, 1, 2, 2, 3))
        delay = draw.uniform(0, 0.015 if reports else 0.15)
        nursery.broken_off(path, signal.SIGKILL, reports=reports, delay=delay, workers=workers)
        wait_until_alone(path)
        torn |= leftovers(path)
        verify_what_is_new(path, seen)
    assert len(seen) > 10, "hardly any kill came while episodes were being written"
    goes_on_as_if_unbroken(path, max(seen) + 4)
    told = caplog.text + (tmp_path / "log").read_text()
    assert {name for name in torn if name not in told} == set(), "dropped without a word"


def test_killed_at_any_line_that_writes_a_file(nursery, tmp_path, caplog):
    """Random instants seldom meet the few microseconds in which a file is half written."""
    path, seen = tmp_path / "killed", {}
    torn: set[str] = set()
    for line in (*range(1, 30, 2), *range(30, 60, 2)):
        nursery.killed_while_writing(path, line)
        torn |= leftovers(path)
        verify_what_is_new(path, seen)
    assert len(torn) > 5
    assert len(seen) > 10
    goes_on_as_if_unbroken(path, max(seen) + 2)
    told = caplog.text + (tmp_path / "log").read_text()
    assert {name for name in torn if name not in told} == set(), "dropped without a word"


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c(nursery, tmp_path, workers):
    path = tmp_path / "interrupted"
    seen: dict[int, bytes] = {}
    for reports in (1, 2, 3) if workers == 1 else (4,):
        said = nursery.broken_off(
            path, signal.SIGINT, reports=reports, delay=0.002, workers=workers, fork=False
        )
        assert "interrupted" in said
        wait_until_alone(path)
        assert leftovers(path) == set()
        verify_what_is_new(path, seen)
    goes_on_as_if_unbroken(path, max(seen) + 2)


@pytest.mark.parametrize("flush", [2, 5, 6, 9])
def test_a_disk_that_fills_up(tmp_path, monkeypatch, flush):
    """Let a flush fail, of a file or of the folder after it; go on when there is room."""
    flushes, real = itertools.count(), os.fsync

    def full(descriptor: int) -> None:
        if next(flushes) == flush:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    path = tmp_path / "full"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RMRError, match=r"cannot write .*\.h5: No space left .*unharmed: make"):
            record(path=path, episodes=8, **SETTINGS)
    assert 0 < len(TransitionDataset(path, verify=True).episodes) < 8 or flush == 2
    assert leftovers(path) == set()
    goes_on_as_if_unbroken(path, 8)
