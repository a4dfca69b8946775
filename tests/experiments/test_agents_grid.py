import json

import numpy as np
import pandas as pd
import pytest
import torch

from rmr_gym.agents.sb3 import agent as playing
from rmr_gym.agents.sb3 import agent as training
from rmr_gym.agents.sb3.worlds import AgentConfig, find_world
from rmr_gym.commands import experiments as commands
from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.agents import grid
from rmr_gym.experiments.agents.report import KEY
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    ppo = training.ALGORITHMS["ppo"][0]
    monkeypatch.setitem(
        training.ALGORITHMS, "ppo", (ppo, {"n_steps": 4, "batch_size": 8, "n_epochs": 1})
    )


def write_encoder(folder, arm, seed):
    config = EncoderConfig("Pong", dim=2)
    made = build(config.encoder, torch_generator(seed))
    made.standardise_by(torch.full((84, 84), 90.0), 30.0)
    facts = {"training": {"arm": arm}}
    pretrained = PretrainedEncoder(config, made, provenance=facts)
    return pretrained.save_pretrained(folder / f"Pong-{arm}-{seed}-300")


def compare(tmp_path, *changed):
    commands.run(
        [
            "agents",
            *("--games", "pong", "pushed_balls", "--features", "cswm", "state"),
            *("--seeds", "2", "--steps", "16", "--checkpoints", "2", "--episodes", "1"),
            *("--copies", "2", "--max-steps", "5", "--workers", "1"),
            *("--root", str(tmp_path / "root")),
            *("--encoders", str(tmp_path / "encoders"), "--out", str(tmp_path / "out"), *changed),
        ]
    )


def test_compare_and_again(tmp_path, monkeypatch):
    write_encoder(tmp_path / "encoders", "cswm", 0)
    write_encoder(tmp_path / "encoders", "cswm", 1)
    compare(tmp_path)
    out = tmp_path / "out"
    table = pd.read_csv(out / "results.csv")
    assert tuple(table) == (*KEY, "return", "episodes")
    steps = table.groupby(["env", "features"])["step"].apply(list).to_dict()
    assert steps == {
        ("Pong", "random"): [0],
        ("PushedBalls", "random"): [0],
        ("Pong", "cswm"): [8, 16, 8, 16],
        ("PushedBalls", "state"): [8, 16, 8, 16],
    }
    described = json.loads((out / "run.json").read_text())
    assert described["kind"] == "agents"
    assert described["encoders"] == ["Pong-cswm-0-300", "Pong-cswm-1-300"]
    assert (out / "report.html").is_file()
    assert len(pd.read_csv(out / "agents_summary.csv")) == 2
    monkeypatch.setattr(grid, "train_agent", None)
    before = (out / "results.csv").read_bytes()
    compare(tmp_path)
    assert (out / "results.csv").read_bytes() == before
    with pytest.raises(RMRError, match=r"holds results of something else: .*steps was 16, is 24"):
        compare(tmp_path, "--steps", "24")


def test_each_seed_has_its_encoder(tmp_path):
    only = write_encoder(tmp_path, "cswm", 0)
    assert grid.encoder_for(tmp_path, "Pong", "cswm", 3) == str(only)
    other = write_encoder(tmp_path, "cswm", 3)
    assert grid.encoder_for(tmp_path, "Pong", "cswm", 3) == str(other)
    for seed, arm in ((1, "cswm"), (0, "no_p")):
        with pytest.raises(RMRError, match=f"expected one encoder Pong-{arm}-{seed}-STEP"):
            grid.encoder_for(tmp_path, "Pong", arm, seed)


def test_episodes_of_a_measurement_are_the_same_however_many_are_played():
    config = AgentConfig("PushedBalls", "state", max_steps=6)

    def shown(episodes, seed):
        seen = []

        def stand_still(observation):
            seen.append(observation.copy())
            return np.zeros(len(observation), np.int64)

        playing.play(config, stand_still, episodes=episodes, seed=seed)
        return np.stack(seen)

    two = shown(2, seed=1)
    assert len(two) == 6
    assert np.array_equal(two, shown(3, seed=1)[:, :2])
    assert not np.array_equal(two[:, 0], two[:, 1])
    assert not np.array_equal(two, shown(2, seed=2))


def test_points_after_the_end_of_an_episode_do_not_count(monkeypatch):
    class Games:
        """Two games of 1 and of 3 steps that go on after their ends, with a point a step."""

        def __init__(self):
            self.steps = 0

        def seed(self, seed):
            pass

        def reset(self):
            return np.zeros(2)

        def step(self, actions):
            self.steps += 1
            over = np.array([self.steps >= 1, self.steps == 3])
            return np.zeros(2), np.ones(2, np.float32), over, [{}, {}]

        def close(self):
            pass

    monkeypatch.setattr(playing, "make_games", lambda *_, **__: Games())
    config = AgentConfig("Pong", "ram")
    assert playing.play(config, lambda _: np.zeros(2), episodes=2, seed=0) == [1, 3]


def test_bad_input(tmp_path):
    with pytest.raises(RMRError, match="did you mean 'cnn'"):
        compare(tmp_path, "--features", "cnnn")
    with pytest.raises(RMRError, match="unknown kind of features 'rmr_ahead': did you mean 'rmr"):
        compare(tmp_path, "--features", "rmr_ahead")
    with pytest.raises(RMRError, match="unknown arm with P 'ram'"):
        compare(tmp_path, "--features", "ram_ahead1")
    with pytest.raises(RMRError, match="each kind of features may be named once"):
        compare(tmp_path, "--features", "rmr_ahead1", "cnn", "rmr_ahead1")
    with pytest.raises(RMRError, match="did you mean 'PushedBalls'"):
        find_world("PushdBall")
    with pytest.raises(RMRError, match="expected features of Pong, found state: Pong has rmr"):
        compare(tmp_path, "--games", "Pong", "--features", "state")
    with pytest.raises(RMRError, match="each game may be named once"):
        compare(tmp_path, "--games", "Pong", "pong")


def test_an_agent_counts_by_its_encoder_s_weights_and_not_by_its_path(tmp_path):
    folders = [write_encoder(tmp_path / name, "cswm", 0) for name in "ab"]
    other = write_encoder(tmp_path / "c", "cswm", 1)
    experiment = grid.Agents(out=tmp_path / "out")
    tasks = [
        experiment._rows(AgentConfig("Pong", "cswm", "ppo", str(folder), 0)).task
        for folder in (*folders, other)
    ]
    assert tasks[0].key == tasks[1].key != tasks[2].key
    assert tasks[0].title == "agent Pong cswm ppo 0"
