"""What P foresees of the places of things, and how right the belief is while P plans.

Places are the labelled bytes whose names end in x or y; right is within 3 units. P and the head
are those of `rmr-gym run planning --preset laptop`, found under --root or made now. Of pushed balls
it says how far from the truth they are imagined, on held-out episodes.

Run it: `python benchmarks/planning_foresight.py`, for those with `--games balls`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rmr_gym.agents.planning import Discrete, planning_game
from rmr_gym.core.seeding import generator
from rmr_gym.domains.atari import ram_labels
from rmr_gym.domains.balls import HISTORY, windows
from rmr_gym.experiments.base import no_progress
from rmr_gym.experiments.planning.grid import Episode, Planning, chooser
from rmr_gym.runs.store import Store
from rmr_gym.stages import planning

HORIZON, RIGHT = 8, 3


def right(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return which bytes are right."""
    return np.abs(found.astype(int) - true.astype(int)) <= RIGHT


def balls(run: Planning, store: Store, starts: int) -> None:
    """Print mean distances from the truth after recorded pushes, in units of half the box."""
    data = run.pushed_data(no_progress)
    positions, actions = planning.pushed_positions(data, "validation")
    chosen = generator(0, "foresight").permutation(len(positions.current))[:starts]
    window = windows(positions, chosen, HORIZON)
    plans = actions[positions.current[chosen][:, None] + np.arange(HORIZON)]
    for arm in planning.PUSHED_ARMS:
        learned = store.compute(run.pushed_dynamics(data, arm))
        imagined = planning.foreseen(arm, learned, 0)(window[:, :HISTORY], plans)
        away = (imagined - window[:, HISTORY:]).norm(dim=-1).mean((0, 2))
        far = ", ".join(f"{away[k - 1]:.4f} after {k}" for k in (1, 2, 4, 8))
        print(f"pushed balls, {arm}: away by {far} ({len(chosen)} starts)")


def main(arguments: list[str] | None = None) -> None:
    """Print both for each game."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--games", nargs="+", default=["Pong", "Breakout"])
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, help="folder of data sets; default: ROOT/data")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--starts", type=int, default=500)
    parser.add_argument("--episodes", type=int, help="of pixels, for a P of balls from scratch")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args(arguments)
    games = [game for game in given.games if game != "balls"]
    proposed = Planning.proposals(given.preset) | {"games": tuple(games)}
    proposed["natural"] = replace(proposed["natural"], episodes=given.episodes)
    run = Planning(**proposed, root=given.root, data=given.data)
    store = Store(run.root / "store")
    if "balls" in given.games:
        balls(run, store, given.starts)
    for game in run.recorded(no_progress) if games else ():
        labels = ram_labels(game.name)
        places = {label.name: label.ram for label in labels if label.name[-1] in "xy"}
        at = list(places.values())
        learned = planning.dynamics(game.data, run.model, run.phases, 0)
        told = planning.head(game.data, run.model, "rmr", run.discount, 0, learned)
        learned, told = store.compute(learned), store.compute(told)

        held = game.data.abstract("validation")
        ram = torch.from_numpy(planning.with_actions(held))
        whole = np.flatnonzero(np.diff(held.current[HORIZON - 1 :]) >= 0)
        whole = whole[held.current[whole + HORIZON - 1] == held.current[whole] + HORIZON - 1]
        chosen = generator(0, "foresight").permutation(whole)[: given.starts]
        plans = torch.from_numpy(np.stack([held.action[chosen + i] for i in range(HORIZON)], 1))
        true = np.stack([ram.numpy()[held.current[chosen] + i] for i in range(HORIZON + 1)])[
            ..., at
        ]
        for arm in ("rmr", "copy"):
            model = planning.imagination(arm, run.model, learned, 0)
            shares = right(
                model(ram[torch.from_numpy(held.current[chosen])], plans).numpy()[..., at],
                true,
            ).mean((1, 2))
            told_of = ", ".join(f"{shares[k]:.2f} after {k}" for k in (1, 2, 4, 8))
            print(f"{game.name}, {arm}: places right {told_of} ({len(chosen)} starts)")

        env = planning_game(game.name)
        seen = []
        for seed in range(given.seeds):
            solver = Discrete(HORIZON, 32, 4, hold=run.hold)
            episode = Episode(game.name, "rmr", run.model, solver, given.steps, seed)
            planner, over = chooser(env, episode, learned, told), False
            shown = env.reset(seed=seed)[0]
            for _ in range(given.steps):
                action = planner(shown)
                seen.append(right(planner.now[0, at].numpy(), shown["ram"][at]))
                shown, _, over, _, _ = env.step(action)
                if over:
                    break
        shares = zip(places, np.mean(seen, 0), strict=True)
        print(f"{game.name}, belief while P plans: " + ", ".join(f"{n} {s:.2f}" for n, s in shares))


if __name__ == "__main__":
    main()
