"""Recording a game while any policy plays it, and reading back what was recorded.

Run it: `python examples/record_dataset.py` (or `--game Breakout`, `--out FOLDER`).
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.core.palette import palette_to_rgb
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.wrappers import RecordTransitions


def play(game: str, folder: Path, episodes: int, steps: int) -> None:
    """Press random buttons, each held for a while; every episode is written when it ends."""
    env = gym.make(f"rmr/{game}-v0", pixels="palette", max_episode_steps=steps)
    env = RecordTransitions(env, folder, head="random-held", overwrite=True)
    rng = np.random.default_rng(0)
    for seed in range(episodes):
        env.reset(seed=seed)
        action, over = 0, False
        while not over:
            action = int(rng.integers(18)) if rng.random() < 0.2 else action
            _, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
    env.close()


def look(folder: Path) -> None:
    """Read columns of the data set: RAM, screens and actions belong together row by row."""
    dataset = TransitionDataset(folder)
    print(repr(dataset))
    loaded = dataset.load(columns=("pixels", "ram", "action"), episodes=[0])
    changed = (loaded["ram"][1:] != loaded["ram"][:-1]).any(axis=0).sum()
    colours = len(np.unique(palette_to_rgb(loaded["pixels"]).reshape(-1, 3), axis=0))
    print(f"episode 0: {len(loaded)} steps, {changed} RAM bytes changed, {colours} colours")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("runs/record_dataset"))
    options = parser.parse_args(arguments)
    play(options.game, options.out, options.episodes, options.steps)
    look(options.out)


if __name__ == "__main__":
    main()
