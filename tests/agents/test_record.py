import linecache
import multiprocessing
import os
import pkgutil
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import DQN

import rmr_gym
from rmr_gym.agents.players.graded import PLAYERS, networks
from rmr_gym.agents.record import load_policy, record
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import read_manifest
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.wrappers import RecordTransitions

EPISODES, STEPS = 6, 40
BALLS = {"balls": 3, "max_episode_steps": 5}


class Walk(gym.Env):
    """Walks by its action and chance; ends beyond 1.5."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-0.3, 0.3, 2)
        return self.place, {}

    def step(self, action):
        self.place = self.place + action + self.np_random.normal(0, 0.3, 2)
        over = bool(np.abs(self.place).max() > 1.5)
        return self.place, float(self.place[0]), over, False, {}


class Words(Walk):
    observation_space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Text(3))


gym.register("test/Walk-v0", Walk)
gym.register("test/Words-v0", Words)


def files(path: Path) -> dict[str, bytes]:
    found = (entry for entry in path.rglob("*") if entry.is_file())
    return {str(entry.relative_to(path)): entry.read_bytes() for entry in found}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("unbroken") / "pong"
    record("pong", path, episodes=EPISODES, max_steps=STEPS)
    return path


@pytest.fixture
def broken(unbroken, tmp_path) -> Path:
    """Return a recording that lacks three episodes, one of them half written."""
    path = tmp_path / "pong"
    shutil.copytree(unbroken, path)
    for index in (0, 3, 5):
        (path / "episodes" / f"{index:06d}.h5").unlink()
    (path / "episodes" / ".000003.h5-9f.tmp").write_bytes(b"half")
    return path


def test_what_is_recorded(unbroken):
    dataset = TransitionDataset(unbroken, verify=True)
    dataset.require_game("Pong")
    assert [e.head for e in dataset.episodes] == [player.name for player in PLAYERS[:EPISODES]]
    assert [e.seed for e in dataset.episodes] == [
        integer_seed(0, "episode", index) for index in range(EPISODES)
    ]
    assert [e.length for e in dataset.episodes] == [STEPS] * EPISODES
    assert not any(e.interrupted for e in dataset.episodes)
    loaded = dataset.load(columns=("truncated", "terminated", "ram"))
    last = np.arange(EPISODES * STEPS) % STEPS == STEPS - 1
    assert (loaded["truncated"] == last).all()
    assert not loaded["terminated"].any()
    assert len(np.unique(loaded["ram"], axis=0)) > EPISODES * STEPS / 2
    manifest = dataset.manifest
    assert manifest.heads == tuple(player.name for player in PLAYERS)
    assert (manifest.settings["seed"], manifest.settings["max_steps"]) == (0, STEPS)
    assert manifest.env_kwargs["repeat_action_probability"] == 0.0


def test_the_wrapper_would_have_written_the_same_files(unbroken, tmp_path):
    """Play episode 2 through the registered environment, step by step."""
    player = PLAYERS[2]
    env = RecordTransitions(
        TimeLimit(gym.make("rmr/Pong-v0"), STEPS), tmp_path / "one", head=player.name
    )
    policy = player.policy(generator(0, "policy", 2), networks("Pong")[player.skill])
    observation, _ = env.reset(seed=integer_seed(0, "episode", 2))
    over = False
    while not over:
        observation, _, terminated, truncated, _ = env.step(policy(observation))
        over = terminated or truncated
    env.close()
    columns = ("pixels", "ram", "action", "reward", "terminated", "truncated")
    ours = TransitionDataset(tmp_path / "one").load(columns)
    theirs = TransitionDataset(unbroken).load(columns, episodes=[2])
    for column in columns:
        np.testing.assert_array_equal(ours[column], theirs[column])


def test_a_resumed_recording_is_that_of_an_unbroken_run(broken, unbroken):
    told = []
    record(
        "Pong",
        broken,
        episodes=EPISODES,
        max_steps=STEPS,
        progress=lambda done, total: told.append((done, total)),
    )
    assert files(broken) == files(unbroken)
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]


def test_processes_write_the_same_files(broken, unbroken):
    told = []
    record(
        "Pong",
        broken,
        episodes=EPISODES,
        max_steps=STEPS,
        workers=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert files(broken) == files(unbroken)
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert not multiprocessing.active_children()


def test_more_episodes_extend_a_recording(unbroken, tmp_path):
    for episodes in (2, EPISODES, 3):
        dataset = record("Pong", tmp_path / "d", episodes=episodes, max_steps=STEPS)
    assert len(dataset.episodes) == EPISODES, "what is there beyond the number asked for stays"
    assert files(tmp_path / "d") == files(unbroken)


def test_the_seed_decides(tmp_path):
    made = {
        (seed, sticky): record(
            "Breakout",
            tmp_path / f"{seed}{sticky}",
            episodes=1,
            max_steps=30,
            seed=seed,
            players="uniform",
            repeat_action_probability=sticky,
        ).load(columns=("ram", "action"))
        for seed in (0, 1)
        for sticky in (0.0, 0.5)
    }
    assert (made[0, 0.0]["action"] != made[1, 0.0]["action"]).any()
    assert (made[0, 0.0]["action"] == made[0, 0.5]["action"]).all()
    assert (made[0, 0.0]["ram"] != made[0, 0.5]["ram"]).any()


def test_an_episode_that_ends_by_itself(tmp_path):
    dataset = record("Breakout", tmp_path, episodes=1, players="uniform")
    loaded = dataset.load(columns=("terminated", "truncated"))
    assert loaded["terminated"].tolist() == [False] * (len(loaded) - 1) + [True]
    assert not loaded["truncated"].any()
    assert dataset.manifest.settings["max_steps"] is None


def test_other_arguments_are_refused(unbroken):
    before = files(unbroken)
    for change, message in (
        ({"env": "Breakout"}, r"game: 'Pong' in the data set, 'Breakout' asked for"),
        ({"max_steps": 41}, r"settings max_steps: 40 in the data set, 41 asked for"),
        ({"seed": 1}, r"settings seed: 0 in the data set, 1 asked for"),
        ({"frameskip": 2}, r"env_kwargs frameskip: 4 in the data set, 2 asked for"),
        ({"players": "uniform"}, r"heads: .* in the data set, \['uniform-1'\] asked for"),
    ):
        arguments = {"env": "Pong", "max_steps": STEPS, **change}
        with pytest.raises(RMRError, match=message):
            record(path=unbroken, episodes=EPISODES, **arguments)
    assert files(unbroken) == before


def test_overwriting(broken):
    dataset = record("Pong", broken, episodes=1, max_steps=5, overwrite=True)
    assert [e.length for e in dataset.episodes] == [5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "Pogn"}, "unknown game 'Pogn': did you mean 'Pong'"),
        ({"env": "Endurro"}, "unknown game 'Endurro': did you mean 'Enduro'"),
        ({"env": "Nope-v0"}, "unknown environment 'Nope-v0'"),
        ({"players": "unifrm"}, "unknown player 'unifrm': did you mean 'uniform'"),
        ({"episodes": 0}, "at least 1 as episodes, found 0"),
        ({"workers": 0}, "at least 1 as workers, found 0"),
        ({"max_steps": 0}, "at least 1 as max_steps, found 0"),
        ({"seed": -1}, "a seed of 0 or more, found -1"),
        ({"frameskip": 0}, "at least 1 as frameskip, found 0"),
        ({"frame_skip": 2}, "unknown option 'frame_skip': did you mean 'frameskip'"),
        ({"repeat_action_probability": 1.5}, r"probability in \[0, 1\]"),
        ({"env": "Enduro", "frameskip": 0}, "at least 1 as frameskip, found 0"),
        ({"env": "Enduro", "repeat_action_probability": 1.5}, r"probability in \[0, 1\] as rep"),
        (
            {"policy": "mine:act"},
            "expected a function from observation to action, found 'mine:act'",
        ),
        ({"policy": Walk}, "expected a function from observation to action, found <class"),
        ({"policy": max, "players": "all"}, "expected players or a policy"),
        ({"env": "rmr/BouncyBalls-v0"}, "did you mean 'rmr/BouncingBalls-v0'"),
        ({"env": "nowhere_to_be_found:Walk-v0"}, "unknown environment"),
        ({"env": "test/Words-v0"}, "cannot be stored"),
        ({"env": "test/Walk-v0", "num_envs": 0}, "at least 1 as num_envs"),
        ({"env": "rmr/BouncingBalls-v0", "balls": 0}, "balls"),
        ({"env": "rmr/BouncingBalls-v0", "bals": 3}, "did you mean 'balls'"),
        ({"env": "test/Walk-v0", "players": "uniform"}, "expected players for a game alone"),
        ({"env": "Enduro", "players": "all"}, "no trained players of Enduro in"),
        ({"env": SyncVectorEnv([Walk])}, "a single Gymnasium environment, found SyncVectorEnv"),
        ({"env": "test/Walk-v0", "policy": max, "workers": 2}, "one worker for a policy"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, change, message):
    arguments = {"env": "Pong", "episodes": 1, **change}
    with pytest.raises(RMRError, match=message):
        record(path=tmp_path / "d", **arguments)
    assert not (tmp_path / "d").exists()


def content(dataset) -> list[dict]:
    return [
        {"seed": episode.seed, **{name: loaded[name].tolist() for name in dataset.manifest.columns}}
        for episode in dataset.episodes
        for loaded in [dataset.load(tuple(dataset.manifest.columns), episodes=[episode.index])]
    ]


def test_balls_are_those_of_single_environments_with_the_same_seeds(tmp_path):
    told = []
    dataset = record(
        "rmr/BouncingBalls-v0",
        tmp_path / "v",
        episodes=5,
        seed=3,
        num_envs=2,
        progress=lambda *counts: told.append(
            (*counts, len(list(tmp_path.glob("v/episodes/*.h5"))))
        ),
        **BALLS,
    )
    assert told == [(0, 5, 0), (2, 5, 2), (4, 5, 4), (5, 5, 5)], "told as soon as it is there"
    env = RecordTransitions(gym.make("rmr/BouncingBalls-v0", **BALLS), tmp_path / "s")
    for index in range(5):
        env.reset(seed=integer_seed(3, "episode", index))
        for _ in range(5):
            env.step(0)
    env.close()
    single = TransitionDataset(tmp_path / "s", verify=True)
    assert content(dataset) == content(single)
    assert dataset.manifest.heads == ("passive",)
    assert (
        dataset.manifest.env_kwargs == {"preset": "rmr", "balls": 3} == single.manifest.env_kwargs
    )
    assert dataset.manifest.settings["max_episode_steps"] == 5
    assert len({episode.seed for episode in dataset.episodes}) == 5


def test_random_play_of_any_environment_does_not_depend_on_how_many_play(tmp_path):
    for num_envs in (1, 3, 8):
        folder = tmp_path / str(num_envs)
        dataset = record("test/Walk-v0", folder, episodes=8, num_envs=num_envs, max_steps=6, seed=1)
        assert files(folder) == files(tmp_path / "1")
    assert dataset.manifest.heads == ("random",)
    episodes = content(dataset)
    assert len({len(each["action"]) for each in episodes}) > 2
    ends = {(each["terminated"][-1], each["truncated"][-1]) for each in episodes}
    assert ends == {(True, False), (False, True)}
    assert not any(any(each["terminated"][:-1] + each["truncated"][:-1]) for each in episodes)
    assert all(len(each["observation"]) == len(each["action"]) + 1 for each in episodes)
    assert len({str(each["action"][0]) for each in episodes}) == 8
    other = record("test/Walk-v0", tmp_path / "o", episodes=1, max_steps=6, seed=2)
    assert content(other)[0]["action"] != episodes[0]["action"]


def test_what_is_missing_is_recorded_in_any_number_of_processes(tmp_path):
    options = {"seed": 2, "max_steps": 4, **BALLS}
    record("rmr/PushedBalls-v0", tmp_path / "a", episodes=6, num_envs=4, **options)
    record("rmr/PushedBalls-v0", tmp_path / "b", episodes=3, threads=1, **options)
    (tmp_path / "b" / "episodes" / "000001.h5").unlink()
    record("rmr/PushedBalls-v0", tmp_path / "b", episodes=6, num_envs=2, workers=2, **options)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    dataset = TransitionDataset(tmp_path / "b", verify=True)
    assert [episode.length for episode in dataset.episodes] == [4] * 6
    assert len(set(dataset.load(("action",))["action"].tolist())) > 2
    again = {**options, "seed": 3}
    with pytest.raises(RMRError, match="settings seed: 2 in the data set, 3 asked for"):
        record("rmr/PushedBalls-v0", tmp_path / "b", episodes=6, **again)
    record("rmr/PushedBalls-v0", tmp_path / "b", episodes=2, overwrite=True, **again)
    assert len(TransitionDataset(tmp_path / "b").episodes) == 2


SCRIPT = """
import sys
from rmr_gym.agents.record import load_policy, record
if __name__ == "__main__":
    record(
        "rmr/BouncingBalls-v0", sys.argv[1], episodes=9999, num_envs=3, workers=int(sys.argv[2]),
        balls=3, max_episode_steps=5, progress=lambda done, _: print(done, flush=True),
    )
"""


def test_killed_and_resumed_it_ends_as_an_unbroken_one(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    for workers, enough in ((1, 6), (2, 15)):
        run = subprocess.Popen(
            [sys.executable, tmp_path / "script.py", tmp_path / "torn", str(workers)],
            env={**os.environ, "PYTHONPATH": str(Path(rmr_gym.__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
        )
        while int(run.stdout.readline()) < enough:
            pass
        run.kill()
        run.communicate()
        wait_for_its_workers(tmp_path / "torn")
    finished = [int(path.stem) for path in (tmp_path / "torn" / "episodes").glob("*.h5")]
    assert len(finished) >= 15
    episodes = max(finished) + 3
    for name, num_envs in (("torn", 7), ("whole", 32)):
        record(
            "rmr/BouncingBalls-v0", tmp_path / name, episodes=episodes, num_envs=num_envs, **BALLS
        )
    assert files(tmp_path / "torn") == files(tmp_path / "whole")


def wait_for_its_workers(folder) -> None:
    manifest, deadline = read_manifest(folder), time.monotonic() + 20
    while True:
        try:
            return DatasetWriter(folder, manifest).close()
        except RMRError:
            assert time.monotonic() < deadline, "orphans"
            time.sleep(0.05)


def drift(observation):
    """Walk away from where one stands."""
    return np.sign(observation).astype(np.float32)


def test_a_policy_of_ones_own(tmp_path):
    dataset = record("test/Walk-v0", tmp_path / "a", policy=drift, episodes=4, max_steps=9)
    loaded = dataset.load(("observation", "action"))
    taken = loaded["observation"][loaded.current]
    np.testing.assert_array_equal(loaded["action"], np.sign(taken).astype(np.float32))
    assert dataset.manifest.heads == ("drift",)
    env = TimeLimit(Walk(), 9)
    for episodes in (1, 4):
        record(env, tmp_path / "b", policy=drift, episodes=episodes, max_steps=9)
    assert content(TransitionDataset(tmp_path / "b")) == content(dataset), "an environment will do"
    assert record(env, tmp_path / "c", episodes=1).manifest.heads == ("random",)


def test_a_policy_that_was_edited_does_not_go_on(tmp_path):
    def made(action):
        (tmp_path / "mine.py").write_text(
            f"import numpy\ndef follow(_):\n    return numpy.array({action}, numpy.float32)\n"
        )
        linecache.checkcache()
        return runpy.run_path(str(tmp_path / "mine.py"))["follow"]

    options = {"episodes": 2, "max_steps": 9}
    for _ in range(2):
        record("test/Walk-v0", tmp_path / "a", policy=made("[1.0, 0.0]"), **options)
    with pytest.raises(RMRError, match=r"settings.*policy"):
        record("test/Walk-v0", tmp_path / "a", policy=made("[-1.0, 0.0]"), **options)


class Model:
    """Plays as a recurrent model of Stable-Baselines3: the action is how often it was asked."""

    def set_random_seed(self, seed):
        self.first = seed % 3

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        assert observation["ram"].shape == (128,)
        state = self.first if state is None else state + 1
        return np.array(state), state


@pytest.mark.parametrize("action", [-1, 9, 1.0, None, (1, None), np.array([1])])
def test_an_action_that_is_none_of_the_environment(tmp_path, action):
    with pytest.raises(RMRError, match="expected a whole number from 0 to 8 as the policy's acti"):
        record("Enduro", tmp_path / "d", policy=lambda seen: action, episodes=1, max_steps=3)
    assert not list((tmp_path / "d").rglob("*.h5"))


def test_a_model_with_predict_plays_a_game(tmp_path):
    dataset = record("Pong", tmp_path, policy=Model(), episodes=3, max_steps=4, seed=1)
    dataset.require_game("Pong")
    actions = dataset.load(("action",))["action"].reshape(3, 4)
    assert (np.diff(actions) == 1).all()
    assert [first % 3 for first in actions[:, 0]] == [
        integer_seed(1, "policy", index) % 3 for index in range(3)
    ]
    assert dataset.manifest.heads == ("Model",)
    assert dataset.manifest.columns["pixels"].encoding == "ale_palette"


@pytest.mark.parametrize(
    ("kind", "env_id"),
    [
        ("stable_baselines3.PPO", "CartPole-v1"),
        ("stable_baselines3.A2C", "CartPole-v1"),
        ("stable_baselines3.DQN", "CartPole-v1"),
        ("stable_baselines3.SAC", "Pendulum-v1"),
        ("sb3_contrib.QRDQN", "CartPole-v1"),
        ("sb3_contrib.RecurrentPPO", "CartPole-v1"),
    ],
)
def test_a_saved_model_plays(tmp_path, kind, env_id):
    policy = "MlpLstmPolicy" if "Recurrent" in kind else "MlpPolicy"
    model = pkgutil.resolve_name(kind)(policy, gym.make(env_id), seed=0, device="cpu")
    model.save(tmp_path / "mine.zip")
    options: dict[str, Any] = {"episodes": 2, "max_steps": 9}
    loaded = type(model).load(tmp_path / "mine.zip", device="cpu")
    dataset = record(env_id, tmp_path / "loaded", policy=loaded, **options)
    assert dataset.manifest.heads == (type(model).__name__,)
    alive = record(env_id, tmp_path / "alive", policy=model, **options)
    for name in ("observation", "action"):
        np.testing.assert_array_equal(dataset.load((name,))[name], alive.load((name,))[name])
    with pytest.raises(RMRError, match="the model cannot play what this environment shows"):
        record("rmr/BouncingBalls-v0", tmp_path / "b", policy=loaded, episodes=1)


def test_another_model_does_not_go_on_with_what_one_has_recorded(tmp_path):
    one, other = (DQN("MlpPolicy", "CartPole-v1", seed=seed, device="cpu") for seed in (0, 1))
    options: dict[str, Any] = {"max_steps": 3}
    record("CartPole-v1", tmp_path / "d", policy=one, episodes=1, **options)
    record("CartPole-v1", tmp_path / "d", policy=one, episodes=2, **options)
    with pytest.raises(RMRError, match="holds another data set"):
        record("CartPole-v1", tmp_path / "d", policy=other, episodes=3, **options)


def test_gray_levels_are_not_recorded_as_palette_indices(tmp_path):
    with pytest.raises(RMRError, match=r"unknown kind of recorded pixels 'gray': choose .*palette"):
        record("rmr/Pong-v0", tmp_path / "d", episodes=1, pixels="gray")


def test_an_environment_that_is_not_there_is_refused_with_a_policy_too(tmp_path):
    with pytest.raises(RMRError, match="unknown environment 'nosuch-v0'"):
        record("nosuch-v0", tmp_path / "d", policy=lambda seen: 0, episodes=1)


def test_a_function_is_found_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "of_this_folder.py").write_text("LIST, act = [], lambda seen: 3\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    policy = load_policy("of_this_folder:act")
    dataset = record("Pong", tmp_path / "d", policy=policy, episodes=1, max_steps=3)
    assert dataset.load(("action",))["action"].tolist() == [3, 3, 3]
    assert sys.path == before
    for source, message in (
        ("act", "expected a policy as module:function, found 'act'"),
        (":act", "expected a policy as module:function, found ':act'"),
        ("model.zip", r"in a module of yours, .* in mine\.py, and called mine:agent"),
        ("of_this_folder: act", "expected ' act' in the module 'of_this_folder'"),
        ("no_such_module_here:act", "No module named 'no_such_module_here'"),
        ("of_this_folder:LIST", r"expected a function from observation to action, found \[\]"),
    ):
        with pytest.raises(RMRError, match=message):
            load_policy(source)


@pytest.mark.parametrize("name", ["enduro", "ALE/Enduro-v5"])
def test_any_game_of_ale_is_played_without_skill(tmp_path, caplog, name):
    dataset = record(name, tmp_path, episodes=2, max_steps=20, workers=2)
    assert "no networks of ALE/Enduro-v5 are trained" in caplog.text
    dataset.require_game("Enduro")
    assert [episode.head for episode in dataset.episodes] == ["uniform-1", "fire-2"]
    assert (dataset.manifest.actions, sorted(dataset.manifest.columns)) == (
        *(18, ["action", "pixels", "ram", "reward", "terminated", "truncated"]),
    )
    assert len(np.unique(dataset.load(("ram",))["ram"], axis=0)) > 20


def test_a_game_of_ours_without_networks_is_played_without_skill(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("rmr_gym.agents.players.graded.is_trained", lambda game: False)
    dataset = record("Pong", tmp_path, episodes=2, max_steps=20)
    assert "no networks of rmr/Pong-v0 are trained" in caplog.text
    assert [episode.head for episode in dataset.episodes] == ["uniform-1", "fire-2"]


def test_a_recording_process_that_dies(tmp_path, unbroken):
    def kill_one(done: int, total: int) -> None:
        if done == 1:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(RMRError, match=r"a process that recorded into .* died"):
        record("Pong", tmp_path, episodes=EPISODES, max_steps=STEPS, workers=2, progress=kill_one)
    assert not multiprocessing.active_children()
    assert 1 <= len(TransitionDataset(tmp_path, verify=True).episodes) < EPISODES
    record("Pong", tmp_path, episodes=EPISODES, max_steps=STEPS)
    assert files(tmp_path) == files(unbroken)


def started(path: Path, episodes: int, workers: int) -> subprocess.Popen[str]:
    """Start recording in a process of its own; return when it is about to begin."""
    code = (
        "from rmr_gym.agents.record import record\n"
        "if __name__ == '__main__':\n"
        "    print('ready', flush=True)\n"
        f"    record('Pong', {str(path)!r}, episodes={episodes}, max_steps={STEPS}, "
        f"workers={workers}, progress=lambda *counts: print(*counts, flush=True))\n"
    )
    script = path.parent / "record.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes in /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    path = tmp_path / "killed"
    with started(path, 400, workers=2) as process:
        assert process.stdout is not None
        while process.stdout.readline().split()[0] in ("0", "1"):
            pass
        children = children_of(process.pid)
        process.kill()
    assert len(children) >= 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)
    assert 2 <= len(TransitionDataset(path, verify=True).episodes) < 400


def children_of(parent: int) -> list[int]:
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            children.append(int(entry.parent.name))
    return children
