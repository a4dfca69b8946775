import ale_py
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import palette_to_gray
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.envs.atari.games import GAMES
from rmr_gym.wrappers import PairedObservation

gym.register_envs(ale_py)
PLAIN = {"repeat_action_probability": 0.0, "full_action_space": True}


def random_actions(count: int) -> list[int]:
    return [int(action) for action in np.random.default_rng(0).integers(18, size=count)]


def same(one, two) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in ("ram", "pixels"))


class Pooled(gym.ObservationWrapper):
    """Stands for what preprocessing does: two frames of skip, pooled and made smaller."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gym.spaces.Box(0, 255, (105, 80), np.uint8)
        self._last = np.zeros((210, 160), np.uint8)

    def observation(self, observation):
        pooled = np.maximum(observation, self._last)
        self._last = observation
        return pooled[::2, ::2]

    def step(self, action):
        first_reward = self.env.step(action)[1]
        observation, reward, *rest = super().step(action)
        return observation, reward + first_reward, *rest


@pytest.mark.parametrize(
    ("name", "obs_type", "pixels"),
    [
        ("Pong", "rgb", "gray"),
        ("Pong", "ram", "palette"),
        ("PrivateEye", "grayscale", "rgb"),
        ("YarsRevenge", "ram", "gray"),
    ],
)
def test_equal_to_the_paired_environment_whatever_is_observed(name, obs_type, pixels):
    inner = gym.make(GAMES[name].ale_id, obs_type=obs_type, **PLAIN)
    wrapped = PairedObservation(inner, pixels=pixels)
    paired = PairedAtariEnv(name, pixels=pixels)
    assert wrapped.observation_space == paired.observation_space
    assert same(wrapped.reset(seed=3)[0], paired.reset(seed=3)[0])
    for action in random_actions(25):
        theirs, reward, *_ = wrapped.step(action)
        ours, our_reward, *_ = paired.step(action)
        assert same(theirs, ours)
        assert reward == our_reward


def test_both_are_what_the_emulator_holds_at_that_instant():
    env = PairedObservation(gym.make("ALE/Alien-v5"))
    observation, _ = env.reset(seed=0)
    ale = env.unwrapped.ale
    for action in random_actions(20):
        assert np.array_equal(observation["ram"], ale.getRAM())
        assert np.array_equal(observation["pixels"][:, :, 0], ale.getScreenGrayscale())
        assert observation in env.observation_space
        previous = {key: array.copy() for key, array in observation.items()}
        kept = observation
        observation, *_ = env.step(action)
        assert same(kept, previous)


def test_pooling_resizing_and_stacking_underneath_do_not_touch_the_pair():
    inner = Pooled(gym.make("ALE/Asteroids-v5", obs_type="grayscale", frameskip=1, **PLAIN))
    env = PairedObservation(gym.wrappers.FrameStackObservation(inner, 4))
    plain = PairedAtariEnv("Asteroids", frameskip=2)
    assert same(env.reset(seed=0)[0], plain.reset(seed=0)[0])
    for action in random_actions(30):
        assert same(env.step(action)[0], plain.step(action)[0])


def test_around_gymnasiums_preprocessing():
    pytest.importorskip("cv2", exc_type=ImportError)
    inner = gym.make("ALE/Pong-v5", frameskip=1, **PLAIN)
    env = PairedObservation(gym.wrappers.AtariPreprocessing(inner, noop_max=0))
    plain = PairedAtariEnv("Pong")
    assert same(env.reset(seed=0)[0], plain.reset(seed=0)[0])
    for action in random_actions(30):
        assert same(env.step(action)[0], plain.step(action)[0])


def test_around_our_own_environment():
    env = PairedObservation(gym.make("rmr/Pong-v0", pixels="palette"))
    observation, _ = env.reset(seed=0)
    indices = env.unwrapped.ale.getScreen()
    assert np.array_equal(observation["pixels"][:, :, 0], palette_to_gray(indices))


def test_a_game_with_a_taller_screen():
    env = PairedObservation(gym.make("ALE/AirRaid-v5"), pixels="rgb")
    observation, _ = env.reset(seed=0)
    assert observation["pixels"].shape == (250, 160, 3)
    assert observation in env.observation_space


def test_gymnasium_accepts_it_and_rebuilds_it_from_its_spec():
    env = PairedObservation(gym.make("ALE/Pong-v5", **PLAIN), pixels="palette")
    with pytest.warns(UserWarning, match="different from the unwrapped version"):
        check_env(env, skip_render_check=True)
    spec = EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    assert isinstance(again, PairedObservation)
    assert again.spec == env.spec
    assert same(again.reset(seed=1)[0], env.reset(seed=1)[0])
    assert same(again.step(2)[0], env.step(2)[0])


def test_an_environment_without_an_emulator():
    with pytest.raises(RMRError, match=r"expected an environment over ALE.*CartPole"):
        PairedObservation(gym.make("CartPole-v1"))
