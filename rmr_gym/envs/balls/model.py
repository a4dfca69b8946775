"""The MuJoCo model of the box and its balls, and the import of MuJoCo itself."""

import ctypes
import os
from typing import Any

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.config import BallsConfig

GL_LIBRARIES = {
    "egl": ("libEGL.so.1", "libEGL.so"),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
SOFTNESS = 1e-6
_IMPEDANCE = 0.9999
_WALLS = {"left": "1 0 0", "right": "-1 0 0", "bottom": "0 1 0", "top": "0 -1 0"}
_HIDDEN = 3


def load_mujoco() -> Any:
    """Import mujoco for its physics, which needs no graphics library.

    MuJoCo picks its OpenGL back end as it is imported, from the variable MUJOCO_GL, and fails as a
    whole where that back end's library is missing. In this case it is imported without graphics.

    Raises:
        RMRError: mujoco is not installed, or cannot be imported.
    """
    asked = os.environ.get("MUJOCO_GL")
    back_end = (asked or "").strip().lower()
    hopeless = back_end in GL_LIBRARIES and not has_library(back_end)
    if hopeless:
        os.environ["MUJOCO_GL"] = "disable"
    try:
        import mujoco  # noqa: PLC0415
        import mujoco.batch  # noqa: PLC0415
    except ImportError as error:
        raise RMRError(
            "expected mujoco 4 or newer, which moves the balls, found an import that fails "
            f"({error}): install it with `pip install 'mujoco>=4'`"
        ) from error
    finally:
        if hopeless and asked is not None:
            os.environ["MUJOCO_GL"] = asked
    return mujoco


def has_library(back_end: str) -> bool:
    """Whether the shared library of an OpenGL back end, ``egl`` or ``osmesa``, can be loaded."""
    for name in GL_LIBRARIES[back_end]:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def compile_model(config: BallsConfig, offscreen: int = 0) -> Any:
    """Compile the world of a config to an MjModel; radii and masses are set again each episode.

    Args:
        config: The world.
        offscreen: Height and width of MuJoCo's own pictures in pixels; 0 where it draws none.
    """
    model = load_mujoco().MjModel.from_xml_string(world_xml(config, offscreen))
    model.body_invweight0[1:] = SOFTNESS
    return model


def world_xml(config: BallsConfig, offscreen: int = 0) -> str:
    """Return the MJCF of the world.

    Each ball is a sphere on two slide joints, so it moves in the plane without turning. A contact
    without stiffness and with damping 2 / timestep (times the impedance, by which MuJoCo divides
    it) asks for the speed -v of the bodies that close in with v: the collision is elastic and over
    within one timestep. MuJoCo softens what is asked by (1 - impedance) x ``body_invweight0``; the
    impedance is at most 0.9999, so the softness is taken away through `SOFTNESS` instead. The usual
    spring-like ``solref`` loses the energy.

    Source: docs/bouncing_balls.md, measured with mujoco 4.0.

    Args:
        config: The world.
        offscreen: Height and width of MuJoCo's own pictures in pixels; 0 where it draws none.
    """
    walls = "".join(
        f'<geom name="{name}" type="plane" size="2 2 0.1" group="{_HIDDEN}" zaxis="{inward}" '
        f'pos="{_opposite(inward)}"/>'
        for name, inward in _WALLS.items()
    )
    balls = "".join(
        f'<body name="ball{k}"><joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>'
        f'<geom type="sphere" size="{config.largest_radius}" mass="1"/></body>'
        for k in range(config.most)
    )
    fixed = config.fixed_ball
    middle = f'<geom name="fixed" type="sphere" size="{fixed}"/>' if fixed else ""
    return f"""
<mujoco>
  <option timestep="{config.timestep!r}" integrator="Euler" solver="Newton" cone="elliptic"
    jacobian="dense" tolerance="1e-10"><flag gravity="disable"/></option>
  <visual>
    <headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/>
    <global offwidth="{offscreen or 1}" offheight="{offscreen or 1}"/>
  </visual>
  <default>
    <geom condim="1" solref="0 {-2 * _IMPEDANCE / config.timestep!r}"
      solimp="{_IMPEDANCE} {_IMPEDANCE} 0.001 0.5 2"/>
  </default>
  <worldbody>
    <camera name="above" pos="0 0 2" projection="orthographic" fovy="2"/>
    {walls}{balls}{middle}
  </worldbody>
</mujoco>"""


def _opposite(direction: str) -> str:
    return " ".join(str(-int(part)) for part in direction.split())
