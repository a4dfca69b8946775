from dataclasses import replace
from itertools import product

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch

from rmr_gym.agents.planning import Discrete, Emulated, Planner, Solver, planning_game
from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import AtariModel
from rmr_gym.experiments import write_report
from rmr_gym.experiments.base import no_progress, run
from rmr_gym.experiments.planning import report as pages
from rmr_gym.experiments.planning.grid import ARMS, PUSHED_ARMS, Episode, Planning, planned
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.runs.store import Artifact
from rmr_gym.runs.training import Phase
from rmr_gym.stages import planning
from rmr_gym.stages.planning import Head
from tests.conftest import write_sweep

RETURNS = {"rmr": -2.0, "shuffled_p": -5.0, "copy": -4.0, "random": -5.0}


def test_the_emulator_foresees_and_is_put_back():
    env = planning_game("Pong")
    shown, _ = env.reset(seed=0)
    start = torch.from_numpy(np.append(shown["ram"], np.uint8(0)))[None]
    model, plans = Emulated(env.unwrapped.ale), torch.tensor([[3, 3, 4], [0, 4, 4]])
    states = model(start.expand(2, -1), plans)
    np.testing.assert_array_equal(env.unwrapped.ale.getRAM(), shown["ram"])
    for ahead, action in enumerate(plans[1].tolist(), 1):
        shown = env.step(action)[0]
        np.testing.assert_array_equal(states[ahead, 1, :-1], shown["ram"])
        assert states[ahead, 1, -1] == action


def test_a_planned_game_begins_with_random_actions_of_whole_steps():
    env, plain = planning_game("Pong"), gym.make("rmr/Pong-v0")
    one, same, other = (env.reset(seed=seed)[0]["ram"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    plain.reset(seed=0)
    begun, at_reset = (made.unwrapped.ale.getEpisodeFrameNumber() for made in (env, plain))
    assert 4 <= begun - at_reset <= 120
    assert (begun - at_reset) % 4 == 0


class Wanting(Head):
    """A head that wants byte 0 to be high."""

    def __init__(self):
        self.discount = torch.tensor(0.9)

    def __call__(self, before, after):
        return torch.stack([torch.zeros(len(after)), after[:, 0].float()], 1)


def test_a_planner_takes_the_action_that_leads_where_the_head_wants():
    def model(start, plans):
        states = start.expand(plans.shape[1] + 1, len(plans), -1).clone()
        states[1:, :, 0] = plans.T.cumsum(0).byte()
        return states

    planner = Planner(
        model, Wanting(), Discrete(3, 64, 4), torch.tensor([1, 7]), torch_generator(0), "ram"
    )
    shown = {"ram": np.zeros(128, np.uint8), "features": np.zeros((128, 8), np.float32)}
    assert planner(shown) == 7
    assert planner.plan.tolist() == [7, 7, 7]
    planner(shown)
    assert planner.now[0, -1] == 7


@pytest.fixture(scope="module")
def learned(game):
    return planning.dynamics.function(game.data, game.preset.model, (Phase(2, batch=4),), 0)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_plays_and_plays_the_same_again(game, learned, arm, monkeypatch):
    monkeypatch.setattr(planning, "SETTLED", 0.2)
    model = game.preset.model
    told = planning.head.function(game.data, model, "rmr", 0.9, 0, learned)
    episode = Episode("Pong", arm, model, Discrete(2, 4, 2), 5, 1)
    first, second = (planned.function(episode, learned, told).record["rows"][0] for _ in range(2))
    assert first["steps"] == 5
    assert first["return"] == second["return"]


def test_a_head_of_another_game_is_refused(game, learned):
    tensors = {"bytes": torch.tensor([1]), "discount": torch.tensor(0.9)}
    episode = Episode("Pong", "rmr", game.preset.model, Discrete(2, 4, 2), 5, 1)
    with pytest.raises(RMRError, match="head of Pong"):
        planned.function(episode, learned, Artifact({}, tensors))


def test_p_is_tested_against_every_control_by_seed(tmp_path):
    budget = {"horizon": 8, "candidates": 32, "steps": 200, "ms": 9.0}
    rows = [
        {"game": "Pong", "arm": arm, "seed": seed, "return": RETURNS[arm] + seed} | budget
        for arm, seed in product(RETURNS, range(5))
    ]
    write_sweep(tmp_path / "run", "planning", rows, {"games": ["Pong"]})
    tests = pages.planning(tmp_path / "run").tables["planning_tests"]
    assert set(tests["against"]) == {"shuffled_p", "copy", "random"}
    assert (tests["verdict"] == "better").all()
    path, text = write_report(tmp_path / "run")
    assert "planning in P against weight-shuffled P" in text
    assert "mean difference in return +3.000" in text
    assert "the state stays" in path.read_text()


def test_a_tiny_run_from_data_to_page(tiny, monkeypatch):
    monkeypatch.setattr(planning, "SETTLED", 0.2)
    options = {"arms": ("rmr", "copy", "random"), "steps": 3}
    options |= {"horizons": (2, 1), "candidates": (4, 8), "seeds": 1}
    options |= {"games": ("Pong",)}
    out, problems = run(Planning(**Planning.proposals("tiny"), **tiny, **options))
    assert not problems
    rows = pd.read_csv(out / "planning.csv")
    budgets = [*zip(rows["arm"], rows["horizon"], rows["candidates"], strict=True)]
    own = [("rmr", 2, 4), ("rmr", 1, 4), ("rmr", 2, 8)]
    assert budgets == [*own, *(("copy", *rest) for _, *rest in own), ("random", 2, 4)]
    path, _ = write_report(out)
    assert "R2 of value" in path.read_text()


def test_a_folder_keeps_no_table_of_another_game(tiny, monkeypatch):
    monkeypatch.setattr(planning, "SETTLED", 0.2)
    options = {"arms": ("rmr",), "steps": 2, "seeds": 1, "horizons": (2,), "candidates": (4,)}
    for games in (("Pong",), ("reach",)):
        out, _ = run(Planning(**Planning.proposals("tiny"), **tiny, **options, games=games))
        page, _ = write_report(out)
        assert ("Pong" in page.read_text()) == (games == ("Pong",))


def test_pushed_balls_from_data_to_page(tiny):
    options = {"arms": ("rmr", "scratch_p", "extrapolated", "emulator", "random"), "seeds": 1}
    options |= {"games": ("bring", "strike"), "steps": 2, "horizons": (2,), "candidates": (4,)}
    out, problems = run(Planning(**Planning.proposals("tiny"), **tiny, **options))
    assert not problems
    rows = pd.read_csv(out / "planning.csv")
    played = [*zip(rows["game"], rows["arm"], strict=True)]
    assert played == [*product(options["games"], options["arms"])]
    assert (rows["steps"] <= 2).all()
    assert (rows["processor"] == 0).all()
    path, _ = write_report(out)
    assert "velocities are kept" in path.read_text()


def test_each_p_of_pushed_balls_has_episodes_of_its_own_and_scratch_p_sees_few(tiny):
    proposed = Planning.proposals("tiny")
    natural = replace(proposed["natural"], episodes=1)
    planned = Planning(
        **proposed | {"natural": natural}, **tiny, games=("bring",), seeds=3, processors=2
    )
    data = planned.pushed_data(no_progress)
    few = planned.pushed_dynamics(data, "scratch_p", 1)
    every = Planning(**proposed, **tiny, games=("bring",)).pushed_dynamics(data, "scratch_p", 1)
    assert few.key != every.key
    plan = planned.plan(no_progress).rows
    used = {(row.names["seed"], row.task.needs[0].key) for row in plan if row.names["arm"] == "rmr"}
    assert len(used) == planned.seeds
    assert len({key for _, key in used}) == 2
    assert {row.names["processor"] for row in plan} == {0, 1}
    assert {row.names["arm"] for row in plan} == {*PUSHED_ARMS}
    many = replace(natural, episodes=1000)
    with pytest.raises(RMRError, match=r"--natural.episodes of at most \d+, .* got 1000"):
        Planning(**proposed | {"natural": many}, **tiny, games=("bring",)).plan(no_progress)
    for name in ("processors", "steps"):
        with pytest.raises(RMRError, match=f"at least 1 as {name}"):
            Planning(games=("bring",), **{name: 0}).plan(no_progress)


def test_who_knows_the_future_reaches_the_place_and_who_knows_nothing_does_not():
    done = []
    for arm in (planning.EMULATOR, "copy"):
        episode = Episode("reach", arm, AtariModel(), Solver(8, 64, 8, hold=2), 12, 3)
        done.append(planned.function(episode, Artifact({}, {})).record["rows"][0]["return"])
    assert done == [1.0, 0.0]


def test_plans_that_cannot_be_are_refused_before_anything_is_recorded(tmp_path):
    for wrong in ({"horizons": (8, 0)}, {"candidates": (-1,)}):
        with pytest.raises(RMRError, match="at least 1 as horizon and candidates"):
            run(Planning(preset="smoke", root=tmp_path, games=("Pong",), **wrong))
    for games, arm in ((("bring",), "player"), (("Pong",), "scratch_p")):
        with pytest.raises(RMRError, match=f"unknown arm of {games[0]} '{arm}'"):
            Planning(root=tmp_path, games=games, arms=(arm,)).plan(no_progress)
    with pytest.raises(RMRError, match="no belief of Freeway comes with the package"):
        run(Planning(preset="smoke", root=tmp_path, games=("Pong", "Freeway")))
    assert not (tmp_path / "data").exists()
