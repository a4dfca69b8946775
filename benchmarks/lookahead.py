"""How well slots, and what P makes of them, tell where the agent's ball and its target will move.

Pushed balls, random pushes, the shipped encoder: ridge on slots, and on slots with what P, a random
P and a weight-shuffled P make of them in 1 or 4 steps, to the way of both balls in the next 1 or 4
steps. R2 on held-out episodes, mean of the four coordinates; the penalty is chosen on others.

Run it: `python benchmarks/lookahead.py --out results/lookahead.csv`.
"""

import argparse
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pandas as pd
import torch

import rmr_gym  # noqa: F401
from rmr_gym.core.seeding import generator
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import shuffle_weights
from rmr_gym.wrappers.features import RMRObservationWrapper, look_ahead

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
FIRST = 3
"""Instants of an episode from which three frames were seen."""


class Seen(NamedTuple):
    """Slots [episodes instants slots dim] and places [episodes instants 4]."""

    slots: torch.Tensor
    places: np.ndarray


def watch(encoder: PretrainedEncoder, episodes: range, steps: int) -> Seen:
    """Return what random play shows."""
    made = gym.make("rmr/PushedBalls-v0", max_episode_steps=steps)
    env, slots, places = RMRObservationWrapper(made, encoder, keep=("state",)), [], []
    for episode in episodes:
        pushes = generator(0, "random pushes", episode).integers(5, size=steps)
        shown = [env.reset(seed=episode)[0], *(env.step(int(push))[0] for push in pushes)]
        slots.append(np.stack([each["features"] for each in shown[FIRST:]]))
        places.append(np.stack([each["state"][:2].ravel() for each in shown[FIRST:]]))
    return Seen(torch.from_numpy(np.stack(slots)), np.stack(places))


def score(parts: list[np.ndarray], ways: list[np.ndarray]) -> float:
    """Return R2 on the last part of a ridge fit on the first, its penalty chosen on the second."""
    mean, spread = parts[0].mean(0), parts[0].std(0) + 1e-6
    fit, choice, test = ((part - mean) / spread for part in parts)
    target = ways[0] - ways[0].mean(0)
    gram = fit.T @ fit
    eye = np.eye(len(gram))
    weights = [np.linalg.solve(gram + size * eye, fit.T @ target) for size in PENALTIES]

    def r2(given: np.ndarray, way: np.ndarray, weight: np.ndarray) -> float:
        wrong = ((given @ weight + ways[0].mean(0) - way) ** 2).sum(0)
        return float((1 - wrong / ((way - way.mean(0)) ** 2).sum(0)).mean())

    return r2(test, ways[2], max(weights, key=lambda weight: r2(choice, ways[1], weight)))


def main(arguments: list[str] | None = None) -> None:
    """Print a row for each of P and its controls, and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--episodes", type=int, nargs=3, default=[60, 20, 20])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--controls", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    encoder = PretrainedEncoder.from_pretrained("pushed_balls")
    ends = np.cumsum([0, *given.episodes])
    seen = [watch(encoder, range(begin, end), given.steps) for begin, end in pairwise(ends)]
    models = [("P", 0, encoder.processor)]
    for seed in range(given.controls):
        shuffled = deepcopy(encoder.processor)
        shuffle_weights(shuffled, generator(seed, "shuffled P"))
        models.append(("shuffled P", seed, shuffled))
        models.append(("random P", seed, build(encoder.config.processor, torch_generator(seed))))
    rows = []
    for steps in (1, 4):
        ways = [(part.places[:, steps:] - part.places[:, :-steps]).reshape(-1, 4) for part in seen]
        given_slots = [part.slots[:, :-steps].flatten(0, 1) for part in seen]
        slots = score([part.flatten(1).numpy() for part in given_slots], ways)
        rows.append({"features": "slots", "seed": 0, "ahead": 0, "steps": steps, "r2": slots})
        for (name, seed, model), ahead in ((model, ahead) for model in models for ahead in (1, 4)):
            with torch.inference_mode():
                shown = [
                    look_ahead(part, torch.zeros(1, dtype=torch.long), model.eval(), ahead)
                    for part in given_slots
                ]
            found = score([part.flatten(1).numpy() for part in shown], ways)
            row = {"features": f"slots, {name}", "seed": seed, "ahead": ahead, "steps": steps}
            rows.append(row | {"r2": found})
    table = pd.DataFrame(rows).round(4)
    print(table.to_string(index=False))
    if given.out:
        table.to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
