import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.core.errors import RMRError
from rmr_gym.wrappers.crops import RandomCrops, VectorRandomCrops, crop

S2RM = "rmr/S2RMBalls3-v0"


def pixel(position, side=48):
    x, y = position
    return round((1 - y) * side / 2 - 0.5), round((x + 1) * side / 2 - 0.5)


def test_crops_are_the_picture_around_their_positions():
    env = RandomCrops(gym.make(S2RM), keep=["pixels"])
    observation, _ = env.reset(seed=0)
    seen_edge = False
    for _ in range(20):
        padded = np.pad(observation["pixels"], ((5, 5), (5, 5), (0, 0)))
        for view, position in zip(observation["crops"], observation["positions"], strict=True):
            row, column = pixel(position)
            assert np.array_equal(view, padded[row : row + 11, column : column + 11])
            assert np.array_equal(view[5, 5], observation["pixels"][row, column])
            seen_edge |= min(row, column) < 5
        observation, *_ = env.step(0)
    assert seen_edge


def test_queries_are_the_next_positions():
    env = RandomCrops(gym.make(S2RM))
    observation, _ = env.reset(seed=0)
    asked = [observation["queries"]]
    for _ in range(5):
        observation, *_ = env.step(0)
        assert np.array_equal(observation["positions"], asked[-1])
        asked.append(observation["queries"])
    assert not np.array_equal(asked[0], asked[1])


def test_positions_cover_the_whole_picture():
    env = RandomCrops(gym.make(S2RM, max_episode_steps=-1), crops=64)
    env.reset(seed=1)
    points = np.concatenate([env.step(0)[0]["positions"] for _ in range(400)])
    pixels = {pixel(point) for point in points}
    assert len(pixels) == 48 * 48
    assert np.abs(points).max() == pytest.approx(1 - 1 / 48)
    assert np.abs(points.mean(axis=0)).max() < 0.03


def test_the_default_is_the_papers_and_its_spec_round_trips():
    env = RandomCrops(gym.make(S2RM))
    assert {name: space.shape for name, space in env.observation_space.items()} == {
        "crops": (10, 11, 11, 1),
        "positions": (10, 2),
        "queries": (10, 2),
    }
    twin = gym.make(EnvSpec.from_json(env.spec.to_json()))
    for name, entry in env.reset(seed=1)[0].items():
        assert np.array_equal(entry, twin.reset(seed=1)[0][name])


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_gymnasium_accepts_it():
    check_env(RandomCrops(gym.make(S2RM), keep=("state",)), skip_render_check=True)


def test_two_copies_do_the_same_over_episodes():
    runs = []
    for _ in range(2):
        env = RandomCrops(gym.make(S2RM))
        run = [env.reset(seed=3)[0], env.step(0)[0], env.reset()[0], env.step(0)[0]]
        runs.append([entry for step in run for entry in step.values()])
    assert all(map(np.array_equal, *runs))


def test_the_vector_wrapper_equals_the_single_one():
    options = {"num_envs": 3, "max_episode_steps": 4}
    vector = VectorRandomCrops(gym.make_vec(S2RM, **options), crops=6, size=7, keep=["state"])
    singles = gym.make_vec(
        S2RM,
        vectorization_mode="sync",
        wrappers=[lambda env: RandomCrops(env, crops=6, size=7, keep=["state"])],
        **options,
    )
    ours, theirs = vector.reset(seed=2)[0], singles.reset(seed=2)[0]
    for _ in range(12):
        assert ours in vector.observation_space
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
        ours, theirs = vector.step(np.zeros(3, int))[0], singles.step(np.zeros(3, int))[0]


def test_bare_gray_pictures_get_a_channel():
    class Ramp(gym.Env):
        observation_space = spaces.Box(0, 255, (9, 12), np.uint8)
        action_space = spaces.Discrete(1)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.arange(108, dtype=np.uint8).reshape(9, 12), {}

    observation, _ = RandomCrops(Ramp(), crops=4, size=3).reset(seed=0)
    assert observation["crops"].shape == (4, 3, 3, 1)
    for view, (x, y) in zip(observation["crops"], observation["positions"], strict=True):
        row, column = round((1 - y) * 4.5 - 0.5), round((x + 1) * 6 - 0.5)
        assert view[1, 1, 0] == 12 * row + column


def test_crop_by_hand():
    frames = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    cut = crop(frames, np.array([[[0, 0], [1, 1]]]), 3)
    assert cut[0, 0, ..., 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 3, 4]]
    assert np.array_equal(cut[0, 1], frames[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 3}, "unknown option 'crop': did you mean 'crops'"),
        ({"crops": 0}, "1 crop or more"),
        ({"size": 10}, "odd size of crops from 1 to 48"),
        ({"size": 0}, "odd size"),
        ({"size": 49}, "odd size"),
        ({"key": "pixels_"}, "did you mean 'pixels'"),
        ({"key": "state"}, "a picture of bytes"),
        ({"keep": ["stat"]}, "did you mean 'state'"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(RMRError, match=message):
        RandomCrops(gym.make(S2RM), **options)
    with pytest.raises(RMRError, match=message):
        VectorRandomCrops(gym.make_vec(S2RM, num_envs=2), **options)
