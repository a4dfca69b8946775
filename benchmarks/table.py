"""Every ratio in one table: `results/benchmarks.csv`.

    python benchmarks/table.py                     # all parts, about a quarter of an hour
    python benchmarks/table.py --only scaling      # one part; the rows of the others stay

Each part takes its two sides in turn in one process, or calls the benchmark of its name, which
does. Recording and reading are measured into `results/recording.csv`, a table of their own. That of
the balls, `results/balls_environment.csv`, is written by `benchmarks/balls.py`; its ratios are
copied from there, with the load that they were measured under. A floor is what no implementation
can do without, at the peak of the row's own precision, which is measured in the same process.
"""

import argparse
import csv
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import message_passing as messages
import numpy as np
import torch

from rmr_gym.domains.atari import SLOTS, ProbeData
from rmr_gym.stages.games import ProbeSets
from rmr_gym.stages.probe import Features, bit_rows

ROOT = Path(__file__).resolve().parent.parent
Row = dict[str, object]


def processor() -> str:
    """Name the processor and what its units multiply."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({' '.join(units)})"


GOALS = {
    ("cpu fp32", "times faster than split"): ">= 3",
    ("cpu fp32", "times faster than torch-geometric"): ">= 5",
    ("cpu fp32", "times the floor"): "<= 1.6",
    ("cpu bf16", "times faster than split"): ">= 5",
    ("cpu bf16", "times the floor"): "<= 3" if "amx_bf16" in processor() else "<= 2",
    ("cpu fp32", "memory of split / its own"): ">= 10",
    ("cpu bf16", "memory of split / its own"): ">= 10",
    ("chunked fp32", "times faster than split"): ">= 1",
    ("chunked bf16", "times faster than split"): ">= 1",
    ("sequential, 1 runs", "ms a step and run"): "<= 50",
}


def script(name: str, *options: str, timeout: float | None = None) -> list[dict[str, str]]:
    """Run a benchmark of this folder and return what it writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        command = [sys.executable, str(ROOT / "benchmarks" / name), *options, "--csv", str(path)]
        subprocess.run(command, check=True, timeout=timeout)
        with path.open(newline="") as file:
            return list(csv.DictReader(file))


def message_passing() -> Iterator[Row]:
    """The operation against the loops that people write, at the paper's size."""
    for row in script("message_passing.py"):
        what = f"{row['aggregation']}, P {row['P']}, {row['implementation']}"
        for measure, value in row.items():
            if measure not in ("aggregation", "P", "implementation") and value != "nan":
                goal = GOALS.get((row["implementation"], measure), "")
                yield {"what": what, "measure": measure, "value": value, "goal": goal}


def scaling() -> Iterator[Row]:
    """The operation as slots, width and batch grow, P frozen, max; one row a size."""
    torch.set_num_threads(1)
    peaks = messages.matmul_peaks("cpu")
    for precision, peak in peaks.items():
        yield {"what": precision, "measure": "matmul peak, GFLOP/s", "value": peak / 1e9}
    sizes = [(4, slots, 64) for slots in (32, 64, 128, 256, 512, 1024)]
    sizes += [(8, 128, dim) for dim in (16, 32, 128)]
    sizes += [(batch, 128, 64) for batch in (1, 10, 50)]
    for batch, slots, dim in sizes:
        case = messages.Case(batch, slots, dim, "max", frozen=True)
        tensors = case.tensors()
        names = ["cpu fp32", "cpu bf16"]
        if batch * slots**2 * dim <= 100e6:  # beyond that, the split form's pairs fill gigabytes
            names.append(messages.BASE)
        seconds = interleaved(names, case, tensors)
        what = f"batch {batch}, {slots} slots, dim {dim}"
        for name in names:
            floor = messages.unavoidable_work(case) / peaks[name.split()[-1]]
            times = {"ms": 1e3 * seconds[name], "times the floor": seconds[name] / floor}
            for measure, value in times.items():
                yield {"what": f"{what}, {name}", "measure": measure, "value": value}
        if messages.BASE in seconds:
            ratio = seconds[messages.BASE] / seconds["cpu fp32"]
            yield {
                "what": f"{what}, cpu fp32",
                "measure": "times faster than split",
                "value": ratio,
            }


def interleaved(names: list[str], case: messages.Case, tensors: tuple) -> dict[str, float]:
    """Median seconds of each implementation, all taken in turn; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(6):
        for name in names:
            found[name].append(messages.step(name, case, tensors))
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def natural() -> Iterator[Row]:
    """Natural steps of a stack of runs against one run after another."""
    options = ("--repetitions", "3", "--timed", "8", "--runs", "1", "10", "--precision", "bf16")
    for row in script("natural.py", *options):
        what = f"{row['training']}, {row['runs']} runs"
        for measure, value in row.items():
            if measure not in ("training", "runs") and value != "nan":
                goal = GOALS.get((what, measure), "")
                yield {"what": what, "measure": measure, "value": value, "goal": goal}


def probe() -> Iterator[Row]:
    """The ridge probe of one checkpoint, at the size of the issue that asked for it.

    Bits hang on 64 directions of the features and on noise, so that penalties differ in their F1.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    rows, targets, width = 3000, 20, 8192
    directions = rng.standard_normal((64, 8 * targets), np.float32)
    times = []
    for _ in range(3):
        sets, parts = [], []
        for _ in range(2):
            features = rng.standard_normal((rows, width), np.float32)
            seen = features[:, :64] @ directions + 4 * rng.standard_normal((rows, 8 * targets))
            bits = (seen > 0).astype(np.uint8).reshape(rows, targets, 8)
            ram = np.zeros((rows, SLOTS), np.uint8)
            frames = torch.zeros(rows, 1, 1, dtype=torch.uint8)
            sets.append(ProbeData(frames, bits, np.arange(rows) * 24 // rows, ram, ram))
            parts.append(torch.from_numpy(features))
        begin = time.perf_counter()
        bit_rows(Features(*parts, SLOTS), ProbeSets(*sets, 0), ("ridge",))
        times.append(time.perf_counter() - begin)
    what = f"ridge, {rows} + {rows} rows x {width}, {8 * targets} bits"
    yield {"what": what, "measure": "seconds", "value": min(times), "goal": "<= 2"}


def wrappers() -> Iterator[Row]:
    """Features in vectors against single ones, against the encoder alone, and in SB3's training."""
    for row in script("wrappers.py", "--games", "Pong", "--threads", "1"):
        yield {name: row[name] for name in ("what", "measure", "value", "goal")}


def imports() -> Iterator[Row]:
    """Fresh interpreters that import the package, and Gymnasium alone, in turn; CPU seconds."""
    seconds: dict[str, list[float]] = {"rmr_gym": [], "gymnasium": [], "torch": []}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for _ in range(11):
        for name, times in seconds.items():
            begin = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            end = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime)
    best = {name: min(times) for name, times in seconds.items()}
    for name, value in best.items():
        yield {"what": f"import {name}, interpreter included", "measure": "seconds", "value": value}
    ratio = best["rmr_gym"] / best["gymnasium"]
    what, measure = "import rmr_gym", "of import gymnasium"
    yield {"what": what, "measure": measure, "value": ratio, "goal": "<= 1.1"}


def recorder() -> Iterator[Row]:
    """Recording, Minari, processes and reading, measured into their own table."""
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "recording.py")], check=True)
    yield from copied(ROOT / "results" / "recording.csv", "benchmarks/recording.py")


def copied(path: Path, command: str) -> Iterator[Row]:
    """The ratios of another table, which are the rows that have a goal or stand beside one."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            beside = row["measure"].startswith("the same")
            if (row["goal"] or beside) and row["part"] not in ("energy", "exactness", "pictures"):
                what = f"{row['part']}: {row['what']}"
                kept = {name: row[name] for name in ("measure", "value", "goal", "load")}
                yield {"what": what, **kept, "command": command}


def world_models() -> Iterator[Row]:
    """Training steps of world models beside those of the commit that encoded a frame at a time."""
    names = {"new_ms": "milliseconds", "floors": "times the floor", "ratio": "times faster"}
    goals = {"floors": "<= 5", "ratio": ">= 1"}
    for row in script("world_models.py", "--against", "370aacc"):
        for column, measure in names.items():
            value, goal = row[column], goals.get(column, "")
            yield {"what": row["model"], "measure": measure, "value": value, "goal": goal}


PARTS = {
    "world models": world_models,
    "message passing": message_passing,
    "scaling": scaling,
    "natural": natural,
    "natural step": lambda: script("natural.py", "--parts"),
    "probe": probe,
    "wrappers": wrappers,
    "imports": imports,
    "recorder": recorder,
    "balls": lambda: copied(ROOT / "results" / "balls_environment.csv", "benchmarks/balls.py"),
}
COLUMNS = (
    *("part", "what", "measure", "value", "goal", "command", "processor", "cores", "load"),
    *("torch", "numpy", "python"),
)


def complete(part: str, row: Row) -> Row:
    """Add where and with what a row was measured, and keep four figures of its value."""
    value = float(str(row["value"]))
    return {
        "part": part,
        "goal": "",
        "command": "benchmarks/table.py",
        "load": f"{os.getloadavg()[0]:.2f}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        **row,
        "value": f"{value:.4g}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--csv", type=Path, default=ROOT / "results" / "benchmarks.csv")
    options = parser.parse_args()
    rows: list[Row] = []
    if options.csv.exists():
        with options.csv.open(newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file) if row["part"] not in options.only]
    for part in options.only:
        for row in PARTS[part]():
            rows.append(complete(part, row))
            print(" | ".join(str(rows[-1][name]) for name in COLUMNS[:5]), flush=True)
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda row: list(PARTS).index(str(row["part"]))))


if __name__ == "__main__":
    main()
