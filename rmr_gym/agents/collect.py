"""Recording a game with the behaviour heads: resumable, in one process or several."""

import atexit
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym

from rmr_gym.agents.heads import Head, select_heads
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import Manifest
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.envs.atari import PairedAtariEnv
from rmr_gym.envs.games import find_game
from rmr_gym.errors import RMRError
from rmr_gym.seeding import generator, integer_seed
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
        return describe(env, heads=tuple(head.name for head in self.heads), settings=settings)


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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TransitionDataset:
    """Record episodes of a game: RAM and screen of the same instant, without loss.

    The heads take turns, one an episode. What episode i holds depends on the arguments and on i
    alone; so episodes that are there already are kept, the others are recorded, in whatever order,
    and the files end byte-equal to those of an unbroken run with any number of workers.

    Source: RMR, section 5 (96 episodes a game).
    Differs: see `rmr_gym.agents.heads.HEADS`.

    Args:
        game: The game, in any spelling that `rmr_gym.envs.games.find_game` understands.
        path: Folder of the data set.
        episodes: Episodes that it shall hold, 1 or more; what it holds beyond them stays.
        max_steps: Steps after which an episode is cut, its last step marked as truncated; None for
            no cut before the environment's own (30 minutes of play).
        seed: Seed of every draw, 0 or larger.
        heads: As for `rmr_gym.agents.heads.select_heads`.
        workers: Processes that record side by side, each on episodes of its own. With more than
            one, the calling script needs its ``if __name__ == "__main__":`` guard.
        frameskip: Emulated frames a step.
        repeat_action_probability: Sticky actions, in [0, 1].
        overwrite: Delete the episodes that are there first.
        progress: Called with (episodes that are there, ``episodes``).

    Raises:
        RMRError: An argument is out of range, the folder holds something else or was recorded with
            other arguments, it cannot be written, or a recording process died.

    Example:
        >>> dataset = collect("Pong", "pong", episodes=2, max_steps=100)  # doctest: +SKIP
    """
    _check(episodes=episodes, workers=workers, max_steps=1 if max_steps is None else max_steps)
    if seed < 0:
        raise RMRError(f"expected a seed of 0 or more, found {seed}")
    plan = Plan(
        find_game(game).name,
        seed,
        select_heads(heads),
        max_steps,
        frameskip,
        repeat_action_probability,
    )
    env = plan.environment()
    with DatasetWriter(path, plan.manifest(env), overwrite=overwrite) as writer:
        there = set(writer.finished())
        missing = [index for index in range(episodes) if index not in there]
        done = episodes - len(missing)
        _report(progress, done, episodes)
        processes = min(workers, len(missing))
        if processes > 1:
            _record_in_processes(plan, writer.path, missing, processes, progress, episodes)
        else:
            for done_now, index in enumerate(missing, done + 1):
                record_episode(env, plan, index, writer)
                _report(progress, done_now, episodes)
    return TransitionDataset(path)


def record_episode(env: PairedAtariEnv, plan: Plan, index: int, writer: DatasetWriter) -> None:
    """Play and write episode ``index`` of the plan, a function of the two."""
    head = plan.heads[index % len(plan.heads)]
    policy = head.policy(generator(plan.seed, "policy", index))
    seed = integer_seed(plan.seed, "episode", index)
    episode = writer.episode(index, seed, head.name)
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
        episode.abandon()


def _record_in_processes(
    plan: Plan,
    path: Path,
    missing: Sequence[int],
    processes: int,
    progress: Progress | None,
    episodes: int,
) -> None:
    """Record in worker processes, which end when this function does, whatever ends it."""
    context = get_context("spawn")
    lifeline, hold = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_end_with, initargs=(lifeline,)
    )
    try:
        waiting = [pool.submit(_record_in_worker, plan, index, path) for index in missing]
        for done, future in enumerate(as_completed(waiting), episodes - len(missing) + 1):
            future.result()
            _report(progress, done, episodes)
        pool.shutdown()
    except BrokenProcessPool as error:
        raise RMRError(
            f"a process that recorded into {path} died (killed, out of memory, or started by a "
            'script without `if __name__ == "__main__":`); finished episodes are kept: run again '
            "to record the rest, with fewer workers if memory was short"
        ) from error
    finally:
        hold.close()
        lifeline.close()
        pool.shutdown(cancel_futures=True)


def _end_with(lifeline: Connection) -> None:
    """End this process when the one that started it closes its end or dies; leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(_environment.cache_clear)

    def wait_for_the_end() -> None:
        lifeline.poll(None)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def _record_in_worker(plan: Plan, index: int, path: Path) -> None:
    env = _environment(plan)
    with DatasetWriter(path, plan.manifest(env)) as writer:
        record_episode(env, plan, index, writer)


@lru_cache(maxsize=1)
def _environment(plan: Plan) -> PairedAtariEnv:
    """Return this worker's environment: loading the game costs as much as hundreds of steps."""
    return plan.environment()


def _check(**counts: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RMRError(f"expected a whole number of at least 1 as {name}, found {value!r}")


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
