"""What the manifest of a recording says about the environment, single or vector."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv, VectorObservationWrapper, VectorWrapper

from rmr_gym.core.errors import RMRError, known_name
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
    env_kwargs: dict[str, Any]
    wrapping: dict[str, Any]
    on_ale: bool
    game: str | None
    rom: str | None


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
    known_name("choice of what to store", store, STORES)
    facts = _of_vector(env) if isinstance(env, VectorEnv) else _of_single(env, store)
    packages = (*_PACKAGES, "ale-py" if facts.on_ale else "mujoco")
    return Manifest(
        observations=facts.observations,
        steps=step_columns(facts.actions),
        env_id=env.spec.id if env.spec else None,
        env_kwargs=facts.env_kwargs,
        game=facts.game,
        rom_md5=_md5(facts.rom) if facts.rom else None,
        actions=int(facts.actions.n) if isinstance(facts.actions, gym.spaces.Discrete) else None,
        heads=heads,
        settings={**facts.wrapping, **(settings or {})},
        versions={name: number for name in packages if (number := _version(name))},
    )


def ale_of(env: gym.Env[Any, Any]) -> Any:
    """Return the emulator under an environment, or None."""
    ale = getattr(env.unwrapped, "ale", None)
    return ale if hasattr(ale, "getRAM") and hasattr(ale, "getScreen") else None


def known_game(unwrapped: Any, spec: EnvSpec | None) -> Game | None:
    """Return the game of our table that an environment plays, as far as it tells."""
    game = getattr(unwrapped, "game", None)
    if isinstance(game, Game):
        return game
    name = _named_game(spec)
    try:
        return find_game(name) if name else None
    except RMRError:
        return None


def name_of_game(unwrapped: Any, spec: EnvSpec | None) -> str | None:
    """Return the name of what an environment plays, in our table or not, as far as it tells."""
    game = known_game(unwrapped, spec)
    if game is not None:
        return game.name
    return spec.name if spec and _named_game(spec) else None


def shows_palette(unwrapped: Any, spec: EnvSpec | None) -> bool:
    """Tell whether an environment's screens of one channel hold palette indices."""
    pixels = getattr(unwrapped, "pixels", None)
    if spec is not None:
        pixels = spec.kwargs.get("pixels", pixels)
        for wrapper in spec.additional_wrappers:
            pixels = (wrapper.kwargs or {}).get("pixels", pixels)
    return pixels == "palette"


def autoreset_mode(envs: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """Return what a vector does after an episode's end.

    Raises:
        RMRError: It does not declare it.
    """
    mode = envs.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise RMRError(
            'expected a vector environment that declares metadata["autoreset_mode"] as one of '
            f"Gymnasium's AutoresetMode, found {mode!r} in {type(envs.unwrapped).__name__}: "
            "without it, episodes cannot be told apart"
        )
    return mode


def row_of(batch: Any, row: int) -> Any:
    """Return one environment's part of a batch of observations."""
    if isinstance(batch, Mapping):
        return {name: rows[row] for name, rows in batch.items()}
    return batch[row]


def _named_game(spec: EnvSpec | None) -> str | None:
    """Return what a spec calls its game: an argument, or the id where that is of a game."""
    if spec is None:
        return None
    return spec.kwargs.get("game") or (spec.id if spec.namespace in ("ALE", "rmr") else None)


def _of_single(env: gym.Env[Any, Any], store: str) -> _Facts:
    if not isinstance(env, gym.Env):
        raise RMRError(f"expected a Gymnasium environment, found {type(env).__name__}")
    kwargs = dict(env.spec.kwargs) if env.spec else {}
    on_ale = ale_of(env) is not None
    game = known_game(env.unwrapped, env.spec) if on_ale else None
    name = env.spec.name if on_ale and env.spec else None
    return _Facts(
        observations=_columns_of(env, store),
        actions=env.action_space,
        env_kwargs=kwargs,
        wrapping=_wrapping(env),
        on_ale=on_ale,
        game=game.name if game else name,
        rom=game.rom if game else kwargs.get("game") if on_ale else None,
    )


def _of_vector(envs: VectorEnv[Any, Any, Any]) -> _Facts:
    game = known_game(envs.unwrapped, envs.spec)
    kwargs = dict(envs.spec.kwargs) if envs.spec else {}
    own = kwargs.get("vectorization_mode") == "vector_entry_point"
    dropped = (*_OF_MAKE_VEC, *_OF_VECTORS) if own else _OF_MAKE_VEC
    return _Facts(
        observations=_columns_of_vector(envs, game),
        actions=envs.single_action_space,
        env_kwargs={name: value for name, value in kwargs.items() if name not in dropped},
        wrapping=_wrapping_of_vector(envs, kwargs),
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
    if game is None or not _shows_indices(envs):
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


def _shows_indices(envs: VectorEnv[Any, Any, Any]) -> bool:
    """Tell whether the pixels of a vector of `rmr_gym` games are palette indices, unchanged."""
    changed = any(isinstance(layer, VectorObservationWrapper) for layer in _layers(envs))
    within = envs.spec is not None and envs.spec.kwargs.get("wrappers")
    return not changed and not within and shows_palette(envs.unwrapped, envs.spec)


def _layers(envs: VectorEnv[Any, Any, Any]) -> list[VectorWrapper[Any, Any, Any, Any, Any]]:
    """Return the wrappers around a vector, outermost first."""
    layers = []
    while isinstance(envs, VectorWrapper):
        layers.append(envs)
        envs = envs.env
    return layers


def _md5(rom: str) -> str | None:
    from ale_py import roms  # noqa: PLC0415

    path = roms.get_rom_path(rom)
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path else None


def _wrappers(spec: EnvSpec) -> list[list[Any]]:
    return [[wrapper.name, wrapper.kwargs] for wrapper in spec.additional_wrappers]


def _wrapping(env: gym.Env[Any, Any]) -> dict[str, Any]:
    if env.spec is None:
        return {"environment": type(env.unwrapped).__qualname__}
    return {
        "wrappers": _wrappers(env.spec),
        "max_episode_steps": env.spec.max_episode_steps,
    }


def _wrapping_of_vector(envs: VectorEnv[Any, Any, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    around = [[type(layer).__name__, None] for layer in reversed(_layers(envs))]
    if envs.spec is None:
        return {"environment": type(envs.unwrapped).__qualname__, "wrappers": around}
    within = [[getattr(made, "__name__", repr(made)), None] for made in kwargs.get("wrappers", ())]
    return {
        "wrappers": _wrappers(envs.spec) + within + around,
        "max_episode_steps": kwargs.get("max_episode_steps", envs.spec.max_episode_steps),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
