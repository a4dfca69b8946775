"""Local views: small crops of a picture around random points, and where the next ones will be."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorObservationWrapper
from gymnasium.vector.utils import batch_space
from jaxtyping import Float, Int, Shaped

from rmr_gym.core.errors import RMRError, from_options, known_name
from rmr_gym.core.seeding import generator
from rmr_gym.envs.arguments import all_seeds
from rmr_gym.wrappers.describe import batch_of_one, row_of
from rmr_gym.wrappers.occlusion import picture_space

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


class RandomCrops(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
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
        >>> from rmr_gym.wrappers.crops import RandomCrops
        >>> env = RandomCrops(gym.make("rmr/S2RMBalls3-v0"))
        >>> observation, info = env.reset(seed=0)
        >>> after = env.step(0)[0]
        >>> observation["crops"].shape, (observation["queries"] == after["positions"]).all().item()
        ((10, 11, 11, 1), True)
    """

    def __init__(self, env: gym.Env, **options: Any):
        chosen = from_options(CropOptions, options)
        RecordConstructorArgs.__init__(self, **asdict(chosen))
        super().__init__(env)
        self._views = _Views(self.observation_space, chosen, 1)
        self.observation_space = self._views.space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; a seed also sets where the crops are."""
        self._views.reset([seed])
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        """Return crops, their positions and the next ones' positions."""
        return row_of(self._views.look(batch_of_one(observation)), 0)


class VectorRandomCrops(VectorObservationWrapper[Any, Any, Any, Any]):
    """`RandomCrops` around a vector of environments, bit-equal to it around each.

    World i of ``reset(seed=s)`` sees the crops of `RandomCrops` after ``reset(seed=s + i)``.

    Args:
        env: A vector environment.
        **options: Fields of `CropOptions`.

    Raises:
        RMRError: As `RandomCrops`.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], **options: Any):
        super().__init__(env)
        chosen = from_options(CropOptions, options)
        self._views = _Views(env.single_observation_space, chosen, env.num_envs)
        self.single_observation_space = self._views.space
        self.observation_space = batch_space(self._views.space, env.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every world; a seed also sets where the crops are."""
        self._views.reset(all_seeds(seed, self.num_envs))
        given: Any = seed
        return super().reset(seed=given, options=options)

    def observations(self, observations: Any) -> dict[str, np.ndarray]:
        """Return crops, their positions and the next ones' positions in every world."""
        return self._views.look(observations)


class _Views:
    """What single and vector wrapper have in common: spaces, streams, centres, crops."""

    def __init__(self, space: spaces.Space[Any], options: CropOptions, count: int):
        picture = picture_space(space, options.key)
        self._height, self._width, *channels = picture.shape
        crops, size = options.crops, options.size
        _check_crops(crops, size, min(self._height, self._width))
        self._crops, self._size, self._key = crops, size, options.key
        kept = space.spaces if isinstance(space, spaces.Dict) else {self._key: picture}
        self._keep = [known_name("entry of the observation", name, kept) for name in options.keep]
        shape = (crops, size, size, *(channels or [1]))
        self.space = spaces.Dict(
            {
                "crops": spaces.Box(0, 255, shape, np.uint8),
                "positions": spaces.Box(-1, 1, (crops, 2), np.float32),
                "queries": spaces.Box(-1, 1, (crops, 2), np.float32),
                **{name: kept[name] for name in self._keep},
            }
        )
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

    def look(self, observations: Any) -> dict[str, np.ndarray]:
        """Return what every world shows, and draw where it is looked at next."""
        bare = not isinstance(observations, dict)
        batch = {self._key: observations} if bare else observations
        now, self._next = self._next, np.stack([self._draw(rng) for rng in self._generators])
        frames = batch[self._key]
        frames = frames if frames.ndim == 4 else frames[..., None]
        return {
            "crops": crop(frames, now, self._size),
            "positions": _as_positions(now, self._height, self._width),
            "queries": _as_positions(self._next, self._height, self._width),
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


def _check_crops(crops: int, size: int, smallest_side: int) -> None:
    if crops < 1:
        raise RMRError(f"expected 1 crop or more a step, found {crops!r}")
    if size < 1 or size % 2 == 0 or size > smallest_side:
        raise RMRError(
            f"expected an odd size of crops from 1 to {smallest_side}, the picture's side, "
            f"found {size!r}"
        )
