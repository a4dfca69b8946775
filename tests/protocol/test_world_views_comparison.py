import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import world_model_views as views
from rmr_gym.protocol import world_models
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.world_model_presets import CROPS_PRESETS
from rmr_gym.protocol.world_models import WorldTask
from rmr_gym.protocol.world_views_comparison import compare_views, conditions_of

TINY = replace(CROPS_PRESETS["smoke"], steps=2, batch=2, check_every=2)
HOW = Computing("rmr-gym world-model views")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for count, episodes in ((3, 4), (5, 2)):
        env = f"rmr/S2RMBalls{count}-v0"
        record(env, folder / f"balls{count}", episodes=episodes, max_steps=11, resolution=16)
    return folder


@pytest.fixture
def tasks(folder, tmp_path):
    made = WorldTask(folder / "balls3", tmp_path / "store", "s2gru", TINY)
    return [made, replace(made, model="crops_lstm")]


def test_every_condition_of_every_model_and_again(tasks, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    conditions = conditions_of([folder / "balls5"], (1, 4), (0, 1))
    assert compare_views(tasks, [0], conditions, out, HOW) == []
    table = pd.read_csv(out / "views.csv")
    assert tuple(table) == views.VIEW_ROW
    tests = (("validation", 3), ("balls5", 5))
    expected = [("s2gru", *test, count, 0) for test in tests for count in (1, 4)]
    expected += [("s2gru", *test, 4, 1) for test in tests]
    expected += [("crops_lstm", *test, count, 0) for test in tests for count in (1, 4)]
    columns = ["model", "test", "balls", "views", "dropped"]
    assert list(table[columns].itertuples(index=False, name=None)) == expected
    with np.load(out / "enclaves_s2gru_0.npz", allow_pickle=False) as found:
        assert found["attended"].shape == (3, 16, 16)
        assert found["heard"].shape == (3, 3)
    assert not (out / "enclaves_crops_lstm_0.npz").exists()
    told = json.loads((out / "run.json").read_text())
    assert (told["kind"], told["data"]["balls"]) == ("views", 3)
    assert told["tests"]["balls5"]["balls"] == 5
    monkeypatch.setattr(world_models, "train_model", None)
    monkeypatch.setattr(views, "count_pixels", None)
    before = (out / "views.csv").read_bytes()
    assert compare_views(tasks, [0], conditions, out, HOW) == []
    assert (out / "views.csv").read_bytes() == before


def test_a_condition_that_fails_stops_no_other(tasks, tmp_path, monkeypatch):
    count = views.count_pixels

    def failing(model, clips):
        if model.views == 1:
            raise RMRError("too dark")
        return count(model, clips)

    monkeypatch.setattr(views, "count_pixels", failing)
    out = tmp_path / "out"
    problems = compare_views(tasks[:1], [0], conditions_of([], (4, 1), ()), out, HOW)
    assert problems == ["score s2gru 0 validation, 1 crops, 0 dropped: too dark"]
    assert pd.read_csv(out / "views.csv")["views"].tolist() == [4]


def test_what_cannot_be_is_said_at_once(tasks, folder, tmp_path):
    conditions = conditions_of([], (), ())
    with pytest.raises(RMRError, match=r"models of crops out of .*, got rims"):
        compare_views([replace(tasks[0], model="rims")], [0], conditions, tmp_path, HOW)
    with pytest.raises(RMRError, match="a model, a seed and a condition"):
        compare_views(tasks, [], conditions, tmp_path, HOW)
    with pytest.raises(RMRError, match="not trained on, found balls3"):
        compare_views(tasks, [0], conditions_of([folder / "balls3"], (), ()), tmp_path, HOW)
