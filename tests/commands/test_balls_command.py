from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.agents.record import record
from rmr_gym.commands.balls import app
from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import balls
from rmr_gym.protocol.balls import Evaluation, Phase


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    options = {"balls": 3, "radii": 0.2, "resolution": 8, "max_episode_steps": 20}
    record("rmr/BouncingBalls-v0", path, episodes=4, **options)
    return path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    smoke = replace(
        balls.BALLS_PRESETS["smoke"],
        phases=(Phase(3, batch=8),),
        evaluation=Evaluation(windows=5, horizon=10),
    )
    monkeypatch.setitem(balls.BALLS_PRESETS, "smoke", smoke)
    yield
    balls.open_balls.cache_clear()
    balls.load_part.cache_clear()


def run(tmp_path, command, *arguments):
    root = ("--root", str(tmp_path / "runs"), "--preset", "smoke")
    app.cli(args=[command, *map(str, arguments), *root])


def test_pretrain_then_evaluate_writes_every_model_beside_the_baselines(recorded, tmp_path):
    data = ("--data", recorded)
    run(tmp_path, "pretrain", *data, "--out", tmp_path / "change")
    run(tmp_path, "pretrain", *data, "--out", tmp_path / "position", "--predict", "position")
    folders = (tmp_path / "change", tmp_path / "position")
    run(tmp_path, "evaluate", *data, "--processors", *folders, "--out", tmp_path / "scores.csv")
    table = pd.read_csv(tmp_path / "scores.csv")
    references = ["simulator", "copy", "linear", "reflected"]
    assert table.model.tolist() == [*references, "mpnn", "mpnn"]
    assert table.predict.tolist()[4:] == ["change", "position"]
    reflected = table.set_index("model").loc["reflected"]
    assert (reflected.ratio_1, reflected.ratio_10) == (1, 1)
    expected = table.mse_1 / reflected.mse_1
    pd.testing.assert_series_equal(table.ratio_1, expected, check_names=False)


def test_walls_are_those_of_the_recorded_world(recorded, tmp_path):
    from rmr_gym.commands.balls import make_task

    assert make_task(recorded, "smoke", tmp_path, "cpu").radii == (0.2, 0.2, 0.2)


def test_existing_artifacts_are_kept_without_force(recorded, tmp_path):
    run(tmp_path, "pretrain", "--data", recorded, "--out", tmp_path / "p")
    with pytest.raises(RMRError, match="--force"):
        run(tmp_path, "pretrain", "--data", recorded, "--out", tmp_path / "p")
    run(tmp_path, "pretrain", "--data", recorded, "--out", tmp_path / "p", "--force")


def test_bottleneck_writes_one_row_a_point(recorded, tmp_path):
    arguments = ("--dims", "2", "--seeds", "2", "--workers", "1", "--out", tmp_path / "b.csv")
    run(tmp_path, "bottleneck", "--data", recorded, *arguments)
    table = pd.read_csv(tmp_path / "b.csv")
    points = [("mpnn", 2), ("mpnn", 32), ("interaction", 32)] * 2
    assert list(zip(table.core, table.dim, strict=True)) == points
    assert table.seed.tolist() == [0, 0, 0, 1, 1, 1]
    assert (table[["training_mse", "validation_mse", "ratio_1", "ratio_10"]] > 0).all(axis=None)


def test_another_artifact_is_refused(recorded, tmp_path):
    from rmr_gym.protocol.store import Artifact, write_artifact

    write_artifact(tmp_path / "p", Artifact({"kind": "encoder"}))
    with pytest.raises(RMRError, match="holds no balls processor"):
        run(tmp_path, "evaluate", "--data", recorded, "--processors", tmp_path / "p")


def test_worlds_whose_walls_vary_are_refused(tmp_path):
    record("rmr/RNEMBalls4-v0", tmp_path / "d", episodes=2, max_steps=3, resolution=8)
    with pytest.raises(RMRError, match="same in every episode"):
        run(tmp_path, "pretrain", "--data", tmp_path / "d", "--out", tmp_path / "p")
