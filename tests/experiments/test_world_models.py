"""Grids of world models: what run folders hold, what is refused before anything is trained."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmr_gym.agents.record import record
from rmr_gym.commands import experiments as commands
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.experiments import worlds, write_report
from rmr_gym.experiments.base import run
from rmr_gym.experiments.world_models.grid import Views, WorldModels
from rmr_gym.runs.store import read_artifact, write_artifact
from rmr_gym.stages import world_model as stages

OVERRIDES = ("training.steps=2", "training.batch=2", "training.check_every=1")
SMOKE = {"preset": "smoke", "workers": 1, "overrides": (OVERRIDES,)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def untrained(monkeypatch):
    """Nothing may be trained."""
    monkeypatch.setattr(stages, "train_phase", None)


@pytest.fixture
def world_models(frames_of, root):
    def experiment(**options):
        given = {"data": frames_of("four"), "root": root, "models": ("rnnem", "lstm")}
        return WorldModels(**SMOKE | given | options)

    return experiment


@pytest.fixture
def views(frames_of, root):
    def experiment(**options):
        given = {"data": frames_of("balls3"), "root": root, "models": ("s2gru", "crops_lstm")}
        return Views(**SMOKE | given | options)

    return experiment


COLUMNS = {
    "world_models": (
        *("test", "model", "seed", "balls", "groups", "step"),
        *stages.SCORES[2:],
    ),
    "simulations": (
        *("test", "model", "seed", "frame", "f1_velocities", "f1_moving_velocities"),
        *("bce", "copied", "f1", "f1_moving", "f1_copied", "f1_moving_copied"),
    ),
    "world_model_curves": ("model", "seed", "step", "validation_loss"),
    "views": (
        *("model", "seed", "test", "balls", "step", "views", "dropped"),
        *("balanced_accuracy", "f1", "f1_moving"),
    ),
}


def tables(folder, *names):
    read = {name: pd.read_csv(folder / f"{name}.csv") for name in names}
    assert {name: tuple(table) for name, table in read.items()} == {
        name: COLUMNS[name] for name in names
    }
    return read


def test_a_run_folder_of_every_model_seed_and_test_set(world_models, frames_of, monkeypatch):
    tests = {"tests": (frames_of("crowd"),), "test_groups": (5,)}
    folder, problems = run(world_models(seeds=2, **tests))
    assert problems == []
    read = tables(folder, "world_models", "simulations", "world_model_curves")
    rows = read["world_models"]
    assert rows[["model", "seed", "test"]].to_numpy().tolist() == [
        [model, seed, test]
        for model in ("rnnem", "lstm")
        for seed in (0, 1)
        for test in ("validation", "crowd")
    ]
    balls = rows.groupby("test").balls.first()
    assert balls["validation"] == 4
    assert pd.isna(balls["crowd"]), "the number of balls varies there"
    groups = rows.groupby(["model", "test"])["groups"].first()
    assert (groups["rnnem", "validation"], groups["rnnem", "crowd"]) == (3, 5)
    assert rows.ari.isna().tolist() == [model == "lstm" for model in rows.model]
    assert read["simulations"].frame.tolist() == [1, 2] * len(rows)
    assert read["world_model_curves"].step.tolist() == [1, 2] * 4
    run_json = json.loads((folder / "run.json").read_text())
    assert run_json["kind"] == "world_models"
    assert (run_json["models"], run_json["seeds"]) == (["rnnem", "lstm"], [0, 1])
    assert run_json["steps"] == {"rnnem": 2, "lstm": 2}
    assert run_json["data"]["fingerprint"] == TransitionDataset(frames_of("four")).fingerprint
    assert run_json["tests"]["crowd"]["groups"] == 5
    assert run_json["presets"]["lstm"]["training"]["batch"] == 2
    before = (folder / "world_models.csv").read_bytes()
    monkeypatch.setattr(stages, "train_phase", None)
    run(world_models(seeds=2, **tests))
    assert (folder / "world_models.csv").read_bytes() == before
    with pytest.raises(RMRError, match=r"of something else: config\.overrides was"):
        run(world_models(overrides=(OVERRIDES, ("sizes.dim=6",))))


def test_a_model_that_fails_stops_no_other_and_is_tried_again(world_models, tmp_path, monkeypatch):
    train, failures = stages.train_phase, iter([RMRError("these frames do not fit")])

    def failing(*arguments, **options):
        for error in failures:
            raise error
        return train(*arguments, **options)

    monkeypatch.setattr(stages, "train_phase", failing)
    options = {"root": tmp_path, "models": ("rnn", "lstm")}
    folder, problems = run(world_models(**options))
    assert problems[0] == "world_model rnn 0: these frames do not fit"
    assert len(problems) == 2
    assert "which failed" in problems[1]
    assert json.loads((folder / "run.json").read_text())["problems"] == problems
    assert pd.read_csv(folder / "world_models.csv").model.tolist() == ["lstm"]
    assert run(world_models(**options))[1] == []
    assert pd.read_csv(folder / "world_models.csv").model.tolist() == ["rnn", "lstm"]


def test_a_size_is_overridden_where_there_is_one(world_models, tmp_path):
    overrides = (OVERRIDES, ("sizes.rims.active=3",), ("sizes.kernel=5",))
    models = {"models": ("rims", "memoryless"), "out": tmp_path / "out"}
    folder, _ = run(world_models(**models, overrides=overrides))
    presets = json.loads((folder / "run.json").read_text())["presets"]
    assert presets["rims"]["sizes"]["rims"]["active"] == 3
    assert presets["memoryless"]["sizes"]["kernel"] == 5
    models["out"] = tmp_path / "other"
    with pytest.raises(RMRError, match=r"unknown option 'sizes\.places'"):
        run(world_models(**models, overrides=(OVERRIDES, ("sizes.places=3",))))


def test_a_pretrained_processor_is_paired_with_what_it_is_compared_with(
    world_models, donor_of_balls, tmp_path, capsys, frames_of
):
    names = [f"rnem_{arm}" for arm in ("rmr", "fresh_p", "shuffled_p")]
    overrides = [part for text in OVERRIDES for part in ("--set", text)]
    options = ["--data", frames_of("four"), "--processor", donor_of_balls, "--models", "rnem"]
    options += [*names, "--root", tmp_path, "--preset", "smoke", "--workers", 1, *overrides]
    commands.run(["world-models", *map(str, options)])
    assert "report: " in capsys.readouterr().out
    pairs = pd.read_csv(tmp_path / "smoke-world-models" / "pairs.csv")
    assert set(pairs.model) == {"rnem_rmr"}
    assert set(pairs.against) == {"rnem", "rnem_fresh_p", "rnem_shuffled_p"}


def test_a_processor_is_asked_for_and_must_be_one(world_models, donor_of_balls, tmp_path):
    for options in ({}, {"processor": tmp_path / "missing"}):
        with pytest.raises(RMRError, match="rmr-gym pretrain"):
            run(world_models(models=("rims_rmr",), out=tmp_path / "out", **options))
    with pytest.raises(RMRError, match="no P inside: leave the processor out"):
        run(world_models(processor=donor_of_balls, out=tmp_path / "out"))
    donor = read_artifact(donor_of_balls)
    record = donor.record | {"model": donor.record["model"] | {"core": "interaction"}}
    write_artifact(tmp_path / "narrow", replace(donor, record=record))
    with pytest.raises(RMRError, match=r"--model\.core mpnn"):
        run(world_models(models=("rims_rmr",), processor=tmp_path / "narrow", out=tmp_path / "out"))


def test_an_environment_is_played_once(world_models, tmp_path, monkeypatch):
    options = {"resolution": 16, "max_episode_steps": 7}
    monkeypatch.setitem(worlds.PLAYED, "smoke", (3, options))
    played = {"root": tmp_path, "data": Path("rmr/RNEMBalls4-v0"), "models": ("rnnem",)}
    tests = {"tests": (Path("rmr/RNEMBalls6to8-v0"),), "test_groups": (5,)}
    folder, _ = run(world_models(**played, **tests))
    table = pd.read_csv(folder / "world_models.csv")
    assert table.test.tolist() == ["validation", "RNEMBalls6to8-v0-smoke"]
    assert table.groups.tolist() == [3, 5]
    assert np.isfinite(table.ari).all()
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {"RNEMBalls4-v0-smoke", "RNEMBalls6to8-v0-smoke"}
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "data").rglob("*.h5"))]
    run(world_models(**played))
    after = [path.stat().st_mtime_ns for path in sorted((tmp_path / "data").rglob("*.h5"))]
    assert after == before


def test_slow_balls_are_told_with_their_pace(world_models, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(worlds.PLAYED, "smoke", (3, {"resolution": 16, "max_episode_steps": 7}))
    experiment = {"root": tmp_path, "data": Path("rmr/RNEMBalls4-v0"), "models": ("rnnem",)}
    for fps, slow in ((80.0, True), (5.0, False)):
        caplog.clear()
        world_models(fps=fps, **experiment).planned(("rnnem",), lambda title: None)
        assert ("pixels a frame in RNEMBalls4-v0-smoke" in caplog.text) == slow
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {"RNEMBalls4-v0-smoke-80fps", "RNEMBalls4-v0-smoke-5fps"}


@pytest.mark.parametrize("name", ["CartPole-v1", "rmr/Pong-v0", "rmr/BouncingBalls-v0"])
def test_an_environment_that_cannot_be_played_is_told(world_models, tmp_path, name):
    with pytest.raises(RMRError, match=f"rmr/RNEMBalls.*, got {name}: record it"):
        run(world_models(data=Path(name), root=tmp_path))
    assert not list(tmp_path.rglob("*.h5"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("rnen",)}, "unknown world model 'rnen': did you mean"),
        ({"models": ()}, "expected one world model or more"),
        ({"models": ("rnn", "rnn")}, "each world model may be named once"),
        ({"preset": "large"}, "unknown preset 'large'"),
        ({"groups": 1}, "2 groups or more"),
        ({"models": ("rnn",), "groups": 3}, "2 groups or more in .*, got 3 and rnn"),
        ({"test_groups": (5,)}, "--tests or one for each, got 1 for 0 test sets"),
        ({"device": "abacus"}, "device"),
        ({"seeds": 0}, "at least 1 as seeds"),
        ({"steps": 0, "overrides": ()}, "counts of 1 or more in WorldTraining, got steps=0"),
        ({"overrides": (("training.learning_rat=1",),)}, "did you mean 'training.learning_rate'"),
        ({"overrides": (("sizes.dim=wide",),)}, "type int for sizes.dim, which is 8, got 'wide'"),
        ({"overrides": (("training.batch",),)}, "each option once, as name=value, for instance"),
        ({"overrides": (("sizes.dim=3",), ("sizes.dim=4",))}, "each option once, .*'sizes.dim=4'"),
        ({"overrides": (("sizes.dim=0",),)}, "counts of 1 or more in NEMSizes, got dim=0"),
        ({"overrides": (("training.learning_rate=NaN",),)}, "a finite number for training.learn"),
        ({"overrides": (("training.steps=3",),), "steps": 4}, "each option once"),
    ],
)
def test_options_that_cannot_be_are_refused(world_models, tmp_path, untrained, options, message):
    with pytest.raises(RMRError, match=message):
        run(world_models(**{"root": tmp_path, "data": tmp_path / "none"} | options))
    assert not list(tmp_path.rglob("run.json"))


@pytest.mark.parametrize(
    ("tests", "options", "message"),
    [
        (("more",), {}, "not trained on, found more, 5 of whose 6 episodes are in the training"),
        (("wide",), {}, "frames of 16 x 16 in wide, as in training, found 32 x 32: .*resolution"),
        (("pushed",), {}, "expected 0 actions in pushed, as in training, found"),
        (("short",), {"overrides": (("scoring.seen=6",),)}, "a test episode of 8 frames .*short"),
        (("other", "other"), {}, "each test set may be named once, got other"),
        (("other",), {"test_groups": (5, 6)}, "2 for 1 test sets"),
        (("other",), {"test_groups": (1,)}, "2 groups or more while scoring, got 1"),
        ((), {"overrides": (("scoring.seen=11",),)}, "a validation episode of 13 frames .*four"),
        ((), {"overrides": (("training.unroll=12",),)}, "a training episode of 13 frames .*four"),
    ],
)
def test_data_that_cannot_be_are_refused(
    world_models, frames_of, untrained, tmp_path, tests, options, message
):
    with pytest.raises(RMRError, match=message):
        run(world_models(tests=tuple(map(frames_of, tests)), out=tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_models_of_crops_where_they_see_less(views, frames_of, monkeypatch):
    conditions = {"tests": (frames_of("balls5"),), "seen": (1, 4, 1), "dropped": (0, 1, 1)}
    folder, problems = run(views(**conditions))
    assert problems == []
    table = tables(folder, "views", "world_model_curves")["views"]
    tests = (("validation", 3), ("balls5", 5))
    expected = [("s2gru", *test, count, 0) for test in tests for count in (1, 4)]
    expected += [("s2gru", *test, 4, 1) for test in tests]
    expected += [("crops_lstm", *test, count, 0) for test in tests for count in (1, 4)]
    columns = ["model", "test", "balls", "views", "dropped"]
    assert list(table[columns].itertuples(index=False, name=None)) == expected
    with np.load(folder / "enclaves_s2gru_0.npz", allow_pickle=False) as enclaves:
        assert enclaves["attended"].shape == (3, 16, 16)
        assert enclaves["heard"].shape == (3, 3)
    assert not (folder / "enclaves_crops_lstm_0.npz").exists()
    run_json = json.loads((folder / "run.json").read_text())
    assert (run_json["kind"], run_json["data"]["balls"]) == ("views", 3)
    assert run_json["tests"]["balls5"]["balls"] == 5
    before = (folder / "views.csv").read_bytes()
    monkeypatch.setattr(stages, "train_phase", None)
    run(views(**conditions))
    assert (folder / "views.csv").read_bytes() == before


def test_a_condition_that_fails_stops_no_other(views, tmp_path, monkeypatch):
    count = stages.count_pixels

    def failing(model, clips):
        if model.views == 2:
            raise RMRError("too dark")
        return count(model, clips)

    monkeypatch.setattr(stages, "count_pixels", failing)
    folder, problems = run(views(models=("s2gru",), seen=(4, 2), out=tmp_path / "out"))
    assert len(problems) == 1
    assert problems[0].endswith("2: too dark")
    assert pd.read_csv(folder / "views.csv")["views"].tolist() == [4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ("rims",)}, "unknown model of crops 'rims'"),
        ({"models": ()}, "expected one model of crops or more"),
        ({"seen": (5,)}, "expected 1 to 4 crops .* got 5"),
        ({"seen": (0,)}, "expected 1 to 4 crops .* got 0"),
        ({"dropped": (3,)}, "expected 0 to 2 modules .* got 3"),
        ({"dropped": (-1,)}, "expected 0 to 2 modules .* got -1"),
        ({"models": ("crops_lstm",), "dropped": (1,)}, "expected 0 to 0 modules"),
        ({"overrides": (("training.unroll=12",),)}, "a training episode of 13 frames"),
    ],
)
def test_crops_and_modules_that_no_model_has(views, untrained, tmp_path, options, message):
    with pytest.raises(RMRError, match=message):
        run(views(out=tmp_path / "out", **options))


def test_crops_of_frames_of_another_size_are_refused(views, frames_of, untrained):
    with pytest.raises(RMRError, match="16 x 16 in wide"):
        run(views(tests=(frames_of("wide"),)))


@pytest.mark.parametrize(
    ("env_id", "package", "kind", "size"),
    [("rmr/Battles-v0", "magent2", "team", 12), ("rmr/Trains-v0", "flatland", "trains", 22)],
)
def test_agents_of_whom_fewer_share_what_they_see(tmp_path, env_id, package, kind, size):
    pytest.importorskip(package)
    for name, agents in (("three", 3), ("four", 4)):
        options = {kind: agents, "size": size, "max_episode_steps": 8}
        record(env_id, tmp_path / name, episodes=5, seed=agents, **options)
    given = {"data": tmp_path / "three", "root": tmp_path, "models": ("s2gru", "crops_oracle")}
    given |= {"tests": (tmp_path / "four",), "seen": (1,), "dropped": (1,)}
    folder, problems = run(Views(**SMOKE | given))
    assert problems == []
    table = pd.read_csv(folder / "views.csv")
    assert table.groupby("test")["balls"].unique().to_dict() == {"four": [4], "validation": [3]}
    assert len(table) == 4 * 2 + 2
    for name in ("f1_copied", "log_likelihood", "nmse", "nmse_copied", "balanced_accuracy"):
        assert table[name].between(-1000, 1).all()
    page = write_report(folder)[0].read_text(encoding="utf-8")
    assert "Scores: F1 of the last views" in page
    larger = {"overrides": ((*OVERRIDES, f"sizes.size={size + 1}"),), "out": tmp_path / "out"}
    with pytest.raises(RMRError, match=rf"odd size from 1 to {size}, .* or take smaller crops"):
        run(Views(**SMOKE | given | larger))
