"""Measure what a sweep costs beside its jobs, what two workers gain, and what kills change.

Run it on an idle machine with at least two cores:

    python benchmarks/sweep.py --jobs 12 --seconds 10 --kills 20

Jobs are as short as the shortest real ones. For the kills, jobs are a third as long and about
three times as many, and a worker is killed about once a job's length, at random.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

from rmr_gym.runs.store import Artifact, Place, Store, Task, stage
from rmr_gym.runs.sweep import run_tasks


@stage(version=1)
def work(seconds: float, running: Place, name: int) -> Artifact:
    """Compute on one thread for some seconds of processor time, leaving the process's id behind."""
    marker = running.path / str(name)
    marker.write_text(str(os.getpid()))
    started, value = time.thread_time(), 1.0
    while time.thread_time() - started < seconds:
        for _ in range(1000):
            value = value * 1.0000001 % 7
    marker.unlink(missing_ok=True)
    return Artifact({"square": name * name / 7})


def bare(tasks: list[Task]) -> float:
    """Return the seconds that the jobs take without a sweep."""
    started = time.perf_counter()
    for task in tasks:
        task.stage.function(**task.arguments)
    return time.perf_counter() - started


def swept(tasks: list[Task], workers: int, root: Path) -> tuple[float, list[object]]:
    """Return the seconds that a sweep takes, start of its workers included, and its values."""
    started, store = time.perf_counter(), Store(root)
    run_tasks(tasks, store, workers=workers)
    values = [(store.record(task) or {}).get("square") for task in tasks]
    return time.perf_counter() - started, values


def kill_some(running: Path, times: int, pause: float, stopped: threading.Event) -> int:
    """Kill the worker of a random running job, ``times`` times if the sweep lasts."""
    rng, killed = random.Random(0), 0
    while killed < times and not stopped.wait(pause * rng.uniform(0.2, 1.8)):
        markers = list(running.iterdir())
        try:
            chosen = rng.choice(markers)
            os.kill(int(chosen.read_text()), signal.SIGKILL)
            chosen.unlink()
            killed += 1
        except (OSError, ValueError, IndexError):
            continue
    return killed


def main() -> None:
    """Print three measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        running = root / "running"
        running.mkdir()
        place = Place(running)
        tasks = [work(options.seconds, place, name) for name in range(options.jobs)]
        without = bare(tasks)
        one, _ = swept(tasks, 1, root / "one")
        two, _ = swept(tasks, 2, root / "two")
        print(f"bare {without:.2f} s; one process {one:.2f} s: overhead {one / without - 1:+.2%}")
        print(f"two workers {two:.2f} s: {one / two:.2f} times as fast")
        tasks = [work(options.seconds / 3, place, name) for name in range(3 * options.jobs)]
        values = [name * name / 7 for name in range(3 * options.jobs)]
        stopped, killed = threading.Event(), []
        killer = threading.Thread(
            target=lambda: killed.append(
                kill_some(running, options.kills, options.seconds / 3, stopped)
            )
        )
        killer.start()
        seconds, disturbed = swept(tasks, 2, root / "killed")
        stopped.set()
        killer.join()
        same = "the same" if disturbed == values else "ANOTHER"
        print(f"{killed[0]} workers killed: {same} result, {seconds:.2f} s")


if __name__ == "__main__":
    main()
