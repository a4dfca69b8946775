import json
from dataclasses import replace

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch

from rmr_gym.agents.record import record
from rmr_gym.commands import stages, world_data
from rmr_gym.commands import world_model as commands
from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol import store, world_model_presets, world_models
from rmr_gym.stages import balls

INSIDE = ("rmr", "fresh_p", "random_p", "shuffled_p")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    options = {"resolution": 16, "observe": ["radii", "velocities"]}
    record("rmr/RNEMBalls4-v0", path, episodes=4, max_steps=11, **options)
    return path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    smoke = world_model_presets.WORLD_PRESETS["smoke"]
    tiny = replace(smoke, steps=2, batch=2, check_every=2)
    monkeypatch.setitem(world_model_presets.WORLD_PRESETS, "smoke", tiny)
    yield
    balls.forget_balls()
    world_models.load_part.cache_clear()


def run(tmp_path, command, *arguments):
    root = ("--root", str(tmp_path / "runs"), "--preset", "smoke")
    commands.app.cli(args=[command, *map(str, arguments), *root])


def test_train_evaluate_and_draw(recorded, tmp_path, capsys, monkeypatch):
    run(tmp_path, "train", "--data", recorded, "--model", "rnnem")
    assert "rnnem" in capsys.readouterr().out
    out = tmp_path / "scores"
    models = ("--models", "rnnem", "lstm", "--workers", 1)
    run(tmp_path, "evaluate", "--data", recorded, "--out", out, *models)
    said = " ".join(capsys.readouterr().out.split())
    assert "Relative BCE on validation, mean over 1 seed:" in said
    assert f"written: {out / 'report.html'}" in said
    table = pd.read_csv(out / "world_models.csv")
    assert table.model.tolist() == ["rnnem", "lstm"]
    assert table.groups.tolist() == [3, 1]
    assert table.ari.isna().tolist() == [False, True]
    figures = {path.name for path in (out / "figures").iterdir()}
    assert figures == {
        *("relative_bce.svg", "simulations.svg", "simulations_f1.svg", "ari.svg"),
        "validation.svg",
    }
    monkeypatch.setattr(world_models, "train_model", None)
    shown = ("--seen", 3, "--ahead", 2, "--sequences", 1)
    for model in ("rnnem", "lstm"):
        run(tmp_path, "rollout", "--data", recorded, "--out", tmp_path, "--model", model, *shown)
        assert matplotlib.image.imread(tmp_path / f"{model}_0.png").ndim == 3
        assert (tmp_path / f"{model}_0.gif").read_bytes()[:3] == b"GIF"


def test_settings_reach_training_and_sizes(recorded, tmp_path):
    out = tmp_path / "scores"
    settings = ("--set", "learning_rate=0.01", "sizes.dim=6", "--models", "rnn", "--workers", 1)
    run(tmp_path, "evaluate", "--data", recorded, "--out", out, *settings)
    config = json.loads((out / "run.json").read_text())["config"]["rnn"]
    assert (config["learning_rate"], config["sizes"]["dim"], config["batch"]) == (0.01, 6, 2)
    (record,) = (tmp_path / "runs" / "store" / "world_model").glob("*/record.json")
    assert json.loads(record.read_text())["sizes"]["dim"] == 6


def test_a_size_is_set_where_there_is_one(recorded, tmp_path):
    out = tmp_path / "scores"
    models = ("--models", "rims", "memoryless", "--workers", 1)
    settings = ("--set", "sizes.rims.active=3", "--set", "sizes.kernel=5")
    run(tmp_path, "evaluate", "--data", recorded, "--out", out, *settings, *models)
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["rims"]["sizes"]["rims"]["active"] == 3
    assert config["memoryless"]["sizes"]["kernel"] == 5
    with pytest.raises(RMRError, match=r"unknown setting 'sizes\.places'"):
        run(tmp_path, "evaluate", "--data", recorded, "--set", "sizes.places=3", *models)


def test_a_simulation_is_drawn_of_the_model_that_was_set(recorded, tmp_path, monkeypatch):
    settings = ("--data", recorded, "--model", "rnn", "--set", "sizes.dim=6")
    run(tmp_path, "train", *settings)
    monkeypatch.setattr(world_models, "train_model", None)
    shown = ("--seen", 3, "--ahead", 2, "--sequences", 1, "--out", tmp_path / "drawn")
    run(tmp_path, "rollout", *settings, *shown)


def test_an_environment_is_played_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(world_data.PLAYED, "smoke", (3, {"resolution": 16, "max_episode_steps": 7}))
    more = ("--models", "rnnem", "--tests", "rmr/RNEMBalls6to8-v0", "--test-groups", 5)
    run(tmp_path, "evaluate", "--data", "rmr/RNEMBalls4-v0", *more, "--workers", 1)
    table = pd.read_csv(tmp_path / "runs" / "smoke-world-models" / "world_models.csv")
    assert table.test.tolist() == ["validation", "RNEMBalls6to8-v0-smoke"]
    assert table.groups.tolist() == [3, 5]
    assert np.isfinite(table.ari).all()
    recorded = tmp_path / "runs" / "data"
    names = {path.name for path in recorded.iterdir()}
    assert names == {"RNEMBalls4-v0-smoke", "RNEMBalls6to8-v0-smoke"}
    before = [path.stat().st_mtime_ns for path in sorted(recorded.rglob("*.h5"))]
    run(tmp_path, "train", "--data", "rmr/RNEMBalls4-v0", "--model", "rnnem")
    assert [path.stat().st_mtime_ns for path in sorted(recorded.rglob("*.h5"))] == before
    with pytest.raises(RMRError, match="RNEMBalls5-v0"):
        run(tmp_path, "train", "--data", "rmr/RNEMBalls5-v0", "--model", "rnnem")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "rnen"), "rnem"),
        (("--groups", 1), "2 groups or more"),
        (("--model", "rnn", "--groups", 3), "2 groups or more"),
        (("--device", "abacus"), "device"),
        (("--seed", -1), "a seed of 0 or more, found -1"),
        (("--steps", 0), "^expected --steps of 1 or more, got 0"),
        (("--steps", -5), "^expected --steps of 1 or more, got -5"),
        (("--set", "learning_rat=1"), "unknown setting 'learning_rat': did you mean 'learning_ra"),
        (("--set", "sizes.dims=1"), "unknown setting 'sizes.dims': did you mean 'sizes.dim'"),
        (("--set", "sizes.dim=wide"), "type int for sizes.dim, which is 8, got 'wide'"),
        (("--set", "batch"), "each option once, as name=value, for instance learning_rate=7e-4"),
        (("--set", "batch=3", "batch=4"), "each option once, .* found 'batch=4'"),
        (("--set", "batch=3", "--set", "batch=4"), "each option once, .* found 'batch=4'"),
        (("--set", "batch=0"), "expected counts of 1 or more"),
        (("--set", "steps=3"), "expected steps to be given as --steps, got --set steps"),
        (("--set", "sizes.groups=3"), "expected sizes.groups to be given as --groups"),
        (("--set", "sizes.dim=0"), "sizes of 1 or more in NEMSizes, got dim=0"),
        (("--set", "sizes.channels=[0]"), "sizes of 1 or more in NEMSizes, got channels="),
        (("--set", "learning_rate=NaN"), "a finite number for learning_rate, got nan"),
        (("--set", "learning_rate=1" + 400 * "0"), "a finite number for learning_rate"),
        (("--processor", "missing"), "no P inside: leave the processor out"),
        (("--model", "rims_rmr", "--processor", "missing"), "rmr-gym pretrain"),
    ],
)
def test_what_cannot_be_is_said_at_once(recorded, tmp_path, arguments, message):
    with pytest.raises(RMRError, match=message):
        run(tmp_path, "train", "--data", recorded, *arguments)


@pytest.mark.parametrize("name", ["CartPole-v1", "rmr/Pong-v0", "rmr/BouncingBalls-v0"])
def test_an_environment_that_cannot_be_played_is_told(tmp_path, name):
    with pytest.raises(RMRError, match=f"rmr/RNEMBalls.*, got {name}: record it"):
        run(tmp_path, "train", "--data", name)
    assert not list(tmp_path.rglob("*.h5"))


def test_sequences_that_are_too_short_are_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(world_models, "train_model", None)
    record("rmr/RNEMBalls4-v0", tmp_path / "few", episodes=4, max_steps=6, resolution=16)
    smoke = replace(world_model_presets.WORLD_PRESETS["smoke"], seen=6)
    monkeypatch.setitem(world_model_presets.WORLD_PRESETS, "smoke", smoke)
    for command in ("train", "evaluate"):
        with pytest.raises(RMRError, match=r"8 frames or more in .*few, found at most 7"):
            run(tmp_path, command, "--data", tmp_path / "few")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seed", -2), "a seed of 0 or more, found -2"),
        (("--out", "rollout.csv"), "expected a folder for --out, .* leave .csv out"),
        (("--out", "rollout.gif"), "expected a folder for --out, .* leave .gif out"),
        (("--ahead", 20), "30 frames or more"),
    ],
)
def test_what_cannot_be_drawn_is_not_trained(recorded, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(world_models, "train_model", None)
    if "--out" not in arguments:
        arguments = (*arguments, "--out", tmp_path / "drawn")
    with pytest.raises(RMRError, match=message):
        run(tmp_path, "rollout", "--data", recorded, *arguments)


def test_a_model_that_is_not_there_is_trained_and_told_of(recorded, tmp_path, capsys):
    shown = ("--seen", 3, "--ahead", 2, "--sequences", 1, "--model", "rnn")
    run(tmp_path, "rollout", "--data", recorded, "--out", tmp_path / "drawn", *shown)
    assert "rnn, seed 0: 2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "scores.csv"), "expected a folder for --out"),
        (("--test-groups", 5), "--tests"),
        (("--test-groups", 5, 6, "--tests", "rmr/RNEMBalls6to8-v0"), "2 for 1 test sets"),
        (("--seeds", 0), "seeds must be 1 or more"),
        (("--models", "rnen"), "rnem"),
        (("--models",), "a model, a seed and a test set"),
        (("--steps", 0), "^expected --steps of 1 or more, got 0"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused_at_once(recorded, tmp_path, arguments, message):
    with pytest.raises(RMRError, match=message):
        run(tmp_path, "evaluate", "--data", recorded, *arguments)
    assert not list(tmp_path.rglob("run.json"))


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("donor")
    record("rmr/BouncingBalls-v0", folder / "balls", episodes=6, max_steps=30)
    arguments = (
        "--data",
        folder / "balls",
        "--out",
        folder / "p",
        "--root",
        folder,
        "--preset",
        "smoke",
    )
    stages.pretrain([*map(str, arguments)])
    return folder / "p"


def test_a_pretrained_processor_inside_stays_as_it_was(recorded, donor, tmp_path, capsys):
    out = tmp_path / "inside"
    names = [f"{family}_{arm}" for family in ("rnem", "rims") for arm in INSIDE]
    options = ("--processor", donor, "--out", out, "--models", "rnem", *names, "--workers", 1)
    run(tmp_path, "evaluate", "--data", recorded, *options)
    said = capsys.readouterr().out
    assert "What rnem_rmr improves on validation: over rnem: relative BCE" in said
    assert "over rnem_shuffled_p: relative BCE" in said
    pairs = pd.read_csv(out / "pairs.csv")
    assert set(pairs.model) == {"rnem_rmr", "rims_rmr"}
    assert len(pairs) == 4 * 4 + 3 * 3, "RIMs have no groups to compare"
    given = store.read_artifact(donor)
    made = {name: task(recorded, donor, tmp_path, name) for name in names}
    artifacts = {name: world_models.trained(made[name], 0) for name in names}
    clips = world_models.load_part(
        recorded, made["rnem_rmr"].preset.validation_share, "training", 6
    )
    for family in ("rnem", "rims"):
        hashes = {arm: artifacts[f"{family}_{arm}"].record["processor_hash"] for arm in INSIDE}
        assert hashes["rmr"] == given.record["processor_hash"]
        assert len({*hashes.values()}) == len(INSIDE)
        begun = {arm: world_models.initial(made[f"{family}_{arm}"], clips, 0) for arm in INSIDE}
        fresh = world_models.inner_processor(begun["fresh_p"])
        assert hashes["random_p"] == parameter_hash(fresh) != hashes["fresh_p"]
        outside = [
            {name: w for name, w in model.state_dict().items() if ".processor." not in name}
            for model in begun.values()
        ]
        for other in outside[1:]:
            assert all(torch.equal(w, other[name]) for name, w in outside[0].items())


def task(recorded, donor, tmp_path, model):
    return commands.make_task(recorded, model, None, "smoke", tmp_path / "runs", "cpu", donor)


def test_a_processor_is_asked_for_and_must_be_one(recorded, donor, tmp_path):
    with pytest.raises(RMRError, match="rmr-gym pretrain"):
        run(tmp_path, "train", "--data", recorded, "--model", "rnem_rmr")
    wrong = tmp_path / "other"
    store.write_artifact(wrong, store.Artifact({"kind": "encoder"}, {}))
    with pytest.raises(RMRError, match="rmr-gym pretrain"):
        run(tmp_path, "train", "--data", recorded, "--model", "rims_rmr", "--processor", wrong)
    with pytest.raises(RMRError, match="no P inside"):
        replace(task(recorded, donor, tmp_path, "rnem_rmr"), model="rnem")
    narrow = store.read_artifact(donor)
    record = narrow.record | {"model": narrow.record["model"] | {"core": "interaction"}}
    store.write_artifact(tmp_path / "narrow", store.Artifact(record, narrow.tensors))
    with pytest.raises(RMRError, match=r"--model\.core mpnn"):
        world_models.donor_sizes(store.read_artifact(tmp_path / "narrow"))
