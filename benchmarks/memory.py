"""A natural training step with freed memory kept against one with the C library's defaults.

    python benchmarks/memory.py --steps 40 --repetitions 5

Each measurement is a process of its own, the two kinds by turns; figures are medians, ratios are
taken within each turn. The kinds: the defaults of the C library; those that Dask sets for its
workers (a trim threshold of 64 KiB); what `rmr-gym` does to its own process; the environment that
it starts workers with, which adds large pages.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from natural import pong

from rmr_gym.core.processes import KEPT, keep_freed_memory
from rmr_gym.domains.atari import AtariModel
from rmr_gym.runs.store import Room
from rmr_gym.stages.natural import natural
from rmr_gym.stages.presets import Natural

KINDS = ("default", "dask", "kept", "environment")
WARM_UP = 3


def measure(kind: str, steps: int) -> None:
    """Train and print milliseconds and page faults a step, and the system's share of the time."""
    if kind == "kept":
        keep_freed_memory()
    torch.set_num_threads(1)
    model = AtariModel(trunk="nature", height=84, width=84, precision="bf16")
    marks = []

    def watch(done: int, total: int) -> None:
        if done in (WARM_UP, total):
            marks.append((time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)))

    settings = Natural(checkpoints=(WARM_UP + steps,))
    natural.function(pong(Path("runs")), model, settings, "random_p", 0, room=Room(progress=watch))
    (begin, before), (end, after) = marks
    system = after.ru_stime - before.ru_stime
    share = system / (system + after.ru_utime - before.ru_utime)
    print(1e3 * (end - begin) / steps, (after.ru_minflt - before.ru_minflt) / steps, share)


def started(kind: str, steps: int) -> list[float]:
    """Return what a process of this kind measures."""
    environment = {name: value for name, value in os.environ.items() if name not in KEPT}
    if kind == "dask":
        environment["MALLOC_TRIM_THRESHOLD_"] = "65536"
    if kind == "environment":
        environment |= {name: str(value) for name, value in KEPT.items()}
    command = [sys.executable, __file__, "--kind", kind, "--steps", str(steps)]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [float(value) for value in printed.stdout.split()]


def main() -> None:
    """Print one row a kind."""
    parser = argparse.ArgumentParser(description="What page faults cost a training step.")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        measure(options.kind, options.steps)
        return
    turns = [
        {kind: started(kind, options.steps) for kind in KINDS} for _ in range(options.repetitions)
    ]
    print("kind, ms a step, faults a step, system's share, times as fast as default")
    for kind in KINDS:
        values = [
            statistics.median(column) for column in zip(*(t[kind] for t in turns), strict=True)
        ]
        ratio = statistics.median(turn["default"][0] / turn[kind][0] for turn in turns)
        print(f"{kind:12} {values[0]:8.1f} {values[1]:8.0f} {values[2]:8.2f} {ratio:8.2f}")
    print(f"load {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
