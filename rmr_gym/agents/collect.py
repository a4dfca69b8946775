"""Recording a game with the behaviour heads: resumable, in one process or several."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym

from rmr_gym.agents.players.heads import UNSKILLED, Head, Policy, select_heads
from rmr_gym.agents.players.policies import SHIPPED, networks, weights_sha256
from rmr_gym.agents.processes import in_processes
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import check_seed, generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Manifest
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.envs.atari.games import find_game
from rmr_gym.wrappers.record import describe

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """All that decides what an episode holds; together with its number it decides everything."""

    game: str
    seed: int
    heads: tuple[Head, ...]
    max_steps: int | None
    frameskip: int
    repeat_action_probability: float
    policies: Path = SHIPPED

    def environment(self) -> PairedAtariEnv:
        """Make the environment; its screen is read once, as palette indices."""
        env = gym.make(
            find_game(self.game).env_id,
            disable_env_checker=True,
            pixels="palette",
            frameskip=self.frameskip,
            repeat_action_probability=self.repeat_action_probability,
        ).unwrapped
        assert isinstance(env, PairedAtariEnv)
        return env

    def manifest(self, env: PairedAtariEnv) -> Manifest:
        """Return the manifest of the data set that the plan leads to."""
        settings = {"recorder": "collect", "seed": self.seed, "max_steps": self.max_steps}
        if any(head.skill != UNSKILLED for head in self.heads):
            settings["policies"] = weights_sha256(self.game, self.policies)
        return describe(env, heads=tuple(head.name for head in self.heads), settings=settings)

    def player(self, index: int) -> Policy:
        """Return the policy that plays episode ``index``."""
        head, rng = self.head(index), generator(self.seed, "policy", index)
        if head.skill == UNSKILLED:
            return head.policy(rng)
        return head.policy(rng, networks(self.game, self.policies)[head.skill])

    def head(self, index: int) -> Head:
        """Return the head whose turn episode ``index`` is."""
        return self.heads[index % len(self.heads)]


def collect(
    game: str,
    path: str | os.PathLike[str],
    *,
    episodes: int,
    max_steps: int | None = None,
    seed: int = 0,
    heads: str | Sequence[str] = "all",
    workers: int = 1,
    frameskip: int = 4,
    repeat_action_probability: float = 0.0,
    policies: Path = SHIPPED,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Record episodes of a game: RAM and screen of the same instant, without loss.

    The heads take turns, one an episode. What episode i holds depends on the arguments and on i
    alone; so episodes that are there already are kept, the others are recorded, in whatever order,
    and the files end byte-equal to those of an unbroken run with any number of workers.

    Source: RMR, section 5 (96 episodes a game).
    Differs: see `rmr_gym.agents.players.heads.HEADS`.

    Args:
        game: The game, in any spelling that `rmr_gym.envs.atari.games.find_game` understands.
        path: Folder of the data set.
        episodes: Episodes that it shall hold, 1 or more; what it holds beyond them stays.
        max_steps: Steps after which an episode is cut, its last step marked as truncated; None for
            no cut before the environment's own (30 minutes of play).
        seed: Seed of every draw, 0 or larger.
        heads: As for `rmr_gym.agents.players.heads.select_heads`.
        workers: Processes that record side by side, each on episodes of its own. With more than
            one, the calling script needs its ``if __name__ == "__main__":`` guard.
        frameskip: Emulated frames a step.
        repeat_action_probability: Sticky actions, in [0, 1].
        policies: Folder of the trained policies of the skilled heads; default: the shipped ones.
        overwrite: Delete the episodes that are there first.
        progress: Called with (episodes that are there, ``episodes``).

    Raises:
        RMRError: An argument is out of range, the folder holds something else or was recorded with
            other arguments, it cannot be written, or a recording process died.

    Example:
        >>> dataset = collect("Pong", "pong", episodes=2, max_steps=100)  # doctest: +SKIP
    """
    _check(episodes=episodes, workers=workers, max_steps=1 if max_steps is None else max_steps)
    check_seed(seed)
    plan = Plan(
        find_game(game).name,
        seed,
        select_heads(heads),
        max_steps,
        frameskip,
        repeat_action_probability,
        policies,
    )
    env = plan.environment()
    with DatasetWriter(path, plan.manifest(env), overwrite=overwrite) as writer:
        there = set(writer.finished())
        missing = [index for index in range(episodes) if index not in there]
        done = episodes - len(missing)
        _report(progress, done, episodes)
        processes = min(workers, len(missing))
        if processes > 1:
            calls = [(plan, index, writer.path) for index in missing]
            finished = in_processes(_record_in_worker, calls, processes, f"recorded into {path}")
            for done_now, _ in enumerate(finished, done + 1):
                _report(progress, done_now, episodes)
        else:
            for done_now, index in enumerate(missing, done + 1):
                record_episode(env, plan, index, writer)
                _report(progress, done_now, episodes)
    return TransitionDataset(path)


def record_episode(env: PairedAtariEnv, plan: Plan, index: int, writer: DatasetWriter) -> None:
    """Play and write episode ``index`` of the plan, a function of the two."""
    policy = plan.player(index)
    seed = integer_seed(plan.seed, "episode", index)
    episode = writer.episode(index, seed, plan.head(index).name)
    env.read_into(episode.rows)
    try:
        observation, _ = env.reset(seed=seed)
        episode.begin(observation)
        over = False
        while not over:
            action = policy.act(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            truncated = truncated or episode.length + 1 == plan.max_steps
            episode.append(action, reward, terminated, truncated, observation)
            over = terminated or truncated
        episode.finish()
    finally:
        env.read_into(None)
        episode.abandon()


def _record_in_worker(plan: Plan, index: int, path: Path) -> None:
    env, writer = _recorder(plan, path)
    record_episode(env, plan, index, writer)


@lru_cache(maxsize=1)
def _recorder(plan: Plan, path: Path) -> tuple[PairedAtariEnv, DatasetWriter]:
    """Return this worker's environment and writer: making them costs hundreds of steps."""
    env = plan.environment()
    return env, DatasetWriter(path, plan.manifest(env))


def _check(**counts: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RMRError(f"expected a whole number of at least 1 as {name}, found {value!r}")


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
