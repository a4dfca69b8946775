"""What the manifest of a recording says about the environment, single or vector."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv, VectorObservationWrapper, VectorWrapper

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.data.schema import ColumnSpec, Manifest, observation_columns, step_columns
from rmr_gym.envs.atari.games import Game, find_game

AnyEnv = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]
STORES = ("auto", "observation")
_PACKAGES = ("rmr-gym", "gymnasium", "numpy", "h5py", "hdf5plugin", "zstandard", "xxhash")
_OF_MAKE_VEC = ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "max_episode_steps")
_OF_VECTORS = ("workers", "threads", "copy", "autoreset_mode")


@dataclass(frozen=True)
class _Facts:
    """What is asked of an environment, whatever its kind."""

    observations: tuple[ColumnSpec, ...]
    actions: gym.Space[Any]
    env_id: str | None
    env_kwargs: dict[str, Any]
    settings: dict[str, Any]
    on_ale: bool = False
    game: str | None = None
    rom: str | None = None


def describe(
    env: AnyEnv,
    *,
    heads: tuple[str, ...],
    settings: Mapping[str, Any] | None = None,
    store: str = "auto",
) -> Manifest:
    """Return the manifest of a data set of this environment.

    Number and kind of the parallel copies of a vector are not in it: they change no episode.

    Args:
        env: The environment, wrapped as it will play.
        heads: Names of the behaviour heads that will play.
        settings: How it will be recorded, beyond the environment.
        store: As for `rmr_gym.wrappers.record.RecordTransitions`.

    Raises:
        RMRError: The environment is none, or what it shows or takes cannot be stored.
    """
    if store not in STORES:
        raise unknown_name("choice of what to store", str(store), STORES)
    facts = _of_vector(env) if isinstance(env, VectorEnv) else _of_single(env, store)
    packages = (*_PACKAGES, "ale-py") if facts.on_ale else (*_PACKAGES, "mujoco")
    return Manifest(
        observations=facts.observations,
        steps=step_columns(facts.actions),
        env_id=facts.env_id,
        env_kwargs=facts.env_kwargs,
        game=facts.game,
        rom_md5=_md5(facts.rom) if facts.rom else None,
        actions=int(facts.actions.n) if isinstance(facts.actions, gym.spaces.Discrete) else None,
        heads=heads,
        settings={**facts.settings, **(settings or {})},
        versions={name: found for name in packages if (found := _version(name))},
    )


def ale_of(env: gym.Env[Any, Any]) -> Any:
    """Return the emulator under an environment, or None."""
    ale = getattr(env.unwrapped, "ale", None)
    return ale if hasattr(ale, "getRAM") and hasattr(ale, "getScreen") else None


def _of_single(env: gym.Env[Any, Any], store: str) -> _Facts:
    if not isinstance(env, gym.Env):
        raise RMRError(f"expected a Gymnasium environment, found {type(env).__name__}")
    spec, on_ale = env.spec, ale_of(env) is not None
    game, rom = _game_and_rom(env) if on_ale else (None, None)
    return _Facts(
        observations=_columns_of(env, store),
        actions=env.action_space,
        env_id=spec.id if spec else None,
        env_kwargs=dict(spec.kwargs) if spec else {},
        settings=_wrapping(env),
        on_ale=on_ale,
        game=game,
        rom=rom,
    )


def _of_vector(envs: VectorEnv[Any, Any, Any]) -> _Facts:
    spec, game = envs.spec, _game_of(envs)
    kwargs = dict(spec.kwargs) if spec else {}
    own = kwargs.get("vectorization_mode") == "vector_entry_point"
    dropped = (*_OF_MAKE_VEC, *_OF_VECTORS) if own else _OF_MAKE_VEC
    return _Facts(
        observations=_columns_of_vector(envs, game),
        actions=envs.single_action_space,
        env_id=spec.id if spec else None,
        env_kwargs={name: value for name, value in kwargs.items() if name not in dropped},
        settings=_wrapping_of_vector(envs, kwargs),
        on_ale=game is not None,
        game=game.name if game else None,
        rom=game.rom if game else None,
    )


def _columns_of(env: gym.Env[Any, Any], store: str) -> tuple[ColumnSpec, ...]:
    ale = ale_of(env)
    if store == "observation" or ale is None:
        return observation_columns(env.observation_space)
    return _columns_on_ale(env.observation_space, ale.getScreenDims(), ale.getRAMSize())


def _columns_of_vector(envs: VectorEnv[Any, Any, Any], game: Game | None) -> tuple[ColumnSpec, ...]:
    space: Any = envs.single_observation_space
    if game is None or not _shows_palette(envs):
        return observation_columns(space)
    return _columns_on_ale(space, space["pixels"].shape[:2], space["ram"].shape[0])


def _columns_on_ale(
    space: gym.Space[Any], screen: tuple[int, ...], ram: int
) -> tuple[ColumnSpec, ...]:
    emulated = (
        ColumnSpec("pixels", "uint8", tuple(screen), "ale_palette"),
        ColumnSpec("ram", "uint8", (ram,)),
    )
    if not isinstance(space, gym.spaces.Dict):
        return emulated
    shown = observation_columns(space)
    return (*emulated, *(column for column in shown if column.name not in ("pixels", "ram")))


def _shows_palette(envs: VectorEnv[Any, Any, Any]) -> bool:
    """Tell whether the pixels of a vector of `rmr_gym` games are palette indices, unchanged."""
    if any(isinstance(layer, VectorObservationWrapper) for layer in _layers(envs)):
        return False
    kwargs = envs.spec.kwargs if envs.spec else {}
    shown = getattr(envs.unwrapped, "pixels", kwargs.get("pixels"))
    return shown == "palette" and not kwargs.get("wrappers")


def _layers(envs: VectorEnv[Any, Any, Any]) -> list[VectorWrapper[Any, Any, Any, Any, Any]]:
    """Return the wrappers around a vector, outermost first."""
    layers = []
    while isinstance(envs, VectorWrapper):
        layers.append(envs)
        envs = envs.env
    return layers


def _game_of(envs: VectorEnv[Any, Any, Any]) -> Game | None:
    game = getattr(envs.unwrapped, "game", None)
    if isinstance(game, Game):
        return game
    if envs.spec is None or envs.spec.namespace not in ("rmr", "ALE"):
        return None
    try:
        return find_game(envs.spec.id)
    except RMRError:
        return None


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


def _wrapping(env: gym.Env[Any, Any]) -> dict[str, Any]:
    if env.spec is None:
        return {"environment": type(env.unwrapped).__qualname__}
    return {
        "wrappers": [[each.name, each.kwargs] for each in env.spec.additional_wrappers],
        "max_episode_steps": env.spec.max_episode_steps,
    }


def _wrapping_of_vector(envs: VectorEnv[Any, Any, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    around = [[type(layer).__name__, None] for layer in reversed(_layers(envs))]
    if envs.spec is None:
        return {"environment": type(envs.unwrapped).__qualname__, "wrappers": around}
    within = [[each.name, each.kwargs] for each in envs.spec.additional_wrappers]
    within += [[getattr(each, "__name__", repr(each)), None] for each in kwargs.get("wrappers", ())]
    return {
        "wrappers": within + around,
        "max_episode_steps": kwargs.get("max_episode_steps", envs.spec.max_episode_steps),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
