import pytest

from rmr_gym import cli
from rmr_gym.data.dataset import TransitionDataset


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_train_measure_record(tmp_path, capsys, monkeypatch):
    """The three commands in the order in which a user gives them, as small as they can be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rmr_gym.agents.players.train.MAX_STEPS", 20)
    monkeypatch.setattr("rmr_gym.agents.players.train.CHECKPOINTS", (0.3, 0.6, 1.0))
    train = ("players", "train", "boxing", "--out", "mine", "--steps", "3072", "--episodes", "1")
    cli.main([*train, "--workers", "1"])
    weights = tmp_path / "mine" / "weights" / "Boxing.safetensors"
    written = weights.read_bytes()
    cli.main([*train, "--workers", "1"])
    assert weights.read_bytes() == written
    measure = ("players", "evaluate", "boxing", "--weights", "mine/weights", "--out", "r.csv")
    cli.main([*measure, "--episodes", "1", "--max-steps", "10", "--workers", "1"])
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1 + 32
    options = ("--episodes", "4", "--max-steps", "10", "--weights", "mine/weights")
    cli.main(["record", "--game", "boxing", *options])
    dataset = TransitionDataset(tmp_path / "runs" / "data" / "Boxing-4x10")
    assert [episode.head for episode in dataset.episodes] == [
        *("high-e00-h00", "uniform-1", "middle-e00-h00", "low-e00-h00")
    ]
    assert "4 heads" in capsys.readouterr().out
    message = refused(capsys, "record", "--game", "boxing", *options[:4])
    assert "settings policies" in message, "other weights are another data set"


def test_a_game_beyond_the_24(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--steps", "2048", "--episodes", "1", "--out", "players")
    cli.main(["players", "train", "enduro", *options])
    assert (tmp_path / "players" / "weights" / "Enduro.safetensors").is_file()


def test_lists(capsys):
    cli.main(["players", "list"])
    shown = capsys.readouterr().out
    assert "Pong" in shown
    assert "14.6" in shown
    cli.main(["players", "list", "pong"])
    assert "uniform-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "Pogn"), "did you mean 'Pong'"),
        (("list", "enduro"), "no players of Enduro come with the package"),
        (("train", "Pong", "pong"), "each game may be named once"),
        (("train", "Pong", "--steps", "10"), "at least 1024 steps of training, found 10"),
        (("train", "Pong", "--workers", "0"), "at least 1 as workers"),
        (("evaluate", "Pong", "--weights", "nowhere"), "no trained players of Pong in nowhere"),
        (("evaluate", "Pong", "--episodes", "0", "--workers", "1"), "1 or more episodes"),
        (("list", "Pogn"), "did you mean 'Pong'"),
    ],
)
def test_bad_input(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "players", *arguments)
