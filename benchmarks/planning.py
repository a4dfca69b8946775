"""How many decisions a second planning makes, by what plans are imagined with.

P has random weights, which do not matter for its speed; as many bytes of RAM change as in Pong.
Decisions on pushed balls include the places that are read from pixels.

Run it: `python benchmarks/planning.py` (options: `--help`).
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from rmr_gym.agents.planning import (
    Discrete,
    Emulated,
    Planner,
    Pusher,
    Pushing,
    Solver,
    planning_game,
    simulated,
)
from rmr_gym.domains.atari import AtariModel, abstract_pipeline, ram_labels
from rmr_gym.domains.balls import abstract_pipeline as balls_pipeline
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.runs.store import Artifact
from rmr_gym.stages.planning import PUSHED_MODEL, UNITS, Head, Imagined, copied, foreseen


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


def timed(name: str, decide: Callable[[], object], options: argparse.Namespace) -> None:
    """Print how many decisions a second are made."""
    seconds = []
    for _ in range(options.decisions):
        start = time.perf_counter()
        decide()
        seconds.append(time.perf_counter() - start)
    best, middle = min(seconds), float(np.median(seconds))
    sizes = f"{options.candidates} candidates x {options.horizon} steps"
    print(f"{name:28} {sizes}: {1 / best:6.1f} decisions/s at best, {1 / middle:6.1f} median")


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
    env_balls = Pushing("bring")
    learned = Artifact({}, balls_pipeline(PUSHED_MODEL, 0, 5, pushed=True).state_dict())
    for arm in ("rmr", "extrapolated", "the simulator"):
        true = simulated(env_balls) if arm == "the simulator" else None
        solver = Solver(options.horizon, options.candidates, options.candidates // 8)
        dreamt = true or foreseen(arm, learned, 0)
        pusher = Pusher(dreamt, env_balls, solver, torch_generator(0))
        pushed = env_balls.reset(seed=0)[0]
        timed(f"balls: {arm}", lambda: env_balls.step(pusher(pushed)), options)  # noqa: B023
    models = {
        "P of the bytes that change": Imagined(abstract_pipeline(model, 0, len(kept)), kept),
        "the emulator": Emulated(env.unwrapped.ale),
        "a copy": copied,
    }
    actions = torch.tensor([action.value for action in env.unwrapped.ale.getMinimalActionSet()])
    for name, dreamt in models.items():
        solver = Discrete(options.horizon, options.candidates, options.candidates // 8)
        planner = Planner(dreamt, drawn_head("Pong"), solver, actions, torch_generator(0), "ram")
        timed(name, lambda: planner(shown), options)  # noqa: B023


if __name__ == "__main__":
    main()
