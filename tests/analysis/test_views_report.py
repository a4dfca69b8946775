import json

import numpy as np
import pandas as pd
import pytest

from rmr_gym.analysis.report import write_report, write_report_and_text
from rmr_gym.analysis.views import costs, read_views, view_table
from rmr_gym.errors import RMRError

LEVELS = {"s2gru": 0.8, "crops_lstm": 0.5, "crops_oracle": 0.9}
LOST = {"s2gru": 0.2, "crops_lstm": 0.15, "crops_oracle": 0.01}
"""F1 that a ball more, a pair of crops less, or a module less costs."""


@pytest.fixture
def folder(tmp_path):
    """Three and five balls; ten and six crops; none, one and two modules taken out; two seeds."""
    rows = []
    for model, level in LEVELS.items():
        for seed in (0, 1):
            conditions = [("validation", 3, 10, 0), ("validation", 3, 6, 0), ("five", 5, 10, 0)]
            conditions += [("validation", 3, 10, count) for count in (1, 2) if model == "s2gru"]
            for test, balls, views, dropped in conditions:
                times = (balls - 3) / 2 + (10 - views) / 4 + dropped / 2
                f1 = level + 0.02 * seed - LOST[model] * times
                rows.append((model, seed, 100, test, balls, views, dropped, f1 + 0.05, f1))
    columns = ["model", "seed", "step", "test", "balls", "views", "dropped"]
    table = pd.DataFrame(rows, columns=[*columns, "balanced_accuracy", "f1"])
    table.to_csv(tmp_path / "views.csv", index=False)
    rng = np.random.default_rng(0)
    arrays = {"attended": rng.random((3, 4, 4)), "heard": rng.random((3, 3))}
    np.savez(tmp_path / "enclaves_s2gru_0.npz", **arrays)
    info = {"kind": "views", "models": list(LEVELS), "data": {"name": "three", "balls": 3}}
    (tmp_path / "run.json").write_text(json.dumps(info))
    return tmp_path


def test_means_over_seeds_by_condition(folder):
    table = view_table(read_views(folder)).set_index(["test", "views", "dropped", "model"])
    row = table.loc[("five", 10, 0, "s2gru")]
    assert (row["balls"], row["seeds"]) == (5, 2)
    assert row["f1_mean"] == pytest.approx(0.61)
    assert row["balanced_accuracy_mean"] == pytest.approx(0.66)
    assert row["f1_std"] == pytest.approx(0.02 / np.sqrt(2))


def test_what_less_sight_costs(folder):
    table = costs(read_views(folder), 3).set_index(["question", "model"])
    assert len(table) == 3 + 3 + 1, "models without modules lose none"
    row = table.loc[("balls", "s2gru")]
    assert (row["usual"], row["hardest"], row["seeds"]) == (3, 5, 2)
    assert row["f1"] == pytest.approx(0.81)
    assert row["drop"] == pytest.approx(0.2)
    assert row["relative"] == pytest.approx(0.2 / 0.81)
    row = table.loc[("views", "crops_lstm")]
    assert (row["usual"], row["hardest"]) == (10, 6)
    assert row["drop"] == pytest.approx(0.15)
    assert table.loc[("dropped", "s2gru")]["hardest"] == 2
    unknown = costs(read_views(folder), None)
    assert set(unknown["question"]) == {"views", "dropped"}


def test_the_page(folder):
    path, said = write_report_and_text(folder)
    page = path.read_text(encoding="utf-8")
    for section in ("What less sight costs", "Scores: F1", "Scores: balanced accuracy"):
        assert f"<h2>{section}</h2>" in page
    assert page.count("<figure") == 2
    assert "F1 from 3 to 5 balls: s2gru 0.810 to 0.610 (−0.200, −24.7 %), crops_lstm 0.510" in said
    assert "crops_oracle (privileged) 0.910" in said
    assert (
        "Degrades least from 3 to 5 balls: s2gru relative to where it stood, crops_lstm in F1; "
        "2 seeds are too few for a claim."
    ) in said
    assert (
        "F1 on validation: s2gru 0.810, crops_lstm 0.510, crops_oracle (privileged) 0.910" in said
    )
    assert len(pd.read_csv(folder / "views_costs.csv")) == 7
    assert (folder / "figures" / "enclaves_s2gru_0.png").is_file()
    first = path.read_bytes()
    assert write_report(folder).read_bytes() == first


def test_what_is_missing_is_left_out(folder):
    (folder / "enclaves_s2gru_0.npz").unlink()
    table = pd.read_csv(folder / "views.csv")
    table[(table["test"] == "validation") & (table["views"] == 10)].to_csv(
        folder / "views.csv", index=False
    )
    (folder / "run.json").write_text(json.dumps({"kind": "views"}))
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.count("<figure") == 1, "only modules vary"
    (folder / "views.csv").unlink()
    assert write_report_and_text(folder)[1] == "This run has no results yet."


def test_damaged_files_are_named(folder):
    (folder / "enclaves_s2gru_0.npz").write_bytes(b"no archive")
    with pytest.raises(RMRError, match=r"enclaves_s2gru_0.npz cannot be read"):
        write_report(folder)
    np.savez(folder / "enclaves_s2gru_0.npz", attended=np.array([{}], object))
    with pytest.raises(RMRError, match=r"enclaves_s2gru_0.npz cannot be read"):
        write_report(folder)
    np.savez(folder / "enclaves_s2gru_0.npz", attended=np.zeros((1, 2, 2)))
    with pytest.raises(RMRError, match="lacks attended or heard"):
        write_report(folder)
    (folder / "views.csv").write_text("model,seed\ns2gru,0\n")
    with pytest.raises(RMRError, match=r"views.csv lacks the columns test, views, dropped"):
        write_report(folder)
