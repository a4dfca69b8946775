"""Batches of a stack of natural runs: frames lie on the device, only row numbers go there."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import batch_indices, derangement
from rmr_gym.domains.atari import NaturalData
from rmr_gym.protocol.config import Natural
from rmr_gym.protocol.natural import OBJECTIVES


class Frames(NamedTuple):
    """All frames of a data set on one device, one byte a pixel.

    Attributes:
        pixels: Gray levels, or palette indices where ``gray`` is given.
        gray: Gray level of each palette index.
    """

    pixels: UInt8[Tensor, "rows height width"]
    gray: UInt8[Tensor, "256"] | None = None

    def to(self, device: str | torch.device) -> "Frames":
        """Return the frames on a device."""
        gray = None if self.gray is None else self.gray.to(device)
        return Frames(self.pixels.to(device), gray)

    def at(self, rows: Int[Tensor, "*shape"]) -> UInt8[Tensor, "*shape height width"]:
        """Return the gray frames of some rows, gathered and decoded where the data lie."""
        pixels = self.pixels[rows]
        return pixels if self.gray is None else self.gray[pixels.int()]


class Rows(NamedTuple):
    """Where the batches of a step are found, for runs that may differ in their seeds."""

    frames: Int[Tensor, "runs batch"]
    transitions: Int[Tensor, "runs batch"]
    permutation: Int[Tensor, "runs batch"]


class Feed:
    """Gives the rows of `rmr_gym.protocol.natural.natural_batch` for many seeds.

    Args:
        config: Objective and batch size.
        data: Frames (in the processor's memory) and actions.
        seeds: One a run; equal ones are drawn once.
    """

    def __init__(self, config: Natural, data: NaturalData, seeds: Sequence[int]):
        self._config, self._data = config, data
        self._distinct, places = np.unique(seeds, return_inverse=True)
        self._places = torch.from_numpy(places)
        self._kind = OBJECTIVES[config.objective].sampling
        self._names = frame_names(data.frames) if self._kind == "window" else None
        self.rows = lru_cache(maxsize=2)(self._rows)

    def _rows(self, step: int) -> Rows:
        drawn = [self._drawn(int(seed), step) for seed in self._distinct]
        columns = (np.stack(column) for column in zip(*drawn, strict=True))
        return Rows(*(torch.from_numpy(each)[self._places] for each in columns))

    def _drawn(self, seed: int, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = self._config.batch
        index = batch_indices(
            self._data, size, seed, "natural", step, kind=self._kind, frames=self._names
        )
        partners = derangement(size, generator(seed, "negatives", step))
        return self._data.current[index], index, partners


def frame_names(frames: UInt8[Tensor, "rows height width"]) -> UInt8[np.ndarray, "rows 16"]:
    """Return a short name of each frame: equal frames, and no others, have equal names."""
    digests = (blake2b(frame.numpy().tobytes(), digest_size=16).digest() for frame in frames)
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
