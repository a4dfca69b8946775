"""Recording what an environment does, episode by episode."""

import hashlib
import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from rmr_gym.data.episode_writer import EpisodeWriter
from rmr_gym.data.schema import (
    ColumnSpec,
    Manifest,
    flatten,
    observation_columns,
    step_columns,
)
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.envs.games import Game, find_game
from rmr_gym.errors import RMRError, unknown_name

AnyEnv = gym.Env[Any, Any] | gym.vector.VectorEnv[Any, Any, Any]
_STORES = ("auto", "observation")
_PACKAGES = ("rmr-gym", "gymnasium", "numpy", "h5py", "hdf5plugin")


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
    by itself (`gymnasium.wrappers.Autoreset`, vector environments). If the data set is there
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
        env = _single(env)
        self._manifest = describe(env, heads=(head,), store=store)
        super().__init__(env)
        self._path, self._head, self._overwrite = path, head, overwrite
        self._read_emulator = _emulator_reader(env) if store == "auto" else None
        self._writer: DatasetWriter | None = None
        self._episode: EpisodeWriter | None = None
        self._index = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Write what was cut short, reset the environment and begin the next episode."""
        self._finish(interrupted=True)
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode = self._opened().episode(self._index, seed, self._head)
        self._episode.begin(self._columns(observation))
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
        self._episode.append(
            action, float(reward), bool(terminated), bool(truncated), self._columns(observation)
        )
        if terminated or truncated:
            self._finish(interrupted=False)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Write what was cut short, let other writers in, close the environment."""
        try:
            self._finish(interrupted=True)
        finally:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            super().close()

    def _opened(self) -> DatasetWriter:
        if self._writer is None:
            self._writer = DatasetWriter(
                self._path, self._manifest, overwrite=self._overwrite, exclusive=True
            )
            self._overwrite = False
            self._index = max(self._writer.finished(), default=-1) + 1
        return self._writer

    def _finish(self, *, interrupted: bool) -> None:
        episode, self._episode = self._episode, None
        if episode is None:
            return
        if episode.length == 0:
            episode.abandon()
            return
        episode.finish(interrupted=interrupted)
        self._index += 1

    def _columns(self, observation: Any) -> Mapping[str, Any]:
        if self._read_emulator is None:
            return flatten(observation)
        return {**flatten(observation), **self._read_emulator()}


def describe(
    env: AnyEnv,
    *,
    heads: tuple[str, ...],
    settings: Mapping[str, Any] | None = None,
    store: str = "auto",
) -> Manifest:
    """Return the manifest of a data set of this environment.

    Args:
        env: The environment, wrapped as it will play.
        heads: Names of the behaviour heads that will play.
        settings: How it will be recorded, beyond the environment.
        store: As for `RecordTransitions`.

    Raises:
        RMRError: The environment is none, or what it shows or takes cannot be stored.
    """
    env = _single(env)
    if store not in _STORES:
        raise unknown_name("choice of what to store", str(store), _STORES)
    on_ale, spec = _ale_of(env) is not None, env.spec
    game, rom = _game_and_rom(env) if on_ale else (None, None)
    packages = (*_PACKAGES, "ale-py") if on_ale else (*_PACKAGES, "mujoco")
    return Manifest(
        observations=_columns_of(env, store),
        steps=step_columns(env.action_space),
        env_id=spec.id if spec else None,
        env_kwargs=dict(spec.kwargs) if spec else {},
        game=game,
        rom_md5=_md5(rom) if rom else None,
        actions=_action_count(env),
        heads=heads,
        settings={**_wrapping(env), **(settings or {})},
        versions={name: found for name in packages if (found := _version(name))},
    )


def _single(env: AnyEnv) -> gym.Env[Any, Any]:
    if not isinstance(env, gym.Env):
        raise RMRError(
            f"expected a single Gymnasium environment, found {type(env).__name__}: wrap each "
            "environment before they are put into a vector"
        )
    return env


def _columns_of(env: gym.Env[Any, Any], store: str) -> tuple[ColumnSpec, ...]:
    ale = _ale_of(env)
    if store == "observation" or ale is None:
        return observation_columns(env.observation_space)
    emulated = (
        ColumnSpec("pixels", "uint8", tuple(ale.getScreenDims()), "ale_palette"),
        ColumnSpec("ram", "uint8", (ale.getRAMSize(),)),
    )
    if not isinstance(env.observation_space, gym.spaces.Dict):
        return emulated
    shown = observation_columns(env.observation_space)
    return (*emulated, *(column for column in shown if column.name not in ("pixels", "ram")))


def _emulator_reader(env: gym.Env[Any, Any]) -> Callable[[], dict[str, np.ndarray]] | None:
    ale = _ale_of(env)
    if ale is None:
        return None
    return lambda: {"pixels": ale.getScreen(), "ram": ale.getRAM()}


def _ale_of(env: gym.Env[Any, Any]) -> Any:
    ale = getattr(env.unwrapped, "ale", None)
    return ale if hasattr(ale, "getRAM") and hasattr(ale, "getScreen") else None


def _game_and_rom(env: gym.Env[Any, Any]) -> tuple[str | None, str | None]:
    """Return the names of the game and of its ROM; both None if the environment does not tell."""
    game = getattr(env.unwrapped, "game", None)
    if isinstance(game, Game):
        return game.name, game.rom
    if env.spec is None:
        return None, None
    rom = env.spec.kwargs.get("game")
    try:
        return find_game(env.spec.id).name, rom
    except RMRError:
        return env.spec.name, rom


def _md5(rom: str) -> str | None:
    from ale_py import roms  # noqa: PLC0415

    path = roms.get_rom_path(rom)
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path else None


def _action_count(env: gym.Env[Any, Any]) -> int | None:
    space = env.action_space
    return int(space.n) if isinstance(space, gym.spaces.Discrete) else None


def _wrapping(env: gym.Env[Any, Any]) -> dict[str, Any]:
    if env.spec is None:
        return {"environment": type(env.unwrapped).__qualname__}
    return {
        "wrappers": [[each.name, each.kwargs] for each in env.spec.additional_wrappers],
        "max_episode_steps": env.spec.max_episode_steps,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
