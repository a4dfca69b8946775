"""Training the policies whose skill the behaviour heads grade: PPO from RAM, with SB3."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rmr_gym.agents.players.ram_network import (
    HIDDEN,
    RAM_SLOTS,
    RamNetwork,
    ram_features,
    save_networks,
)
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import integer_seed
from rmr_gym.envs.atari.games import find_game

ENVIRONMENTS = 8
CHECKPOINTS = (0.04, 0.08, 0.16, 0.3, 0.5, 0.75, 1.0)
"""Fractions of the budget at which the policy is kept."""

NOOP_MAX = 30
_STEPS_A_ROUND = 128


class RamOnly(gym.Wrapper[Any, Any, Any, Any]):
    """Shows a policy in training the features of `ram_features`, and rewards on a log scale.

    A reward becomes the logarithm to base 2 of one plus its size, with its sign: 1 stays 1, and a
    bonus of a thousand points does not drown all else.
    """

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        self.observation_space = spaces.Box(-2, 2, (2 * RAM_SLOTS,), np.float32)
        self._before = np.zeros(RAM_SLOTS, np.uint8)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset; the change of every byte is 0."""
        observation, info = self.env.reset(**options)
        self._before = observation["ram"]
        return ram_features(self._before, self._before), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and show the RAM with its change."""
        observation, points, terminated, truncated, info = self.env.step(action)
        reward = float(points)
        features = ram_features(observation["ram"], self._before)
        self._before = observation["ram"]
        scaled = math.copysign(math.log2(1 + abs(reward)), reward)
        return features, scaled, terminated, truncated, info


def train_policy(
    game: str,
    folder: Path,
    *,
    steps: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Train a policy of one game and keep it at several points on the way.

    Args:
        game: The game, in any spelling that `rmr_gym.envs.atari.games.find_game` understands.
        folder: Where the checkpoints go, ``<Game>/<steps>.safetensors``; a game whose checkpoints
            are all there is not trained again.
        steps: Steps of the environment (4 frames each), over all copies of it.
        seed: Seed of the training.
        progress: Called with (steps done, ``steps``).

    Returns:
        The checkpoints, least trained first.

    Raises:
        RMRError: The game is unknown, or ``steps`` is less than one round of collecting.
    """
    row = find_game(game)
    round_of_all = ENVIRONMENTS * _STEPS_A_ROUND
    if steps < round_of_all:
        raise RMRError(f"expected at least {round_of_all} steps of training, found {steps}")
    marks = [max(round_of_all, int(steps * fraction)) for fraction in CHECKPOINTS]
    paths = [folder / row.name / f"{mark:09d}.safetensors" for mark in sorted(set(marks))]
    if all(path.exists() for path in paths):
        return paths
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    seed = integer_seed(seed, "policy training", row.name)
    vector = DummyVecEnv([_maker(row.env_id)] * ENVIRONMENTS)
    vector.seed(seed)
    model = PPO(
        "MlpPolicy",
        VecNormalize(vector, norm_obs=False, norm_reward=True, gamma=0.99),
        n_steps=_STEPS_A_ROUND,
        batch_size=256,
        n_epochs=8,
        learning_rate=lambda left: 1e-3 * left,
        ent_coef=0.01,
        policy_kwargs={
            "net_arch": {"pi": list(HIDDEN), "vf": [128, 128]},
            "activation_fn": torch.nn.Tanh,
        },
        seed=seed,
        device="cpu",
    )
    model.learn(steps, callback=_Keep(paths, row.name, steps, progress))
    vector.close()
    return paths


def _maker(env_id: str) -> Callable[[], gym.Env[Any, Any]]:
    def make() -> gym.Env[Any, Any]:
        env = gym.make(env_id, disable_env_checker=True, pixels="palette", noop_max=NOOP_MAX)
        return RamOnly(env)

    return make


class _Keep(BaseCallback):
    """Writes the policy whenever training passes one of the marks."""

    def __init__(
        self,
        paths: list[Path],
        game: str,
        steps: int,
        progress: Callable[[int, int], None] | None,
    ):
        super().__init__()
        self._paths, self._game, self._steps, self._progress = list(paths), game, steps, progress
        self._begun = time.monotonic()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._write_passed()

    def _on_training_end(self) -> None:
        self._write_passed()

    def _write_passed(self) -> None:
        if self._progress is not None:
            self._progress(min(self.num_timesteps, self._steps), self._steps)
        while self._paths and self.num_timesteps >= int(self._paths[0].stem):
            notes = {
                "game": self._game,
                "steps": self.num_timesteps,
                "seconds": round(time.monotonic() - self._begun, 1),
            }
            save_networks(self._paths.pop(0), {"policy": _network(self.model)}, notes)


def _network(model: Any) -> RamNetwork:
    """Return the policy part of SB3's model."""
    parts = [
        *(part for part in model.policy.mlp_extractor.policy_net if hasattr(part, "weight")),
        model.policy.action_net,
    ]
    return RamNetwork(
        tuple(
            (part.weight.detach().double().numpy(), part.bias.detach().double().numpy())
            for part in parts
        )
    )
