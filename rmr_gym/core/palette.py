"""The Atari 2600's NTSC colours: from ALE's palette indices to gray and RGB, exactly as in ALE.

A recorded screen holds one palette index a pixel; the gray and the RGB picture are look-ups of it.

The colours were measured from ALE (``getScreen`` against ``getScreenRGB`` and
``getScreenGrayscale``) over the 24 games of the paper, played at random and with random bytes
written to their RAM, until each of the 128 colours had been seen. A test compares the tables with
ALE in all 24 games.
"""

import numpy as np
from jaxtyping import UInt8

_HUES = (
    "000000 4a4a4a 6f6f6f 8e8e8e aaaaaa c0c0c0 d6d6d6 ececec",
    "484800 69690f 86861d a2a22a bbbb35 d2d240 e8e84a fcfc54",
    "7c2c00 904811 a26221 b47a30 c3903d d2a44a dfb755 ecc860",
    "901c00 a33915 b55328 c66c3a d5824a e39759 f0aa67 fcbc74",
    "940000 a71a1a b83232 c84848 d65c5c e46f6f f08080 fc9090",
    "840064 97197a a8308f b846a2 c659b3 d46cc3 e07cd2 ec8ce0",
    "500084 68199a 7d30ad 9246c0 a459d0 b56ce0 c57cee d48cfc",
    "140090 331aa3 4e32b5 6848c6 7f5cd5 956fe3 a980f0 bc90fc",
    "000094 181aa7 2d32b8 4248c8 545cd6 656fe4 7580f0 8490fc",
    "001c88 183b9d 2d57b0 4272c2 548ad2 65a0e1 75b5ef 84c8fc",
    "003064 185080 2d6d98 4288b0 54a0c5 65b7d9 75cceb 84e0fc",
    "004030 18624e 2d8169 429e82 54b899 65d1ae 75e7c2 84fcd4",
    "004400 1a661a 328432 48a048 5cba5c 6fd26f 80e880 90fc90",
    "143c00 355f18 527e2d 6e9c42 87b754 9ed065 b4e775 c8fc84",
    "303800 505916 6d762b 88923e a0ab4f b7c25f ccd86e e0ec7c",
    "482c00 694d14 866a26 a28638 bb9f47 d2b656 e8cc63 fce070",
)
"""RRGGBB of the even indices: index = 16 * row + 2 * column (hue and luminance of the chip)."""

_LUMA = (0.2989, 0.5870, 0.1140)


def _tables() -> tuple[UInt8[np.ndarray, "256 3"], UInt8[np.ndarray, "256"]]:
    colours = np.frombuffer(bytes.fromhex("".join(_HUES)), dtype=np.uint8).reshape(128, 3)
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
