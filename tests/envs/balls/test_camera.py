import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rmr_gym
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls import camera as balls_camera
from rmr_gym.envs.balls import physics as balls_physics
from rmr_gym.envs.balls.config import configure
from rmr_gym.envs.balls.env import BouncingBallsEnv
from rmr_gym.envs.balls.vector import BouncingBallsVectorEnv

ROOT = Path(rmr_gym.__file__).parents[1]


@pytest.fixture(scope="module")
def opengl():
    """Skips, with the reason, where MuJoCo cannot draw."""
    try:
        balls_camera.MujocoCamera(configure("rmr", {}), 16).close()
    except RMRError as error:
        pytest.skip(f"no OpenGL without a screen: {error}")


def psnr(first, second) -> float:
    error = np.mean((first.astype(float) - second) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


@pytest.mark.usefixtures("opengl")
@pytest.mark.parametrize("preset", ["rmr", "pushed", "rnem-6-8", "rnem-curtain", "s2rm-6"])
def test_mujoco_and_the_rasteriser_draw_the_same(preset):
    drawn, shot = (
        BouncingBallsEnv(preset, renderer=renderer, frames="rgb", render_mode="rgb_array")
        for renderer in ("raster", "mujoco")
    )
    for seed in range(3):
        first, second = drawn.reset(seed=seed)[0], shot.reset(seed=seed)[0]
        for _ in range(4):
            assert psnr(first["pixels"], second["pixels"]) >= 33
            assert np.array_equal(first["state"], second["state"])
            first, second = drawn.step(0)[0], shot.step(0)[0]
    assert psnr(drawn.render(), shot.render()) >= 33
    shot.close()
    shot.close()


@pytest.mark.usefixtures("opengl")
def test_mujocos_binary_frames_differ_at_edges_only():
    drawn, shot = BouncingBallsEnv("rnem-4"), BouncingBallsEnv("rnem-4", renderer="mujoco")
    first, second = drawn.reset(seed=0)[0]["pixels"], shot.reset(seed=0)[0]["pixels"]
    assert set(np.unique(second)) == {0, 255}
    assert (first != second).mean() < 0.01
    shot.close()


@pytest.mark.usefixtures("opengl")
def test_mujoco_draws_vectors():
    envs = BouncingBallsVectorEnv(3, renderer="mujoco", threads=2)
    single = BouncingBallsEnv(renderer="mujoco")
    together, alone = envs.reset(seed=4)[0], single.reset(seed=6)[0]
    assert np.array_equal(together["pixels"][2], alone["pixels"])
    envs.close()
    single.close()


def test_without_opengl_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(balls_camera, "has_library", lambda _: False)
    for make in (BouncingBallsEnv, BouncingBallsVectorEnv):
        with pytest.raises(RMRError, match=r"neither libEGL nor libOSMesa.*apt-get install libegl"):
            make(renderer="mujoco")


@pytest.mark.parametrize(
    ("there", "asked", "chosen"),
    [
        ({"egl", "osmesa"}, None, "egl"),
        ({"osmesa"}, None, "osmesa"),
        ({"egl", "osmesa"}, "osmesa", "osmesa"),
        ({"egl"}, " EGL ", "egl"),
    ],
)
def test_the_back_end_that_is_there_is_taken(monkeypatch, there, asked, chosen):
    monkeypatch.setattr(balls_camera, "has_library", there.__contains__)
    monkeypatch.setenv("MUJOCO_GL", asked or "")
    assert balls_camera.choose_back_end() == chosen


def test_back_ends_that_need_a_screen_are_refused(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(RMRError, match="MUJOCO_GL to be egl, osmesa or unset, found 'glfw'"):
        BouncingBallsEnv(renderer="mujoco")


def test_a_library_that_is_not_there():
    names = {"egl": ("libnosuchthing.so.1",)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(balls_physics, "GL_LIBRARIES", names)
        assert not balls_physics.has_library("egl")


def python_with(gl: str, code: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        cwd=ROOT,
        env={**environment, "MUJOCO_GL": gl},
    )


@pytest.mark.parametrize("gl", ["", "egl", "osmesa", "glfw", "disable"])
def test_physics_and_frames_need_no_graphics_library(gl):
    python_with(
        gl,
        "import os\n"
        "from rmr_gym.envs.balls import physics as balls_physics\n"
        "balls_physics.has_library = lambda _: False\n"
        "from rmr_gym.envs.balls.env import BouncingBallsEnv\n"
        "env = BouncingBallsEnv()\n"
        "assert env.reset(seed=0)[0]['pixels'].any()\n"
        "env.step(0)\n"
        f"assert os.environ['MUJOCO_GL'] == {gl!r}\n"
        "import sys\n"
        "assert not any(name.startswith('OpenGL') for name in sys.modules)\n",
    )


def test_a_missing_mujoco_is_named():
    python_with(
        "",
        "import sys\n"
        "sys.modules['mujoco'] = None\n"
        "from rmr_gym.envs.balls.env import BouncingBallsEnv\n"
        "from rmr_gym.core.errors import RMRError\n"
        "try:\n"
        "    BouncingBallsEnv()\n"
        "except RMRError as error:\n"
        "    assert 'pip install' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n",
    )
