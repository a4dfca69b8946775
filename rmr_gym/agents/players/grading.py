"""Measuring what policies score, and grading the checkpoints of a training by it."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmr_gym.agents.players.heads import HEADS, SKILLS, UNIFORM, Head
from rmr_gym.agents.players.policies import SHIPPED, networks
from rmr_gym.agents.players.ram_network import RamNetwork, load_networks, save_networks
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import os_errors, write_file
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.envs.atari.games import find_game

MAX_STEPS = 4500
"""Steps after which a measured episode is cut: 18,000 frames, five minutes of play."""

COLUMNS = (
    "game",
    "head",
    "episodes",
    "mean_return",
    "sem",
    "minimum",
    "maximum",
    "mean_length",
)

_PLAIN = next(head for head in HEADS if head.name == "high-e00-h00")


def returns_of(
    env: PairedAtariEnv,
    head: Head,
    network: RamNetwork | None,
    *,
    episodes: int,
    max_steps: int = MAX_STEPS,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of rewards and the length of ``episodes`` episodes that a head plays."""
    scores, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    for index in range(episodes):
        name = (env.game.name, head.name, index)
        policy = head.policy(generator(seed, "evaluation policy", *name), network)
        observation, _ = env.reset(seed=integer_seed(seed, "evaluation episode", *name))
        over = False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy(observation))
            scores[index] += reward
            lengths[index] += 1
            over = terminated or truncated or lengths[index] >= max_steps
    return scores, lengths


def evaluate_heads(
    game: str,
    *,
    episodes: int,
    heads: Sequence[Head] = HEADS,
    folder: Path = SHIPPED,
    max_steps: int = MAX_STEPS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure heads on a game; one row a head, with the fields of `COLUMNS`.

    Raises:
        RMRError: A game that does not exist or has no weights, or fewer than one episode.
    """
    if episodes < 1 or max_steps < 1:
        raise RMRError(f"expected 1 or more episodes and steps, found {episodes} and {max_steps}")
    row, trained = find_game(game), networks(game, folder)
    env = PairedAtariEnv(row.name, pixels="palette")
    rows = []
    for head in heads:
        scores, lengths = returns_of(
            env, head, trained.get(head.skill), episodes=episodes, max_steps=max_steps, seed=seed
        )
        deviation = float(scores.std(ddof=1)) if episodes > 1 else float("nan")
        rows.append(
            {
                "game": row.name,
                "head": head.name,
                "episodes": episodes,
                "mean_return": round(float(scores.mean()), 3),
                "sem": round(deviation / episodes**0.5, 3),
                "minimum": float(scores.min()),
                "maximum": float(scores.max()),
                "mean_length": round(float(lengths.mean()), 1),
            }
        )
    env.close()
    return rows


def grade(
    game: str,
    checkpoints: Sequence[Path],
    folder: Path,
    *,
    episodes: int,
    seed: int = 0,
    max_steps: int = MAX_STEPS,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Choose a low, a middle and a high checkpoint by measured return, and write them together.

    High is the checkpoint with the best mean return. Low and middle are the two others whose means
    come nearest to one third and two thirds of the way to it from uniformly random play; the one
    that scores less is low. Where training gained nothing, they are three different networks of
    much the same return.

    Args:
        game: The game.
        checkpoints: Three or more, as `rmr_gym.agents.players.ppo.train_policy` returned them.
        folder: Where ``<Game>.safetensors`` is written.
        episodes: Episodes that each checkpoint is measured on.
        seed: Of the measurement.
        max_steps: Steps after which an episode is cut.
        progress: Called with (checkpoints measured, all of them).

    Returns:
        The file; its notes hold the returns that decided.
    """
    if len(checkpoints) < len(SKILLS):
        raise RMRError(f"expected at least {len(SKILLS)} checkpoints, found {len(checkpoints)}")
    row = find_game(game)
    env = PairedAtariEnv(row.name, pixels="palette")
    options = {"episodes": episodes, "max_steps": max_steps, "seed": seed}
    random_return = float(returns_of(env, UNIFORM, None, **options)[0].mean())
    found = [load_networks(path) for path in checkpoints]
    means = []
    for done, (trained, _) in enumerate(found, 1):
        scores, _ = returns_of(env, _PLAIN, trained["policy"], **options)
        means.append(float(scores.mean()))
        if progress is not None:
            progress(done, len(found))
    env.close()
    chosen = choose_levels(random_return, means)
    notes = {
        "game": row.name,
        "random_return": random_return,
        "returns": {path.stem: mean for path, mean in zip(checkpoints, means, strict=True)},
        "levels": {
            skill: {"steps": found[position][1]["steps"], "mean_return": means[position]}
            for skill, position in chosen.items()
        },
        "episodes": episodes,
        "max_steps": max_steps,
    }
    path = folder / f"{row.name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    levels = {skill: found[position][0]["policy"] for skill, position in chosen.items()}
    save_networks(path, levels, notes)
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
    return dict(zip(SKILLS, (low, middle, high), strict=True))


def write_returns(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of `evaluate_heads` as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([row[column] for column in COLUMNS] for row in rows)
    with os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.getvalue().encode())


def read_returns(path: Path) -> list[dict[str, str]]:
    """Return the rows that are there already; none if there is no file.

    Raises:
        RMRError: The file holds something else.
    """
    if not path.exists():
        return []
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    if rows and tuple(rows[0]) != COLUMNS:
        raise RMRError(f"expected the columns {', '.join(COLUMNS)} in {path}: choose another file")
    return rows
