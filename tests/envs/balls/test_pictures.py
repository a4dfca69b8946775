import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rmr_gym
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls import physics as balls_physics
from rmr_gym.envs.balls import pictures as balls_camera
from rmr_gym.envs.balls.config import configure
from rmr_gym.envs.balls.env import BouncingBallsEnv, BouncingBallsVectorEnv
from rmr_gym.envs.balls.pictures import Rasterizer, disc_shares

RED_BLUE = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)


def brute_force(x, y, radius, size, fine=40):
    """Shares by counting points of a fine grid."""
    grid = (np.arange(size * fine) + 0.5) / fine
    inside = (grid[None] - x) ** 2 + (grid[:, None] - y) ** 2 <= radius**2
    return inside.reshape(size, fine, size, fine).mean(axis=(1, 3))


def whole_frame(x, y, radius, size, window=None):
    window = window or min(size, math.ceil(2 * radius) + 2)
    centres, radii = np.array([[x], [y]], float), np.array([radius], float)
    (left, top), shares = disc_shares(centres, radii, size, window)
    frame = np.zeros((size, size))
    frame[top[0] : top[0] + window, left[0] : left[0] + window] = shares[0]
    return frame


@pytest.mark.parametrize(
    "disc", [(8, 8, 3.3), (5.21, 9.87, 4.99), (10.5, 6.5, 0.3), (4.02, 11.9, 4.02), (8, 8, 7.9)]
)
def test_shares_are_exact(disc):
    exact = whole_frame(*disc, 16)
    assert np.abs(exact - brute_force(*disc, 16)).max() < 0.02
    assert exact.sum() == pytest.approx(math.pi * disc[2] ** 2, rel=1e-12)


def test_shares_computed_by_hand():
    quarters = whole_frame(4, 4, 1, 8)
    assert quarters[3:5, 3:5] == pytest.approx(np.full((2, 2), math.pi / 4))
    assert whole_frame(4.5, 4.5, 0.5, 8)[4, 4] == pytest.approx(math.pi / 4)
    corner = whole_frame(4, 4, math.sqrt(2), 8)
    assert corner[3:5, 3:5] == pytest.approx(np.ones((2, 2)))
    assert corner[2, 3] == pytest.approx((math.pi * 2 - 4) / 8)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-0.5, 16.5), st.floats(-0.5, 16.5), st.floats(0.01, 6), st.sampled_from([14, 15, 16])
)
def test_shares_are_shares_and_do_not_depend_on_the_window(x, y, radius, window):
    frame = whole_frame(x, y, radius, 16, window)
    assert frame.min() > -1e-12
    assert frame.max() < 1 + 1e-12
    assert np.allclose(frame, whole_frame(x, y, radius, 16, 16), atol=1e-12)


def test_single_precision_is_enough_for_a_byte():
    disc = np.array([[20.3], [31.7]]), np.array([9.6])
    _, exact = disc_shares(*disc, 64, 24)
    _, rough = disc_shares(*disc, 64, 24, np.float32)
    assert rough.dtype == np.float32
    assert np.abs(exact - rough).max() < 1 / 2550


def drawn(positions, radii, size=32, colors=RED_BLUE):
    out = np.empty((1, size, size, 3), np.uint8)
    largest = float(np.max(radii))
    Rasterizer(size, largest).rgb(np.array([positions], float), np.array([radii]), colors, out)
    return out[0]


def test_x_goes_right_and_y_up():
    frame = drawn([[0.5, 0.5], [-0.5, -0.5]], [0.25, 0.25])
    assert frame[8, 24].tolist() == [255, 0, 0]
    assert frame[24, 8].tolist() == [0, 0, 255]
    assert not frame[:16, :16].any()
    assert not frame[16:, 16:].any()


def test_pixels_shared_by_two_discs_mix_their_colours():
    frame = drawn([[-0.25, 1 / 32], [0.25, 1 / 32]], [0.25 - 1 / 64, 0.25 - 1 / 64], size=32)
    red, green, blue = frame[15, 15]
    assert (red > 0, green, blue) == (True, 0, 0)
    middle = drawn([[-0.25 + 1 / 32, 1 / 32], [0.25 + 1 / 32, 1 / 32]], [0.25, 0.25])[15, 16]
    assert middle[0] == middle[2] > 100
    assert middle[0] <= 128


def test_overlaps_saturate():
    white = np.full((2, 3), 255, np.uint8)
    frame = drawn([[0, 0], [0.02, 0]], [0.4, 0.4], colors=white)
    assert frame.max() == 255
    assert (frame[16, 10:22] == 255).all()


def test_frames_do_not_depend_on_their_batch():
    rng = np.random.default_rng(0)
    positions, radii = rng.uniform(-0.8, 0.8, (80, 7, 2)), rng.uniform(0, 0.2, (80, 7))
    colors = rng.integers(0, 256, (7, 3), dtype=np.uint8)
    painter = Rasterizer(48, 0.2)
    together, alone = np.empty((80, 48, 48, 3), np.uint8), np.empty((1, 48, 48, 3), np.uint8)
    painter.rgb(positions, radii, colors, together)
    for k in range(80):
        painter.rgb(positions[k : k + 1], radii[k : k + 1], colors, alone)
        assert np.array_equal(alone[0], together[k])


def test_binary_frames_and_owners_light_the_same_pixels():
    rng = np.random.default_rng(1)
    positions, radii = rng.uniform(-0.9, 0.9, (6, 5, 2)), rng.uniform(0.05, 0.3, (6, 5))
    radii[:, 4] = 0
    painter = Rasterizer(64, 0.3)
    lit, owners = np.empty((6, 64, 64, 1), np.uint8), np.empty((6, 64, 64), np.uint8)
    painter.binary(positions, radii, lit)
    painter.owners(positions, radii, owners)
    assert set(np.unique(lit)) == {0, 255}
    assert np.array_equal(lit[..., 0] > 0, owners > 0)
    assert set(np.unique(owners)) == {0, 1, 2, 3, 4}
    grid = (np.arange(64) + 0.5) / 32 - 1
    for world in range(6):
        reach = np.linalg.norm(
            np.stack(np.broadcast_arrays(grid[None], -grid[:, None]), -1)[:, :, None]
            - positions[world],
            axis=-1,
        )
        deep, far = reach < radii[world] - 0.04, reach > radii[world] + 0.04
        assert (owners[world][deep.any(axis=-1)] > 0).all()
        assert not owners[world][far.all(axis=-1)].any()
        for disc in range(4):
            others = np.delete(far, disc, axis=-1).all(axis=-1)
            assert (owners[world][deep[..., disc] & others] == disc + 1).all()


def test_a_disc_as_large_as_the_frame():
    frame = drawn([[0, 0]], [0.99], size=16, colors=RED_BLUE[:1])
    assert frame[8, 8, 0] == 255
    assert frame[0, 0, 0] == 0
    assert frame[..., 0].mean() / 255 == pytest.approx(math.pi * 0.99**2 / 4, abs=0.002)


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
    monkeypatch.setattr(balls_physics, "has_library", lambda _: False)
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
    monkeypatch.setattr(balls_physics, "has_library", there.__contains__)
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


@pytest.mark.usefixtures("opengl")
def test_triton_is_imported_before_mesa_so_that_it_does_not_crash_after_it():
    pytest.importorskip("triton")
    python_with(
        "",
        "from rmr_gym.envs.balls.env import BouncingBallsEnv\n"
        "BouncingBallsEnv(renderer='mujoco').reset(seed=0)\n"
        "import torch._dynamo\n",
    )


@pytest.mark.parametrize("gl", ["", "egl", "osmesa", "glfw", "disable", "cgl", "wgl"])
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


def test_a_graphics_library_that_does_not_exist_is_named():
    python_with(
        "opengl",
        "import gymnasium, rmr_gym\n"
        "try:\n"
        "    gymnasium.make('rmr/BouncingBalls-v0')\n"
        "except rmr_gym.core.errors.RMRError as error:\n"
        "    assert 'MUJOCO_GL: opengl' in str(error) and 'unset MUJOCO_GL' in str(error), error\n"
        "else:\n"
        "    raise AssertionError\n",
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
