"""What an environment shows, changed: RAM and pixels instead, a curtain over it, crops of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Int, Shaped

from rmr_gym.core.errors import RMRError, from_options, known_name
from rmr_gym.core.seeding import generator
from rmr_gym.envs.arguments import Info, Seed, Seeds, all_seeds, plain_seed
from rmr_gym.envs.atari.env import Pixels, ScreenAndRAM
from rmr_gym.envs.balls.config import check_sides
from rmr_gym.envs.balls.pictures import draw_curtain, hide
from rmr_gym.wrappers.describe import ale_of, batch_of, require, row_of, with_final


class PairedObservation(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Replaces the observation by the pair of RAM and screen, read from the ALE underneath.

    Observation: ``Dict(ram: uint8[128], pixels: uint8[height, width, 1 or 3])``, both read when the
    wrapped environment has returned, so after the last frame that it emulated; ``height`` and
    ``width`` are the screen's own (210 x 160 in the paper's games). Action, reward, end and time
    step are those of the wrapped environment.

    What the wrapped environment makes of its observation does not matter: RGB, gray or RAM,
    `gymnasium.wrappers.AtariPreprocessing` or stacked frames. Max-pooling, resizing and stacking in
    there do not touch what is read here: the pixels are the unpooled screen of the last frame in
    full size, the instant that the RAM belongs to. A wrapper that shows the past (delayed
    observations) is therefore undone: the pair is always of now.

    Differs: ALE's own environments repeat actions with probability 0.25 unless told otherwise, and
    their reset without a seed remembers some of the last episode in some games; neither is changed
    here. `rmr_gym.envs.atari.env.PairedAtariEnv` does neither by default.

    Args:
        env: A Gymnasium environment over ALE, wrapped or not, for instance
            ``gym.make("ALE/Pong-v5", repeat_action_probability=0.0, full_action_space=True)``.
        pixels: ``"gray"``, ``"palette"`` (palette indices) or ``"rgb"``.

    Raises:
        RMRError: The environment has no ALE underneath, or ``pixels`` is none of the three.

    Example:
        >>> import ale_py
        >>> import gymnasium as gym
        >>> from rmr_gym.wrappers import PairedObservation
        >>> gym.register_envs(ale_py)
        >>> env = PairedObservation(gym.make("ALE/Alien-v5", obs_type="ram"))
        >>> observation, info = env.reset(seed=0)
        >>> observation["ram"].shape, observation["pixels"].shape
        ((128,), (210, 160, 1))
    """

    reads_the_emulator = True

    def __init__(self, env: gym.Env, pixels: Pixels = "gray"):
        gym.utils.RecordConstructorArgs.__init__(self, pixels=pixels)
        ale = ale_of(require(gym.Env, env, "wrap each environment before they go into a vector"))
        if ale is None:
            raise RMRError(
                "expected an environment over ALE, for instance gym.make('ALE/Pong-v5'), found "
                f"{env}: it has no emulator whose RAM could be read"
            )
        super().__init__(env)
        self._reader = ScreenAndRAM(ale, pixels)
        self.observation_space = self._reader.space

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        """Return RAM and screen of this instant; ``observation`` is not looked at."""
        return self._reader.read(ale_of(self.env))


class Curtain(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Hides a rectangle of the picture, whose place and size are drawn at each reset.

    The observation space is that of the wrapped environment; info gains ``curtain`` int64[4], the
    first row, first column, rows and columns of the rectangle. Draws come from a stream of the
    wrapper's own that ``reset(seed=...)`` sets, so that the wrapped environment does what it does
    without a curtain.

    Source: R-NEM, section 4.2 and appendix A.1: a curtain at a random place in each sequence.
    Differs: the paper states neither its size nor its shape.

    Args:
        env: An environment whose observation is a picture, or a Dict that holds one.
        sides: (smallest, largest) side as a fraction of the picture's height and width.
        key: The picture's entry in a Dict observation.
        color: Value of hidden pixels in all channels; the curtain is invisible in the
            background's colour.

    Raises:
        RMRError: The observation holds no such picture, or the sides cannot be.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> from rmr_gym.wrappers.views import Curtain
        >>> env = Curtain(gym.make("rmr/RNEMBalls4-v0"), sides=(0.5, 0.5))
        >>> observation, info = env.reset(seed=0)
        >>> info["curtain"][2:].tolist()
        [32, 32]
    """

    def __init__(
        self, env: gym.Env, sides: Sequence[float] = (0.3, 0.5), key: str = "pixels", color: int = 0
    ):
        gym.utils.RecordConstructorArgs.__init__(self, sides=sides, key=key, color=color)
        super().__init__(env)
        self._sides, self._color = tuple(sides), color
        check_sides(self._sides)
        self._key = key if isinstance(self.observation_space, spaces.Dict) else None
        self._height, self._width = picture_space(self.observation_space, key).shape[:2]
        self._rng = np.random.default_rng()
        self._curtain = np.zeros(4, np.int64)

    def reset(self, *, seed: Seed = None, options: Info | None = None) -> tuple[Any, Info]:
        """Begin an episode behind a new curtain."""
        number = plain_seed(seed)
        if number is not None:
            self._rng = generator(number, "curtain")
        observation, info = self.env.reset(seed=number, options=options)
        self._curtain = draw_curtain(self._rng, self._sides, self._height, self._width)
        return self.observation(observation), {**info, "curtain": self._curtain.copy()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        """Step the wrapped environment."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "curtain": self._curtain.copy()}

    def observation(self, observation: Any) -> Any:
        """Return the observation with the curtain painted into a copy of its picture."""
        picture = np.array(observation if self._key is None else observation[self._key])
        hide(picture, self._curtain, self._color)
        return picture if self._key is None else {**observation, self._key: picture}


def picture_space(space: spaces.Space[Any], key: str) -> Any:
    """Return the space of the picture in an observation.

    Args:
        space: A Box of bytes [height, width] or [height, width, channels], or a Dict that holds
            one.
        key: Its entry in a Dict.

    Raises:
        RMRError: There is none.
    """
    picture: Any = space
    if isinstance(space, spaces.Dict):
        picture = space[known_name("entry of the observation", key, space.spaces)]
    shape = picture.shape or ()
    if not isinstance(picture, spaces.Box) or len(shape) not in (2, 3) or picture.dtype != np.uint8:
        raise RMRError(
            f"expected a picture of bytes, [height, width] or [height, width, channels], as "
            f"observation or as its entry {key!r}, found {picture}"
        )
    return picture


Frames = Shaped[np.ndarray, "batch height width channels"]


@dataclass(frozen=True)
class CropOptions:
    """Which crops are shown.

    Args:
        crops: Number A of crops a step.
        size: Height and width of a crop in pixels, odd.
        key: The picture's entry in a Dict observation.
        keep: Entries of a Dict observation to show as well, ``"pixels"`` for instance to evaluate.
    """

    crops: int = 10
    size: int = 11
    key: str = "pixels"
    keep: Sequence[str] = ()


class RandomCrops(gym.ObservationWrapper[Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Shows a picture only through crops around pixels drawn uniformly at every step.

    Observation: ``Dict(crops: uint8[A, size, size, channels], positions: float32[A, 2], queries:
    float32[A, 2])``, and the entries of the wrapped observation named in ``keep``. ``positions``
    are the crops' centres as (x, y) in [-1, 1], x to the right and y upwards as in the state of the
    balls; crops that reach over the edge are padded with zeros. ``queries`` are the centres of the
    next observation's crops: to predict them is the task, and their truth comes with the next step.

    Draws come from a stream of the wrapper's own that ``reset(seed=...)`` sets.

    Source: S2RM, section 6 and appendix B.2: A = 10 crops of 11 x 11 from frames of 48 x 48.
    Differs: the paper draws queries and the next inputs independently; here they are the same
    points, as in its rollouts (appendix F.1), where predicted crops are fed back.

    Args:
        env: An environment whose observation is a picture, or a Dict that holds one.
        **options: Fields of `CropOptions`.

    Raises:
        RMRError: The observation holds no such picture or entry, or crops that cannot be.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> from rmr_gym.wrappers.views import RandomCrops
        >>> env = RandomCrops(gym.make("rmr/S2RMBalls3-v0"))
        >>> observation, info = env.reset(seed=0)
        >>> after = env.step(0)[0]
        >>> observation["crops"].shape, (observation["queries"] == after["positions"]).all().item()
        ((10, 11, 11, 1), True)
    """

    def __init__(self, env: gym.Env, **options: Any):
        chosen = from_options(CropOptions, options)
        gym.utils.RecordConstructorArgs.__init__(self, **asdict(chosen))
        super().__init__(env)
        self._views = _Views(self.observation_space, chosen, 1)
        self.observation_space = self._views.space

    def reset(self, *, seed: Seed = None, options: Info | None = None) -> tuple[Any, Info]:
        """Begin an episode; a seed also sets where the crops are."""
        self._views.reset(all_seeds(seed, 1))
        return super().reset(seed=plain_seed(seed), options=options)

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        """Return crops, their positions and the next ones' positions."""
        return row_of(self._views.look(batch_of([observation])), 0)


class VectorRandomCrops(gym.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """`RandomCrops` around a vector of environments, bit-equal to it around each.

    World i of ``reset(seed=s)`` sees the crops of `RandomCrops` after ``reset(seed=s + i)``.

    Args:
        env: A vector environment.
        **options: Fields of `CropOptions`.

    Raises:
        RMRError: As `RandomCrops`.
    """

    def __init__(self, env: gym.vector.VectorEnv[Any, Any, Any], **options: Any):
        super().__init__(env)
        chosen = from_options(CropOptions, options)
        self._views = _Views(env.single_observation_space, chosen, env.num_envs)
        self.single_observation_space = self._views.space
        self.observation_space = gym.vector.utils.batch_space(self._views.space, env.num_envs)

    def reset(self, *, seed: Seeds = None, options: Info | None = None) -> tuple[Any, Info]:
        """Begin an episode in every world, or in those of ``options["reset_mask"]``.

        A seed also sets where the crops are.
        """
        mask = (options or {}).get("reset_mask")
        self._views.reset(all_seeds(seed, self.num_envs))
        observations, infos = self.env.reset(seed=plain_seed(seed), options=options)
        if mask is None:
            return self._look(observations), infos
        begun = self._views.look(row_of(observations, mask), mask)
        self._shown = {name: rows.copy() for name, rows in self._shown.items()}
        for name, rows in begun.items():
            self._shown[name][mask] = rows
        return self._shown, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:
        """Step the wrapped environments; last observations become crops too."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        if self.env.metadata.get("autoreset_mode") is gym.vector.AutoresetMode.SAME_STEP:
            infos = with_final(infos, terminated | truncated, self._views.look)
        return self._look(observations), rewards, terminated, truncated, infos

    def _look(self, observations: Any) -> dict[str, np.ndarray]:
        self._shown = self._views.look(observations)
        return self._shown


class _Views:
    """What single and vector wrapper have in common: spaces, streams, centres, crops."""

    def __init__(self, space: spaces.Space[Any], options: CropOptions, count: int):
        picture = picture_space(space, options.key)
        self._height, self._width, *channels = picture.shape
        crops, size, side = options.crops, options.size, min(self._height, self._width)
        if crops < 1 or size < 1 or size % 2 == 0 or size > side:
            raise RMRError(
                f"expected 1 crop or more a step, of an odd size from 1 to {side}, the picture's "
                f"side, found {crops!r} of size {size!r}"
            )
        self._crops, self._size, self._key = crops, size, options.key
        kept = space.spaces if isinstance(space, spaces.Dict) else {self._key: picture}
        self._keep = [known_name("entry of the observation", name, kept) for name in options.keep]
        shape = (crops, size, size, *(channels or [1]))
        centres = spaces.Box(-1, 1, (crops, 2), np.float32)
        own = {"crops": spaces.Box(0, 255, shape, np.uint8), "positions": centres}
        own |= {"queries": centres} | {name: kept[name] for name in self._keep}
        self.space = spaces.Dict(own)
        self._generators = [np.random.default_rng() for _ in range(count)]
        self._next = np.stack([self._draw(rng) for rng in self._generators])

    def reset(self, seeds: Sequence[int | None]) -> None:
        """Draw anew where the crops are, if there are seeds."""
        for world, seed in enumerate(seeds):
            if seed is not None:
                self._generators[world] = generator(seed, "crops")
                self._next[world] = self._draw(self._generators[world])

    def _draw(self, rng: np.random.Generator) -> Int[np.ndarray, "crops 2"]:
        """Draw the (row, column) of new centres in one world."""
        return rng.integers(0, (self._height, self._width), (self._crops, 2))

    def look(self, observations: Any, worlds: Any = slice(None)) -> dict[str, np.ndarray]:
        """Return what worlds, every one or some, show, and draw where they are looked at next."""
        bare = not isinstance(observations, dict)
        batch = {self._key: observations} if bare else observations
        chosen = np.arange(len(self._next))[worlds]
        now, after = self._next[chosen], np.stack([self._draw(self._generators[i]) for i in chosen])
        self._next[chosen] = after
        frames = batch[self._key]
        frames = frames if frames.ndim == 4 else frames[..., None]
        return {
            "crops": crop(frames, now, self._size),
            "positions": _as_positions(now, self._height, self._width),
            "queries": _as_positions(after, self._height, self._width),
            **{name: batch[name] for name in self._keep},
        }


def crop(
    frames: Frames, centres: Int[np.ndarray, "batch crops 2"], size: int
) -> Shaped[np.ndarray, "batch crops size size channels"]:
    """Cut squares out of frames, padded with zeros where they reach over the edge.

    Args:
        frames: One picture a world.
        centres: (row, column) of each crop's middle pixel.
        size: Height and width of a crop, odd.
    """
    reach = size // 2
    padded = np.pad(frames, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    world = np.arange(len(frames))[:, None, None, None]
    rows = centres[:, :, 0, None, None] + np.arange(size)[:, None]
    columns = centres[:, :, 1, None, None] + np.arange(size)
    return padded[world, rows, columns]


def _as_positions(
    centres: Int[np.ndarray, "batch crops 2"], height: int, width: int
) -> Float[np.ndarray, "batch crops 2"]:
    """Return the middle of pixels (row, column) as (x, y) in [-1, 1], y upwards."""
    x = (2 * centres[..., 1] + 1) / width - 1
    y = 1 - (2 * centres[..., 0] + 1) / height
    return np.stack([x, y], axis=-1).astype(np.float32)
