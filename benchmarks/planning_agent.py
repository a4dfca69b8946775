"""A model-free agent in the task that P is planned in: bring the target to a place, from pixels.

PPO of Stable-Baselines3 sees what a planner sees: where pixels show the balls at three instants,
and the place. Its reward is 1 when the task is done. It is measured in the episodes of
`rmr-gym run planning --games bring`, after the number of steps that P learned from.

Run it: `python benchmarks/planning_agent.py --out results/planning_agent.csv`.
"""

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
from stable_baselines3 import PPO

from rmr_gym.agents.planning import TASKS, Pushing
from rmr_gym.core.seeding import generator

TASK = "bring"


class Shown(gym.Wrapper[Any, Any, Any, Any]):
    """The task as an array: positions [3 instants, 5 balls, 2] and the place; it ends in time.

    Episodes that are not asked for by a seed begin with seeds drawn from that of the agent.
    """

    def __init__(self, seed: int):
        self.task = Pushing(TASK)
        super().__init__(self.task)
        self._drawn, self._left = generator(seed, "episodes of a model-free agent"), 0
        self.observation_space = gym.spaces.Box(-2, 2, (32,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Begin an episode."""
        seed = int(self._drawn.integers(10**6, 10**9)) if seed is None else seed
        self._left = TASKS[TASK]
        return self._flat(self.env.reset(seed=seed)[0]), {}

    def step(self, action: Any) -> Any:
        """Push."""
        shown, reward, done, _, info = self.env.step(int(action))
        self._left -= 1
        return self._flat(shown), reward, done, self._left == 0 and not done, info

    def _flat(self, shown: Any) -> np.ndarray:
        return np.append(shown["past"].numpy().ravel(), self.task.place.numpy()).astype(np.float32)


def success(agent: PPO, episodes: int) -> float:
    """Return the share of episodes 0 to ``episodes`` - 1 in which the task is done."""
    env, done = Shown(0), 0.0
    for seed in range(episodes):
        shown, over = env.reset(seed=seed)[0], False
        while not over:
            action = agent.predict(shown, deterministic=False)[0]
            shown, reward, ended, late, _ = env.step(action)
            done, over = done + reward, ended or late
    return done / episodes


def main(arguments: list[str] | None = None) -> None:
    """Print success by number of steps and seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", nargs="+", type=int, default=[17_200])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    rows = []
    for seed in range(given.seeds):
        agent = PPO("MlpPolicy", Shown(seed), seed=seed, device="cpu", n_steps=1024, gamma=0.97)
        for steps in sorted(given.steps):
            agent.learn(steps - agent.num_timesteps, reset_num_timesteps=False)
            share = success(agent, given.episodes)
            rows.append({"seed": seed, "steps": agent.num_timesteps, "success": share})
            print(rows[-1], flush=True)
            if given.out:
                pd.DataFrame(rows).to_csv(given.out, index=False)


if __name__ == "__main__":
    main()
