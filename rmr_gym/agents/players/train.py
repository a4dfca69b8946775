"""Training players: PPO from RAM with SB3, graded into low, middle and high by what they score."""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.atari_wrappers import NoopResetEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rmr_gym.agents.players import graded
from rmr_gym.agents.sb3.agent import Keep
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.core.seeding import generator, integer_seed

ENVIRONMENTS = 8
CHECKPOINTS = (0.04, 0.08, 0.16, 0.3, 0.5, 0.75, 1.0)
"""Fractions of the budget at which the policy is kept."""

NOOP_MAX = 30

MAX_STEPS = 4500
"""Steps after which a measured episode is cut: 18,000 frames, five minutes of play."""

_PLAIN = next(player for player in graded.PLAYERS if player.name == "high-e00-h00")
_STEPS_A_ROUND = 128


class RamOnly(gym.Wrapper[Any, Any, Any, Any]):
    """Shows a player in training `graded.ram_features`, and rewards on a log scale.

    A reward becomes the logarithm to base 2 of one plus its size, with its sign: 1 stays 1, and a
    bonus of a thousand points does not drown all else.
    """

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-2, 2, (2 * graded.RAM_BYTES,), np.float32)
        self._before = np.zeros(graded.RAM_BYTES, np.uint8)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset; the change of every byte is 0."""
        observation, info = self.env.reset(**options)
        self._before = graded.ram_of(observation)
        return graded.ram_features(self._before, self._before), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and show the RAM with its change."""
        observation, points, terminated, truncated, info = self.env.step(action)
        ram = graded.ram_of(observation)
        features, self._before = graded.ram_features(ram, self._before), ram
        reward = math.copysign(math.log2(1 + abs(float(points))), float(points))
        return features, reward, terminated, truncated, info


def train_player(game: str, folder: Path, *, steps: int, seed: int = 0) -> list[Path]:
    """Train a policy of one game and keep it at several points on the way.

    Args:
        game: The game, as `rmr_gym.agents.players.graded.game_id` understands it.
        folder: Where the checkpoints go, ``<Game>/<steps>.safetensors``; a game whose checkpoints
            are all there is not trained again.
        steps: Steps of the environment (4 frames each), over all copies of it.
        seed: Seed of the training.

    Returns:
        The checkpoints, least trained first.

    Raises:
        RMRError: The game is unknown, or ``steps`` is less than one round of collecting.
    """
    name, env_id = graded.game_name(game), graded.game_id(game)
    round_of_all = ENVIRONMENTS * _STEPS_A_ROUND
    if steps < round_of_all:
        raise RMRError(f"expected at least {round_of_all} steps of training, found {steps}")
    marks = sorted({max(round_of_all, int(steps * fraction)) for fraction in CHECKPOINTS})
    paths = {mark: folder / name / f"{mark:09d}.safetensors" for mark in marks}
    if all(path.exists() for path in paths.values()):
        return list(paths.values())
    seed, begun = integer_seed(seed, "policy training", name), time.monotonic()

    def keep(model: Any, passed: Sequence[int]) -> None:
        seconds = round(time.monotonic() - begun, 1)
        notes = {"game": name, "steps": model.num_timesteps, "seconds": seconds}
        for mark in passed:
            graded.save_networks(paths[mark], {"policy": _network(model)}, notes)

    model = _ppo(str(env_id), seed)
    model.learn(steps, callback=Keep(marks[:-1], keep, steps))
    keep(model, [mark for mark in marks if mark == marks[-1] or not paths[mark].exists()])
    return list(paths.values())


def _ppo(env_id: str, seed: int) -> PPO:
    vector = DummyVecEnv([partial(_game, env_id)] * ENVIRONMENTS)
    vector.seed(seed)
    return PPO(
        "MlpPolicy",
        VecNormalize(vector, norm_obs=False, norm_reward=True, gamma=0.99),
        n_steps=_STEPS_A_ROUND,
        batch_size=256,
        n_epochs=8,
        learning_rate=lambda left: 1e-3 * left,
        ent_coef=0.01,
        policy_kwargs={
            "net_arch": {"pi": list(graded.HIDDEN), "vf": [128, 128]},
            "activation_fn": torch.nn.Tanh,
        },
        seed=seed,
        device="cpu",
    )


def _game(env_id: str) -> gym.Env[Any, Any]:
    if env_id.startswith("ALE/"):
        return RamOnly(NoopResetEnv(_made(env_id), NOOP_MAX))
    return RamOnly(_made(env_id, noop_max=NOOP_MAX))


def _made(env_id: str, **options: Any) -> gym.Env[Any, Any]:
    return gym.make(env_id, disable_env_checker=True, **graded.game_options(env_id), **options)


def _network(model: Any) -> graded.RamNetwork:
    """Return the policy part of SB3's model."""
    parts = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
    layers = [[part.weight, part.bias] for part in parts if hasattr(part, "weight")]
    wide = [[values.detach().double().numpy() for values in layer] for layer in layers]
    return graded.RamNetwork(tuple((weight, bias) for weight, bias in wide))


def returns_of(
    env: gym.Env[Any, Any],
    player: graded.Player,
    network: graded.RamNetwork | None,
    episodes: int,
    *,
    max_steps: int = MAX_STEPS,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of rewards and the length of ``episodes`` episodes that a player plays."""
    scores, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    game = str(env.spec and env.spec.name)
    for index in range(episodes):
        name = (game, player.name, index)
        policy = player.policy(generator(seed, "evaluation policy", *name), network)
        observation, _ = env.reset(seed=integer_seed(seed, "evaluation episode", *name))
        over = False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy(observation))
            scores[index] += float(reward)
            lengths[index] += 1
            over = terminated or truncated or lengths[index] >= max_steps
    return scores, lengths


def evaluate_players(
    game: str,
    *,
    episodes: int,
    players: Sequence[graded.Player] = graded.PLAYERS,
    folder: Path = graded.SHIPPED,
    max_steps: int = MAX_STEPS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure players on a game; one row a player, with the fields of `graded.COLUMNS`.

    Raises:
        RMRError: A game that does not exist or has no weights, or fewer than one episode.
    """
    if episodes < 1 or max_steps < 1:
        raise RMRError(f"expected 1 or more episodes and steps, found {episodes} and {max_steps}")
    name, trained = graded.game_name(game), graded.networks(game, folder)
    env = _made(str(graded.game_id(game)))
    rows = []
    for player in players:
        scores, lengths = returns_of(
            env, player, trained.get(player.skill), episodes, max_steps=max_steps, seed=seed
        )
        rows.append({"game": name, "head": player.name, **_summary(scores, lengths)})
    env.close()
    return rows


def _summary(scores: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    deviation = float(scores.std(ddof=1)) if len(scores) > 1 else float("nan")
    mean, sem = float(scores.mean()), deviation / len(scores) ** 0.5
    extremes = float(scores.min()), float(scores.max())
    length = round(float(lengths.mean()), 1)
    values = (len(scores), round(mean, 3), round(sem, 3), *extremes, length)
    return dict(zip(graded.COLUMNS[2:], values, strict=True))


def grade(
    game: str,
    checkpoints: Sequence[Path],
    folder: Path,
    *,
    episodes: int,
    seed: int = 0,
    max_steps: int = MAX_STEPS,
) -> Path:
    """Choose a low, a middle and a high checkpoint by measured return, and write them together.

    High is the checkpoint with the best mean return. Low and middle are the two others whose means
    come nearest to one third and two thirds of the way to it from uniformly random play; the one
    that scores less is low. Where training gained nothing, they are three different networks of
    much the same return.

    Args:
        game: The game.
        checkpoints: Three or more, as `train_player` returned them.
        folder: Where ``<Game>.safetensors`` is written.
        episodes: Episodes that each checkpoint is measured on.
        seed: Of the measurement.
        max_steps: Steps after which an episode is cut.

    Returns:
        The file; its notes hold the returns that decided.
    """
    if len(checkpoints) < len(graded.SKILLS):
        raise RMRError(f"expected at least 3 checkpoints, one a level, found {len(checkpoints)}")
    name, env = graded.game_name(game), _made(str(graded.game_id(game)))

    def mean_return(player: graded.Player, network: graded.RamNetwork | None) -> float:
        scores, _ = returns_of(env, player, network, episodes, max_steps=max_steps, seed=seed)
        return float(scores.mean())

    random_return = mean_return(graded.UNIFORM, None)
    trained = [graded.load_networks(path) for path in checkpoints]
    means = [mean_return(_PLAIN, policies["policy"]) for policies, _ in trained]
    env.close()
    chosen = choose_levels(random_return, means)
    notes = {
        "game": name,
        "random_return": random_return,
        "returns": {path.stem: mean for path, mean in zip(checkpoints, means, strict=True)},
        "levels": {
            skill: {"steps": trained[position][1]["steps"], "mean_return": means[position]}
            for skill, position in chosen.items()
        },
        "episodes": episodes,
        "max_steps": max_steps,
    }
    path = folder / f"{name}.safetensors"
    levels = {skill: trained[position][0]["policy"] for skill, position in chosen.items()}
    graded.save_networks(path, levels, notes)
    return path


def choose_levels(random_return: float, means: Sequence[float]) -> dict[str, int]:
    """Return the position of the low, the middle and the high checkpoint among ``means``."""
    high = int(np.argmax(means))
    gain = means[high] - random_return
    left = [position for position in range(len(means)) if position != high]
    picked = []
    for share in (1 / 3, 2 / 3):
        target = random_return + share * gain
        nearest = min(left, key=lambda position: abs(means[position] - target))
        picked.append(nearest)
        left.remove(nearest)
    low, middle = sorted(picked, key=lambda position: (means[position], position))
    return dict(zip(graded.SKILLS, (low, middle, high), strict=True))


def write_returns(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of `evaluate_players` as CSV, whole or not at all."""
    table = pd.DataFrame(rows, columns=list(graded.COLUMNS))
    write_atomically(path, table.to_csv(index=False, na_rep="nan"))
