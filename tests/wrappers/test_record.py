import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from ale_py import ALEInterface
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.wrappers import Autoreset, TimeLimit

import rmr_gym  # noqa: F401
from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import palette_to_gray
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.wrappers import PairedObservation, RecordTransitions, RecordVectorTransitions


class Counter(gym.Env):
    """Counts the steps; ends after ``ends_at``."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)
    observation_space = spaces.Dict(
        state=spaces.Box(-np.inf, np.inf, (3,), np.float32),
        pixels=spaces.Box(0, 255, (8, 8, 3), np.uint8),
    )

    def __init__(self, ends_at: int = 4):
        self.ends_at, self.episodes = ends_at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.episodes = 0, self.episodes + 1
        return self.shown(), {}

    def step(self, action):
        self.steps += 1
        return self.shown(), self.steps / 4, self.steps == self.ends_at, False, {}

    def shown(self):
        value = 10 * self.episodes + self.steps
        return {
            "state": np.full(3, value, np.float32),
            "pixels": np.full((8, 8, 3), value, np.uint8),
        }


gym.register("test/Counter-v0", Counter)
ACTION = np.array([0.5, -0.5], np.float32)


def play(env: gym.Env, steps: int, seed: int | None = None) -> None:
    env.reset(seed=seed)
    for _ in range(steps):
        env.step(ACTION)


def test_what_the_caller_writes_over_is_kept_as_it_was(tmp_path):
    env = RecordTransitions(Counter(), tmp_path)
    env.reset()
    action = np.zeros(2, np.float32)
    for step in range(4):
        action[:] = step / 4
        observation, *_ = env.step(action)
        observation["state"][:] = -1
    env.close()
    loaded = TransitionDataset(tmp_path).load(columns=("action", "state"))
    assert loaded["action"][:, 0].tolist() == [0.0, 0.25, 0.5, 0.75]
    assert loaded["state"][:, 0].tolist() == [10, 11, 12, 13, 14]


def test_any_storable_environment_is_recorded(tmp_path):
    env = RecordTransitions(Counter(), tmp_path / "d", head="fixed")
    play(env, 4, seed=3)
    play(env, 4)
    env.close()
    dataset = TransitionDataset(tmp_path / "d", verify=True)
    assert [(e.seed, e.head, e.length, e.interrupted) for e in dataset.episodes] == [
        (3, "fixed", 4, False),
        (None, "fixed", 4, False),
    ]
    loaded = dataset.load(columns=tuple(dataset.manifest.columns))
    counted = [10, 11, 12, 13, 14, 20, 21, 22, 23, 24]
    assert loaded["state"][:, 0].tolist() == counted, "the last observation is kept, no reset's"
    assert loaded["pixels"][:, 7, 7, 2].tolist() == counted
    assert (loaded["action"] == ACTION).all()
    assert loaded["action"].dtype == np.float32
    assert loaded["reward"].tolist() == [0.25, 0.5, 0.75, 1.0] * 2
    assert loaded["terminated"].tolist() == [False, False, False, True] * 2
    assert not loaded["truncated"].any()
    assert dataset.manifest.game is None
    assert dataset.manifest.actions is None
    assert dataset.manifest.settings["environment"] == "Counter"


def test_what_cuts_episodes_is_recorded_as_such(tmp_path):
    env = RecordTransitions(TimeLimit(Counter(ends_at=9), 3), tmp_path)
    play(env, 3)
    env.close()
    loaded = TransitionDataset(tmp_path).load(columns=("terminated", "truncated"))
    assert loaded["truncated"].tolist() == [False, False, True]
    assert not loaded["terminated"].any()


def test_what_is_cut_short_is_marked(tmp_path):
    env = RecordTransitions(Counter(), tmp_path)
    play(env, 2)
    play(env, 0)
    play(env, 3)
    env.close()
    env.close()
    dataset = TransitionDataset(tmp_path, verify=True)
    assert [(e.index, e.length, e.interrupted) for e in dataset.episodes] == [
        (0, 2, True),
        (1, 3, True),
    ], "an episode without a step is dropped"
    assert not dataset.load(columns=("terminated",))["terminated"].any()
    assert dataset.load(columns=("state",))["state"][:, 0].tolist() == [10, 11, 12, 30, 31, 32, 33]


def test_what_was_recorded_is_written_before_the_environment_closes(tmp_path, monkeypatch):
    def close(self):
        assert TransitionDataset(tmp_path, verify=True).episodes[0].length == 2

    monkeypatch.setattr(Counter, "close", close)
    env = RecordTransitions(Counter(), tmp_path)
    play(env, 2)
    env.close()


def test_later_recordings_are_added(tmp_path):
    for _ in range(2):
        env = RecordTransitions(Counter(), tmp_path)
        play(env, 4)
        env.close()
    assert [e.index for e in TransitionDataset(tmp_path).episodes] == [0, 1]
    env = RecordTransitions(Counter(), tmp_path, overwrite=True)
    play(env, 4)
    play(env, 4)
    env.close()
    play(env, 4)
    env.close()
    assert len(TransitionDataset(tmp_path, verify=True).episodes) == 3, "it overwrites only once"


def test_another_head_is_another_data_set(tmp_path):
    env = RecordTransitions(Counter(), tmp_path, head="a")
    play(env, 4)
    env.close()
    other = RecordTransitions(Counter(), tmp_path, head="b")
    with pytest.raises(RMRError, match=r"heads: \['a'\] in the data set, \['b'\] asked for"):
        other.reset()


def test_two_recorders_do_not_mix(tmp_path):
    first, second = (RecordTransitions(Counter(), tmp_path) for _ in range(2))
    first.reset()
    with pytest.raises(RMRError, match="being written by another recorder"):
        second.reset()
    first.close()
    play(second, 4)
    second.close()
    assert len(TransitionDataset(tmp_path).episodes) == 1


def test_a_step_outside_an_episode(tmp_path):
    env = RecordTransitions(Counter(), tmp_path)
    with pytest.raises(RMRError, match=r"call reset\(\) before step\(\)"):
        env.step(ACTION)
    play(env, 4)
    with pytest.raises(RMRError, match=r"call reset\(\) before step\(\)"):
        env.step(ACTION)
    env.close()


def test_inside_what_resets_by_itself_nothing_is_glued(tmp_path):
    env = Autoreset(RecordTransitions(Counter(), tmp_path))
    play(env, 9)
    env.close()
    dataset = TransitionDataset(tmp_path)
    assert dataset.load(columns=("state",))["state"][:, 0].tolist() == [
        *(10, 11, 12, 13, 14),
        *(20, 21, 22, 23, 24),
    ]


@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Dict(a=spaces.Discrete(2), b=spaces.Text(3))]
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, space):
    env = Counter()
    env.observation_space = space
    with pytest.raises(RMRError, match="cannot be stored"):
        RecordTransitions(env, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_vector_is_refused(tmp_path):
    envs = gym.make_vec("test/Counter-v0", 2, vectorization_mode="sync")
    with pytest.raises(RMRError, match="around a vector, use RecordVectorTransitions"):
        RecordTransitions(envs, tmp_path)
    envs.close()


def test_each_environment_of_a_vector_can_record(tmp_path):
    envs = gym.vector.SyncVectorEnv(
        [lambda i=i: RecordTransitions(Counter(), tmp_path / str(i)) for i in range(2)]
    )
    envs.reset(seed=5)
    for _ in range(7):
        envs.step(np.stack([ACTION, ACTION]))
    envs.close()
    for i in range(2):
        dataset = TransitionDataset(tmp_path / str(i))
        assert [(e.seed, e.length) for e in dataset.episodes] == [(5 + i, 4), (None, 2)]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    env = RecordTransitions(Counter(), tmp_path / "file" / "d")
    with pytest.raises(RMRError, match="cannot write"):
        env.reset()


def test_an_unknown_choice_of_what_to_store(tmp_path):
    with pytest.raises(RMRError, match="did you mean 'observation'"):
        RecordTransitions(Counter(), tmp_path, store="observations")


@pytest.mark.parametrize("env_id", ["rmr/Breakout-v0", "test/Counter-v0"])
def test_the_spec_rebuilds_it(tmp_path, env_id):
    env = RecordTransitions(gym.make(env_id), tmp_path / "d", head="h")
    rebuilt = gym.make(env.spec)
    assert isinstance(rebuilt, RecordTransitions)
    assert rebuilt.spec == env.spec
    assert not (tmp_path / "d").exists(), "wrapping alone writes nothing"
    for each in (env, rebuilt):
        each.reset(seed=1)
        each.step(each.action_space.sample())
        each.close()
    assert len(TransitionDataset(tmp_path / "d").episodes) == 2


def test_nothing_is_changed_on_the_way(tmp_path):
    bare = gym.make("rmr/Seaquest-v0", repeat_action_probability=0.25)
    recorded = RecordTransitions(
        gym.make("rmr/Seaquest-v0", repeat_action_probability=0.25), tmp_path
    )
    assert recorded.observation_space == bare.observation_space
    assert data_equivalence(recorded.reset(seed=4), bare.reset(seed=4))
    for action in np.random.default_rng(0).integers(18, size=40).tolist():
        assert data_equivalence(recorded.step(action), bare.step(action))
    recorded.close()


class Frozen(gym.ObservationWrapper):
    """Shows something else than the emulator's state."""

    def observation(self, observation):
        return {"ram": observation["ram"] * 0, "pixels": observation["pixels"] * 0}


@pytest.mark.parametrize("kind", ["gray", "palette", "rgb", "frozen"])
def test_screen_and_ram_are_those_of_the_emulator(tmp_path, kind):
    """Compare with ALE read independently, whatever the environment shows."""
    env = gym.make("rmr/Breakout-v0", pixels="gray" if kind == "frozen" else kind)
    env = RecordTransitions(Frozen(env) if kind == "frozen" else env, tmp_path)
    ale: ALEInterface = env.unwrapped.ale
    env.reset(seed=0)
    screens, rams, grays = [ale.getScreen()], [ale.getRAM()], [ale.getScreenGrayscale()]
    for action in [1, 3, 3, 4, 0, 4] * 12:
        env.step(action)
        screens.append(ale.getScreen())
        rams.append(ale.getRAM())
        grays.append(ale.getScreenGrayscale())
    env.close()
    loaded = TransitionDataset(tmp_path, verify=True).load(columns=("pixels", "ram", "action"))
    np.testing.assert_array_equal(loaded["pixels"], screens)
    np.testing.assert_array_equal(loaded["ram"], rams)
    np.testing.assert_array_equal(palette_to_gray(loaded["pixels"]), grays)
    assert loaded["action"].tolist() == [1, 3, 3, 4, 0, 4] * 12
    assert len(np.unique(loaded["ram"], axis=0)) > 50, "the game moves"


def test_the_manifest_says_what_was_played(tmp_path):
    env = RecordTransitions(
        TimeLimit(gym.make("rmr/Pong-v0", frameskip=2), 5), tmp_path, head="mine"
    )
    env.reset()
    env.close()
    manifest = TransitionDataset(tmp_path).manifest
    assert (manifest.env_id, manifest.game, manifest.actions) == ("rmr/Pong-v0", "Pong", 18)
    assert manifest.env_kwargs["frameskip"] == 2
    assert manifest.rom_md5 == "60e0ea3cbe0913d39803477945e9e5ec"
    assert manifest.heads == ("mine",)
    assert manifest.settings["max_episode_steps"] == 5
    assert {"ale-py", "gymnasium", "numpy", "h5py", "hdf5plugin"} <= set(manifest.versions)
    assert manifest.columns["pixels"].encoding == "ale_palette"
    assert manifest.columns["pixels"].shape == (210, 160)


def test_around_an_environment_of_ale_itself(tmp_path):
    import ale_py

    gym.register_envs(ale_py)
    env = RecordTransitions(PairedObservation(gym.make("ALE/Alien-v5")), tmp_path / "paired")
    bare = RecordTransitions(gym.make("ALE/Pong-v5", obs_type="ram"), tmp_path / "bare")
    for each in (env, bare):
        each.reset(seed=0)
        each.step(0)
        each.close()
    paired, alone = (TransitionDataset(tmp_path / name) for name in ("paired", "bare"))
    assert (paired.manifest.game, alone.manifest.game) == ("Alien", "Pong")
    assert alone.manifest.rom_md5 == "60e0ea3cbe0913d39803477945e9e5ec"
    for dataset in (paired, alone):
        assert list(dataset.manifest.columns)[:2] == ["pixels", "ram"]


def test_the_observation_itself_on_request(tmp_path):
    env = RecordTransitions(gym.make("rmr/Pong-v0"), tmp_path, store="observation")
    shown = [env.reset(seed=0)[0], env.step(3)[0]]
    env.close()
    dataset = TransitionDataset(tmp_path)
    assert dataset.manifest.columns["pixels"].encoding == "raw"
    loaded = dataset.load(columns=("pixels", "ram"))
    np.testing.assert_array_equal(loaded["pixels"], [each["pixels"] for each in shown])
    np.testing.assert_array_equal(loaded["ram"], [each["ram"] for each in shown])


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copied_recorder_records_its_own_emulator(tmp_path, twin_of):
    twin = twin_of(RecordTransitions(gym.make("rmr/Pong-v0"), tmp_path / "d"))
    twin.reset(seed=0)
    shown = [twin.step(2)[0]["ram"] for _ in range(20)]
    twin.close()
    stored = TransitionDataset(tmp_path / "d").episode(0).observations["ram"][1:]
    assert np.array_equal(stored, shown)
    assert len(np.unique(stored, axis=0)) > 10


def test_no_copy_is_made_of_a_recorder_that_records(tmp_path):
    env = RecordTransitions(Counter(), tmp_path)
    env.reset()
    for twin_of in (copy.deepcopy, pickle.dumps):
        with pytest.raises(RMRError, match=r"no copy can be made: close\(\) it before"):
            twin_of(env)
    env.close()
    play(copy.deepcopy(env), 4)
    assert len(TransitionDataset(tmp_path).episodes) == 1


@pytest.mark.parametrize("seed", [np.int64(7), 2**64, np.random.SeedSequence(0).entropy + 2**100])
def test_every_seed_that_gymnasium_takes_is_stored(tmp_path, seed):
    env = RecordTransitions(gym.make("rmr/Pong-v0"), tmp_path)
    env.reset(seed=seed)
    env.step(0)
    env.close()
    (episode,) = TransitionDataset(tmp_path).episodes
    assert episode.seed == seed
    assert type(episode.seed) is int


@pytest.mark.parametrize("entry", ["action_space", "observation_space"])
def test_a_space_of_no_numbers_is_refused_at_the_start(tmp_path, entry):
    env = Counter()
    setattr(env, entry, spaces.Box(-1, 1, (3, 0), np.float32))
    with pytest.raises(RMRError, match="one number or more, found Box"):
        RecordTransitions(env, tmp_path)
    vector = gym.vector.SyncVectorEnv([Counter])
    setattr(vector, f"single_{entry}", spaces.Box(-1, 1, (0,), np.float32))
    with pytest.raises(RMRError, match="one number or more, found Box"):
        RecordVectorTransitions(vector, tmp_path)


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
def test_rewards_that_are_no_numbers_are_stored(tmp_path, reward):
    env = RecordTransitions(gym.wrappers.TransformReward(Counter(), lambda _: reward), tmp_path)
    play(env, 4)
    env.close()
    dataset = TransitionDataset(tmp_path)
    assert np.array_equal(dataset.episode(0).rewards, np.full(4, reward), equal_nan=True)
    dataset.verify()
