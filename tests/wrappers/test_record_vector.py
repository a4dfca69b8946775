from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics, VectorizeTransformObservation

import rmr_gym  # noqa: F401
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.wrappers import RecordTransitions, RecordVectorTransitions
from rmr_gym.wrappers.describe import describe

STEPS = ("action", "reward", "terminated", "truncated")


class Walk(gym.Env):
    """Walks by its action and chance; ends beyond 1.5, is cut after 6 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = self.np_random.uniform(-0.3, 0.3, 2), 0
        return self.place, {}

    def step(self, action):
        self.steps += 1
        self.place = self.place + action + self.np_random.normal(0, 0.3, 2)
        over = bool(np.abs(self.place).max() > 1.5)
        return self.place, float(self.place[0]), over, self.steps == 6, {"steps": self.steps}


class Kinds(Walk):
    """Shows every kind of space that can be stored."""

    observation_space = spaces.Dict(
        grid=spaces.MultiDiscrete([5, 7]),
        inner=spaces.Dict(bits=spaces.MultiBinary(3), one=spaces.Discrete(4)),
    )

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        return self.observation_space.sample(), info

    def step(self, action):
        return (self.observation_space.sample(), *super().step(action)[1:])


def policy(observations) -> np.ndarray:
    return np.clip(0.7 * observations[..., :1], -1, 1).astype(np.float32)


def vector(kind, mode="NextStep", n=3):
    return kind([Walk] * n, autoreset_mode=AutoresetMode(mode))


def record(path, envs, steps=25, **options):
    envs = RecordVectorTransitions(envs, path, **options)
    observations, _ = envs.reset(seed=5)
    for _ in range(steps):
        observations, *_ = envs.step(policy(observations))
    envs.close()
    return TransitionDataset(path, verify=True)


def alone(path, seed, episodes) -> TransitionDataset:
    env = RecordTransitions(Walk(), path, head=str(seed))
    for episode in range(episodes):
        observation, _ = env.reset(seed=None if episode else seed)
        over = False
        while not over:
            observation, _, terminated, truncated, _ = env.step(policy(observation))
            over = terminated or truncated
    env.close()
    return TransitionDataset(path, verify=True)


def content(dataset, head=None) -> list[dict]:
    """Return seed and columns of the finished episodes, in their order."""
    return [
        {"seed": episode.seed, **{name: loaded[name].tolist() for name in dataset.manifest.columns}}
        for episode in dataset.episodes
        if not episode.interrupted and head in (None, episode.head)
        for loaded in [dataset.load(tuple(dataset.manifest.columns), episodes=[episode.index])]
    ]


def files(folder) -> dict:
    return {path.name: path.read_bytes() for path in (folder / "episodes").iterdir()}


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_as_recorded_around_each_environment_alone(tmp_path, mode):
    together = record(tmp_path / "all", vector(SyncVectorEnv, mode), heads=["5", "6", "7"])
    kinds = set()
    for seed in (5, 6, 7):
        found = content(together, head=str(seed))
        assert len(found) > 3
        assert found == content(alone(tmp_path / str(seed), seed, len(found)))
        assert [episode["seed"] for episode in found] == [seed] + [None] * (len(found) - 1)
        kinds |= {(len(each["action"]), each["terminated"][-1]) for each in found}
    assert {terminated for _, terminated in kinds} == {True, False}
    assert len(kinds) > 3, "episodes of several lengths, terminated and truncated"


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_the_same_seed_gives_the_same_bytes_in_processes_too(tmp_path, mode):
    record(tmp_path / "sync", vector(SyncVectorEnv, mode))
    record(tmp_path / "async", vector(AsyncVectorEnv, mode))
    assert files(tmp_path / "sync") == files(tmp_path / "async")


def test_without_autoreset_masks_begin_the_next_episodes(tmp_path):
    envs = RecordVectorTransitions(
        vector(SyncVectorEnv, "Disabled"), tmp_path / "all", heads=["5", "6", "7"]
    )
    observations, _ = envs.reset(seed=5)
    for _ in range(25):
        observations, _, terminated, truncated, _ = envs.step(policy(observations))
        over = terminated | truncated
        if over.any():
            with pytest.raises(RMRError, match="found none in"):
                envs.step(policy(observations))
            observations, _ = envs.reset(options={"reset_mask": over})
    envs.close()
    for seed in (5, 6, 7):
        found = content(TransitionDataset(tmp_path / "all"), head=str(seed))
        assert found == content(alone(tmp_path / str(seed), seed, len(found)))


def test_a_mask_cuts_short_and_seeds_what_it_names(tmp_path):
    envs = RecordVectorTransitions(vector(SyncVectorEnv, "Disabled", 2), tmp_path)
    envs.reset(seed=100)
    envs.step(np.zeros((2, 1), np.float32))
    envs.reset(seed=[None, 9], options={"reset_mask": np.array([False, True])})
    envs.step(np.zeros((2, 1), np.float32))
    envs.close()
    found = [
        (e.index, e.seed, e.length, e.interrupted) for e in TransitionDataset(tmp_path).episodes
    ]
    assert found == [(0, 100, 2, True), (1, 101, 1, True), (2, 9, 1, True)]


@pytest.mark.parametrize("env_id", ["rmr/BouncingBalls-v0", "rmr/PushedBalls-v0"])
def test_balls_as_recorded_alone(tmp_path, env_id):
    def vector_of_two(**kind):
        return gym.make_vec(env_id, 2, balls=3, max_episode_steps=4, **kind)

    single = gym.make(env_id, balls=3, max_episode_steps=4)
    actions = [0, 1] if "Pushed" in env_id else [0, 0]
    for name, worlds in {
        "own": vector_of_two(threads=1),
        "sync": vector_of_two(vectorization_mode="sync"),
    }.items():
        assert describe(worlds, heads=()) == describe(single, heads=())
        envs = RecordVectorTransitions(worlds, tmp_path / name)
        envs.reset(seed=3)
        for _ in range(9):
            envs.step(np.array(actions))
        envs.close()
    assert files(tmp_path / "own") == files(tmp_path / "sync")
    dataset = TransitionDataset(tmp_path / "own", verify=True)
    assert [(e.seed, e.length) for e in dataset.episodes] == [(3, 4), (4, 4), (None, 4), (None, 4)]
    for world in range(2):
        env = RecordTransitions(
            gym.make(env_id, balls=3, max_episode_steps=4), tmp_path / str(world)
        )
        for seed in (3 + world, None):
            env.reset(seed=seed)
            for _ in range(4):
                env.step(actions[world])
        env.close()
        assert content(TransitionDataset(tmp_path / str(world))) == content(dataset)[world::2]


@pytest.mark.parametrize("own", [True, False])
def test_palette_pixels_of_games_as_recorded_alone(tmp_path, own):
    options = {"pixels": "palette", "max_num_frames_per_episode": 24, "noop_max": 9}
    kind = {"workers": 0, "copy": False} if own else {"vectorization_mode": "sync"}
    games = gym.make_vec("rmr/Pong-v0", 2, **options, **kind)
    envs = RecordVectorTransitions(games, tmp_path / "v", heads=["0", "1"])
    rng = np.random.default_rng(0)
    envs.reset(seed=1)
    for _ in range(13):
        envs.step(rng.integers(2, 6, size=2))
    envs.close()
    dataset = TransitionDataset(tmp_path / "v", verify=True)
    for copy in range(2):
        env = RecordTransitions(gym.make("rmr/Pong-v0", **options), tmp_path / str(copy))
        found = content(dataset, head=str(copy))[:2]
        for seed, episode in zip((1 + copy, None), found, strict=True):
            env.reset(seed=seed)
            for action in episode["action"]:
                env.step(action)
        env.close()
        other = TransitionDataset(tmp_path / str(copy))
        assert found == content(other)
        assert replace(other.manifest, heads=("0", "1")) == dataset.manifest
    assert dataset.manifest.columns["pixels"].encoding == "ale_palette"
    assert (dataset.manifest.game, dataset.manifest.actions) == ("Pong", 18)


def test_pixels_that_are_no_palette_indices_are_stored_as_shown(tmp_path):
    def games(**options):
        return gym.make_vec("rmr/Pong-v0", 2, workers=0, **options)

    def inverted(space):
        return VectorizeTransformObservation(
            games(pixels="palette"),
            gym.wrappers.TransformObservation,
            func=lambda seen: {**seen, "pixels": 255 - seen["pixels"]},
            observation_space=space,
        )

    gray = games()
    for name, shows in {"gray": gray, "inverted": inverted(gray.single_observation_space)}.items():
        envs = RecordVectorTransitions(shows, tmp_path / name)
        shown = envs.reset(seed=0)[0]["pixels"], envs.step(np.array([2, 3]))[0]["pixels"]
        envs.close()
        dataset = TransitionDataset(tmp_path / name)
        assert dataset.manifest.columns["pixels"].encoding == "raw"
        assert dataset.manifest.game == "Pong"
        recorded = dataset.load(("pixels",))["pixels"].reshape(2, 2, 210, 160, 1)
        np.testing.assert_array_equal(recorded.swapaxes(0, 1), shown)


def test_every_kind_of_space(tmp_path):
    envs = RecordVectorTransitions(SyncVectorEnv([Kinds] * 2), tmp_path)
    shown = [envs.reset(seed=0)[0]]
    for _ in range(5):
        shown.append(envs.step(np.zeros((2, 1), np.float32))[0])
    envs.close()
    dataset = TransitionDataset(tmp_path, verify=True)
    first = dataset.episodes[0]
    loaded = dataset.load(("grid", "inner.bits", "inner.one"), episodes=[0])
    rows = first.length + 1
    assert loaded["grid"].tolist() == [each["grid"][0].tolist() for each in shown][:rows]
    assert loaded["inner.bits"].tolist() == [e["inner"]["bits"][0].tolist() for e in shown][:rows]
    assert loaded["inner.one"].tolist() == [each["inner"]["one"][0] for each in shown][:rows]


def test_nothing_is_changed_on_the_way(tmp_path):
    bare = vector(SyncVectorEnv)
    recorded = RecordVectorTransitions(vector(SyncVectorEnv), tmp_path)
    assert recorded.observation_space == bare.observation_space
    assert recorded.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert data_equivalence(recorded.reset(seed=4), bare.reset(seed=4))
    for _ in range(20):
        actions = bare.action_space.sample()
        assert data_equivalence(recorded.step(actions), bare.step(actions))
    recorded.close()


def test_what_is_cut_short_is_marked_and_what_has_no_step_is_dropped(tmp_path):
    envs = RecordVectorTransitions(vector(SyncVectorEnv, n=2), tmp_path, heads="mine")
    envs.reset(seed=100)
    envs.reset(seed=100)
    envs.step(np.zeros((2, 1), np.float32))
    envs.reset(seed=200)
    envs.close()
    envs.close()
    dataset = TransitionDataset(tmp_path, verify=True)
    assert [(e.seed, e.head, e.length, e.interrupted) for e in dataset.episodes] == [
        (100, "mine", 1, True),
        (101, "mine", 1, True),
    ]


class Interrupted(Walk):
    def step(self, action):
        if self.steps == 1:
            raise KeyboardInterrupt
        return super().step(np.zeros(1))


def test_after_a_step_that_was_cut_short_there_must_be_a_reset(tmp_path):
    envs = RecordVectorTransitions(SyncVectorEnv([Walk, Interrupted]), tmp_path)
    zeros = np.zeros((2, 1), np.float32)
    with pytest.raises(RMRError, match="none begun"):
        envs.step(zeros)
    envs.reset(seed=100)
    envs.step(zeros)
    with pytest.raises(KeyboardInterrupt):
        envs.step(zeros)
    with pytest.raises(RMRError, match="a step cut short: call reset"):
        envs.step(zeros)
    envs.reset(seed=100)
    envs.step(zeros)
    envs.close()
    assert [e.length for e in TransitionDataset(tmp_path, verify=True).episodes] == [1] * 4


def test_wrappers_of_the_vector_are_in_the_manifest(tmp_path):
    envs = RecordEpisodeStatistics(gym.make_vec("rmr/BouncingBalls-v0", 2, threads=1))
    record_it = RecordVectorTransitions(envs, tmp_path)
    record_it.reset()
    record_it.close()
    manifest = TransitionDataset(tmp_path).manifest
    assert manifest.settings["wrappers"] == [["RecordEpisodeStatistics", None]]
    assert manifest.settings["max_episode_steps"] == 100
    assert manifest.env_kwargs == {"preset": "rmr"}, (
        "how many, and in how many threads, is no matter"
    )


class Silent(SyncVectorEnv):
    def __init__(self):
        super().__init__([Walk])
        self.metadata = {}


class Forgetful(SyncVectorEnv):
    def step(self, actions):
        *results, infos = super().step(actions)
        return *results, {name: info for name, info in infos.items() if "final" not in name}


def test_bad_input(tmp_path):
    with pytest.raises(RMRError, match="around a single one, use RecordTransitions"):
        RecordVectorTransitions(Walk(), tmp_path)
    with pytest.raises(RMRError, match="declares metadata"):
        RecordVectorTransitions(Silent(), tmp_path)
    with pytest.raises(RMRError, match="or 3, one an environment, found 2"):
        RecordVectorTransitions(vector(SyncVectorEnv), tmp_path, heads=["a", "b"])
    with pytest.raises(RMRError, match="final_obs"):
        record(tmp_path / "d", vector(Forgetful, "SameStep"))
    with pytest.raises(RMRError, match="one seed or 3"):
        RecordVectorTransitions(vector(SyncVectorEnv), tmp_path).reset(seed=[1])

    class Texts(Walk):
        observation_space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Text(3))

    with pytest.raises(RMRError, match="cannot be stored"):
        RecordVectorTransitions(SyncVectorEnv([Texts]), tmp_path / "e")
    assert not (tmp_path / "e").exists()
