"""Array aliases of the suite and the one glossary of axis names.

Axes, by the names that signatures use:
    batch: Elements drawn for one step of training.
    time: Successive instants of one episode; T actions lie between T + 1 of them.
    rows: Observations of one or more episodes, one after another.
    transitions: Steps of one or more episodes, one after another.
    slots: Parts of a state: the 128 RAM cells of an Atari, the balls of a box.
    bits: The 8 bits of a RAM cell, most significant first.
    dim: Width of a latent vector.
    height, width, channels: Of a picture, in this order.
    actions: The 18 actions of an Atari.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

Frames = UInt8[np.ndarray, "time height width"]
"""Palette indices or gray levels, one frame an instant."""

FrameTransform = Callable[[Frames], Frames]
"""A function of one episode's frames that keeps their number, for instance shrinking them."""

Observation = Any
"""What an environment returned: an array, a number or a mapping of them."""
