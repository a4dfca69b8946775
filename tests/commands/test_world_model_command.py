from dataclasses import replace

import matplotlib.image
import pandas as pd
import pytest

from rmr_gym.agents.collect_env import collect_env
from rmr_gym.commands import world_model as commands
from rmr_gym.errors import RMRError
from rmr_gym.protocol import balls, world_model_presets, world_models
from rmr_gym.protocol import world_model_scores as scores


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    options = {"resolution": 16, "observe": ["radii", "velocities"]}
    collect_env("rmr/RNEMBalls4-v0", path, episodes=4, max_steps=11, **options)
    return path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    smoke = world_model_presets.WORLD_PRESETS["smoke"]
    tiny = replace(smoke, steps=2, batch=2, check_every=2)
    monkeypatch.setitem(world_model_presets.WORLD_PRESETS, "smoke", tiny)
    yield
    balls.open_balls.cache_clear()
    world_models.load_part.cache_clear()


def run(tmp_path, command, *arguments):
    root = ("--root", str(tmp_path / "runs"), "--preset", "smoke")
    commands.app.cli(args=[command, *map(str, arguments), *root])


def test_train_evaluate_and_draw(recorded, tmp_path, capsys, monkeypatch):
    run(tmp_path, "train", "--data", recorded, "--model", "rnnem")
    assert "rnnem" in capsys.readouterr().out
    out = tmp_path / "scores.csv"
    models = ("--models", "rnnem", "lstm", "--test-groups", 5)
    run(tmp_path, "evaluate", "--data", recorded, "--out", out, *models)
    table = pd.read_csv(out)
    assert list(table) == list(scores.ROW)
    assert table.model.tolist() == ["rnnem", "lstm"]
    assert table.groups.tolist() == [5, 1]
    assert table.ari.isna().tolist() == [False, True]
    assert matplotlib.image.imread(tmp_path / "scores_simulation.png").ndim == 3
    monkeypatch.setattr(world_models, "train_model", None)
    shown = ("--seen", 3, "--ahead", 2, "--sequences", 1)
    for model in ("rnnem", "lstm"):
        run(tmp_path, "rollout", "--data", recorded, "--out", tmp_path, "--model", model, *shown)
        assert matplotlib.image.imread(tmp_path / f"{model}_0.png").ndim == 3
        assert (tmp_path / f"{model}_0.gif").read_bytes()[:3] == b"GIF"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "rnen"), "rnem"),
        (("--groups", 1), "2 groups or more"),
        (("--model", "rnn", "--groups", 3), "2 groups or more"),
        (("--device", "abacus"), "device"),
    ],
)
def test_what_cannot_be_is_said_at_once(recorded, tmp_path, arguments, message):
    with pytest.raises(RMRError, match=message):
        run(tmp_path, "train", "--data", recorded, *arguments)
