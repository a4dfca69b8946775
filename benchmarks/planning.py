"""How many decisions a second planning makes, by what plans are imagined with.

P has random weights, which do not matter for its speed; as many bytes of RAM change as in Pong.

Run it: `python benchmarks/planning.py` (options: `--help`).
"""

import argparse
import time

import numpy as np
import torch

from rmr_gym.agents.planning import Discrete, Emulated, Planner, planning_game
from rmr_gym.domains.atari import AtariModel, abstract_pipeline, ram_labels
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.stages.planning import UNITS, Head, Imagined, copied


def drawn_head(game: str) -> Head:
    """Return a head of random weights."""
    chosen = sorted({label.ram for label in ram_labels(game)})
    seen, drawn = 2 * len(chosen), torch_generator(0)
    units = torch.randn(1 + seen + UNITS, 2, generator=drawn)
    return Head(
        {
            "bytes": torch.tensor(chosen),
            "discount": torch.tensor(0.95),
            "mean": torch.zeros(seen),
            "scale": torch.ones(seen),
            "drawn": torch.randn(seen, UNITS, generator=drawn),
            "bias": torch.zeros(UNITS),
            "weight": units,
            "offset": torch.zeros(2),
        },
        game,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--horizon", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=256)
    parser.add_argument("--bytes", type=int, default=30, help="that change")
    parser.add_argument("--decisions", type=int, default=10)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    env = planning_game("Pong")
    shown, _ = env.reset(seed=0)
    kept = torch.cat([torch.arange(40, 39 + options.bytes), torch.tensor([128])])
    model = AtariModel(precision="bf16")
    models = {
        "P of the bytes that change": Imagined(abstract_pipeline(model, 0, len(kept)), kept),
        "the emulator": Emulated(env.unwrapped.ale),
        "a copy": copied,
    }
    actions = torch.tensor([action.value for action in env.unwrapped.ale.getMinimalActionSet()])
    for name, dreamt in models.items():
        solver = Discrete(options.horizon, options.candidates, options.candidates // 8)
        planner = Planner(dreamt, drawn_head("Pong"), solver, actions, torch_generator(0), "ram")
        seconds = []
        for _ in range(options.decisions):
            start = time.perf_counter()
            planner(shown)
            seconds.append(time.perf_counter() - start)
        best, middle = min(seconds), float(np.median(seconds))
        sizes = f"{options.candidates} candidates x {options.horizon} steps"
        print(f"{name:28} {sizes}: {1 / best:6.1f} decisions/s at best, {1 / middle:6.1f} median")


if __name__ == "__main__":
    main()
