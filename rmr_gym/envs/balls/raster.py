"""Pictures of discs in which each pixel holds the exact share that a disc covers of it; a curtain.

The box [-1, 1] x [-1, 1] fills the square frame, seen from above: x to the right, y upwards, row 0
at the top. Where discs overlap, as balls do for an instant when they collide, their shares add up
and colours saturate.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from scipy.sparse import csc_array

Shares = Float[np.ndarray, "discs rows columns"]
Centres = Float[np.ndarray, "batch slots 2"]
Radii = Float[np.ndarray, "batch slots"]
Palette = UInt8[np.ndarray, "slots 3"]
Color = UInt8[np.ndarray, "batch height width 3"]
Binary = UInt8[np.ndarray, "batch height width 1"]
_LARGEST_IN_SINGLE = 128
_PIXELS_A_TIME = 32 * 64 * 64
_HALF = 0.5
_INVISIBLE = 1e-6


class Rasterizer:
    """Draws batches of square frames.

    Args:
        resolution: Height and width of a frame in pixels.
        largest_radius: Radius of the largest disc there can be, in world units.
    """

    def __init__(self, resolution: int, largest_radius: float):
        self._resolution = resolution
        self._window = min(resolution, math.ceil(largest_radius * resolution) + 1)
        steps = np.arange(self._window, dtype=np.int32)
        self._steps = (steps[:, None] * resolution + steps).ravel()
        self._dtype = np.float32 if resolution <= _LARGEST_IN_SINGLE else np.float64

    def close(self) -> None:
        """Nothing is held open."""

    def rgb(self, positions: Centres, radii: Radii, colors: Palette, out: Color) -> None:
        """Draw coloured discs on black into ``out``; a radius of 0 draws nothing.

        A channel is the sum of share x (value + 1/2), rounded down: exact where a pixel is full.
        """
        values = colors.astype(self._dtype) + self._dtype(_HALF)
        for few in self._chunks(len(out)):
            shades = np.tile(values, (len(radii[few]), 1))
            canvas = (self._shares(positions[few], radii[few]) @ shades).reshape(out[few].shape)
            if canvas.max(initial=0) >= 256:
                np.minimum(canvas, 255, out=canvas)
            np.copyto(out[few], canvas, casting="unsafe")

    def binary(self, positions: Centres, radii: Radii, out: Binary) -> None:
        """Draw into ``out`` 255 where discs cover at least half a pixel, elsewhere 0."""
        for few in self._chunks(len(out)):
            lit = _lit(self._shares(positions[few], radii[few])).reshape(out[few].shape)
            np.multiply(lit, np.uint8(255), out=out[few])

    def owners(
        self, positions: Centres, radii: Radii, out: UInt8[np.ndarray, "batch height width"]
    ) -> None:
        """Draw into ``out`` 1 + the index of the disc with the largest share of the pixel.

        0 stands where all discs together cover less than half, so that the owned pixels are the
        white ones of `binary`.
        """
        for few in self._chunks(len(out)):
            shares = self._shares(positions[few], radii[few])
            lit = _lit(shares)
            owner = _largest(shares, radii[few].shape, lit.size)
            np.multiply(owner, lit, out=owner)
            out[few] = owner.reshape(out[few].shape)

    def _chunks(self, frames: int) -> Iterator[slice]:
        """Return slices of as many frames as the processor's caches hold well."""
        few = max(1, _PIXELS_A_TIME // self._resolution**2)
        return (slice(first, first + few) for first in range(0, frames, few))

    def _shares(self, positions: Centres, radii: Radii) -> csc_array:
        """Return the share of each pixel of all frames (row) that each disc (column) covers."""
        size, window = self._resolution, self._window
        scale = size / 2
        centres = np.ascontiguousarray((positions.reshape(-1, 2) * (scale, -scale) + scale).T)
        corners, shares = disc_shares(centres, radii.ravel() * scale, size, window, self._dtype)
        first = corners[1] * size + corners[0]
        first += np.repeat(np.arange(len(radii), dtype=np.int32) * size**2, radii.shape[1])
        pixels = first[:, None] + self._steps
        starts = np.arange(0, shares.size + 1, window**2, dtype=np.int32)
        shape = (len(radii) * size**2, radii.size)
        return csc_array((shares.ravel(), pixels.ravel(), starts), shape=shape)


def disc_shares(
    centres: Float[np.ndarray, "2 discs"],
    radius: Float[np.ndarray, " discs"],
    size: int,
    window: int,
    dtype: type[np.floating[Any]] = np.float64,
) -> tuple[Int[np.ndarray, "2 discs"], Shares]:
    r"""Return the area of each pixel of a window around a disc that the disc covers.

    With the half chord ``s(t) = sqrt(r^2 - t^2)``, the disc's area in a pixel [a, b] x [c, d] is
    ``B(b, d) - B(a, d) - B(b, c) + B(a, c)``, where B(u, v) integrates v cut to [-s(t), s(t)] over
    t from the centre to u. For \|t\| up to ``w = s(v)`` the integrand is v, outside it is
    ``sign(v) s(t)``, so with ``S(u)``, the integral of s from the centre to u,
    ``B = v cut(u, -w, w) + sign(v) (S(u) - cut(S(u), -S(w), S(w)))``. ``2 S(u) = u s(u) + r^2
    arcsin(u / r)`` and ``2 S(w) = w |v| + r^2 (pi / 2 - arcsin(|v| / r))``, so square roots and
    arcsines are needed only along the axes.

    Args:
        centres: Distances of the centres from the left and from the top edge, in pixels.
        radius: In pixels, 0 or more.
        size: Height and width of the frame.
        window: Height and width of the window, at least ceil(diameter) + 1 or ``size``.
        dtype: Precision; single errs by some 1e-6 of a pixel for radii of some pixels.

    Returns:
        First column and first row of each window, and the shares, in [0, 1] up to rounding.
    """
    corners = _cut(np.floor(centres - radius), 0, size - window)
    radius = np.maximum(radius, _INVISIBLE).astype(dtype)
    edges = ((corners - centres)[:, None] + np.arange(window + 1.0)[:, None]).astype(dtype)
    cuts = _cut(edges, -radius, radius)
    chords = np.sqrt((radius - cuts) * (radius + cuts))
    sectors = radius**2 * np.arcsin(cuts / radius)
    u, area_u = cuts[0], 0.5 * (cuts[0] * chords[0] + sectors[0])
    v, w = cuts[1, :, None], chords[1, :, None]
    area_w = 0.5 * (w * np.abs(v) + np.pi / 2 * radius**2 - np.abs(sectors[1, :, None]))
    outside = _cut(area_u, -area_w, area_w)
    np.subtract(area_u, outside, out=outside)
    outside *= np.sign(v)
    below = _cut(u, -w, w)
    below *= v
    below += outside
    columns = below[:, 1:] - below[:, :-1]
    shares = np.empty((radius.size, window, window), dtype)
    np.subtract(columns[1:], columns[:-1], out=shares.transpose(1, 2, 0))
    return corners.astype(np.int32), shares


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
    full = np.array([height, width])
    rows, columns = np.clip(np.rint(rng.uniform(sides[0], sides[1], 2) * full).astype(int), 1, full)
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


def _cut(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Do as np.clip does, at half its cost for small arrays."""
    raised = np.maximum(values, low)
    return np.minimum(raised, high, out=raised)


def _largest(shares: csc_array, shape: tuple[int, ...], count: int) -> UInt8[np.ndarray, " pixels"]:
    """1 + the index within its frame of the disc with the largest share, 0 where there is none."""
    parts = shares.data.reshape(*shape, -1)
    pixels = shares.indices.reshape(parts.shape)
    largest, owner = np.zeros(count, shares.dtype), np.zeros(count, np.uint8)
    for k in range(shape[1]):
        where, part = pixels[:, k], parts[:, k]
        larger = part > largest[where]
        largest[where[larger]] = part[larger]
        owner[where[larger]] = k + 1
    return owner


def _lit(shares: csc_array) -> UInt8[np.ndarray, " pixels"]:
    """1 where the shares add up to half a pixel, 0 elsewhere."""
    ones = np.ones(shares.indptr.size - 1, shares.dtype)
    return (shares @ ones >= _HALF).astype(np.uint8)
