import gymnasium as gym
import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.envs import register_envs
from rmr_gym.envs.balls import physics as balls_physics
from rmr_gym.envs.balls.config import PRESETS, BallsConfig, configure, distinct_colors
from rmr_gym.envs.balls.env import BouncingBallsEnv, BouncingBallsVectorEnv
from rmr_gym.envs.balls.physics import check_fit, draw_positions

BAD = [
    ({"balls": 0}, "balls to be a number from 1"),
    ({"balls": 2.5}, "balls to be a number from 1"),
    ({"balls": True}, "balls to be a number from 1"),
    ({"balls": (3, 2)}, "balls to be a number from 1"),
    ({"balls": (3,)}, "balls to be a number from 1"),
    ({"balls": 30}, "30 of radius up to 0.15 that cover 53% of it: take fewer or smaller balls"),
    ({"balls": 1, "radii": 0.5, "fixed_ball": 0.3}, "balls that fit .* cover 27%"),
    ({"radii": 0}, "expected radius from 0.03"),
    ({"radii": -0.1}, "found -0.1"),
    ({"radii": 1.0}, "to below 1"),
    ({"radii": float("nan")}, "expected radius"),
    ({"radii": [0.1, 0.2]}, "one for each of 10, found \\("),
    ({"masses": 0}, "expected a mass above 0, found 0"),
    ({"masses": -1.0}, "expected a mass above 0"),
    ({"masses": float("inf")}, "expected a mass above 0"),
    ({"masses": [1.0] * 3}, "one for each of 10, found \\("),
    ({"kinds": [(0.1,)]}, r"rows \(radius, mass\)"),
    ({"kinds": [(0.1, 1.0)], "radii": 0.1}, "either kinds or radii, found both"),
    ({"kinds": [(0.1, 0.0)]}, "a mass above 0"),
    ({"speeds": 0}, "both above 0"),
    ({"speeds": (-1, 1)}, "both above 0"),
    ({"speeds": (2, 1)}, "in this order"),
    ({"speeds": (1, 2, 3)}, "one speed or"),
    ({"resolution": 0}, "whole number of pixels from 8"),
    ({"resolution": -64}, "whole number of pixels"),
    ({"resolution": 64.0}, "whole number of pixels"),
    ({"fps": 0}, "frames a second, above 0"),
    ({"frames": "rbg"}, "did you mean 'rgb'"),
    ({"colors": "distinkt"}, "did you mean 'distinct'"),
    ({"colors": [(0, 0, 300)]}, "whole numbers from 0 to 255"),
    ({"colors": [(0, 0)]}, "one triple a ball"),
    ({"colors": [(0, 0, 0)] * 11}, "at most 10 balls, found 11"),
    ({"curtain": (0, 0.5)}, "as fractions of the frame"),
    ({"curtain": (0.5, 0.3)}, "as fractions of the frame"),
    ({"curtain": (0.5, 1.5)}, "as fractions of the frame"),
    ({"fixed_ball": 0}, "expected fixed_ball from 0.03"),
    ({"push": -1}, "expected push"),
    ({"push": 1, "balls": 1}, "at least 2 balls in a pushed world"),
    ({"observe": ["velocity"]}, "did you mean 'velocities'"),
    ({"radius": 0.1}, "unknown option 'radius': did you mean 'radii'"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_worlds_that_cannot_be(options, message, monkeypatch):
    def simulate(*_):
        raise AssertionError("simulated")

    monkeypatch.setattr(balls_physics, "compile_model", simulate)
    for make in (BouncingBallsEnv, BouncingBallsVectorEnv):
        with pytest.raises(RMRError, match=message):
            make(**options)


def test_a_config_made_by_hand_is_checked_too():
    with pytest.raises(RMRError, match="balls to be a number from 1"):
        BallsConfig(balls=0)
    with pytest.raises(RMRError, match="balls that fit"):
        check_fit(BallsConfig(balls=30))


def test_unknown_presets_and_renderers():
    with pytest.raises(RMRError, match="unknown preset 'rnem4': did you mean 'rnem-4'"):
        BouncingBallsEnv("rnem4")
    with pytest.raises(RMRError, match="unknown renderer 'mujocco': did you mean 'mujoco'"):
        BouncingBallsEnv(renderer="mujocco")
    with pytest.raises(RMRError, match="unknown render mode 'rgb': did you mean 'rgb_array'"):
        BouncingBallsEnv(render_mode="rgb")
    for size in (0, 10_000):
        with pytest.raises(RMRError, match="render_size"):
            BouncingBallsEnv(render_size=size)


def test_presets_are_registered_once_with_both_entry_points():
    before = dict(gym.registry)
    register_envs()
    assert gym.registry == before
    for name, preset in PRESETS.items():
        spec = gym.spec(preset.env_id)
        assert spec.kwargs == {"preset": name}
        assert spec.max_episode_steps == preset.steps
        assert spec.vector_entry_point is not None
        assert configure(name, {}) == preset.config


def test_presets_are_what_the_papers_say():
    assert configure("rmr", {}).balls == 10
    light, heavy = configure("rnem-4", {}).kinds
    assert heavy[0] / light[0] == pytest.approx(1.25)
    assert heavy[1] / light[1] == pytest.approx(6)
    crowd = configure("rnem-6-8", {})
    assert (crowd.fewest, crowd.most, crowd.extras) == (6, 8, ("presence",))
    assert configure("rnem-curtain", {}).balls == 3
    assert [configure(f"s2rm-{n}", {}).balls for n in range(1, 7)] == [1, 2, 3, 4, 5, 6]
    for name in PRESETS:
        config = configure(name, {})
        assert (config.frames == "binary") == name.startswith(("rnem", "s2rm"))
        assert config.resolution == (48 if name.startswith("s2rm") else 64)
        assert bool(config.fixed_ball) == name.startswith("s2rm")
        assert config.timestep == pytest.approx(0.0025)
        assert config.substeps == 20


def test_given_radii_take_the_place_of_kinds():
    config = configure("rnem-4", {"radii": 0.1})
    assert config.all_kinds == ((0.1, 1.0),) * 4
    assert configure("rmr", {"speeds": 1}).speeds == (1.0, 1.0)
    assert configure("rmr", {"radii": np.full(10, 0.1)}).radii == (0.1,) * 10


def test_fast_light_balls_get_shorter_physics_steps():
    plain = configure("rmr", {})
    fast = configure("rmr", {"speeds": 10.4})
    assert fast.timestep == pytest.approx(plain.timestep / 4)
    light = configure("rmr", {"kinds": [(0.1, 1.0), (0.1, 100.0)]})
    assert light.substeps > plain.substeps
    slow = configure("rmr", {"fps": 1000})
    assert (slow.substeps, slow.timestep) == (1, 0.001)


def test_distinct_colors_are_distinct():
    colors = np.array(distinct_colors(10), float)
    gaps = np.linalg.norm(colors[:, None] - colors, axis=-1)
    assert gaps[~np.eye(10, dtype=bool)].min() > 60


def test_a_full_box_is_filled_and_a_fuller_one_refused():
    radii = np.full(18, 0.17)
    places = draw_positions(np.random.default_rng(0), radii, 0.0)
    gaps = np.linalg.norm(places[:, None] - places, axis=-1)
    assert gaps[~np.eye(18, dtype=bool)].min() > 0.34
    with pytest.raises(RMRError, match="found no room"):
        draw_positions(np.random.default_rng(0), np.full(40, 0.17), 0.0)
