from pathlib import Path

import numpy as np
import pytest

from rmr_gym.agents.players import graded
from rmr_gym.agents.players import train as training
from rmr_gym.agents.players.graded import PLAYERS, load_networks
from rmr_gym.agents.players.train import CHECKPOINTS, train_player
from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> list[Path]:
    return train_player("pong", tmp_path_factory.mktemp("training"), steps=1024)


@pytest.mark.parametrize(
    ("random_return", "means", "levels"),
    [
        (0.0, [1.0, 35.0, 64.0, 99.0], {"low": 1, "middle": 2, "high": 3}),
        (-21.0, [-20.0, -14, -8, 0, 2], {"low": 1, "middle": 2, "high": 4}),
        (0.0, [90.0, 60, 30], {"low": 2, "middle": 1, "high": 0}),
        (0.0, [0.0, 0.0, 0, 0], {"low": 1, "middle": 2, "high": 0}),
        (5.0, [1.0, 2, 3], {"low": 0, "middle": 1, "high": 2}),
    ],
)
def test_levels_by_hand(random_return, means, levels):
    assert training.choose_levels(random_return, [float(mean) for mean in means]) == levels


def test_training_keeps_checkpoints_that_differ(checkpoints):
    marks = sorted({max(1024, int(1024 * fraction)) for fraction in CHECKPOINTS})
    assert [int(path.stem) for path in checkpoints] == marks
    trained, notes = load_networks(checkpoints[0])
    assert set(trained) == {"policy"}
    assert notes["game"] == "Pong"


def test_training_is_not_repeated(checkpoints):
    before = [path.stat().st_mtime_ns for path in checkpoints]
    assert train_player("pong", checkpoints[0].parents[1], steps=1024) == checkpoints
    assert [path.stat().st_mtime_ns for path in checkpoints] == before


def test_training_that_is_too_short(tmp_path):
    with pytest.raises(RMRError, match="at least 1024 steps of training, found 1000"):
        train_player("pong", tmp_path, steps=1000)


def test_grading_writes_three_levels_and_what_decided(checkpoints, tmp_path):
    path = training.grade("pong", checkpoints * 3, tmp_path, episodes=1, max_steps=30)
    levels, notes = load_networks(path)
    assert set(levels) == {"low", "middle", "high"}
    assert set(notes["levels"]) == set(levels)
    with pytest.raises(RMRError, match="at least 3 checkpoints, one a level, found 1"):
        training.grade("pong", checkpoints[:1], tmp_path, episodes=1)


def test_returns_of_players(checkpoints, tmp_path):
    training.grade("pong", checkpoints * 3, tmp_path, episodes=1, max_steps=30)
    options = {"episodes": 2, "folder": tmp_path, "max_steps": 120}
    rows = training.evaluate_players("pong", players=PLAYERS[:3], **options)
    assert rows == training.evaluate_players("pong", players=PLAYERS[:3], **options)
    assert [row["head"] for row in rows] == [player.name for player in PLAYERS[:3]]
    for row in rows:
        assert tuple(row) == graded.COLUMNS
        assert -3 <= row["minimum"] <= row["mean_return"] <= row["maximum"] <= 3
        assert row["mean_length"] == 120
    with pytest.raises(RMRError, match="1 or more episodes"):
        training.evaluate_players("pong", episodes=0, folder=tmp_path)
    with pytest.raises(RMRError, match="no trained players of Breakout"):
        training.evaluate_players("breakout", episodes=1, folder=tmp_path)


def test_players_of_any_game_of_ale_are_trained_and_play(tmp_path):
    marks = train_player("enduro", tmp_path, steps=1024)
    path = training.grade("ALE/Enduro-v5", marks * 3, tmp_path / "weights", episodes=1, max_steps=9)
    assert path.name == "Enduro.safetensors"
    options = {"folder": path.parent, "max_steps": 20, "episodes": 1}
    (row,) = training.evaluate_players("Enduro", players=PLAYERS[:1], **options)
    assert (row["game"], row["mean_length"]) == ("Enduro", 20)
    dataset = record("Enduro", tmp_path / "d", episodes=2, max_steps=9, weights=path.parent)
    assert [episode.head for episode in dataset.episodes] == ["high-e00-h00", "uniform-1"]
    assert dataset.manifest.settings["policies"]


def test_the_mean_and_its_error_by_hand(monkeypatch):
    scores = np.array([1.0, 2.0, 6.0])
    monkeypatch.setattr(training, "returns_of", lambda *_, **__: (scores, np.array([10, 20, 30])))
    monkeypatch.setattr(training.graded, "networks", lambda *_: {})
    row = training.evaluate_players("pong", episodes=3, players=PLAYERS[:1])[0]
    assert (row["mean_return"], row["minimum"], row["maximum"]) == (3, 1, 6)
    assert row["sem"] == pytest.approx(np.sqrt(7 / 3), abs=1e-3)
    assert row["mean_length"] == 20


def test_a_table_of_returns_comes_back(tmp_path):
    path = tmp_path / "new" / "returns.csv"
    assert graded.read_returns(path) == []
    row = dict(
        zip(graded.COLUMNS, ("Pong", "uniform-1", 2, -20.5, 0.5, -21.0, -20.0, 99.0), strict=True)
    )
    training.write_returns(path, [row])
    assert graded.read_returns(path) == [{name: str(value) for name, value in row.items()}]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(RMRError, match="expected the columns game, head"):
        graded.read_returns(path)
