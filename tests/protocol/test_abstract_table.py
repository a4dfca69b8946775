import json
from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import stages
from rmr_gym.protocol.abstract_table import MODELS, abstract_table, model_task
from rmr_gym.protocol.computing import Computing


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.natural_data, stages.probe_sets):
        cached.cache_clear()


def fail(*_, **__):
    raise AssertionError("trained again")


def test_the_run_folder_holds_every_model_seed_and_the_copy_baseline_once(task, tmp_path):
    out = tmp_path / "out"
    assert abstract_table([task], [0, 1], out, Computing("test")) == []
    table = pd.read_csv(out / "abstract.csv")
    counted = table.groupby(["model", "seed"])["step"].agg(list).to_dict()
    trained = {(model, seed): [3, 6] for model in MODELS for seed in (0, 1)}
    assert counted == {("copy", 0): [0], ("copy", 1): [0], **trained}
    assert not table.duplicated(["game", "model", "seed", "step"]).any()
    curves = pd.read_csv(out / "abstract_curves.csv")
    first = curves[curves["step"] == 1].pivot_table("loss", "model", "seed")
    assert (first[0] != first[1]).all()
    assert len(pd.read_csv(out / "timings.csv")) == 6
    described = json.loads((out / "run.json").read_text())
    assert described["kind"] == "table2"
    assert described["slots"]["Pong"] == len(stages.open_episodes(task).slots)
    assert described["models"] == ["copy", *MODELS]
    assert "objective" not in described, "nothing natural was trained"


def test_what_pretrain_left_is_found(task, tmp_path, monkeypatch):
    model = replace(task.preset.model, core="deep_sets")
    stages.pretrained(replace(task, preset=replace(task.preset, model=model)))
    stages.pretrained(task)
    monkeypatch.setattr(stages.abstract_stage, "pretrain", fail)
    found = ("deep_sets", "mpnn")
    assert abstract_table([task], [0], tmp_path / "out", Computing("test"), models=found) == []


def test_the_first_seed_is_that_of_every_other_command(task, monkeypatch):
    default = stages.pretrained(task)
    other = stages.pretrained(task, seed=1)
    assert default.record["processor_hash"] != other.record["processor_hash"]
    monkeypatch.setattr(stages.abstract_stage, "pretrain", fail)
    assert stages.pretrained(task, seed=0).record == default.record


def test_a_failing_model_is_reported_and_the_others_stay(task, tmp_path, monkeypatch):
    train = stages.abstract_stage.pretrain

    def fail_for_mlp(config, model, *rest, **options):
        if model.core == "mlp":
            raise RMRError("broken on purpose")
        return train(config, model, *rest, **options)

    monkeypatch.setattr(stages.abstract_stage, "pretrain", fail_for_mlp)
    problems = abstract_table([task], [0], tmp_path / "out", Computing("test"))
    assert problems == ["abstract Pong mlp 0: broken on purpose"]
    assert set(pd.read_csv(tmp_path / "out" / "abstract.csv")["model"]) == {
        *("copy", "deep_sets", "mpnn")
    }
    with pytest.raises(RMRError, match=r"every cell failed.*broken on purpose"):
        abstract_table([task], [1], tmp_path / "no", Computing("test"), models=["mlp"])


def test_nothing_to_train_and_unknown_models_are_refused(task, tmp_path):
    with pytest.raises(RMRError, match="a game, a model and a seed"):
        abstract_table([], [0], tmp_path, Computing("test"))
    with pytest.raises(RMRError, match="did you mean 'mpnn'"):
        abstract_table([task], [0], tmp_path, Computing("test"), models=["mpn"])
    assert model_task(task, "mlp").preset.model.core == "mlp"
