import pandas as pd
import pytest

from rmr_gym.commands import abstract, measure
from rmr_gym.commands.tasks import game_names
from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import config, stages
from rmr_gym.protocol.labels_probe import label_sets
from rmr_gym.protocol.memory_features import memory_sets
from rmr_gym.protocol.ranking import ranking_paths


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, tiny_preset, recorded, tmp_path):
    monkeypatch.setitem(config.PRESETS, "smoke", tiny_preset)
    (tmp_path / "data").mkdir()
    for game in ("Pong", "Breakout"):
        (tmp_path / "data" / game).symlink_to(recorded(game))
    yield
    for cached in (
        *(stages.open_episodes, stages.natural_data, stages.probe_sets),
        *(label_sets, memory_sets, ranking_paths),
    ):
        cached.cache_clear()


def common(tmp_path):
    return [
        "--preset",
        "smoke",
        "--root",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "1",
    ]


def test_table_of_two_games(tmp_path, capsys):
    arguments = ["--games", "pong", "Breakout", "--models", "deep_sets", *common(tmp_path)]
    abstract.app.cli(args=["table", *arguments])
    table = pd.read_csv(tmp_path / "out" / "table2.csv")
    assert set(table["game"]) == {"Pong", "Breakout"}
    assert set(table["model"]) == {"copy", "deep_sets"}
    assert table["paper_bit_f1"].notna().all()
    assert (tmp_path / "out" / "figures" / "abstract_beside_paper.svg").is_file()
    assert "Deep Sets" in capsys.readouterr().out


def test_measures_of_a_game(tmp_path, capsys):
    arguments = ["--games", "Pong", "--seeds", "1", "--arms", "no_p", "untrained", "player"]
    measure.app.cli(args=["measure", *arguments, *common(tmp_path)])
    labels = pd.read_csv(tmp_path / "out" / "labels.csv")
    assert set(labels["arm"]) == {"no_p", "untrained", "player"}
    assert set(pd.read_csv(tmp_path / "out" / "ranking.csv")["arm"]) == {"no_p"}
    printed = capsys.readouterr().out
    assert "MRR on Pong, 1 step ahead: no P" in printed
    assert "macro F1 on Pong: no P" in printed
    assert (tmp_path / "out" / "report.html").is_file()


def test_data_that_are_not_there_are_recorded(tmp_path):
    (tmp_path / "data" / "Breakout").unlink()
    arguments = ["--games", "Breakout", "--models", "deep_sets", *common(tmp_path)]
    abstract.app.cli(args=["table", *arguments])
    assert (tmp_path / "data" / "Breakout-6x70" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--games", "Pong", "pong"], "named once"),
        (["--games", "Pongo"], "did you mean"),
        (["--games", "Pong", "--seeds", "0"], "seeds must be 1 or more"),
        (["--games", "Pong", "--device", "tpu"], "tpu"),
    ],
)
def test_bad_input_is_explained(tmp_path, arguments, said):
    for app, name in ((abstract.app, "table"), (measure.app, "measure")):
        with pytest.raises(RMRError, match=said):
            app.cli(args=[name, *common(tmp_path), *arguments])


def test_all_stands_for_the_papers_games():
    assert len(game_names(["all"])) == 24
