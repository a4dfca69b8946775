"""Pictures of discs in which each pixel holds the exact share that a disc covers of it.

The box [-1, 1] x [-1, 1] fills the square frame, seen from above: x to the right, y upwards, row 0
at the top. Where discs overlap, as balls do for an instant when they collide, their shares add up
and colours saturate.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.sparse import csc_array

Shares = Float[np.ndarray, "rows columns discs"]
_LARGEST_IN_SINGLE = 128
_HALF = 0.5


class Rasterizer:
    """Draws batches of square frames.

    Args:
        resolution: Height and width of a frame in pixels.
        largest_radius: Radius of the largest disc there can be, in world units.
    """

    def __init__(self, resolution: int, largest_radius: float):
        self._resolution = resolution
        self._window = min(resolution, math.ceil(largest_radius * resolution) + 2)
        self._dtype = np.float32 if resolution <= _LARGEST_IN_SINGLE else np.float64

    def close(self) -> None:
        """Nothing is held open."""

    def rgb(
        self,
        positions: Float[np.ndarray, "batch slots 2"],
        radii: Float[np.ndarray, "batch slots"],
        colors: UInt8[np.ndarray, "slots 3"],
        out: UInt8[np.ndarray, "batch height width 3"],
    ) -> None:
        """Draw coloured discs on black into ``out``; a radius of 0 draws nothing."""
        shades = np.tile(colors.astype(self._dtype), (len(radii), 1))
        canvas = (self._shares(positions, radii) @ shades).reshape(out.shape)
        if canvas.max(initial=0) > 255:
            np.minimum(canvas, 255, out=canvas)
        np.add(canvas, _HALF, out=out, casting="unsafe")

    def binary(
        self,
        positions: Float[np.ndarray, "batch slots 2"],
        radii: Float[np.ndarray, "batch slots"],
        out: UInt8[np.ndarray, "batch height width 1"],
    ) -> None:
        """Draw into ``out`` 255 where discs cover at least half a pixel, elsewhere 0."""
        np.multiply(self._covered(positions, radii).reshape(out.shape), np.uint8(255), out=out)

    def owners(
        self,
        positions: Float[np.ndarray, "batch slots 2"],
        radii: Float[np.ndarray, "batch slots"],
        out: UInt8[np.ndarray, "batch height width"],
    ) -> None:
        """Draw into ``out`` 1 + the index of the disc with the largest share of the pixel.

        0 stands where all discs together cover less than half, so that the owned pixels are the
        white ones of `binary`.
        """
        shares = self._shares(positions, radii)
        slots = radii.shape[1]
        parts = shares.data.reshape(*radii.shape, -1)
        pixels = shares.indices.reshape(parts.shape)
        largest = np.zeros(out.size, self._dtype)
        owner = np.zeros(out.size, np.uint8)
        for k in range(slots):
            where, part = pixels[:, k], parts[:, k]
            larger = part > largest[where]
            largest[where[larger]] = part[larger]
            owner[where[larger]] = k + 1
        np.multiply(owner.reshape(out.shape), _lit(shares).reshape(out.shape), out=out)

    def _covered(
        self, positions: Float[np.ndarray, "batch slots 2"], radii: Float[np.ndarray, "batch slots"]
    ) -> UInt8[np.ndarray, " pixels"]:
        return _lit(self._shares(positions, radii))

    def _shares(
        self, positions: Float[np.ndarray, "batch slots 2"], radii: Float[np.ndarray, "batch slots"]
    ) -> csc_array:
        """Return the share of each pixel of all frames (row) that each disc (column) covers."""
        size, window = self._resolution, self._window
        scale = size / 2
        left, top, shares = disc_shares(
            (positions[..., 0].ravel() + 1) * scale,
            (1 - positions[..., 1].ravel()) * scale,
            radii.ravel() * scale,
            size,
            window,
            self._dtype,
        )
        frame = np.repeat(np.arange(len(radii)) * size**2, radii.shape[1])
        corner = (frame + top * size + left).astype(np.int32)
        steps = np.arange(window, dtype=np.int32)
        pixels = corner[:, None] + (steps[:, None] * size + steps).ravel()
        data = np.ascontiguousarray(shares.reshape(window**2, -1).T)
        starts = np.arange(0, data.size + 1, window**2, dtype=np.int32)
        shape = (len(radii) * size**2, radii.size)
        return csc_array((data.ravel(), pixels.ravel(), starts), shape=shape)


def disc_shares(
    x: Float[np.ndarray, " discs"],
    y: Float[np.ndarray, " discs"],
    radius: Float[np.ndarray, " discs"],
    size: int,
    window: int,
    dtype: type[np.floating[Any]] = np.float64,
) -> tuple[Int[np.ndarray, " discs"], Int[np.ndarray, " discs"], Shares]:
    r"""Return the area of each pixel of a window around a disc that the disc covers.

    With the half chord ``s(t) = sqrt(r^2 - t^2)``, the disc's area in a pixel [a, b] x [c, d] is
    ``B(b, d) - B(a, d) - B(b, c) + B(a, c)``, where B(u, v) integrates v cut to [-s(t), s(t)] over
    t from the centre to u. For \|t\| up to ``w = s(v)`` the integrand is v, outside it is
    ``sign(v) s(t)``, so with ``S(u)``, the integral of s from the centre to u,
    ``B = v cut(u, -w, w) + sign(v) (S(u) - cut(S(u), -S(w), S(w)))``: square roots and arcsines are
    needed only along the axes.

    Args:
        x: Column of the centre, in pixels from the left edge of the frame.
        y: Row of the centre, in pixels from the top edge.
        radius: In pixels, 0 or more.
        size: Height and width of the frame.
        window: Height and width of the window, at least the diameter + 2 or ``size``.
        dtype: Precision of what is not computed along the axes; single errs by some 1e-7 r^2.

    Returns:
        First column and first row of each window, and the shares, in [0, 1] up to rounding.
    """
    radius = np.maximum(radius, 1e-6)
    left = _cut(np.floor(x - radius), 0, size - window)
    top = _cut(np.floor(y - radius), 0, size - window)
    edges = np.arange(window + 1.0)[:, None]
    u = _cut(edges + (left - x), -radius, radius)
    v = _cut(edges + (top - y), -radius, radius)
    w = np.sqrt(radius**2 - v**2)
    lines = np.stack([u, _half_chords(u, radius), v, w, _half_chords(w, radius)]).astype(dtype)
    u, area_u = lines[:2, None]
    v, w, area_w = lines[2:, :, None]
    outside = _cut(area_u, -area_w, area_w)
    np.subtract(area_u, outside, out=outside)
    outside *= np.sign(v)
    below = _cut(u, -w, w)
    below *= v
    below += outside
    columns = below[:, 1:] - below[:, :-1]
    shares = columns[1:] - columns[:-1]
    return left.astype(np.int64), top.astype(np.int64), shares


def _cut(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Do as np.clip does, at half its cost for small arrays."""
    raised = np.maximum(values, low)
    return np.minimum(raised, high, out=raised)


def _half_chords(
    u: Float[np.ndarray, "edges discs"], radius: Float[np.ndarray, " discs"]
) -> Float[np.ndarray, "edges discs"]:
    """Integrate sqrt(r^2 - t^2) over t from 0 to u."""
    return 0.5 * (u * np.sqrt(radius**2 - u**2) + radius**2 * np.arcsin(u / radius))


def _lit(shares: csc_array) -> UInt8[np.ndarray, " pixels"]:
    """1 where the shares add up to half a pixel, 0 elsewhere."""
    ones = np.ones(shares.indptr.size - 1, shares.dtype)
    return (shares @ ones >= _HALF).astype(np.uint8)
