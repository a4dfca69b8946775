"""Measure what a sweep costs beside its cells, what two workers gain, and what kills change.

Run it on an idle machine with at least two cores:

    python benchmarks/sweep.py --cells 12 --seconds 10 --kills 20

Cells are as short as the shortest real ones. For the kills, cells are a third as long and about
three times as many, and a worker is killed about once a cell's length, at random.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path

from rmr_gym.protocol.sweep import Cell, run_cells


def work(seconds: float, running: str, name: int) -> dict[str, float]:
    """Compute on one thread for some seconds of processor time, leaving the process's id behind."""
    marker = Path(running) / str(name)
    marker.write_text(str(os.getpid()))
    started, value = time.thread_time(), 1.0
    while time.thread_time() - started < seconds:
        for _ in range(1000):
            value = value * 1.0000001 % 7
    marker.unlink(missing_ok=True)
    return {"square": name * name / 7}


def bare(cells: list[Cell]) -> float:
    """Return the seconds that the cells take without a sweep."""
    started = time.perf_counter()
    for cell in cells:
        cell.run(*cell.arguments)
    return time.perf_counter() - started


def swept(cells: list[Cell], workers: int, folder: Path) -> tuple[float, list[object]]:
    """Return the seconds that a sweep takes, start of its workers included, and its values."""
    started = time.perf_counter()
    outcomes = run_cells(cells, workers=workers, folder=folder)
    return time.perf_counter() - started, [outcome.value for outcome in outcomes]


def kill_some(running: Path, times: int, pause: float, stopped: threading.Event) -> int:
    """Kill the worker of a random running cell, ``times`` times if the sweep lasts."""
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
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        running = root / "running"
        running.mkdir()
        cells = [
            Cell(f"cell {name}", work, (options.seconds, str(running), name))
            for name in range(options.cells)
        ]
        without = bare(cells)
        one, _ = swept(cells, 1, root / "one")
        two, _ = swept(cells, 2, root / "two")
        print(f"bare {without:.2f} s; one process {one:.2f} s: overhead {one / without - 1:+.2%}")
        print(f"two workers {two:.2f} s: {one / two:.2f} times as fast")
        cells = [
            Cell(f"cell {name}", work, (options.seconds / 3, str(running), name))
            for name in range(3 * options.cells)
        ]
        values = [cell.run(0.0, str(running), cell.arguments[-1]) for cell in cells]
        stopped, killed = threading.Event(), []
        killer = threading.Thread(
            target=lambda: killed.append(
                kill_some(running, options.kills, options.seconds / 3, stopped)
            )
        )
        killer.start()
        seconds, disturbed = swept(cells, 2, root / "killed")
        stopped.set()
        killer.join()
        same = "the same" if disturbed == values else "ANOTHER"
        print(f"{killed[0]} workers killed: {same} result, {seconds:.2f} s")


if __name__ == "__main__":
    main()
