import copy
import pickle

import ale_py
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import palette_to_gray
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.wrappers import PairedObservation, RecordVectorTransitions
from rmr_gym.wrappers.views import Curtain, RandomCrops, VectorRandomCrops, crop

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
    inner = gym.make(f"ALE/{name}-v5", obs_type=obs_type, **PLAIN)
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
def test_a_curtain_that_cannot_be(options, message):
    with pytest.raises(RMRError, match=message):
        Curtain(gym.make("rmr/BouncingBalls-v0"), **options)
    with pytest.raises(RMRError, match="expected a picture of bytes"):
        Curtain(gym.make("CartPole-v1"))


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
        ({"size": 10}, "odd size from 1 to 48"),
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


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_reads_its_own_emulator(twin_of):
    env = PairedObservation(gym.make("ALE/Pong-v5", obs_type="ram", **PLAIN), pixels="palette")
    env.reset(seed=1)
    twin = twin_of(env)
    fresh = PairedAtariEnv("Pong", pixels="palette")
    assert same(twin.reset(seed=0)[0], fresh.reset(seed=0)[0])
    for action in random_actions(40):
        assert same(twin.step(action)[0], fresh.step(action)[0])


def vectors_of_crops(mode, frames=12):
    """Make our crops around a vector, and a vector of crops, of episodes that end by themselves."""
    options = {"max_num_frames_per_episode": frames, "noop_max": 9, "pixels": "palette"}
    ours = gym.make_vec("rmr/Pong-v0", 3, workers=0, autoreset_mode=mode, **options)
    theirs = gym.make_vec(
        "rmr/Pong-v0",
        3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        wrappers=[RandomCrops],
        **options,
    )
    return VectorRandomCrops(ours), theirs


def test_last_observations_are_crops_too():
    ours, theirs = vectors_of_crops("SameStep")
    ours.reset(seed=[5, 2, 9])
    theirs.reset(seed=[5, 2, 9])
    ended = 0
    for _ in range(9):
        shown, *_, infos = ours.step(np.full(3, 2))
        wanted, *_, others = theirs.step(np.full(3, 2))
        assert all(np.array_equal(shown[name], wanted[name]) for name in wanted)
        for last, also in zip(infos.get("final_obs", ()), others.get("final_obs", ()), strict=True):
            assert (last is None) == (also is None)
            assert all(np.array_equal(last[name], also[name]) for name in also or ())
            ended += also is not None
    assert ended


def test_a_masked_reset_looks_at_its_worlds_alone():
    ours, theirs = vectors_of_crops("Disabled", frames=1000)
    for seed, options in ((1, None), ([4, None, 6], {"reset_mask": np.array([True, False, True])})):
        shown, wanted = (envs.reset(seed=seed, options=options)[0] for envs in (ours, theirs))
        for _ in range(2):
            assert all(np.array_equal(shown[name], wanted[name]) for name in wanted)
            shown, wanted = (envs.step(np.full(3, 2))[0] for envs in (ours, theirs))


def test_crops_are_recorded_where_the_next_episode_begins_at_once(tmp_path):
    envs = RecordVectorTransitions(vectors_of_crops("SameStep")[0], tmp_path)
    envs.reset(seed=[5, 2, 9])
    for _ in range(4):
        envs.step(np.full(3, 2))
    envs.close()
    assert TransitionDataset(tmp_path).episode(0).observations["crops"].shape[1:] == (10, 11, 11, 1)
