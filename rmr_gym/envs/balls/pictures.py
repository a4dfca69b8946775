"""Pictures of the balls: by the exact share that each covers of a pixel, or by MuJoCo; a curtain.

The box [-1, 1] x [-1, 1] fills the square frame, seen from above: x to the right, y upwards, row 0
at the top. Where discs overlap, as balls do for an instant when they collide, their shares add up
and colours saturate.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from scipy.sparse import csc_array

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls import physics
from rmr_gym.envs.balls.config import BallsConfig

Shares = Float[np.ndarray, "discs rows columns"]
Centres = Float[np.ndarray, "batch slots 2"]
Radii = Float[np.ndarray, "batch slots"]
Palette = UInt8[np.ndarray, "slots 3"]
Color = UInt8[np.ndarray, "batch height width 3"]
Binary = UInt8[np.ndarray, "batch height width 1"]
Area = Int[np.ndarray, "4"]
"""First row, first column, rows and columns of a rectangle."""
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
        self._window = min(resolution, int(np.ceil(largest_radius * resolution)) + 1)
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


def draw_curtain(rng: np.random.Generator, sides: Sequence[float], height: int, width: int) -> Area:
    """Draw place and size of a curtain that lies within the frame.

    Args:
        rng: The episode's generator.
        sides: (smallest, largest) side as a fraction of the frame's height and width.
        height: Of the frame, in pixels.
        width: Of the frame, in pixels.
    """
    full = np.array([height, width])
    rows, columns = np.clip(np.rint(rng.uniform(sides[0], sides[1], 2) * full).astype(int), 1, full)
    top = rng.integers(0, height - rows, endpoint=True)
    left = rng.integers(0, width - columns, endpoint=True)
    return np.array([top, left, rows, columns], np.int64)


def hide(frame: Shaped[np.ndarray, "rows columns *rest"], curtain: Area, color: int = 0) -> None:
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


_SUPERSAMPLING = 2
_BRIGHT = 128
_ADVICE = (
    'use renderer="raster", which needs no graphics library, or install one: '
    "`apt-get install libegl1 libgl1-mesa-dri libopengl0` (EGL; MUJOCO_GL=egl) or "
    "`apt-get install libosmesa6` (OSMesa, in software; MUJOCO_GL=osmesa)"
)


class MujocoCamera:
    """Draws batches of square frames, one frame after another, in the thread that made it.

    The camera looks from above and sees parallel light, so that balls are discs of one colour; each
    frame is drawn twice as large and averaged, beside MuJoCo's own multisampling.

    Args:
        config: The world.
        resolution: Height and width of a frame in pixels.

    Raises:
        RMRError: There is no OpenGL back end that works without a screen.
    """

    _context: Any

    def __init__(self, config: BallsConfig, resolution: int):
        self._mujoco: Any = physics.load_mujoco()
        self._resolution = resolution
        size = resolution * _SUPERSAMPLING
        self._model: Any = physics.compile_model(config, offscreen=size)
        self._data = self._mujoco.MjData(self._model)
        self._most = config.most
        first = int(self._model.body_geomadr[1])
        fixed = [self._model.geom("fixed").id] if config.fixed_ball else []
        self._geoms = [*range(first, first + config.most), *fixed]
        self._context, self._target = _open_context(self._mujoco, self._model, size)
        self._scene = self._mujoco.MjvScene(self._model, maxgeom=self._model.ngeom)
        self._scene.flags[:] = 0
        self._view, self._camera = self._mujoco.MjvOption(), self._mujoco.MjvCamera()
        self._camera.type = self._mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = self._model.camera("above").id
        self._frame = self._mujoco.MjrRect(0, 0, size, size)
        self._pixels = np.empty((size, size, 3), np.uint8)

    def close(self) -> None:
        """Give the OpenGL context back; a closed camera draws no more."""
        if self._context is not None:
            self._context.make_current()
            self._target.free()
            self._context.free()
            self._context = None

    def rgb(self, positions: Centres, radii: Radii, colors: Palette, out: Color) -> None:
        """Draw coloured balls on black into ``out``; a radius of 0 draws nothing."""
        self._context.make_current()
        for frame, place, radius in zip(out, positions, radii, strict=True):
            self._arrange(place, radius, colors)
            frame[:] = np.rint(self._shoot())

    def binary(self, positions: Centres, radii: Radii, out: Binary) -> None:
        """Draw into ``out`` 255 where balls cover at least half a pixel, elsewhere 0."""
        white = np.full((radii.shape[1], 3), 255, np.uint8)
        frames = np.empty((*out.shape[:3], 3), np.uint8)
        self.rgb(positions, radii, white, frames)
        out[..., 0] = np.where(frames[..., 0] >= _BRIGHT, 255, 0)

    def _arrange(self, positions: physics.Places, radii: physics.Sizes, colors: Palette) -> None:
        """Put balls, and the fixed one if there is a last row for it, into the scene."""
        model, data = self._model, self._data
        data.qpos[:] = positions[: self._most].ravel()
        model.geom_size[self._geoms, 0] = np.maximum(radii, _INVISIBLE)
        model.geom_rgba[self._geoms, :3] = colors / 255
        model.geom_rgba[self._geoms, 3] = radii > 0
        self._mujoco.mj_kinematics(model, data)
        self._mujoco.mj_camlight(model, data)
        visible = self._mujoco.mjtCatBit.mjCAT_ALL.value
        self._mujoco.mjv_updateScene(
            model, data, self._view, None, self._camera, visible, self._scene
        )

    def _shoot(self) -> Float[np.ndarray, "height width 3"]:
        self._mujoco.mjr_render(self._frame, self._scene, self._target)
        self._mujoco.mjr_readPixels(self._pixels, None, self._frame, self._target)
        size, fine = self._resolution, _SUPERSAMPLING
        return self._pixels[::-1].reshape(size, fine, size, fine, 3).mean(axis=(1, 3))


def choose_back_end() -> str:
    """Return the OpenGL back end to use, ``egl`` or ``osmesa``: MUJOCO_GL's, else what is there.

    Raises:
        RMRError: Neither is there, or MUJOCO_GL names something else.
    """
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    if asked and asked not in physics.GL_LIBRARIES:
        raise RMRError(
            f"expected MUJOCO_GL to be egl, osmesa or unset, found {asked!r}, which draws on a "
            f"screen or not at all: change it, or {_ADVICE}"
        )
    for back_end in [asked] if asked else physics.GL_LIBRARIES:
        if physics.has_library(back_end):
            return back_end
    names = physics.GL_LIBRARIES[asked] if asked else ("libEGL", "libOSMesa")
    raise RMRError(
        'expected an OpenGL library for renderer="mujoco", found neither '
        f"{' nor '.join(names)}: {_ADVICE}"
    )


def _open_context(mujoco: Any, model: Any, size: int) -> tuple[Any, Any]:
    """Open an offscreen OpenGL context and MuJoCo's drawing target in it."""
    back_end = choose_back_end()
    with suppress(ImportError):  # after Mesa's LLVM, Triton's would crash; PyTorch imports it late
        import_module("triton")
    try:
        context: Any = import_module(f"mujoco.{back_end}").GLContext(size, size)
        context.make_current()
        target = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, target)
    except Exception as error:
        raise RMRError(
            f'expected an OpenGL driver for renderer="mujoco", found {back_end} that fails '
            f"({type(error).__name__}: {error}): {_ADVICE}"
        ) from error
    return context, target
