"""What the manifest of a recording says about the environment, single or vector."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv, VectorObservationWrapper, VectorWrapper

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.data.schema import ColumnSpec, Manifest, flatten, observation_columns, step_columns
from rmr_gym.envs.atari.games import GAMES, Game, find_game

Env = TypeVar("Env")
AnyEnv = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]
_PACKAGES = ("rmr-gym", "gymnasium", "numpy", "h5py", "hdf5plugin", "zstandard", "xxhash")
_OF_MAKE_VEC = ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers", "max_episode_steps")
_OF_VECTORS = ("workers", "threads", "copy", "autoreset_mode")


@dataclass(frozen=True)
class Source:
    """What an environment, or a vector of them, shows and tells of itself.

    Attributes:
        space: Of one environment's observation.
        count: Number of environments.
        game: What they play, if known.
        palette: Screens of one channel hold palette indices.
        stacked: Three channels are frames of one channel, stacked, and no colours.
        action_names: Tells what each action presses, in ALE's words; None where nobody knows.
        frameskip: Emulated frames of a step, as far as they tell.
        noop_max: Frames without input at resets, at most, of this package's games.
        env: The environment itself, where there is just one: an ALE may be underneath.
    """

    space: Any
    count: int = 1
    game: str | None = None
    palette: bool = False
    stacked: bool = False
    action_names: Callable[[], Sequence[str] | None] = lambda: None
    frameskip: int | None = None
    noop_max: int = 0
    env: gym.Env[Any, Any] | None = None


def source_of(env: Any) -> Source:
    """Return what an environment tells of itself, or a vector of Gymnasium or Stable-Baselines3."""
    return Source(
        space=getattr(env, "single_observation_space", env.observation_space),
        count=1 if isinstance(env, gym.Env) else env.num_envs,
        game=name_of_game(env),
        palette=shows_palette(env),
        stacked=stacks_frames(env),
        action_names=partial(action_names, env),
        frameskip=frames_of_a_step(env),
        noop_max=spec.kwargs.get("noop_max", 0) if (spec := spec_of(env)) else 0,
        env=env if isinstance(env, gym.Env) else None,
    )


def describe(
    env: AnyEnv, *, heads: tuple[str, ...], settings: Mapping[str, Any] = {}, store: str = "auto"
) -> Manifest:
    """Return the manifest of a data set of this environment.

    Number and kind of the parallel copies of a vector are not in it: they change no episode.

    Args:
        env: The environment, wrapped as it will play.
        heads: Names of the behaviour heads that will play.
        settings: How it will be recorded, beyond the environment.
        store: As for `rmr_gym.wrappers.record.RecordTransitions`.

    Raises:
        RMRError: What it shows or takes cannot be stored.
    """
    known_name("choice of what to store", store, ("auto", "observation"))
    ale, kwargs = ale_of(env), dict(env.spec.kwargs) if env.spec else {}
    actions: Any = getattr(env, "single_action_space", env.action_space)
    tells = ale is not None or isinstance(env, VectorEnv)
    game = GAMES.get(name_of_game(env) or "") if tells else None
    rom = game.rom if game else ale and kwargs.get("game")
    one = getattr(env.unwrapped, "envs", [env])[0].unwrapped
    inner = getattr(one, "package", "mujoco")
    packages = (*_PACKAGES, "ale-py" if game or ale else inner)
    return Manifest(
        observations=_columns(env, game, store),
        steps=step_columns(actions),
        env_id=env.spec.id if env.spec else None,
        env_kwargs=kwargs if isinstance(env, gym.Env) else _without_vectors(kwargs),
        game=game.name if game else ale and env.spec and env.spec.name,
        rom_md5=_md5(rom) if rom else None,
        actions=int(actions.n) if isinstance(actions, gym.spaces.Discrete) else None,
        action_names=action_names(env),
        heads=heads,
        settings={**_wrapping(env, kwargs), **settings},
        versions={name: number for name in packages if (number := installed(name))},
    )


def require(kind: type[Env], env: Any, advice: str) -> Env:
    """Return an environment that is of the kind that is expected, single or vector.

    Raises:
        RMRError: It is of another; the advice says what to do.
    """
    if not isinstance(env, kind):
        wanted = "single" if kind is gym.Env else "vector"
        raise RMRError(
            f"expected a {wanted} Gymnasium environment, found {type(env).__name__}: {advice}"
        )
    return env


def ale_of(env: AnyEnv) -> Any:
    """Return the emulator under an environment, or None, as for any vector."""
    ale = getattr(env.unwrapped, "ale", None)
    return ale if hasattr(ale, "getRAM") and hasattr(ale, "getScreen") else None


def with_final(
    infos: dict[str, Any], over: np.ndarray, change: Callable[[Any, np.ndarray], Any]
) -> dict[str, Any]:
    """Return the infos of a vector with the last observations of episodes changed.

    Args:
        infos: Of a step under SAME_STEP.
        over: Whose episodes ended with it.
        change: From a batch of these last observations, and their environments, to a batch of what
            is shown instead.
    """
    ended = np.flatnonzero(over)
    if "final_obs" not in infos or not len(ended):
        return infos
    final = np.full(len(over), None, dtype=object)
    shown = change(batch_of([infos["final_obs"][i] for i in ended]), ended)
    for row, i in enumerate(ended):
        final[i] = row_of(shown, row)
    return {**infos, "final_obs": final}


def columns_now(env: AnyEnv, observation: Any, *, emulator: bool) -> Mapping[str, Any]:
    """Return an observation by columns, over ALE with the screen and the RAM of this instant.

    The emulator is asked for at every step: a copy of an environment has another one.
    """
    ale = ale_of(env) if emulator else None
    emulated = {} if ale is None else {"pixels": ale.getScreen(), "ram": ale.getRAM()}
    return {**flatten(observation), **emulated}


def spec_of(env: Any) -> EnvSpec | None:
    """Return what an environment was made by, and a vector; of Stable-Baselines3 its first copy."""
    return env.get_attr("spec", 0)[0] if hasattr(env, "env_method") else env.spec


def name_of_game(env: Any) -> str | None:
    """Return the name of what an environment plays, in our table or not, as far as it tells.

    A spec tells by an argument, or by its id where that is of a game.
    """
    game, spec = getattr(env.unwrapped, "game", None), spec_of(env)
    if isinstance(game, Game):
        return game.name
    of_games = spec is not None and spec.namespace in ("ALE", "rmr")
    named = spec and (spec.kwargs.get("game") or (spec.id if of_games else None))
    try:
        return find_game(named).name if named else None
    except RMRError:
        return spec and spec.name


def shows_palette(env: Any) -> bool:
    """Tell whether an environment's screens of one channel hold palette indices."""
    pixels, spec = getattr(env.unwrapped, "pixels", None), spec_of(env)
    if spec is not None:
        pixels = spec.kwargs.get("pixels", pixels)
        for wrapper in spec.additional_wrappers:
            pixels = (wrapper.kwargs or {}).get("pixels", pixels)
    return pixels == "palette"


def frames_of_a_step(env: Any) -> int | None:
    """Return how many frames are emulated in a step, as far as an environment or a vector tells.

    Wrappers that repeat actions, Gymnasium's and Stable-Baselines3's, count.
    """
    spec = spec_of(env)
    kwargs = spec.kwargs if spec else {}
    if "frameskip" not in kwargs and not (spec and spec.namespace in ("ALE", "rmr")):
        return None
    repeats = (getattr(layer, "frame_skip", getattr(layer, "_skip", 1)) for layer in _layers(env))
    return prod(repeats) * kwargs.get("frameskip", 4)


def action_names(env: Any) -> tuple[str, ...] | None:
    """Return what each action presses, or does, of an environment or a vector, where that is known.

    A wrapper that turns one discrete action into another (`gymnasium.ActionWrapper`) is followed to
    the names inside; any other change of the actions hides them.
    """
    space: Any = getattr(env, "single_action_space", env.action_space)
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        return None
    names = _names_within(env)
    return tuple(names) if names is not None and len(names) == space.n else None


def _names_within(env: Any) -> Sequence[str] | None:
    if hasattr(type(env), "get_action_meanings"):
        return env.get_action_meanings()
    _, *within = _layers(env)
    return _names_through(env, action_names(within[0])) if within else _names_of_copy(env)


def _names_of_copy(envs: Any) -> Sequence[str] | None:
    """Return what an environment of a vector tells; of one in another process, one made for it."""
    if getattr(envs, "envs", None):
        return action_names(envs.envs[0])
    if getattr(envs, "env_fns", None):
        with closing(envs.env_fns[0]()) as env:
            return action_names(env)
    told = hasattr(envs, "env_method") and envs.has_attr("get_action_meanings")
    return envs.env_method("get_action_meanings", indices=0)[0] if told else None


def _names_through(layer: Any, names: Sequence[str] | None) -> Sequence[str] | None:
    """Return what is known of the actions outside of a wrapper from the names inside."""
    space: Any = layer.action_space
    if names is None or isinstance(layer, gym.vector.VectorActionWrapper):
        return None
    if not isinstance(layer, gym.ActionWrapper) or isinstance(layer, gym.wrappers.StickyAction):
        return names
    taken = [int(layer.action(np.int64(i))) for i in range(space.n)]
    return [names[i] for i in taken] if {*taken} <= {*range(len(names))} else None


def stacks_frames(env: Any) -> bool:
    """Tell whether an environment, or a vector, shows three channels of a picture of one.

    What is inside `rmr_gym.wrappers.views.PairedObservation`, which reads the screen anew, does not
    count.
    """
    shapes = []
    for layer in _layers(env):
        space = getattr(layer, "single_observation_space", layer.observation_space)
        space = space.spaces.get("pixels") if isinstance(space, gym.spaces.Dict) else space
        shapes.append(tuple(getattr(space, "shape", None) or ()))
        if getattr(layer, "reads_the_emulator", False):
            break
    size, depth = shapes[0][:2], shapes[0][2:]
    return depth == (3,) and any(shape in (size, (*size, 1)) for shape in shapes)


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


def batch_of(observations: Sequence[Any]) -> Any:
    """Return observations, each of one environment, as a batch of them."""
    if isinstance(observations[0], Mapping):
        names = observations[0]
        return {name: np.stack([shown[name] for shown in observations]) for name in names}
    return np.stack(observations)


def row_of(batch: Any, row: Any) -> Any:
    """Return the part of one environment, or of some, of a batch of observations."""
    if isinstance(batch, Mapping):
        return {name: rows[row] for name, rows in batch.items()}
    return batch[row]


def _without_vectors(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a vector was made with beyond its environments."""
    own = _OF_VECTORS if kwargs.get("vectorization_mode") == "vector_entry_point" else ()
    return {name: kwargs[name] for name in kwargs if name not in (*_OF_MAKE_VEC, *own)}


def _columns(env: AnyEnv, game: Game | None, store: str) -> tuple[ColumnSpec, ...]:
    ale, space = ale_of(env), source_of(env).space
    if isinstance(env, VectorEnv) and game is not None and _shows_indices(env):
        sizes = space["pixels"].shape[:2], space["ram"].shape[0]
    elif ale is not None and store == "auto":
        sizes = tuple(ale.getScreenDims()), ale.getRAMSize()
    else:
        return observation_columns(space)
    shown = observation_columns(space) if isinstance(space, gym.spaces.Dict) else ()
    return (
        ColumnSpec("pixels", "uint8", sizes[0], "ale_palette"),
        ColumnSpec("ram", "uint8", (sizes[1],)),
        *(column for column in shown if column.name not in ("pixels", "ram")),
    )


def _shows_indices(envs: VectorEnv[Any, Any, Any]) -> bool:
    """Tell whether the pixels of a vector of `rmr_gym` games are palette indices, unchanged."""
    inner: Any = envs.unwrapped
    changed = envs.single_observation_space is not inner.single_observation_space or any(
        isinstance(layer, VectorObservationWrapper) for layer in _layers(envs)
    )
    within = envs.spec is not None and envs.spec.kwargs.get("wrappers")
    return not changed and not within and shows_palette(envs)


def _layers(env: Any) -> list[Any]:
    """Return an environment or a vector, Stable-Baselines3's too, and what it wraps, inwards."""
    wraps = isinstance(env, gym.Wrapper | VectorWrapper)
    inner = env.env if wraps else vars(env).get("venv")
    return [env] if inner is None else [env, *_layers(inner)]


def _md5(rom: str) -> str | None:
    from ale_py import roms  # noqa: PLC0415

    path = roms.get_rom_path(rom)
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path else None


def _wrapping(env: AnyEnv, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is around an environment or a vector, and around the vector's environments."""
    layers = [layer for layer in _layers(env) if isinstance(layer, VectorWrapper)]
    around = [[type(layer).__name__, None] for layer in reversed(layers)]
    kwargs = kwargs if isinstance(env, VectorEnv) else {}
    if env.spec is None:
        alone = {"environment": type(env.unwrapped).__qualname__}
        return {**alone, "wrappers": around} if isinstance(env, VectorEnv) else alone
    named = [[wrapper.name, wrapper.kwargs] for wrapper in env.spec.additional_wrappers]
    within = [[getattr(made, "__name__", repr(made)), None] for made in kwargs.get("wrappers", ())]
    return {
        "wrappers": named + within + around,
        "max_episode_steps": kwargs.get("max_episode_steps", env.spec.max_episode_steps),
    }


def installed(package: str) -> str | None:
    """Return the version of a package that is installed, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
