"""All that is to be measured on a GPU, in under 8 minutes: `results/gpu.csv`.

    python benchmarks/gpu.py

In this order: the Triton kernels and the rest of the tests that need a GPU; the message passing at
batch 1,000 against the measured peak; a stack of 40 natural runs against one run after another, and
what a row of Table 1 takes at that speed. Each part has its own time limit; one that fails or takes
too long is said, and the next one runs. Without a GPU nothing is run.
"""

import csv
import subprocess
import sys
from collections.abc import Iterator

import torch
from table import COLUMNS, ROOT, Row, complete, script

TESTS = ("tests/models/test_triton_messages.py", "tests/data/test_dataset.py")
STEPS, RUNS = 20_000, 40
"""Of a run of Table 1, and its runs a row: 20 seeds, two arms."""


def correctness() -> Iterator[Row]:
    """The kernels against the reference on this GPU, and data sets that move there."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-k", "gpu", *TESTS]
    code = subprocess.run(command, cwd=ROOT, check=False, timeout=120).returncode
    yield {"what": "tests that need a GPU", "measure": "exit status", "value": code, "goal": "<= 0"}


def message_passing() -> Iterator[Row]:
    """The operation at batch 1,000; what does not fit into the GPU's memory is left out."""
    options = ("--device", "cuda", "--batch", "1000", "--repetitions", "3")
    for row in script("message_passing.py", *options, timeout=150):
        what = f"{row['aggregation']}, P {row['P']}, {row['implementation']}"
        goal = ">= 0.4" if row["implementation"] == "triton bf16" else ""
        for measure in ("milliseconds", "fraction of the peak"):
            wanted = goal if measure == "fraction of the peak" else ""
            yield {"what": what, "measure": measure, "value": row[measure], "goal": wanted}


def natural() -> Iterator[Row]:
    """A stack of runs against one after another; the probes' part is printed by natural.py."""
    options = ("--device", "cuda", "--precision", "bf16", "--timed", "20", "--repetitions", "2")
    rows = script("natural.py", *options, "--runs", "1", str(RUNS), timeout=180)
    for row in rows:
        what, stack = f"{row['training']}, {row['runs']} runs", row["runs"] == str(RUNS)
        for measure in ("ms a step and run", "share of the sequential time", "GPU memory MB"):
            goal = "<= 0.1" if stack and measure.startswith("share") else ""
            yield {"what": what, "measure": measure, "value": row[measure], "goal": goal}
    minutes = float(rows[-1]["ms a step and run"]) * STEPS * RUNS / 60e3
    what = f"a row of Table 1, {RUNS} runs of {STEPS} steps"
    yield {"what": what, "measure": "minutes of training", "value": minutes, "goal": "<= 10"}


def main() -> None:
    """Run the parts and write their rows; say so in a sentence where there is no GPU."""
    if not torch.cuda.is_available():
        print("There is no GPU that this PyTorch can use: nothing was run, no table was changed.")
        return
    name, rows = torch.cuda.get_device_name(), []
    for part in (correctness, message_passing, natural):
        try:
            for row in part():
                rows.append({**complete(part.__name__, row), "command": "benchmarks/gpu.py"})
                rows[-1]["processor"] = f"{name}, CUDA {torch.version.cuda}"
                print(" | ".join(str(rows[-1][column]) for column in COLUMNS[:5]), flush=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{part.__name__} is left out: {error}", flush=True)
    with (ROOT / "results" / "gpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
