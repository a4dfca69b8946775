"""A world played by planning in P: the world, what P imagines of its plan, and what truly follows.

Run it: `python examples/rmr_planning.py --game Breakout --film breakout.gif`, or with pushed balls
`python examples/rmr_planning.py --game bring --film bring.gif`.

What `rmr-gym run planning` left under `--root` is found there; what it did not is trained now.
Beside the game stand the places of ball and paddles, as RAM has them, at each instant of the plan
that was just made (the later, the darker): in the middle as P imagines them, at the right as the
emulator computes them for the same actions. Of pushed balls those of the agent's (white), of its
target (red) and of the others; a cross marks the place that a ball shall go to.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from rmr_gym.agents.planning import (
    TASKS,
    Discrete,
    Emulated,
    Pushing,
    Solver,
    planning_game,
    simulated,
)
from rmr_gym.domains.atari import ram_labels
from rmr_gym.domains.balls import PALETTE, RADIUS
from rmr_gym.experiments.base import no_progress
from rmr_gym.experiments.planning.grid import Episode, Planning, chooser
from rmr_gym.report.pictures import write_film
from rmr_gym.runs.store import Store
from rmr_gym.stages import planning

SIZE, LOWEST = 320, 240
"""Height of the film, and the row of what has no byte that says it."""
COLOURS = {"ball": (255, 255, 255), "player": (92, 186, 92), "enemy": (213, 130, 74)}


def drawn(states: np.ndarray, game: str, title: str) -> np.ndarray:
    """Draw where things are at each instant [instants bytes], the later the darker."""
    places = {label.name: label.ram for label in ram_labels(game)}
    picture = np.zeros((256, 256, 3), np.uint8)
    for ahead in range(len(states) - 1, -1, -1):
        shade = 1 - 0.8 * ahead / len(states)
        for thing, colour in COLOURS.items():
            across, down = (places.get(f"{thing}_{axis}") for axis in "xy")
            if across is None and down is None:
                continue
            x = int(states[ahead, across]) if across is not None else LOWEST
            y = int(states[ahead, down]) if down is not None else LOWEST
            size = (3, 12) if down is not None and thing != "ball" else (12, 3)
            half = (3, 3) if thing == "ball" else size
            tint = tuple(int(part * shade) & 0xE0 for part in colour)
            corners = (x - half[0], y - half[1]), (x + half[0], y + half[1])
            cv2.rectangle(picture, *corners, tint, -1)
    picture = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
    cv2.putText(picture, title, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (224, 224, 224))
    return picture


def drawn_balls(future: np.ndarray, env: Pushing, title: str) -> np.ndarray:
    """Draw where balls are at each instant [instants slots 2], the later the darker."""
    picture, scale = np.zeros((SIZE, SIZE, 3), np.uint8), SIZE / 2
    for ahead in range(len(future) - 1, -1, -1):
        shade = 1 - 0.8 * ahead / len(future)
        for (x, y), colour in zip(future[ahead], PALETTE, strict=False):
            centre = int((x + 1) * scale), int((1 - y) * scale)
            tint = tuple(int(part * shade) & 0xE0 for part in colour)
            cv2.circle(picture, centre, int(RADIUS * scale), tint, 2)
    if env.task != "strike":
        x, y = env.place.tolist()
        cross = int((x + 1) * scale), int((1 - y) * scale)
        cv2.drawMarker(picture, cross, (224, 224, 0), cv2.MARKER_CROSS, 20, 2)
    cv2.putText(picture, title, (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (224, 224, 224))
    return picture


def push(run: Planning, options: argparse.Namespace) -> tuple[float, list[np.ndarray]]:
    """Return the return of an episode with pushed balls, and its film."""
    task = run.pushed_dynamics(run.pushed_data(no_progress), options.arm)
    learned = Store(run.root / "store").compute(task)
    env, solver = Pushing(options.game), Solver(10, 64, 8, hold=run.hold)
    names = options.game, options.arm, run.model, solver, options.steps, options.seed
    pusher, true = chooser(env, Episode(*names), learned, None), simulated(env)
    shown, total, over, frames = env.reset(seed=options.seed)[0], 0.0, False, []
    while len(frames) < options.steps and not over:
        screen = cv2.resize(env.unwrapped.world.pictures()[0], (SIZE, SIZE))
        action = pusher(shown)
        panels = [
            drawn_balls(model(shown["past"], pusher.plan[None])[0].numpy(), env, title)
            for model, title in ((pusher.model, "imagined by P"), (true, "true"))
        ]
        frames.append(np.hstack([screen, *panels]))
        shown, reward, over, *_ = env.step(action)
        total += reward
    return total, frames


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--game", default="Breakout", help="or reach, strike, bring")
    parser.add_argument("--arm", default="rmr", choices=planning.ARMS)
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--data", type=Path, help="folder of data sets; default: ROOT/data")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--film", type=Path, help="a name that ends in .gif")
    options = parser.parse_args(arguments)
    run = Planning(
        **Planning.proposals(options.preset),
        games=(options.game,),
        root=options.root,
        data=options.data,
    )
    total, frames = push(run, options) if options.game in TASKS else play(run, options)
    print(f"return of {len(frames)} steps: {total:.0f}")
    if options.film:
        print(f"written: {write_film(options.film, frames, fps=10.0)}")


def play(run: Planning, options: argparse.Namespace) -> tuple[float, list[np.ndarray]]:
    """Return the return of an episode of a game, and its film."""
    (game,) = run.recorded(no_progress)
    store = Store(run.root / "store")
    learned = planning.dynamics(game.data, run.model, run.phases, 0)
    told = planning.head(game.data, run.model, options.arm, run.discount, 0, learned)
    env, solver = planning_game(game.name), Discrete(8, 32, 4, hold=run.hold)
    episode = Episode(game.name, options.arm, run.model, solver, options.steps, options.seed)
    planner = chooser(env, episode, store.compute(learned), store.compute(told))
    emulator, ale = Emulated(env.unwrapped.ale), env.unwrapped.ale
    shown, over, total, frames = env.reset(seed=options.seed)[0], False, 0.0, []
    while len(frames) < options.steps and not over:
        screen = cv2.resize(ale.getScreenRGB(), (SIZE * 160 // 210, SIZE))
        action = planner(shown)
        imagined, true = (
            model(planner.now, planner.plan[None])[:, 0].numpy()
            for model in (planner.model, emulator)
        )
        panels = [drawn(imagined, game.name, "imagined by P"), drawn(true, game.name, "true")]
        frames.append(np.hstack([screen, *panels]))
        shown, reward, over, _, _ = env.step(action)
        total += reward
    return total, frames


if __name__ == "__main__":
    main()
