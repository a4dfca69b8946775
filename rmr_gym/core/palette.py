"""The Atari 2600's NTSC colours: from ALE's palette indices to gray and RGB, exactly as in ALE.

A recorded screen holds one palette index a pixel; the gray and the RGB picture are look-ups of it.

The colours were measured from ALE (``getScreen`` against ``getScreenRGB`` and
``getScreenGrayscale``) over the 24 games of the paper, played at random and with random bytes
written to their RAM, until each of the 128 colours had been seen. A test compares the tables with
ALE in all 24 games.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

_HUES = Path(__file__).with_name("palette.txt").read_text()
"""RRGGBB of the even indices, index = 16 * row + 2 * column (hue and luminance of the chip)."""

_LUMA = (0.2989, 0.5870, 0.1140)


def _tables() -> tuple[UInt8[np.ndarray, "256 3"], UInt8[np.ndarray, "256"]]:
    colours = np.frombuffer(bytes.fromhex(_HUES), dtype=np.uint8).reshape(128, 3)
    luma = np.round(colours @ np.array(_LUMA)).astype(np.uint8)
    rgb, gray = np.empty((256, 3), np.uint8), np.empty(256, np.uint8)
    rgb[0::2], gray[0::2] = colours, luma
    rgb[1::2] = luma[:, None]
    gray[1:-1:2] = colours[1:, 2]
    gray[-1] = luma[-1]
    rgb.setflags(write=False)
    gray.setflags(write=False)
    return rgb, gray


PALETTE_RGB, PALETTE_GRAY = _tables()
"""RGB and gray of each palette index, read-only.

The screen of a game that draws a steady NTSC picture holds even indices only. An odd index is a
pixel whose colour was lost, and the tables say what ALE says of it: in RGB, the gray of the colour
below it; in gray, the blue part of the colour above it (an oddity of ALE's look-up, kept so that a
recording and ALE agree). Index 255, where ALE reads past its own table, is the gray of index 254.
"""


def palette_to_gray(indices: UInt8[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Return the gray levels in [0, 255] of palette indices, equal to ALE's grayscale screen."""
    return np.take(PALETTE_GRAY, indices, 0)


def palette_to_rgb(indices: UInt8[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Return the RGB levels in [0, 255] of palette indices, equal to ALE's RGB screen."""
    return np.take(PALETTE_RGB, indices, 0)
