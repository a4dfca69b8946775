"""What a pretrained encoder makes of a game: slots instead of pixels, alone and in a vector.

Run it: `python examples/rmr_wrapper.py` (or `--game Breakout --encoder FOLDER`).
"""

import argparse

import ale_py
import gymnasium as gym
import numpy as np

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.wrappers.features import RMRObservationWrapper, RMRVectorObservation

gym.register_envs(ale_py)


def alone(game: str, encoder: str, steps: int) -> None:
    """Play ALE's own environment at random; count the slots that ever moved."""
    env = RMRObservationWrapper(gym.make(f"ALE/{game}-v5"), encoder)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    first, moved = observation, np.zeros(len(observation), bool)
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        moved |= (observation != first).any(axis=1)
        if terminated or truncated:
            observation, _ = env.reset()
    print(f"ALE/{game}-v5: slots {observation.shape}, {moved.sum()} of them moved")
    env.close()


def many(game: str, encoder: str, worlds: int, steps: int) -> None:
    """Play many copies of the paired environment with one forward a step; keep the RAM as well."""
    envs = gym.make_vec(f"rmr/{game}-v0", num_envs=worlds, workers=0)
    envs = RMRVectorObservation(envs, encoder, output="flat", keep=("ram",), history=2)
    observations, _ = envs.reset(seed=0)
    for _ in range(steps):
        observations, *_ = envs.step(envs.action_space.sample())
    shapes = {name: entry.shape for name, entry in observations.items()}
    print(f"rmr/{game}-v0, {worlds} copies: {shapes}")
    envs.close()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--game", default="Pong")
    parser.add_argument("--encoder", default="pong", help="name of a shipped one, or a folder")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--worlds", type=int, default=16)
    options = parser.parse_args(arguments)
    alone(options.game, options.encoder, options.steps)
    many(options.game, options.encoder, options.worlds, options.steps)


if __name__ == "__main__":
    main()
