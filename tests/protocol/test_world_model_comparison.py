import json
from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.protocol import world_model_comparison, world_models
from rmr_gym.protocol import world_model_scores as scores
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.world_model_comparison import TABLES, Trial, compare_world_models
from rmr_gym.protocol.world_model_presets import WORLD_PRESETS
from rmr_gym.protocol.world_models import WorldTask

TINY = replace(WORLD_PRESETS["smoke"], steps=2, batch=2, check_every=1)
OPTIONS = {"resolution": 16, "observe": ["radii", "velocities"]}
HOW = Computing("rmr-gym world-model evaluate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, env in (("four", "rmr/RNEMBalls4-v0"), ("more", "rmr/RNEMBalls6to8-v0")):
        record(env, folder / name, episodes=4, max_steps=11, **OPTIONS)
    return folder


@pytest.fixture
def tasks(folder, tmp_path):
    made = WorldTask(folder / "four", tmp_path / "store", "rnnem", TINY)
    return [made, replace(made, model="lstm")]


@pytest.fixture
def trials(folder):
    return [Trial(), Trial(folder / "more", 5)]


def table(out, name):
    found = pd.read_csv(out / f"{name}.csv", keep_default_na=True)
    assert tuple(found) == TABLES[name]
    return found


def test_a_run_folder_of_every_model_seed_and_test_set(tasks, trials, folder, tmp_path):
    out = tmp_path / "out"
    assert compare_world_models(tasks, [0, 1], trials, out, HOW) == []
    rows = table(out, "world_models")
    assert len(rows) == 2 * 2 * 2
    balls_of = rows.groupby("test", sort=False).balls.first()
    assert balls_of["validation"] == 4
    assert pd.isna(balls_of["more"]), "the number of balls varies there"
    groups = rows.groupby(["model", "test"])["groups"].first()
    assert (groups["rnnem", "validation"], groups["rnnem", "more"]) == (3, 5)
    row = scores.scored(tasks[1], 1, folder / "more")
    kept = rows[(rows.model == "lstm") & (rows.seed == 1) & (rows.test == "more")].iloc[0]
    assert kept.bce == pytest.approx(row["bce"])
    simulated = table(out, "simulations")
    ours = simulated[
        (simulated.model == "lstm") & (simulated.seed == 1) & (simulated.test == "more")
    ]
    assert ours.frame.tolist() == [1, 2]
    for name, curve in row["simulation"].items():
        kept_curve = ours[name].tolist()
        assert kept_curve == pytest.approx([np.nan if e is None else e for e in curve], nan_ok=True)
    looks = table(out, "world_model_curves")
    ours = looks[(looks.model == "rnnem") & (looks.seed == 0)]
    assert ours.step.tolist() == [1, 2]
    told = [look["validation_loss"] for look in world_models.trained(tasks[0], 0).record["looks"]]
    assert ours.validation_loss.tolist() == pytest.approx(told)


def test_run_json_says_what_was_run(tasks, trials, folder, tmp_path):
    compare_world_models(tasks[1:], [0], trials, tmp_path / "out", HOW)
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert told["kind"] == "world_models"
    assert told["command"] == HOW.command
    assert (told["models"], told["seeds"], told["steps"]) == (["lstm"], [0], {"lstm": 2})
    assert told["data"]["fingerprint"] == TransitionDataset(folder / "four").fingerprint
    assert told["data"]["balls"] == 4
    assert list(told["tests"]) == ["more"]
    assert told["tests"]["more"]["fingerprint"] == TransitionDataset(folder / "more").fingerprint
    assert told["tests"]["more"]["groups"] == 5
    assert told["config"]["lstm"]["batch"] == 2
    assert told["problems"] == []
    assert {"versions", "machine", "seconds"} <= {*told}


def test_what_is_finished_is_found_in_the_folder_and_in_the_store(
    tasks, trials, tmp_path, monkeypatch
):
    for task in tasks:
        world_models.trained(task, 0)
        for trial in trials:
            scores.scored(task, 0, trial.data, trial.groups_of(task))
    monkeypatch.setattr(world_models, "train_model", None)
    monkeypatch.setattr(scores, "score_model", None)
    out = tmp_path / "out"
    assert compare_world_models(tasks, [0], trials[:1], out, HOW) == []
    monkeypatch.setattr(world_model_comparison, "scored", None)
    before = (out / "world_models.csv").read_bytes()
    assert compare_world_models(tasks, [0], trials[:1], out, HOW) == []
    assert (out / "world_models.csv").read_bytes() == before
    longer = [replace(task, preset=replace(TINY, batch=3)) for task in tasks]
    with pytest.raises(RMRError, match=r"computed from something else: .*training"):
        compare_world_models(longer, [0], trials[:1], out, HOW)


def test_a_model_that_fails_stops_no_other_and_is_tried_again(tasks, trials, tmp_path, monkeypatch):
    train = world_models.train_model

    def failing(task, *arguments):
        if task.model == "rnnem":
            raise RMRError("these frames do not fit")
        return train(task, *arguments)

    monkeypatch.setattr(world_models, "train_model", failing)
    out = tmp_path / "out"
    problems = compare_world_models(tasks, [0], trials, out, HOW)
    assert problems[0] == "train rnnem 0: these frames do not fit"
    assert len(problems) == 3
    assert all("needs 'train rnnem 0', which failed" in problem for problem in problems[1:])
    assert json.loads((out / "run.json").read_text())["problems"] == problems
    assert table(out, "world_models").model.tolist() == ["lstm", "lstm"]
    with pytest.raises(RMRError, match="every cell failed"):
        compare_world_models(tasks[:1], [0], trials, tmp_path / "none", HOW)
    monkeypatch.setattr(world_models, "train_model", train)
    assert compare_world_models(tasks, [0], trials, out, HOW) == []
    assert table(out, "world_models").model.tolist() == ["rnnem", "rnnem", "lstm", "lstm"]


def test_what_cannot_be_is_said_at_once(tasks, trials, folder, tmp_path):
    with pytest.raises(RMRError, match="a model, a seed and a test set"):
        compare_world_models(tasks, [], trials, tmp_path, HOW)
    with pytest.raises(RMRError, match="2 groups or more while scoring"):
        Trial(folder / "more", 1)
    with pytest.raises(RMRError, match="not trained on, found four"):
        compare_world_models(tasks, [0], [Trial(folder / "four")], tmp_path, HOW)
    others = [Trial(folder / "more"), Trial(folder / "other" / "more")]
    with pytest.raises(RMRError, match="two called more"):
        compare_world_models(tasks, [0], others, tmp_path, HOW)
    with pytest.raises(RMRError, match="come twice"):
        compare_world_models([tasks[0], tasks[0]], [0], trials, tmp_path, HOW)
