"""From what an environment shows to the frames that a pixel encoder was trained on."""

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float32, UInt8

from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import PALETTE_GRAY
from rmr_gym.domains.atari import area_overlaps, rounded_means
from rmr_gym.models.rmr.kernels import library_of, structure
from rmr_gym.wrappers.describe import ale_of

Frames = UInt8[np.ndarray, "batch height width"]

SCREEN = (210, 160)
"""Rows and columns of the screen that encoders are trained on."""

_LUMA = np.array([0.2989, 0.5870, 0.1140], np.float32)
_UPWARDS = 0.5001
"""Rounds means that end in .5 upwards, whatever the last bits of a sum are."""


class Shrinker:
    """Averages gray screens into smaller frames by area, byte-equal to what encoders train on.

    Weights repeat along the screen (5 rows become 2 where 210 become 84), so that a small block of
    them is applied to every strip: the same sums as with whole weight matrices, without zeros.

    Args:
        height: Rows of a frame, 1 to 210.
        width: Columns of a frame, 1 to 160.

    Attributes:
        strip: Rows of the screen that by themselves become whole rows of the frame.
        shape: Of what a strip becomes.
    """

    def __init__(self, height: int, width: int):
        self._rows = _repeating(area_overlaps(SCREEN[0], height))
        columns = _repeating(area_overlaps(SCREEN[1], width))
        self._columns = np.ascontiguousarray(columns.T)
        self._unchanged = (height, width) == SCREEN
        self.strip, self.shape = self._rows.shape[1], (len(self._rows), width)

    def __call__(self, screens: Float32[np.ndarray, "batch rows 160"]) -> Frames:
        """Return the frames of gray screens (0 to 255), or of some strips of each."""
        if self._unchanged:
            return screens.astype(np.uint8)
        fewer = np.matmul(self._rows, screens.reshape(-1, self.strip, SCREEN[1]))
        total = np.matmul(fewer.reshape(-1, len(self._columns)), self._columns)
        small = rounded_means(total, SCREEN[0] * SCREEN[1])
        height = screens.shape[1] // self.strip * self.shape[0]
        return small.reshape(len(screens), height, self.shape[1])


def _repeating(weights: Float32[np.ndarray, "target size"]) -> Float32[np.ndarray, "_ _"]:
    """Return the block that a matrix of weights repeats along its diagonal."""
    target, size = weights.shape
    times = gcd(target, size)
    block = np.ascontiguousarray(weights[: target // times, : size // times])
    repeated = np.kron(np.eye(times, dtype=np.float32), block)
    return block if np.array_equal(repeated, weights) else weights


_Screens = structure(("count", "height", "width", "channels"), ("shown", "grays", "last", "frames"))
"""The argument of screens.cpp."""


@cache
def _library() -> ctypes.CDLL | None:
    """Return what shrinks screens, compiled; None, and once a line in the log, without it."""
    return library_of(Path(__file__).with_name("screens.cpp"), "numpy takes about twice the time")


class _Strips:
    """Frames of screens, of which only those strips are computed that differ from the last ones.

    From step to step, few rows of a game's screen change. What was computed is found by content
    alone, so that it never matters whose screen stood at a place before.
    """

    def __init__(self, to_gray: Callable[[np.ndarray], np.ndarray], shrink: Shrinker):
        self._to_gray, self._shrink = to_gray, shrink
        self._shown = self._frames = np.empty((0, 0), np.uint8)
        self._grays = PALETTE_GRAY.ctypes.data if to_gray is _from_palette else None

    def __call__(self, shown: UInt8[np.ndarray, "batch 210 160 *channels"]) -> Frames:
        count, strip = len(shown), self._shrink.strip
        words = np.ascontiguousarray(shown).reshape(count, SCREEN[0] // strip, -1).view(np.uint64)
        if count > len(self._shown):  # black screens are black frames
            self._shown = np.zeros_like(words)
            self._frames = np.zeros((*words.shape[:2], *self._shrink.shape), np.uint8)
        frames = self._frames[:count].reshape(count, -1, self._shrink.shape[1])
        if library := _library():
            places = (words.ctypes.data, self._grays, self._shown.ctypes.data, frames.ctypes.data)
            channels = words[0].nbytes // (SCREEN[0] * SCREEN[1])
            library.shrink(ctypes.byref(_Screens(*frames.shape, channels, *places)))
            return frames.copy()
        changed = (words != self._shown[:count]).any(-1)
        new = words[changed]
        gray = self._to_gray(new.view(np.uint8)).reshape(-1, strip, SCREEN[1])
        self._shown[:count][changed] = new
        self._frames[:count][changed] = self._shrink(gray)
        return frames.copy()


class FrameReader:
    """Reads the frames that an encoder was trained on off observations of many environments.

    A whole screen (gray, palette indices or RGB, 210 x 160 bytes), as the observation or as its
    entry ``pixels``, is converted. Where an environment shows no such thing, its emulator is asked
    for the screen of this instant.

    Args:
        space: Of one environment's observation.
        height: Rows of a frame.
        width: Columns of a frame.
        palette: Screens of one channel hold palette indices; otherwise gray levels.
        env: The environment, where there is just one: an ALE may be underneath.

    Raises:
        RMRError: There is no whole screen to read.
    """

    def __init__(
        self,
        space: gym.spaces.Space[Any],
        height: int,
        width: int,
        *,
        palette: bool = False,
        env: gym.Env[Any, Any] | None = None,
    ):
        shrink = Shrinker(height, width)
        shape = _shape_of_bytes(space)
        self._env = None
        ale = ale_of(env) if env is not None else None
        if shape[:2] == SCREEN and shape[2:] in ((), (1,), (3,)):
            one_channel = _from_palette if palette else _from_gray
            to_gray = _from_rgb if shape[2:] == (3,) else one_channel
            self._frames = _Strips(to_gray, shrink)
        elif ale is not None and tuple(ale.getScreenDims()) == SCREEN:
            self._env, self._frames = env, _Strips(_from_palette, shrink)
        else:
            raise RMRError(
                f"expected whole screens of {SCREEN[0]} x {SCREEN[1]} bytes (gray, palette or RGB) "
                f"as observation or as its entry 'pixels', found {_described(space)}, and no "
                "emulator to read them from: leave out what crops, resizes, scales or stacks (as "
                "ALE's own vector; vectorization_mode='sync' does not), put RMRObservationWrapper "
                "around each environment before it goes into a vector, or, around bouncing balls, "
                "take an encoder of them"
            )

    def __call__(self, observations: Any) -> Frames:
        """Return the frames of a batch of observations."""
        if self._env is not None:
            return self._frames(ale_of(self._env).getScreen()[None])
        return self._frames(_pixels(observations, SCREEN))


class PictureReader:
    """Reads the pictures that an encoder of balls was trained on off observations of many worlds.

    A square picture (RGB bytes), as the observation or as its entry ``pixels``, is taken as it is
    where it has the encoder's size, and averaged by area where it is larger.

    Args:
        space: Of one environment's observation.
        size: Height and width of what the encoder sees.

    Raises:
        RMRError: There is no such picture.
    """

    def __init__(self, space: gym.spaces.Space[Any], size: int):
        shape = _shape_of_bytes(space)
        if len(shape) != 3 or shape[2] != 3 or not shape[0] == shape[1] >= size:
            raise RMRError(
                f"expected square RGB pictures of bytes, {size} x {size} x 3 or larger, as "
                "observation or as its entry 'pixels', since the encoder was trained on bouncing "
                f"balls, found {_described(space)}: make the environment with frames='rgb' and "
                f"resolution={size} or more, or take an encoder of the game"
            )
        self._shape = shape
        shares = area_overlaps(shape[0], size) / np.float32(shape[0])
        self._weights = shares.astype(np.float64)

    def __call__(self, observations: Any) -> UInt8[np.ndarray, "batch 3 height width"]:
        """Return the pictures of a batch of observations, channels first."""
        planes = _pixels(observations, self._shape).transpose(0, 3, 1, 2)
        if len(self._weights) == len(planes[0, 0]):
            return planes
        small = self._weights @ planes @ self._weights.T
        return np.floor(small + _UPWARDS).astype(np.uint8)


def _picture(space: gym.spaces.Space[Any]) -> Any:
    """Return the space of an observation's picture; None where a Dict holds none."""
    return space.spaces.get("pixels") if isinstance(space, gym.spaces.Dict) else space


def _pixels(observations: Any, shape: tuple[int, ...]) -> UInt8[np.ndarray, "batch *picture"]:
    """Return the pictures of a batch of observations, whose shape begins as expected."""
    shown = observations["pixels"] if isinstance(observations, Mapping) else observations
    shown = np.asarray(shown)
    if shown.dtype != np.uint8 or shown.shape[1 : 1 + len(shape)] != shape:
        raise RMRError(
            f"expected pictures of bytes of shape {shape}, found {shown.dtype} of shape "
            f"{shown.shape[1:]}: the environment does not keep to its observation space"
        )
    return shown


def _shape_of_bytes(space: gym.spaces.Space[Any]) -> tuple[int, ...]:
    """Return the shape of an observation's picture; () where it holds none of bytes."""
    picture = _picture(space)
    of_bytes = isinstance(picture, gym.spaces.Box) and picture.dtype == np.uint8
    return picture.shape if of_bytes else ()


def _described(space: gym.spaces.Space[Any]) -> Any:
    picture = _picture(space)
    if isinstance(picture, gym.spaces.Box):
        return f"{picture.dtype} of shape {picture.shape}"
    return space if picture is None else picture


def _from_rgb(shown: UInt8[np.ndarray, "strips _"]) -> Float32[np.ndarray, "*pixels"]:
    gray = np.dot(shown.reshape(-1, 3).astype(np.float32), _LUMA)
    return np.rint(gray, out=gray)


def _from_gray(shown: UInt8[np.ndarray, "strips _"]) -> Float32[np.ndarray, "*pixels"]:
    return shown.astype(np.float32)


def _from_palette(shown: UInt8[np.ndarray, "strips _"]) -> Float32[np.ndarray, "*pixels"]:
    gray = np.frombuffer(shown.tobytes().translate(PALETTE_GRAY.tobytes()), np.uint8)
    return gray.astype(np.float32)
