"""Pictures of the balls drawn by MuJoCo itself through OpenGL, without a screen."""

import os
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.config import BallsConfig
from rmr_gym.envs.balls.physics import GL_LIBRARIES, compile_model, has_library, load_mujoco
from rmr_gym.envs.balls.raster import Binary, Centres, Color, Palette, Radii

_SUPERSAMPLING = 2
_BRIGHT = 128
_INVISIBLE = 1e-6
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
        self._mujoco: Any = load_mujoco()
        self._resolution = resolution
        size = resolution * _SUPERSAMPLING
        self._model: Any = compile_model(config, offscreen=size)
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

    def _arrange(
        self,
        positions: Float[np.ndarray, "slots 2"],
        radii: Float[np.ndarray, " slots"],
        colors: Palette,
    ) -> None:
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
    if asked and asked not in GL_LIBRARIES:
        raise RMRError(
            f"expected MUJOCO_GL to be egl, osmesa or unset, found {asked!r}, which draws on a "
            f"screen or not at all: change it, or {_ADVICE}"
        )
    for back_end in [asked] if asked else GL_LIBRARIES:
        if has_library(back_end):
            return back_end
    raise RMRError(
        f'expected an OpenGL library for renderer="mujoco", found neither '
        f"{' nor '.join(GL_LIBRARIES[asked] if asked else ('libEGL', 'libOSMesa'))}: {_ADVICE}"
    )


def _open_context(mujoco: Any, model: Any, size: int) -> tuple[Any, Any]:
    """Open an offscreen OpenGL context and MuJoCo's drawing target in it."""
    back_end = choose_back_end()
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
