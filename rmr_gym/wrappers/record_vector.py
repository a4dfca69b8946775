"""Recording what every environment of a vector does, episode by episode."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from rmr_gym.core.errors import RMRError
from rmr_gym.data.schema import flatten
from rmr_gym.wrappers.describe import AnyEnv, describe
from rmr_gym.wrappers.record import Recording, RunningEpisode


class RecordVectorTransitions(VectorWrapper[Any, Any, Any, Any, Any]):
    """Writes every episode of every environment to one data set, and changes nothing.

    Each episode becomes what `rmr_gym.wrappers.record.RecordTransitions` around that environment
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
        path: str | os.PathLike[str],
        *,
        heads: str | Sequence[str] = "unknown",
        overwrite: bool = False,
    ):
        if not isinstance(env, VectorEnv):
            raise RMRError(
                f"expected a vector environment, found {type(env).__name__}: around a single one, "
                "use RecordTransitions"
            )
        super().__init__(env)
        self._mode = _autoreset_mode(env)
        self._heads = [heads] * env.num_envs if isinstance(heads, str) else list(heads)
        if len(self._heads) != env.num_envs:
            raise RMRError(
                f"expected the name of one head, or {env.num_envs}, one an environment, found "
                f"{len(self._heads)}"
            )
        manifest = describe(env, heads=tuple(dict.fromkeys(self._heads)))
        self._recording = Recording(path, manifest, overwrite=overwrite)
        self._running: list[RunningEpisode | None] = [None] * env.num_envs
        self._ready = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Write what was cut short, reset the environments and begin their next episodes."""
        mask = (options or {}).get("reset_mask")
        seeds = self._seeds(seed)
        given: Any = seed
        observations, infos = self.env.reset(seed=given, options=options)
        columns = flatten(observations)
        chosen = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        for i in chosen:
            self._finish(i, interrupted=True)
            self._begin(i, seeds[i], columns)
        self._ready = self._ready or mask is None
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environments and note what happened.

        Raises:
            RMRError: There was no reset, or an episode is over and the vector does not begin the
                next one by itself; or an earlier step was cut short by an error or Ctrl-C, so that
                what it did is not known.
        """
        missing = [i for i, episode in enumerate(self._running) if episode is None]
        if not self._ready or (missing and self._mode is AutoresetMode.DISABLED):
            raise RMRError(
                "expected an episode that runs in every environment, found "
                f"{f'none in {missing}' if self._ready else 'none begun, or a step cut short'}: "
                "call reset() before step()"
            )
        self._ready = False
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        columns, taken = flatten(observations), np.asarray(actions)
        for i, episode in enumerate(self._running):
            if episode is None:
                self._begin(i, None, columns)
                continue
            over = bool(terminated[i] or truncated[i])
            resets = over and self._mode is AutoresetMode.SAME_STEP
            to = _last_observation(infos, i) if resets else row_of(columns, i)
            episode.append(taken[i], rewards[i], terminated[i], truncated[i], to)
            if over:
                self._finish(i, interrupted=False)
            if resets:
                self._begin(i, None, columns)
        self._ready = True
        return observations, rewards, terminated, truncated, infos

    def close(self, **kwargs: Any) -> None:
        """Write what was cut short, let other writers in, close the environments."""
        with ExitStack() as stack:
            stack.callback(super().close, **kwargs)
            stack.callback(self._recording.close)
            for i in reversed(range(self.num_envs)):
                stack.callback(self._finish, i, interrupted=True)
        self._ready = False

    def _begin(self, i: int, seed: int | None, columns: Mapping[str, np.ndarray]) -> None:
        self._running[i] = self._recording.begin(seed, self._heads[i], row_of(columns, i))

    def _finish(self, i: int, *, interrupted: bool) -> None:
        episode, self._running[i] = self._running[i], None
        if episode is not None:
            episode.finish(interrupted=interrupted)

    def _seeds(self, seed: Any) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise RMRError(
                f"expected one seed or {self.num_envs}, one an environment, found {len(seed)}"
            )
        return list(seed)


def _autoreset_mode(env: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise RMRError(
            'expected a vector environment that declares metadata["autoreset_mode"] as one of '
            f"Gymnasium's AutoresetMode, found {mode!r} in {type(env.unwrapped).__name__}: without "
            "it, first and last observations cannot be told apart"
        )
    return mode


def row_of(columns: Mapping[str, np.ndarray], i: int) -> dict[str, Any]:
    """Return what environment ``i`` shows, by column."""
    return {name: rows[i] for name, rows in columns.items()}


def _last_observation(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """Return the observation that an episode ended with, where the next one has begun."""
    if "final_obs" not in infos or infos["final_obs"][i] is None:
        raise RMRError(
            f"expected the last observation of environment {i} in info['final_obs'], as the "
            "SameStep autoreset mode promises, found none"
        )
    return flatten(infos["final_obs"][i])
