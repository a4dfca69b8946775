"""A curtain: a rectangle of background colour that hides part of a frame."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped


def draw_curtain(
    rng: np.random.Generator, sides: Sequence[float], height: int, width: int
) -> Int[np.ndarray, "4"]:
    """Draw place and size of a curtain that lies within the frame.

    Args:
        rng: The episode's generator.
        sides: (smallest, largest) side as a fraction of the frame's height and width.
        height: Of the frame, in pixels.
        width: Of the frame, in pixels.

    Returns:
        First row, first column, rows, columns.
    """
    smallest, largest = sides
    rows = _whole(rng.uniform(smallest, largest) * height, height)
    columns = _whole(rng.uniform(smallest, largest) * width, width)
    top = rng.integers(0, height - rows, endpoint=True)
    left = rng.integers(0, width - columns, endpoint=True)
    return np.array([top, left, rows, columns], np.int64)


def hide(
    frame: Shaped[np.ndarray, "height width *channels"],
    curtain: Int[np.ndarray, "4"],
    color: int = 0,
) -> None:
    """Paint the curtain into ``frame``, in place."""
    top, left, rows, columns = curtain
    frame[top : top + rows, left : left + columns] = color


def _whole(pixels: float, most: int) -> int:
    return min(most, max(1, round(pixels)))
