"""Training steps of world models: this tree beside an older one of git, and beside the arithmetic.

    python benchmarks/world_models.py --against 370aacc
    python benchmarks/world_models.py --models rnem s2gru --csv rows.csv

Each round measures every model in both trees, in turn, on processor time of one thread; the least
of all rounds counts. The floor is the work of the step (multiplications and additions of matrix
products and convolutions, counted by torch) at the fp32 peak of a matrix product of 1,024 cubed.
Sizes are the preset's with what ``--set`` changes in both trees; S2GRU and its baselines code crops
by an MLP, in older trees by convolutions, which ``--set sizes.coder=conv`` gives the new one too.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from rmr_gym.core.options import read_options
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.frames import unroll
from rmr_gym.stages.world_model import chosen_preset, find_world_model

ROOT = Path(__file__).resolve().parent.parent
SIDES = {"crops": 48, "s2": 48}
MODELS = ("rnem", "rnnem", "rnn", "rims", "rims_lstm", "memoryless", "s2gru", "crops_lstm")


def losses(model: Any, frames: torch.Tensor) -> torch.Tensor:
    """The training loss, in trees whose models give it a frame at a time too."""
    if hasattr(model, "losses"):
        return model.losses(frames, None, torch_generator(1)).mean()
    states = unroll(model, frames[:, :-1], None, torch_generator(1))
    return torch.stack([model.loss(s, frames[:, t + 1]) for t, s in enumerate(states)]).mean()


def measure(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds, the least of some trials, and GFLOP of a training step."""
    side = next((at for start, at in SIDES.items() if name.startswith(start)), 32)
    changes = read_options(options.set, "sizes.groups=5")
    preset = chosen_preset(name, options.preset, changes, ((side, side, 1), 0))
    model = build(
        lambda: find_world_model(name).make((side, side, 1), preset.sizes, 0), torch_generator(0)
    )
    drawn = torch.rand(
        options.batch, options.frames + 1, side, side, 1, generator=torch_generator(2)
    )
    frames, weights, seconds = (drawn < 0.15).float(), list(model.parameters()), []

    def step() -> None:
        torch.autograd.grad(losses(model, frames), weights, allow_unused=True)

    with FlopCounterMode(display=False) as counter:
        step()
    for _ in range(options.trials):
        begin = time.thread_time()
        step()
        seconds.append(time.thread_time() - begin)
    return {"ms": 1e3 * min(seconds), "gflop": counter.get_total_flops() / 1e9}


def peak() -> float:
    """GFLOP a second of a matrix product of 1,024 cubed in fp32."""
    one, other = torch.rand(2, 1024, 1024)
    seconds = []
    for _ in range(10):
        begin = time.thread_time()
        torch.mm(one, other)
        seconds.append(time.thread_time() - begin)
    return 2 * 1024**3 / min(seconds) / 1e9


def in_tree(tree: Path, arguments: list[str]) -> dict[str, dict[str, float]]:
    """Measure all models in a process whose package is that of a tree."""
    command = [sys.executable, __file__, "--inside", *arguments]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def unpacked(commit: str, folder: str) -> Path:
    """Unpack the package of a commit."""
    packed = subprocess.run(
        ["git", "archive", commit, "rmr_gym"], check=True, cwd=ROOT, stdout=subprocess.PIPE
    )
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return Path(folder)


def main() -> None:
    """Print a row a model, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--against", help="a commit of git")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=15)
    parser.add_argument("--set", nargs="+", default=["sizes.dim=128", "sizes.width=128"])
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv")
    parser.add_argument("--inside", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.inside:
        print(json.dumps({name: measure(name, options) for name in options.models} | {"": peak()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        trees = {"new": ROOT}
        if options.against:
            trees["old"] = unpacked(options.against, folder)
        rounds: list[dict[str, Any]] = [
            {side: in_tree(tree, sys.argv[1:]) for side, tree in trees.items()}
            for _ in range(options.rounds)
        ]
    fastest = max(found["new"][""] for found in rounds)
    rows = []
    for name in options.models:
        row: dict[str, object] = {"model": name}
        least = {side: min(found[side][name]["ms"] for found in rounds) for side in trees}
        row |= {f"{side}_ms": round(ms, 1) for side, ms in least.items()}
        work = rounds[0]["new"][name]["gflop"]
        row |= {"gflop": round(work, 2), "floors": round(least["new"] * fastest / work / 1e3, 1)}
        if options.against:
            row |= {"ratio": round(least["old"] / least["new"], 2)}
        rows.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if options.csv:
        with Path(options.csv).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
