import os
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import rmr_gym
from rmr_gym.agents.collect_env import collect_env
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import read_manifest
from rmr_gym.data.writer import DatasetWriter
from rmr_gym.wrappers import RecordTransitions

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


def files(folder) -> dict:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in [folder / "manifest.json", *(folder / "episodes").iterdir()]
    }


def content(dataset) -> list[dict]:
    return [
        {"seed": episode.seed, **{name: loaded[name].tolist() for name in dataset.manifest.columns}}
        for episode in dataset.episodes
        for loaded in [dataset.load(tuple(dataset.manifest.columns), episodes=[episode.index])]
    ]


def test_balls_are_those_of_single_environments_with_the_same_seeds(tmp_path):
    told = []
    dataset = collect_env(
        "rmr/BouncingBalls-v0",
        tmp_path / "v",
        episodes=5,
        seed=3,
        num_envs=2,
        progress=lambda *counts: told.append((*counts, len(files(tmp_path / "v")) - 1)),
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
        dataset = collect_env(
            "test/Walk-v0", folder, episodes=8, num_envs=num_envs, max_steps=6, seed=1
        )
        assert files(folder) == files(tmp_path / "1")
    assert dataset.manifest.heads == ("random",)
    episodes = content(dataset)
    assert len({len(each["action"]) for each in episodes}) > 2
    ends = {(each["terminated"][-1], each["truncated"][-1]) for each in episodes}
    assert ends == {(True, False), (False, True)}
    assert not any(any(each["terminated"][:-1] + each["truncated"][:-1]) for each in episodes)
    assert all(len(each["observation"]) == len(each["action"]) + 1 for each in episodes)
    assert len({str(each["action"][0]) for each in episodes}) == 8
    other = collect_env("test/Walk-v0", tmp_path / "o", episodes=1, max_steps=6, seed=2)
    assert content(other)[0]["action"] != episodes[0]["action"]


def test_what_is_missing_is_recorded_in_any_number_of_processes(tmp_path):
    options = {"seed": 2, "max_steps": 4, **BALLS}
    collect_env("rmr/PushedBalls-v0", tmp_path / "a", episodes=6, num_envs=4, **options)
    collect_env("rmr/PushedBalls-v0", tmp_path / "b", episodes=3, threads=1, **options)
    (tmp_path / "b" / "episodes" / "000001.h5").unlink()
    collect_env("rmr/PushedBalls-v0", tmp_path / "b", episodes=6, num_envs=2, workers=2, **options)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    dataset = TransitionDataset(tmp_path / "b", verify=True)
    assert [episode.length for episode in dataset.episodes] == [4] * 6
    assert len(set(dataset.load(("action",))["action"].tolist())) > 2
    again = {**options, "seed": 3}
    with pytest.raises(RMRError, match="settings seed: 2 in the data set, 3 asked for"):
        collect_env("rmr/PushedBalls-v0", tmp_path / "b", episodes=6, **again)
    collect_env("rmr/PushedBalls-v0", tmp_path / "b", episodes=2, overwrite=True, **again)
    assert len(TransitionDataset(tmp_path / "b").episodes) == 2


SCRIPT = """
import sys
from rmr_gym.agents.collect_env import collect_env
if __name__ == "__main__":
    collect_env(
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
        collect_env(
            "rmr/BouncingBalls-v0", tmp_path / name, episodes=episodes, num_envs=num_envs, **BALLS
        )
    assert files(tmp_path / "torn") == files(tmp_path / "whole")


def wait_for_its_workers(folder) -> None:
    manifest, deadline = read_manifest(folder), time.monotonic() + 20
    while True:
        try:
            return DatasetWriter(folder, manifest, exclusive=True).close()
        except RMRError:
            assert time.monotonic() < deadline, "orphans"
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("rmr/Pong-v0", {}, "rmr-gym record --game Pong"),
        ("ALE/Breakout-v5", {}, "rmr-gym record --game Breakout"),
        ("rmr/BouncyBalls-v0", {}, "did you mean 'rmr/BouncingBalls-v0'"),
        ("nowhere_to_be_found:Walk-v0", {}, "unknown environment"),
        ("test/Words-v0", {}, "cannot be stored"),
        ("test/Walk-v0", {"episodes": 0}, "at least 1 as episodes"),
        ("test/Walk-v0", {"num_envs": 0}, "at least 1 as num_envs"),
        ("test/Walk-v0", {"workers": 0}, "at least 1 as workers"),
        ("test/Walk-v0", {"max_steps": 0}, "at least 1 as max_steps"),
        ("test/Walk-v0", {"seed": -1}, "at least 0 as seed"),
        ("rmr/BouncingBalls-v0", {"balls": 0}, "balls"),
        ("rmr/BouncingBalls-v0", {"bals": 3}, "did you mean 'balls'"),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, env_id, options, message):
    with pytest.raises(RMRError, match=message):
        collect_env(env_id, tmp_path / "d", **{"episodes": 1, **options})
    assert not (tmp_path / "d").exists()
