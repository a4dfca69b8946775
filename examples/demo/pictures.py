"""RAM as it is read, bit by bit, beside the screen that it was read from."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from rmr_gym.core.metrics import bit_f1
from rmr_gym.report.pictures import enlarged

RIGHT, WRONG, CELL = (40, 170, 80), (235, 50, 40), 12
"""Colours of bits that are right and wrong, and how many pixels wide one is drawn."""


def belief_frames(
    screens: UInt8[np.ndarray, "time height width 3"],
    truth: Bool[np.ndarray, "time slots bits"],
    guesses: Mapping[str, Bool[np.ndarray, "time slots bits"]],
    scored: Sequence[int],
    known: int = 1,
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """Return frames of a film: the screen, and beside it the bits of RAM as each reader has them.

    A cell is a bit, 4 bytes a row: green where it is right (bright: 1), red where it is wrong,
    darker for bytes that are not scored. Above stands the bit F1 up to the moment.

    Args:
        screens: What was shown.
        truth: The bits.
        guesses: Bits by the name of their reader.
        scored: Bytes that count.
        known: So many first instants count for none, since their RAM is given.
    """
    frames = []
    for now, screen in enumerate(screens):
        parts = [enlarged(screen, 2)]
        for name, bits in guesses.items():
            past = slice(min(now, known), now + 1)
            score = bit_f1(bits[past][:, scored], truth[past][:, scored]).micro_f1
            parts.append(_cells(bits[now], truth[now], scored, f"{name}: bit F1 {score:.3f}"))
        frames.append(np.hstack([np.pad(part, ((0,), (CELL // 2,), (0,))) for part in parts]))
    return frames


def _cells(guess: np.ndarray, truth: np.ndarray, scored: Sequence[int], title: str) -> np.ndarray:
    """Draw the bits of one instant under a title, as high as a screen of twice its size."""
    shade = np.where(truth, 1, 0.55) * 0.4
    shade[scored] /= 0.4
    colour = np.where((guess == truth)[..., None], RIGHT, WRONG) * shade[..., None]
    cells = enlarged(colour.astype(np.uint8).reshape(32, 32, 3), CELL)
    above = np.zeros((36, cells.shape[1], 3), np.uint8)
    cv2.putText(above, title, (4, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255))
    few_colours = above & 0xE0  # a GIF frame of more than 256 would be dithered
    return np.vstack([few_colours, cells])
