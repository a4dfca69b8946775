import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report
from rmr_gym.experiments.studies.report import (
    abstract_dots,
    beside_paper,
    horizon_table,
    model_summary,
)
from rmr_gym.report.arms import ABSTRACT, abstract_table
from rmr_gym.report.runs import load_run

ROWS = [
    ("Pong", "copy", 0, 0.70, 0.80),
    ("Pong", "mpnn", 60, 0.10, 0.10),
    ("Pong", "mpnn", 120, 0.75, 0.90),
    ("Breakout", "copy", 0, 0.80, 0.90),
    ("Breakout", "mpnn", 120, 0.85, 0.88),
    ("Breakout", "mlp", 120, 0.90, 0.95),
]


@pytest.fixture
def run(tmp_path):
    table = pd.DataFrame(ROWS, columns=["game", "model", "step", "slot_accuracy", "bit_f1"])
    table.assign(seed=0).to_csv(tmp_path / "abstract.csv", index=False)
    (tmp_path / "run.json").write_text('{"kind": "table2"}')
    return load_run(tmp_path, ABSTRACT)


def comparison(run):
    return beside_paper(abstract_table(run))


def test_ours_and_the_papers_and_both_over_copying(run):
    table = comparison(run).set_index(["game", "model"])
    row = table.loc[("Pong", "mpnn")]
    assert row["step"] == 120
    assert row["bit_f1_over_copy"] == pytest.approx(0.90 - 0.80)
    assert row["paper_bit_f1"] == 0.952
    assert row["paper_slot_accuracy_over_copy"] == pytest.approx(0.8323 - 0.6876)
    assert table.loc[("Pong", "copy"), "slot_accuracy_over_copy"] == 0


def test_summary_means_and_counts(run):
    summary = model_summary(comparison(run)).set_index("model")
    assert list(summary.index) == ["copy", "mlp", "mpnn"]
    mpnn = summary.loc["mpnn"]
    assert mpnn["games"] == 2
    assert mpnn["bit_f1"] == pytest.approx(0.89)
    assert mpnn["beats_copy"] == 1
    assert mpnn["paper_beats_copy"] == 2
    assert mpnn["best"] == 1
    assert summary.loc["mlp", "best"] == 1
    assert mpnn["paper_best"] == 2


def test_files_and_page(run, tmp_path):
    path, text = write_report(tmp_path, tmp_path / "out" / "report.html")
    assert len(pd.read_csv(path.parent / "table2.csv")) == 5
    assert len(pd.read_csv(path.parent / "table2_summary.csv")) == 3
    assert (path.parent / "figures" / "abstract_beside_paper.svg").is_file()
    page = path.read_text(encoding="utf-8")
    for words in ("Pong", "MPNN", "0.952", "+0.100", "copy baseline", "data:image/svg"):
        assert words in page
    assert "MPNN on 1 of 2 games" in text


def test_the_figure_has_a_filled_and_a_hollow_dot_a_score(run):
    figure = abstract_dots(run)
    assert isinstance(figure, Figure)
    left, right = figure.axes
    full = [line for line in right.lines if line.get_marker() == "o"]
    filled = [line for line in full if line.get_fillstyle() == "full" and len(line.get_xdata())]
    drawn = np.sort(np.concatenate([line.get_xdata() for line in filled]))
    np.testing.assert_allclose(drawn, [0.80, 0.88, 0.90, 0.90, 0.95])
    assert [label.get_text() for label in left.get_yticklabels()] == ["Breakout", "Pong"]
    heights = np.concatenate([line.get_ydata() for line in filled])
    assert len(set(np.round(heights, 6))) == 5


def test_a_run_without_abstract_scores(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    run = load_run(tmp_path, ABSTRACT)
    assert comparison(run).empty
    assert model_summary(comparison(run)).empty
    with pytest.raises(RMRError, match=r"nothing to draw in abstract\.csv"):
        abstract_dots(run)


def test_horizons_are_compared_across_games(tmp_path):
    games, lead = [f"game{number}" for number in range(6)], {"copy": 0.0, "mlp": 0.05, "mpnn": 0.1}
    rows = [
        (game, model, seed, k, 0.8 - k / 100 + more + number / 1000)
        for number, game in enumerate(games)
        for model, more in lead.items()
        for seed in (0, 1)
        for k in (1, 16)
    ]
    table = pd.DataFrame(rows, columns=["game", "model", "seed", "k", "bit_f1"])
    found = horizon_table(table).set_index(["model", "k"])
    assert (found["games"] == 6).all()
    mpnn = found.loc[("mpnn", 16)]
    assert mpnn["copy_difference"] == pytest.approx(0.1)
    assert mpnn["mlp_difference"] == pytest.approx(0.05)
    assert (mpnn["copy_verdict"], mpnn["copy_p_better"]) == ("better", 1 / 64)
    assert found.loc[("copy", 1), "mpnn_verdict"] == "worse"
