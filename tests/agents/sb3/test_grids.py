import numpy as np
import pandas as pd
import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN

from rmr_gym.agents.sb3 import agent as training
from rmr_gym.agents.sb3 import worlds
from rmr_gym.agents.sb3.worlds import AgentConfig, make_games
from rmr_gym.commands import agent as commands
from rmr_gym.commands import experiments
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.experiments.agents import report

GREY = "BabyAI-GoToRedBallGreyN{}-v0"
SMALL = ("--steps", "64", "--checkpoints", "1", "--episodes", "2", "--copies", "2")
ARMS = ("--features", "view", "--algorithms", "recurrent_ppo", "rims_ppo", "--seeds", "1")


def config(game, algorithm="rims_ppo", **changed):
    pytest.importorskip("minigrid")
    return AgentConfig(game, "view", algorithm, copies=2, **changed)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(training, "GRID_PPO", {"n_steps": 8, "batch_size": 16, "n_epochs": 1})


def objects(world):
    found = [thing for thing in world.grid.grid if thing and thing.type != "wall"]
    return [(thing.type, thing.color) for thing in found]


@pytest.mark.parametrize("number", [0, 3, 12])
def test_as_many_distractors_as_the_name_says(number, capsys):
    venv = make_games(config(GREY.format(number)), copies=1, learning=False)
    for seed in range(5):
        venv.seed(seed)
        shown = venv.reset()
        things = objects(venv.envs[0].unwrapped)
        assert things.count(("ball", "red")) == 1
        assert [colour for _, colour in things].count("grey") == number == len(things) - 1
        cells = shown.reshape(49, 20)  # 11 kinds of things, 6 colours, 3 states
        for part in (cells[:, :11], cells[:, 11:17], cells[:, 17:]):
            assert np.array_equal(part.sum(1), np.ones(49))
        assert venv.envs[0].unwrapped.mission == "go to the red ball"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("world", [*worlds.GRIDS, "BabyAI-GoToRedBallN12-v0"])
def test_missions_never_change(world):
    env = make_games(config(world), copies=1, learning=False).envs[0]
    missions = set()
    for seed in range(20):
        env.reset(seed=seed)
        missions.add(env.unwrapped.mission.replace(" a ", " the "))  # "a", if several are red
    assert len(missions) == 1


@pytest.mark.parametrize("learning", [True, False])
def test_success_is_a_point_and_failure_none(learning):
    venv = make_games(config(GREY.format(0)), copies=1, learning=learning)
    venv.seed(0)
    venv.reset()
    world = venv.envs[0].unwrapped
    x, y = world.instrs.desc.obj_poss[0]
    free = [n for n in range(4) if world.grid.get(*(np.array([x, y]) - ahead(n))) is None]
    world.agent_dir, world.agent_pos = free[0], tuple(np.array([x, y]) - ahead(free[0]))
    for _ in range(40):  # late, which BabyAI itself would pay less for
        world.step_count += 1
    _, rewards, dones, _ = venv.step([6])
    assert (rewards.tolist(), dones.tolist()) == ([1.0], [True])
    points = [venv.step([6]) for _ in range(64)]
    assert sum(step[1][0] for step in points) == 0
    assert [step[2][0] for step in points] == [False] * 63 + [True]


def ahead(direction):
    return np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][direction])


def test_the_cores_are_of_equal_size(tmp_path):
    sizes = {}
    for algorithm in ("recurrent_ppo", "rims_ppo"):
        training.train_agent(
            config(GREY.format(3), algorithm), tmp_path / algorithm, steps=16, checkpoints=1
        )
        kept = training.load_agent(tmp_path / algorithm)
        assert isinstance(kept, RecurrentPPO)
        assert (kept.n_steps, kept.ent_coef) == (8, 0.01)
        sizes[algorithm] = sum(map(torch.numel, kept.policy.lstm_actor.parameters()))
    assert sizes == {"recurrent_ppo": 115_360, "rims_ppo": 117_096}


def test_a_replay_buffer_is_filled_as_elsewhere(tmp_path):
    training.train_agent(config(GREY.format(3), "dqn"), tmp_path, steps=16, checkpoints=1)
    assert isinstance(training.load_agent(tmp_path), DQN)


def test_agents_are_tested_in_worlds_that_they_were_not_trained_in(tmp_path):
    pytest.importorskip("minigrid")
    trained, tests = GREY.format(3), (GREY.format(6), "BabyAI-GoToRedBallN3-v0")
    chosen = ("--games", trained, "--tests", *tests, *ARMS, *SMALL, "--workers", "1")
    out = tmp_path / "out"
    experiments.run(["agents", *chosen, "--root", str(tmp_path / "root"), "--out", str(out)])
    table = pd.read_csv(out / "results.csv").fillna({"algorithm": "none"})
    rows = table.groupby("algorithm", sort=False)["env"].agg(tuple).to_dict()
    assert rows == dict.fromkeys(("none", "recurrent_ppo", "rims_ppo"), (trained, *tests))
    assert table["return"].isin([0.0, 0.5, 1.0]).all()
    assert (out / "figures" / "distractors.svg").is_file()
    assert [path.name for path in (out / "agents").iterdir()] == [
        f"{trained}-view-{algorithm}-0" for algorithm in ("recurrent_ppo", "rims_ppo")
    ]
    playing = commands.returns(
        config(tests[0], max_steps=4500),
        training.load_agent(out / "agents" / f"{trained}-view-rims_ppo-0"),
        episodes=2,
    )
    (kept,) = table.query("algorithm == 'rims_ppo' and env == @tests[0]")["return"]
    assert np.mean(playing) == kept


def test_successes_are_drawn_by_number():
    columns = [*report.KEY, "return", "episodes"]
    rows = [
        (GREY.format(number), algorithm, features, seed, step, 0.1 * number, 10)
        for number in (3, 6)
        for algorithm, features in (("", "random"), ("rims_ppo", "view"))
        for seed in range(2 if algorithm else 1)
        for step in ((50, 100) if algorithm else (0,))
    ]
    figure = report.distractors_figure(pd.DataFrame(rows, columns=columns))
    (ax,) = figure.axes
    assert ax.get_title() == "BabyAI-GoToRedBallGrey-v0"
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert len(lines) == 2
    assert all(np.allclose(points, [(3, 0.3), (6, 0.6)]) for points in lines.values())
    with pytest.raises(RMRError):
        report.distractors_figure(pd.DataFrame(columns=columns))


def test_an_agent_is_filmed_and_recorded(tmp_path):
    training.train_agent(config(GREY.format(3)), tmp_path / "agent", steps=16, checkpoints=1)
    commands.enjoy(tmp_path / "agent", steps=2)
    assert (tmp_path / "agent" / "episode.gif").is_file()
    commands.record(tmp_path / "agent", tmp_path / "data", episodes=1)
    recorded = TransitionDataset(tmp_path / "data")
    assert recorded.manifest.env_kwargs["num_dists"] == 3
    assert recorded.episode(0).columns["observation"].shape[1:] == (7, 7, 20)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (GREY.format(-1), "expected 0 to 12 distractors, found -1"),
        (GREY.format(13), "expected 0 to 12 distractors, found 13"),
        ("BabyAI-GoToRedBal-v0", "did you mean 'BabyAI-GoToRedBall-v0'"),
        ("BabyAI-GoToObj-v0", "mission that never changes"),
        ("MiniGrid-Nowhere-v0", "choose one of BabyAI-GoToRedBallGrey-v0"),
    ],
)
def test_worlds_that_there_are_not(name, sentence):
    with pytest.raises(RMRError, match=sentence):
        AgentConfig(name, "view")


def test_minigrid_is_missing(monkeypatch):
    monkeypatch.setattr(worlds, "find_spec", lambda name: None)
    with pytest.raises(RMRError, match=r'pip install "rmr-gym\[minigrid\]"'):
        AgentConfig(GREY.format(3), "view")


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (("--games", "Pong", "--tests", GREY.format(6)), "unknown world of MiniGrid"),
        (("--games", GREY.format(3), "--tests", "Pong"), "unknown world of MiniGrid"),
        (("--games", GREY.format(3), "--tests", GREY.format(3)), "each game may be named once"),
        (
            ("--games", GREY.format(3), GREY.format(6), "--tests", GREY.format(9)),
            "one game to train in with --tests",
        ),
        (
            ("--games", GREY.format(3), "--features", "ram"),
            "expected features of BabyAI-.*, found ram",
        ),
    ],
)
def test_tests_that_are_refused(chosen, sentence, tmp_path):
    pytest.importorskip("minigrid")
    with pytest.raises(RMRError, match=sentence):
        experiments.run(["agents", *ARMS, *chosen, *SMALL, "--out", str(tmp_path / "out")])
