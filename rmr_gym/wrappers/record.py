"""Recording what an environment does, episode by episode."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from rmr_gym.core.errors import RMRError
from rmr_gym.data.schema import Manifest, flatten
from rmr_gym.data.writer import DatasetWriter, EpisodeWriter
from rmr_gym.wrappers.describe import AnyEnv, ale_of, describe


class RecordTransitions(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Writes every episode to a data set, without loss and without changing what it passes on.

    The data set is made at the first reset. An episode appears in it, as a whole, when it ends; one
    that a reset or `close` cuts short is written with ``interrupted`` set and its flags as they
    were, and dropped if it has no step. The observation after the last step is kept. Until its end
    an episode is held in memory, compressed.

    What is stored: over ALE, the screen as palette indices and the RAM, both of the instant of the
    observation, whatever the environment shows of them, and any other entry of a Dict observation;
    over other environments, or with ``store="observation"``, the observation itself.

    Put it outside what cuts episodes (`gymnasium.wrappers.TimeLimit`) and inside what resets them
    by itself (`gymnasium.wrappers.Autoreset`, vector environments); around a vector environment,
    `rmr_gym.wrappers.record_vector.RecordVectorTransitions` does the same. If the data set is there
    already and has the same manifest, episodes are added to it.

    Args:
        env: The environment.
        path: Folder of the data set.
        head: Name of the policy that plays.
        overwrite: Delete the episodes of the data set that is there, at the first reset.
        store: ``"auto"`` or ``"observation"``.

    Raises:
        RMRError: The observations or actions have no fixed shape and numeric type; at the first
            reset, the folder holds something else, is being recorded into, or cannot be written.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> from rmr_gym.wrappers import RecordTransitions
        >>> env = RecordTransitions(gym.make("rmr/Pong-v0"), "pong")  # doctest: +SKIP
    """

    def __init__(
        self,
        env: AnyEnv,
        path: str | os.PathLike[str],
        *,
        head: str = "unknown",
        overwrite: bool = False,
        store: str = "auto",
    ):
        RecordConstructorArgs.__init__(
            self, path=os.fspath(path), head=head, overwrite=overwrite, store=store
        )
        if not isinstance(env, gym.Env):
            raise RMRError(
                f"expected a single Gymnasium environment, found {type(env).__name__}: around a "
                "vector, use RecordVectorTransitions"
            )
        manifest = describe(env, heads=(head,), store=store)
        super().__init__(env)
        self._head = head
        self._recording = Recording(path, manifest, overwrite=overwrite)
        self._read_emulator = _emulator_reader(env) if store == "auto" else None
        self._episode: RunningEpisode | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Write what was cut short, reset the environment and begin the next episode."""
        self._finish(interrupted=True)
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode = self._recording.begin(seed, self._head, self._columns(observation))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and note what happened.

        Raises:
            RMRError: The episode has ended or not begun.
        """
        if self._episode is None:
            raise RMRError(
                "expected an episode that runs, found none: call reset() before step(), and put "
                "what resets by itself around RecordTransitions, not inside it"
            )
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._episode.append(action, reward, terminated, truncated, self._columns(observation))
        if terminated or truncated:
            self._finish(interrupted=False)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Write what was cut short, let other writers in, close the environment."""
        try:
            self._finish(interrupted=True)
        finally:
            self._recording.close()
            super().close()

    def _finish(self, *, interrupted: bool) -> None:
        episode, self._episode = self._episode, None
        if episode is not None:
            episode.finish(interrupted=interrupted)

    def _columns(self, observation: Any) -> Mapping[str, Any]:
        if self._read_emulator is None:
            return flatten(observation)
        return {**flatten(observation), **self._read_emulator()}


class Recording:
    """The data set that a wrapper fills, opened when the first episode begins.

    Args:
        path: Its folder.
        manifest: What holds for the whole of it.
        overwrite: Delete the episodes that are there, the first time that it is opened.
    """

    def __init__(self, path: str | os.PathLike[str], manifest: Manifest, *, overwrite: bool):
        self._path, self._manifest, self._overwrite = path, manifest, overwrite
        self._writer: DatasetWriter | None = None
        self._next = 0

    def begin(self, seed: int | None, head: str, first: Mapping[str, Any]) -> "RunningEpisode":
        """Begin an episode, whose first observation is ``first``, by column."""
        self._opened()
        return RunningEpisode(self, seed, head, first)

    def numbered(self, seed: int | None, head: str) -> EpisodeWriter:
        """Return the writer of an episode, which takes the next number."""
        episode = self._opened().episode(self._next, seed, head)
        self._next += 1
        return episode

    def close(self) -> None:
        """Let other writers in; may be called twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _opened(self) -> DatasetWriter:
        if self._writer is None:
            self._writer = DatasetWriter(
                self._path, self._manifest, overwrite=self._overwrite, exclusive=True
            )
            self._overwrite = False
            self._next = max(self._writer.finished(), default=-1) + 1
        return self._writer


class RunningEpisode:
    """An episode that takes its number with its first step, so that one without a step has none."""

    def __init__(self, recording: Recording, seed: int | None, head: str, first: Mapping[str, Any]):
        self._recording, self._seed, self._head = recording, seed, head
        self._first = {name: np.array(value) for name, value in first.items()}
        self._writer: EpisodeWriter | None = None

    def append(
        self, action: Any, reward: Any, terminated: Any, truncated: Any, to: Mapping[str, Any]
    ) -> None:
        """Take one step and the observation that it led to; what is passed may change later."""
        if self._writer is None:
            self._writer = self._recording.numbered(self._seed, self._head)
            self._writer.begin(self._first)
        action = action.copy() if isinstance(action, np.ndarray) else action
        self._writer.append(action, float(reward), bool(terminated), bool(truncated), to)

    def finish(self, *, interrupted: bool) -> None:
        """Write the episode, if it has a step."""
        if self._writer is None:
            return
        try:
            if self._writer.length:
                self._writer.finish(interrupted=interrupted)
        finally:
            self._writer.abandon()


def _emulator_reader(env: gym.Env[Any, Any]) -> Callable[[], dict[str, np.ndarray]] | None:
    ale = ale_of(env)
    if ale is None:
        return None
    return lambda: {"pixels": ale.getScreen(), "ram": ale.getRAM()}
