"""Bouncing balls from the first frame to a film: positions, pictures and ground truth.

Run it: `python examples/bouncing_balls.py` (or `--preset rnem-curtain`, `--out FOLDER`).
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.envs.balls.config import PRESETS
from rmr_gym.report.pictures import write_film, write_sheet


def watch(preset: str, frames: int, size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Play one episode; return what a model sees and what people see, frame by frame."""
    row = PRESETS[preset]
    env = gym.make(
        row.env_id, render_mode="rgb_array", render_size=size, max_episode_steps=frames, masks=True
    )
    observation, info = env.reset(seed=0)
    seen, shown = [observation["pixels"]], [np.asarray(env.render())]
    impacts, energies = 0, [info["kinetic_energy"]]
    env.action_space.seed(0)
    over = False
    while not over:
        observation, _, _, over, info = env.step(env.action_space.sample())
        seen.append(observation["pixels"])
        shown.append(np.asarray(env.render()))
        impacts += int(info["collisions"].any(axis=1).sum())
        energies.append(info["kinetic_energy"])
    print(f"{row.env_id}: state {observation['state'].shape}, pixels {observation['pixels'].shape}")
    print(f"balls that hit something, summed over {frames} frames: {impacts}")
    print(f"kinetic energy: {energies[0]:.6f} at the start, {energies[-1]:.6f} at the end")
    print(f"pixels of each owner in the last frame: {np.bincount(info['masks'].ravel()).tolist()}")
    return seen, shown


def many(preset: str, worlds: int, steps: int) -> None:
    """Step many worlds at once: the same balls as in single environments, bit by bit."""
    envs = gym.make_vec(PRESETS[preset].env_id, num_envs=worlds)
    observations, _ = envs.reset(seed=0)
    single = gym.make(PRESETS[preset].env_id)
    alone, _ = single.reset(seed=worlds - 1)
    for _ in range(steps):
        observations, *_ = envs.step(np.zeros(worlds, np.int64))
        alone, *_ = single.step(0)
    equal = all(np.array_equal(observations[name][-1], alone[name]) for name in alone)
    print(f"{worlds} worlds of {observations['pixels'].shape[1:]} in a vector, equal: {equal}")
    envs.close()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="rmr", choices=list(PRESETS))
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--size", type=int, default=240, help="of the film, in pixels")
    parser.add_argument("--worlds", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/bouncing_balls"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    seen, shown = watch(options.preset, options.frames, options.size)
    write_film(options.out / f"{options.preset}.gif", shown)
    sheet = [seen[k] for k in np.linspace(0, len(seen) - 1, 16).round().astype(int)]
    write_sheet(options.out / f"{options.preset}.png", sheet)
    many(options.preset, options.worlds, steps=5)
    print(f"written: {options.preset}.gif and {options.preset}.png in {options.out}")


if __name__ == "__main__":
    main()
