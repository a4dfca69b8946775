"""Recording any registered environment: many copies side by side, resumable."""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rmr_gym.agents.processes import in_processes
from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.seeding import integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.episode_writer import EpisodeWriter
from rmr_gym.data.schema import Manifest, flatten
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.envs.atari.games import find_game
from rmr_gym.wrappers.describe import describe
from rmr_gym.wrappers.record_vector import row_of

NUM_ENVS = 32


@dataclass(frozen=True)
class EnvPlan:
    """All that decides what an episode holds; together with its number it decides everything."""

    env_id: str
    seed: int
    max_steps: int | None
    options: Mapping[str, Any]

    def environments(self, count: int) -> VectorEnv[Any, Any, Any]:
        """Make copies of the environment: our own vector of it, which is bit-equal, or a loop."""
        mode = "vector_entry_point" if _is_ours(self.env_id) else "sync"
        return gym.make_vec(self.env_id, count, vectorization_mode=mode, **self.options)

    def manifest(self, envs: VectorEnv[Any, Any, Any]) -> Manifest:
        """Return the manifest of the data set that the plan leads to."""
        settings = {"recorder": "collect_env", "seed": self.seed, "max_steps": self.max_steps}
        return describe(envs, heads=(_head(envs),), settings=settings)

    def episode_seed(self, index: int) -> int:
        """Return what the environment is reset with for an episode."""
        return integer_seed(self.seed, "episode", index)


def collect_env(
    env_id: str,
    path: str | os.PathLike[str],
    *,
    episodes: int,
    seed: int = 0,
    num_envs: int = NUM_ENVS,
    workers: int = 1,
    max_steps: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **env_options: Any,
) -> TransitionDataset:
    """Record episodes of a registered environment, all that it shows, without loss.

    Where there is nothing to choose, as in a passive world of bouncing balls, the head is named
    ``passive``; elsewhere it is ``random``: actions are drawn uniformly from the action space.

    What episode i holds depends on the arguments and on i alone, not on ``num_envs`` and
    ``workers``; so episodes that are there already are kept, the others are recorded, in whatever
    order, and the files end byte-equal to those of an unbroken run. (This needs an environment that
    a reset with a seed determines, as every one of ours is.)

    Args:
        env_id: Id of the environment. Atari games have `rmr_gym.agents.collect.collect`.
        path: Folder of the data set.
        episodes: Episodes that it shall hold, 1 or more; what it holds beyond them stays.
        seed: Seed of every draw, 0 or larger.
        num_envs: Episodes that are played side by side in each process.
        workers: Processes that record side by side, each on episodes of its own. With more than
            one, the calling script needs its ``if __name__ == "__main__":`` guard, and an id that
            another package registers is written ``"package:id"``.
        max_steps: Steps after which an episode is cut, its last step marked as truncated; None for
            no cut before the environment's own, which there must be one of then.
        overwrite: Delete the episodes that are there first.
        progress: Called with (episodes that are there, ``episodes``).
        **env_options: What the environment is made with, for instance ``balls=4`` or
            ``max_episode_steps=50``.

    Raises:
        RMRError: An argument is out of range, there is no such environment, it cannot be stored,
            the folder holds something else or was recorded with other arguments, it cannot be
            written, or a recording process died.

    Example:
        >>> dataset = collect_env(  # doctest: +SKIP
        ...     "rmr/BouncingBalls-v0", "balls", episodes=100, balls=4
        ... )
    """
    counts = {"episodes": episodes, "num_envs": num_envs, "workers": workers}
    _check(1, **counts, max_steps=1 if max_steps is None else max_steps)
    _check(0, seed=seed)
    _check_id(env_id)
    alone = {"threads": 1} if workers > 1 and _is_ours(env_id) else {}
    plan = EnvPlan(env_id, seed, max_steps, {**alone, **env_options})
    envs = plan.environments(1)
    manifest = plan.manifest(envs)
    envs.close()
    with DatasetWriter(path, manifest, overwrite=overwrite) as writer:
        there = set(writer.finished())
        missing = [index for index in range(episodes) if index not in there]
        done = episodes - len(missing)
        rounds = [missing[first : first + num_envs] for first in range(0, len(missing), num_envs)]
        for recorded in chain((0,), _recorded(plan, rounds, writer, workers)):
            done += recorded
            if progress is not None:
                progress(done, episodes)
    return TransitionDataset(path)


def record_round(plan: EnvPlan, indices: Sequence[int], writer: DatasetWriter) -> int:
    """Play and write these episodes of the plan side by side; return their number."""
    envs = plan.environments(len(indices))
    seeds = [plan.episode_seed(index) for index in indices]
    episodes = {
        i: writer.episode(index, seed, _head(envs))
        for i, (index, seed) in enumerate(zip(indices, seeds, strict=True))
    }
    try:
        given: Any = seeds
        observations, _ = envs.reset(seed=given)
        for i, episode in episodes.items():
            episode.begin(row_of(flatten(observations), i))
        _play(plan, envs, _actions(plan, envs, indices), dict(episodes))
    finally:
        for episode in episodes.values():
            episode.abandon()
        envs.close()
    return len(indices)


def _play(
    plan: EnvPlan,
    envs: VectorEnv[Any, Any, Any],
    actions: Iterator[np.ndarray],
    running: dict[int, EpisodeWriter],
) -> None:
    """Step all environments until the first episode of each is over; what follows it is ignored."""
    while running:
        taken = next(actions)
        observations, rewards, terminated, truncated, _ = envs.step(taken)
        columns = flatten(observations)
        for i, episode in list(running.items()):
            cut = bool(truncated[i]) or episode.length + 1 == plan.max_steps
            episode.append(
                taken[i], float(rewards[i]), bool(terminated[i]), cut, row_of(columns, i)
            )
            if terminated[i] or cut:
                episode.finish()
                del running[i]


def _actions(
    plan: EnvPlan, envs: VectorEnv[Any, Any, Any], indices: Sequence[int]
) -> Iterator[np.ndarray]:
    """Yield an action for each environment, a function of plan, episode and step alone."""
    drawn = [copy.deepcopy(envs.single_action_space) for _ in indices]
    for index, space in zip(indices, drawn, strict=True):
        space.seed(integer_seed(plan.seed, "policy", index))
    while True:
        yield np.stack([space.sample() for space in drawn])


def _recorded(
    plan: EnvPlan, rounds: Sequence[Sequence[int]], writer: DatasetWriter, workers: int
) -> Iterator[int]:
    """Record round after round, and yield the number of episodes of each."""
    processes = min(workers, len(rounds))
    if processes > 1:
        calls = [(plan, indices, writer.path, writer.manifest) for indices in rounds]
        yield from in_processes(_record_in_worker, calls, processes, f"recorded into {writer.path}")
    else:
        for indices in rounds:
            yield record_round(plan, indices, writer)


def _record_in_worker(plan: EnvPlan, indices: Sequence[int], path: Path, manifest: Manifest) -> int:
    with DatasetWriter(path, manifest) as writer:
        return record_round(plan, indices, writer)


def _head(envs: VectorEnv[Any, Any, Any]) -> str:
    space = envs.single_action_space
    return "passive" if isinstance(space, spaces.Discrete) and space.n == 1 else "random"


def _check_id(env_id: str) -> None:
    """Refuse what is not registered, and the games, whose recording is another function's."""
    if env_id.startswith(("rmr/", "ALE/")):
        try:
            game = find_game(env_id)
        except RMRError:
            game = None
        if game is not None:
            raise RMRError(
                f"expected an environment other than the Atari games, found {env_id}: record it "
                f"with its behaviour heads, `rmr-gym record --game {game.name}`"
            )
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            import_module(module)
        gym.spec(name)
    except (gym.error.Error, ImportError) as error:
        ours = [each for each in gym.registry if each.startswith("rmr/")]
        raise unknown_name("environment", env_id, ours) from error


def _is_ours(env_id: str) -> bool:
    """Tell whether a vector of our own plays the environment, bit-equal to single ones."""
    return env_id.startswith("rmr/") and gym.spec(env_id).vector_entry_point is not None


def _check(at_least: int, **numbers: Any) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            raise RMRError(
                f"expected a whole number of at least {at_least} as {name}, found {value!r}"
            )
