import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.core.errors import RMRError
from rmr_gym.wrappers.occlusion import Curtain


class Snow(gym.Env):
    """A bare gray picture of noise."""

    observation_space = spaces.Box(0, 255, (20, 30), np.uint8)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.integers(1, 256, (20, 30), dtype=np.uint8), {}

    def step(self, action):
        return self.np_random.integers(1, 256, (20, 30), dtype=np.uint8), 0.0, False, False, {}


def covered(info, shape):
    inside = np.zeros(shape, bool)
    top, left, rows, columns = info["curtain"]
    inside[top : top + rows, left : left + columns] = True
    assert inside.sum() == rows * columns
    return inside


def test_hides_a_rectangle_and_nothing_else():
    env, bare = Curtain(Snow(), sides=(0.2, 0.6), color=0), Snow()
    for seed in range(8):
        (hidden, info), (seen, _) = env.reset(seed=seed), bare.reset(seed=seed)
        for _ in range(3):
            inside = covered(info, (20, 30))
            assert not hidden[inside].any()
            assert np.array_equal(hidden[~inside], seen[~inside])
            hidden, *_, info = env.step(0)
            seen, *_ = bare.step(0)


def test_the_curtain_stays_for_an_episode_and_moves_between_them():
    env = Curtain(gym.make("rmr/BouncingBalls-v0"))
    places = []
    for episode in range(6):
        _, info = env.reset(seed=0 if episode == 0 else None)
        places.append(tuple(info["curtain"]))
        assert tuple(env.step(0)[4]["curtain"]) == places[-1]
    assert len(set(places)) > 3


def test_the_seed_determines_curtains_and_the_world_is_untouched():
    first, second = (Curtain(gym.make("rmr/RNEMBalls4-v0")) for _ in range(2))
    bare = gym.make("rmr/RNEMBalls4-v0")
    for _ in range(3):
        one, two, plain = first.reset(seed=5), second.reset(seed=5), bare.reset(seed=5)
        assert np.array_equal(one[1]["curtain"], two[1]["curtain"])
        assert np.array_equal(one[0]["pixels"], two[0]["pixels"])
        assert np.array_equal(one[0]["state"], plain[0]["state"])
        assert np.array_equal(first.reset()[1]["curtain"], second.reset()[1]["curtain"])


def test_sides_and_places_fill_their_ranges():
    env = Curtain(Snow(), sides=(0.2, 0.5))
    boxes = np.array([env.reset(seed=seed)[1]["curtain"] for seed in range(200)])
    assert (boxes[:, 2].min(), boxes[:, 2].max()) == (4, 10)
    assert (boxes[:, 3].min(), boxes[:, 3].max()) == (6, 15)
    assert boxes[:, :2].min() == 0
    assert (boxes[:, 0] + boxes[:, 2]).max() == 20
    assert (boxes[:, 1] + boxes[:, 3]).max() == 30


def test_a_full_curtain_hides_everything():
    observation, _ = Curtain(Snow(), sides=(1.0, 1.0), color=7).reset(seed=0)
    assert (observation == 7).all()


def test_does_not_write_into_the_wrapped_observation():
    frame = np.full((20, 30), 9, np.uint8)
    inner = Snow()
    inner.step = lambda _: (frame, 0.0, False, False, {})
    env = Curtain(inner)
    env.reset(seed=0)
    assert not env.step(0)[0].all()
    assert (frame == 9).all()


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_gymnasium_accepts_it_and_its_spec():
    env = Curtain(gym.make("rmr/RNEMBalls4-v0"), sides=(0.3, 0.4))
    check_env(env, skip_render_check=True)
    twin = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert np.array_equal(env.reset(seed=1)[0]["pixels"], twin.reset(seed=1)[0]["pixels"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": "pixel"}, "did you mean 'pixels'"),
        ({"key": "state"}, "expected a picture of bytes"),
        ({"sides": (0.0, 0.5)}, "as fractions of the frame"),
        ({"sides": (0.5,)}, "as fractions of the frame"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(RMRError, match=message):
        Curtain(gym.make("rmr/BouncingBalls-v0"), **options)
    with pytest.raises(RMRError, match="expected a picture of bytes"):
        Curtain(gym.make("CartPole-v1"))
