from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rmr_gym.agents import imitation
from rmr_gym.agents.sb3 import agent as training
from rmr_gym.agents.sb3 import worlds
from rmr_gym.agents.sb3.worlds import make_games
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.sequences import PLACES
from rmr_gym.experiments import write_report
from rmr_gym.experiments.base import no_progress, run
from rmr_gym.experiments.sequences.grid import SequencesRun
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.stages.sequences import SEQUENCE_PRESETS, Imitation, fresh_model

STEPS = 12
CONFIG = worlds.AgentConfig("half-cheetah-v5", "state", copies=2, max_steps=STEPS)
PRESET, SMOKE = SEQUENCE_PRESETS["imitation"], SEQUENCE_PRESETS["smoke"]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(imitation, "CONFIG", CONFIG)
    tiny = {"n_steps": 8, "batch_size": 16, "n_epochs": 1}
    monkeypatch.setattr(training, "RUNNER_PPO", training.RUNNER_PPO | tiny)


def test_noise_moves_the_joints_alone_and_what_is_seen_is_the_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    still, moved = (
        imitation.perturbed(make_games(CONFIG, copies=1, learning=False).envs[0], strength)
        for strength in (0.0, 0.1)
    )
    assert not list(tmp_path.iterdir()), "MuJoCo keeps a log of its warnings"
    calm, shaken = (env.reset(seed=3)[0] for env in (still, moved))
    shift = shaken - calm
    assert not shift[:2].any()
    assert shift[2:PLACES].all()
    assert not shift[PLACES:].any()
    assert np.abs(shift).max() < 0.5
    action = np.linspace(-1, 1, 6)
    (_, reward, *_), (shaken, other, *_) = still.step(action), moved.step(action)
    assert reward != other, "the world goes on from where it was moved"
    world = moved.unwrapped.data
    assert np.array_equal(shaken, np.concatenate([world.qpos[1:], world.qvel]))


def test_an_imitator_sees_places_alone_and_remembers():
    model = fresh_model(PRESET.task, "lstm", SMOKE.lstm, 0)
    states = np.random.default_rng(0).normal(size=(4, 3, 17))
    player = imitation.Imitator(model)
    played = np.stack([player(shown) for shown in states], 1)
    changed = states.copy()
    changed[..., PLACES:] = 0
    blind = imitation.Imitator(model)
    assert np.array_equal(np.stack([blind(shown) for shown in changed], 1), played)
    whole = torch.from_numpy(states[..., :PLACES]).float().transpose(0, 1)
    wanted = model(whole, torch_generator(0)).outputs.clamp(-1, 1)
    np.testing.assert_allclose(played, wanted.detach().numpy(), atol=1e-6)


def test_a_run_has_an_expert_its_episodes_and_returns_of_all(tmp_path):
    task = replace(PRESET.task, checkpoints=(2,), span=4, test_spans=(4, 8), batch=4, sequences=4)
    test = Imitation(steps=32, episodes=5, strengths=(0.0, 0.2), plays=2)
    sizes = {"rims": SMOKE.rims, "lstm": SMOKE.lstm, "memoryless": SMOKE.lstm}
    options = vars(PRESET) | sizes | {"task": task, "imitation": test, "root": tmp_path}
    folder, problems = run(SequencesRun(**options | {"seeds": 5, "workers": 1}))
    assert problems == []
    table = pd.read_csv(folder / "returns.csv")
    assert {*table.model} == {"expert", "rims", "lstm", "memoryless"}
    assert len(table) == (3 * 5 + 1) * 2
    assert table["return"].nunique() == len(table)
    path, text = write_report(folder)
    assert "Return with noise of 0.2 radians on the joints: " in text
    assert "Returns under perturbation" in path.read_text(encoding="utf-8")
    pairs = pd.read_csv(folder / "returns_pairs.csv")
    assert {*pairs.model} == {"expert", "rims", "memoryless"}
    assert (pairs.pairs == [1 if model == "expert" else 5 for model in pairs.model]).all()
    place = imitation.Place(tmp_path / "experts" / "32")
    assert {*pairs[pairs.model == "rims"].verdict} <= {"better", "worse", "same"}
    data = TransitionDataset(place.path / "episodes")
    assert len(data) == 5 * STEPS
    again = imitation.expert.function(CONFIG, test, place)
    states, actions = (again.tensors[name].numpy() for name in ("states", "actions"))
    assert states.shape == (5, STEPS, 17)
    assert actions.shape == (5, STEPS, 6)
    seen = data.episode(2).observations["observation"][:-1]
    np.testing.assert_allclose(states[2], worlds.RANGES * seen, rtol=1e-6)
    assert np.abs(actions[2] - data.episode(2).actions).max() > 0.01, "means, not what was drawn"
    wanted = table[table.model == "expert"]
    assert [row["return"] for row in again.record["rows"]] == pytest.approx([*wanted["return"]])
    kept = training.kept_agents(place.path)[-1]
    assert {file.suffix for file in kept.iterdir()} == {".safetensors"}


def test_random_play_draws_torques():
    points = training.random_returns(CONFIG, episodes=2, seed=0)
    assert len(set(points)) == 2
    assert max(map(abs, points)) < 10 * STEPS


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"algorithm": "dqn"}, "unknown algorithm for HalfCheetah-v5 'dqn'"),
        ({"features": "cnn"}, "unknown features of HalfCheetah-v5 'cnn'"),
    ],
)
def test_what_torques_cannot_be_learned_with_is_refused(options, told):
    with pytest.raises(RMRError, match=told):
        replace(CONFIG, **options)


def test_strengths_are_0_or_more():
    with pytest.raises(RMRError, match="strengths"):
        Imitation(strengths=(0.0, -0.1))


def test_what_an_expert_cannot_show_is_refused():
    with pytest.raises(RMRError, match=r"episodes in \[5, inf\) in Imitation"):
        Imitation(episodes=4)
    task = SequencesRun.proposals("imitation")["task"]
    with pytest.raises(RMRError, match="an expert's episode has 1000 instants"):
        replace(task, test_spans=(1001,))
    twice = Imitation(strengths=(0.05, 0.05))
    with pytest.raises(RMRError, match=r"each strength may be named once, got 0.05"):
        SequencesRun(imitation=twice).plan(no_progress)
