"""A curtain over the picture: part of it is hidden for an episode, the world behind it goes on."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.core.seeding import generator
from rmr_gym.envs.balls.config import parse_sides
from rmr_gym.envs.balls.raster import draw_curtain, hide


class Curtain(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
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
        >>> from rmr_gym.wrappers.occlusion import Curtain
        >>> env = Curtain(gym.make("rmr/RNEMBalls4-v0"), sides=(0.5, 0.5))
        >>> observation, info = env.reset(seed=0)
        >>> info["curtain"][2:].tolist()
        [32, 32]
    """

    def __init__(
        self,
        env: gym.Env,
        sides: Sequence[float] = (0.3, 0.5),
        key: str = "pixels",
        color: int = 0,
    ):
        RecordConstructorArgs.__init__(self, sides=sides, key=key, color=color)
        super().__init__(env)
        self._sides, self._color = parse_sides(tuple(sides)), color
        self._key = key if isinstance(self.observation_space, spaces.Dict) else None
        self._height, self._width = picture_space(self.observation_space, key).shape[:2]
        self._rng = np.random.default_rng()
        self._curtain = np.zeros(4, np.int64)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode behind a new curtain."""
        if seed is not None:
            self._rng = generator(seed, "curtain")
        observation, info = self.env.reset(seed=seed, options=options)
        self._curtain = draw_curtain(self._rng, self._sides, self._height, self._width)
        return self.observation(observation), {**info, "curtain": self._curtain.copy()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
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
