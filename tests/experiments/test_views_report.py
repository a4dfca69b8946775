import json

import numpy as np
import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report
from rmr_gym.experiments.world_models.report import CROPS, cost_table, losses, view_table
from rmr_gym.experiments.world_models.report import cost_pairs as paired
from rmr_gym.report.runs import load_run


def read_views(folder):
    return load_run(folder, CROPS)["views"]


def costs(table, trained_on):
    return cost_table(losses(table, trained_on))


def cost_pairs(table, trained_on):
    return paired(losses(table, trained_on))


LEVELS = {"s2gru": 0.8, "crops_lstm": 0.5, "crops_oracle": 0.9}
LOST = {"s2gru": 0.2, "crops_lstm": 0.15, "crops_oracle": 0.01}
"""F1 that a ball more, a pair of crops less, or a module less costs."""


def write(folder, seeds):
    """Three and five balls; ten and six crops; none, one and two modules taken out."""
    rows = []
    for model, level in LEVELS.items():
        for seed in range(seeds):
            conditions = [("validation", 3, 10, 0), ("validation", 3, 6, 0), ("five", 5, 10, 0)]
            conditions += [("validation", 3, 10, count) for count in (1, 2) if model == "s2gru"]
            for test, balls, views, dropped in conditions:
                times = (balls - 3) / 2 + (10 - views) / 4 + dropped / 2
                f1 = level + 0.02 * seed - LOST[model] * times
                rows.append((model, seed, 100, test, balls, views, dropped, f1 + 0.05, f1))
    columns = ["model", "seed", "step", "test", "balls", "views", "dropped"]
    table = pd.DataFrame(rows, columns=[*columns, "balanced_accuracy", "f1"])
    table.to_csv(folder / "views.csv", index=False)
    rng = np.random.default_rng(0)
    arrays = {"attended": rng.random((3, 4, 4)), "heard": rng.random((3, 3))}
    np.savez(folder / "enclaves_s2gru_0.npz", **arrays)
    info = {"kind": "views", "models": list(LEVELS), "data": {"name": "three", "balls": 3}}
    (folder / "run.json").write_text(json.dumps(info))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, 2)


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


def test_another_test_set_of_as_many_balls_stands_for_the_validation_episodes(folder):
    table = read_views(folder)
    extra = table[(table["test"] == "validation") & (table["dropped"] == 0)]
    extra = extra.assign(test="three", f1=extra["f1"] - 0.1)
    row = costs(pd.concat([table, extra]), 3).set_index(["question", "model"])
    assert row.loc[("balls", "s2gru")]["f1"] == pytest.approx(0.71)
    assert row.loc[("views", "s2gru")]["f1_hardest"] == pytest.approx(0.51)
    assert costs(pd.concat([table, extra.assign(balls=4)]), 3).iloc[0]["f1"] == pytest.approx(0.81)


def test_relative_drops_are_paired_by_seed(tmp_path):
    pairs = cost_pairs(read_views(write(tmp_path, 5)), 3)
    assert set(zip(pairs["model"], pairs["against"], strict=True)) == {("s2gru", "crops_lstm")}
    assert pairs["question"].tolist() == ["balls", "views"], "the LSTM has no modules"
    row = pairs.iloc[0]
    seeds = 0.02 * np.arange(5)
    less = np.mean(0.15 / (0.5 + seeds) - 0.2 / (0.8 + seeds))
    assert 100 * less == pytest.approx(4.0, abs=0.05)
    assert row["improvement"] == pytest.approx(less)
    assert (row["pairs"], row["p_better"], row["verdict"]) == (5, 1 / 32, "better")
    _, said = write_report(tmp_path)
    assert (
        "Relative drop of s2gru by balls, paired by seed: 4.0 points less than crops_lstm (better)."
    ) in said
    assert "s2gru relative to where it stood, crops_lstm in F1 (means; not tested)." in said


def test_the_page(folder):
    path, said = write_report(folder)
    page = path.read_text(encoding="utf-8")
    sections = ("What less sight costs", "Paired differences", "Scores: F1")
    for section in (*sections, "Scores: balanced accuracy"):
        assert f"<h2>{section}</h2>" in page
    assert page.count("<figure") == 3
    assert "F1 from 3 to 5 balls: s2gru 0.810 to 0.610 (−0.200, −24.7 %), crops_lstm 0.510" in said
    assert "crops_oracle (privileged) 0.910" in said
    assert (
        "Degrades least from 3 to 5 balls: s2gru relative to where it stood, crops_lstm in F1 "
        "(means; not tested)."
    ) in said
    assert (
        "F1 on validation: s2gru 0.810, crops_lstm 0.510, crops_oracle (privileged) 0.910" in said
    )
    assert "points less than crops_lstm (too few seeds)" in said
    assert "they decided when training ended" in page
    assert len(pd.read_csv(folder / "views_costs.csv")) == 7
    assert set(pd.read_csv(folder / "views_pairs.csv")["verdict"]) == {"too few seeds"}
    assert (folder / "figures" / "enclaves_s2gru_0.png").is_file()
    first = path.read_bytes()
    assert write_report(folder)[0].read_bytes() == first


def test_what_is_missing_is_left_out(folder):
    (folder / "enclaves_s2gru_0.npz").unlink()
    table = pd.read_csv(folder / "views.csv")
    table[(table["test"] == "validation") & (table["views"] == 10)].to_csv(
        folder / "views.csv", index=False
    )
    (folder / "run.json").write_text(json.dumps({"kind": "views"}))
    page = write_report(folder)[0].read_text(encoding="utf-8")
    assert page.count("<figure") == 1, "only modules vary"
    (folder / "views.csv").unlink()
    assert write_report(folder)[1] == "This run has no results yet."


def test_results_without_a_full_condition_are_not_called_missing(folder):
    table = pd.read_csv(folder / "views.csv")
    fewer, gone = table["views"] == 6, table["dropped"] == 1
    table[fewer | gone].to_csv(folder / "views.csv", index=False)
    page, said = write_report(folder)
    assert said == "No model was scored with all crops and all modules."
    shown = page.read_text(encoding="utf-8")
    assert "This run has no results yet." not in shown
    assert "<h2>Scores: F1</h2>" in shown
    full = table[fewer | gone | ((table["views"] == 10) & (table["test"] == "five"))]
    full.to_csv(folder / "views.csv", index=False)
    assert write_report(folder)[1].startswith("F1 on five: s2gru 0.610, crops_lstm")


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
