"""Recording what an environment, or every environment of a vector, does, episode by episode."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import AnyPath
from rmr_gym.data.schema import Manifest, flatten
from rmr_gym.data.writer import DatasetWriter, EpisodeWriter
from rmr_gym.envs.arguments import Info, Seed, Seeds, all_seeds, plain_seed
from rmr_gym.wrappers.describe import AnyEnv, autoreset_mode, columns_now, describe, require, row_of


class RecordTransitions(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
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
    `RecordVectorTransitions` does the same. If the data set is there
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
        path: AnyPath,
        *,
        head: str = "unknown",
        overwrite: bool = False,
        store: str = "auto",
    ):
        gym.utils.RecordConstructorArgs.__init__(
            self, path=os.fspath(path), head=head, overwrite=overwrite, store=store
        )
        env = require(gym.Env, env, "around a vector, use RecordVectorTransitions")
        manifest = describe(env, heads=(head,), store=store)
        super().__init__(env)
        self._recording = _Recording(path, manifest, (head,), overwrite)
        self._emulator = store == "auto"

    def reset(self, *, seed: Seed = None, options: Info | None = None) -> tuple[Any, Info]:
        """Write what was cut short, reset the environment and begin the next episode."""
        self._recording.finish(0, interrupted=True)
        number = plain_seed(seed)
        observation, info = self.env.reset(seed=number, options=options)
        columns = columns_now(self.env, observation, emulator=self._emulator)
        self._recording.begin(0, number, columns)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        """Step the environment and note what happened.

        Raises:
            RMRError: The episode has ended or not begun.
        """
        if not self._recording.runs(0):
            raise RMRError(
                "expected an episode that runs, found none: call reset() before step(), and put "
                "what resets by itself around RecordTransitions, not inside it"
            )
        observation, reward, terminated, truncated, info = self.env.step(action)
        columns = columns_now(self.env, observation, emulator=self._emulator)
        self._recording.append(0, action, reward, terminated, truncated, columns)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Write what was cut short, let other writers in, close the environment."""
        try:
            self._recording.close()
        finally:
            super().close()


class RecordVectorTransitions(VectorWrapper[Any, Any, Any, Any, Any]):
    """Writes every episode of every environment to one data set, and changes nothing.

    Each episode becomes what `RecordTransitions` around that environment
    alone would have written: its true last observation is kept, and nothing of a reset is taken for
    a step, whichever of Gymnasium's three autoreset modes the vector declares. Under ``NextStep``,
    the step that only resets, and its action, are not recorded. An episode that was reset with a
    seed has it; one that the vector began by itself has none.

    Episodes are numbered in the order of their first steps, and by environment where those fall
    together: the same seeds and actions give the same files. One that a reset or `close` cuts short
    is written with ``interrupted`` set, and dropped if it has no step.

    What is stored is the observation, as shown. Vectors of rmr_gym's games that show
    ``pixels="palette"`` are stored as `RecordTransitions` stores them: gray and RGB can be rebuilt,
    and all readers of recorded games take them. Other pixels are stored as they are.

    If the data set is there already and has the same manifest, episodes are added to it.

    Args:
        env: The vector environment.
        path: Folder of the data set.
        heads: Name of the policy that plays, or one name an environment.
        overwrite: Delete the episodes of the data set that is there, at the first reset.

    Raises:
        RMRError: It is no vector environment or declares no autoreset mode, the observations or
            actions have no fixed shape and numeric type, or the number of heads is another than
            that of environments; at the first reset, as `RecordTransitions`.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> from rmr_gym.wrappers import RecordVectorTransitions
        >>> envs = gym.make_vec("rmr/BouncingBalls-v0", 8)
        >>> envs = RecordVectorTransitions(envs, "balls")  # doctest: +SKIP
    """

    def __init__(
        self,
        env: AnyEnv,
        path: AnyPath,
        *,
        heads: str | Sequence[str] = "unknown",
        overwrite: bool = False,
    ):
        super().__init__(require(VectorEnv, env, "around a single one, use RecordTransitions"))
        self._mode = autoreset_mode(self.env)
        heads = [heads] * self.num_envs if isinstance(heads, str) else list(heads)
        if len(heads) != self.num_envs:
            raise RMRError(
                f"expected the name of one head, or {self.num_envs}, one an environment, found "
                f"{len(heads)}"
            )
        manifest = describe(env, heads=tuple(dict.fromkeys(heads)))
        self._recording = _Recording(path, manifest, heads, overwrite)
        self._ready = False

    def reset(self, *, seed: Seeds = None, options: Info | None = None) -> tuple[Any, Info]:
        """Write what was cut short, reset the environments and begin their next episodes."""
        mask = (options or {}).get("reset_mask")
        seeds = all_seeds(seed, self.num_envs)
        observations, infos = self.env.reset(seed=plain_seed(seed), options=options)
        columns = flatten(observations)
        chosen = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        for i in chosen:
            self._recording.finish(i, interrupted=True)
            self._recording.begin(i, seeds[i], row_of(columns, i))
        self._ready = self._ready or mask is None
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:
        """Step the environments and note what happened.

        Raises:
            RMRError: There was no reset, or an episode is over and the vector does not begin the
                next one by itself; or an earlier step was cut short by an error or Ctrl-C, so that
                what it did is not known.
        """
        missing = [i for i in range(self.num_envs) if not self._recording.runs(i)]
        if not self._ready or (missing and self._mode is AutoresetMode.DISABLED):
            raise RMRError(
                "expected an episode that runs in every environment, found "
                f"{f'none in {missing}' if self._ready else 'none begun, or a step cut short'}: "
                "call reset() before step()"
            )
        self._ready = False
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        columns, taken = flatten(observations), np.asarray(actions)
        for i in range(self.num_envs):
            resets = self._mode is AutoresetMode.SAME_STEP and (terminated[i] or truncated[i])
            if i not in missing:
                to = _last_observation(infos, i) if resets else row_of(columns, i)
                self._recording.append(i, taken[i], rewards[i], terminated[i], truncated[i], to)
            if resets or i in missing:
                self._recording.begin(i, None, row_of(columns, i))
        self._ready = True
        return observations, rewards, terminated, truncated, infos

    def close(self, **kwargs: Any) -> None:
        """Write what was cut short, let other writers in, close the environments."""
        try:
            self._recording.close()
        finally:
            super().close(**kwargs)
        self._ready = False


def _last_observation(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Return the observation that an episode ended with, where the next one has begun."""
    if "final_obs" not in infos or infos["final_obs"][i] is None:
        raise RMRError(
            f"expected the last observation of environment {i} in info['final_obs'], as the "
            "SameStep autoreset mode promises, found none"
        )
    return flatten(infos["final_obs"][i])


class _Recording:
    """The data set that a wrapper fills, opened when the first episode begins.

    Args:
        path: Its folder.
        manifest: What holds for the whole of it.
        heads: Names of the policies that play, one an environment.
        overwrite: Delete the episodes that are there, the first time that it is opened.
    """

    def __init__(self, path: AnyPath, manifest: Manifest, heads: Sequence[str], overwrite: bool):
        self._path, self._manifest, self._overwrite = path, manifest, overwrite
        self._heads, self._next = heads, 0
        self._dataset: DatasetWriter | None = None
        self._beginnings: dict[int, tuple[int | None, dict[str, np.ndarray]]] = {}
        self._writers: dict[int, EpisodeWriter] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be copied or pickled while the data set is open: two would write into it."""
        if self._dataset is not None:
            raise RMRError(
                "expected a recorder that has not begun or is closed, found one that records, of "
                "which no copy can be made: close() it before, or copy the environment inside"
            )
        return vars(self).copy()

    def runs(self, i: int) -> bool:
        """Whether an episode of environment ``i`` is being recorded."""
        return i in self._beginnings

    def begin(self, i: int, seed: int | None, first: Mapping[str, Any]) -> None:
        """Begin an episode of environment ``i``, whose first observation is ``first``."""
        self._opened()
        self._beginnings[i] = seed, {name: np.array(value) for name, value in first.items()}

    def append(
        self, i: int, action: Any, reward: Any, terminated: Any, truncated: Any, to: Any
    ) -> None:
        """Take one step of environment ``i``; if it is the last one, the episode is written.

        Args:
            i: The environment.
            action: As it was taken; what is passed may change later.
            reward: For it.
            terminated: Whether the episode ended.
            truncated: Whether it was cut off.
            to: The columns of the observation that followed.
        """
        if i not in self._writers:
            self._writers[i] = self._numbered(i)
        action = action.copy() if isinstance(action, np.ndarray) else action
        self._writers[i].append(action, float(reward), bool(terminated), bool(truncated), to)
        if terminated or truncated:
            self.finish(i, interrupted=False)

    def finish(self, i: int, *, interrupted: bool) -> None:
        """Write the episode of environment ``i``, if one runs and has a step."""
        self._beginnings.pop(i, None)
        writer = self._writers.pop(i, None)
        if writer is None:
            return
        try:
            if writer.length:
                writer.finish(interrupted=interrupted)
        finally:
            writer.abandon()

    def close(self) -> None:
        """Write what was cut short and let other writers in; may be called twice."""
        dataset, self._dataset = self._dataset, None
        with ExitStack() as stack:
            if dataset is not None:
                stack.callback(dataset.close)
            for i in reversed(range(len(self._heads))):
                stack.callback(self.finish, i, interrupted=True)

    def _numbered(self, i: int) -> EpisodeWriter:
        """Return the writer of an episode, which takes its number with its first step."""
        seed, first = self._beginnings[i]
        episode = self._opened().episode(self._next, seed, self._heads[i])
        self._next += 1
        episode.begin(first)
        return episode

    def _opened(self) -> DatasetWriter:
        if self._dataset is None:
            self._dataset = DatasetWriter(self._path, self._manifest, overwrite=self._overwrite)
            self._overwrite = False
            self._next = max(self._dataset.finished(), default=-1) + 1
        return self._dataset
