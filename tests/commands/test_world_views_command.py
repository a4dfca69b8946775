from dataclasses import replace

import matplotlib.image
import pandas as pd
import pytest

from rmr_gym.agents.record import record
from rmr_gym.commands import world_model as commands
from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import world_model_presets, world_models
from rmr_gym.stages import balls


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls3"
    record("rmr/S2RMBalls3-v0", path, episodes=4, max_steps=11, resolution=16)
    return path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    smoke = world_model_presets.CROPS_PRESETS["smoke"]
    tiny = replace(smoke, steps=2, batch=2, check_every=2)
    monkeypatch.setitem(world_model_presets.CROPS_PRESETS, "smoke", tiny)
    yield
    balls.forget_balls()
    world_models.load_part.cache_clear()


def run(tmp_path, command, *arguments):
    root = ("--root", str(tmp_path / "runs"), "--preset", "smoke")
    commands.app.cli(args=[command, *map(str, arguments), *root])


def test_train_score_and_draw(recorded, tmp_path, capsys, monkeypatch):
    run(tmp_path, "train", "--data", recorded, "--model", "s2gru")
    assert "s2gru" in capsys.readouterr().out
    out = tmp_path / "views"
    models = ("--models", "s2gru", "crops_lstm", "--seen", 1, 4, "--dropped", 1, "--workers", 1)
    run(tmp_path, "views", "--data", recorded, "--out", out, *models)
    said = " ".join(capsys.readouterr().out.split())
    assert "F1 from 4 to 1 crops that are seen: s2gru" in said
    table = pd.read_csv(out / "views.csv")
    rows = table[["model", "views", "dropped"]].to_numpy().tolist()
    assert rows == [
        *(["s2gru", views, 0] for views in (1, 4)),
        ["s2gru", 4, 1],
        *(["crops_lstm", views, 0] for views in (1, 4)),
    ]
    assert (out / "enclaves_s2gru_0.npz").is_file()
    assert (out / "figures" / "enclaves_s2gru_0.png").is_file()
    assert (out / "report.html").is_file()
    monkeypatch.setattr(world_models, "train_model", None)
    shown = ("--seen", 3, "--ahead", 2, "--sequences", 1)
    run(tmp_path, "rollout", "--data", recorded, "--out", tmp_path, "--model", "s2gru", *shown)
    assert matplotlib.image.imread(tmp_path / "s2gru_0.png").ndim == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "rims"), "models of crops"),
        (("--seeds", 0), "seeds must be 1 or more"),
        (("--out", "views.csv"), "expected a folder for --out"),
        (("--preset", "large"), "laptop"),
        (("--preset", "smoke", "--seen", 20), "1 to 4 crops .* got 20"),
        (("--preset", "smoke", "--dropped", -1), "0 to 2 modules .* got -1"),
    ],
)
def test_what_cannot_be_is_said_at_once(recorded, tmp_path, arguments, message):
    root = ("--root", str(tmp_path / "runs"))
    with pytest.raises(RMRError, match=message):
        commands.app.cli(args=["views", "--data", str(recorded), *root, *map(str, arguments)])


def test_crops_larger_than_the_frame(recorded, tmp_path):
    path = tmp_path / "small"
    record("rmr/S2RMBalls3-v0", path, episodes=2, max_steps=45, resolution=8)
    arguments = ("--model", "crops_lstm", "--root", tmp_path / "runs")
    with pytest.raises(RMRError, match="smaller crops"):
        commands.app.cli(args=["train", "--data", *map(str, (path, *arguments))])
