import json

import numpy as np
import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report
from rmr_gym.experiments.world_models import report as world_models
from rmr_gym.experiments.world_models.report import (
    BETTER,
    model_pairs,
    score_dots,
    score_table,
    simulation_curves,
)
from rmr_gym.report.runs import load_run


def read_world_models(folder):
    return load_run(folder, world_models.FRAMES)


def pair_table(rows):
    return model_pairs(rows, "test", BETTER)


LEVELS = {"rnem": 0.5, "rnnem": 0.7, "lstm": 1.2, "rims": 0.6, "rims_lstm": 0.5}
GROUPED = ("rnem", "rnnem")
INFO = {
    "kind": "world_models",
    "command": "rmr-gym world-model evaluate",
    "models": list(LEVELS),
    "steps": dict.fromkeys(LEVELS, 100),
    "data": {"name": "four", "fingerprint": "ab12", "balls": 4},
    "tests": {"crowd": {"fingerprint": "cd34", "balls": None, "groups": 8}},
    "problems": ["train rims 1: these frames do not fit"],
}
SECTIONS = (
    *("What the numbers say", "Pictures", "Scores", "Paired differences", "What was run"),
    "How to read this",
)


def write(folder, seeds):
    """Every model's scores are its level; each seed shifts all models alike, the crowd doubles."""
    scores, simulations, curves = [], [], []
    for model, level in LEVELS.items():
        for seed in range(seeds):
            named = {"model": model, "seed": seed}
            for test, times in (("validation", 1), ("crowd", 2)):
                loss = (level + 0.01 * seed) * times
                grouped = model in GROUPED
                scores.append(
                    named
                    | {
                        "test": test,
                        "balls": 4 if test == "validation" else None,
                        "groups": (3 if times == 1 else 8) if grouped else None,
                        "step": 100,
                        "bce": 100 * loss,
                        "relative_bce": loss,
                        "relational_bce": 10 * loss,
                        "relative_relational_bce": loss + 0.1,
                        "ari": 1 - loss / 2 if grouped else None,
                        "ari_last": 1 - loss / 4 if grouped else None,
                        "rollout_bce": 200 * loss,
                        "relative_rollout_bce": loss,
                        "rollout_f1": 1 - loss / 5,
                    }
                )
                simulations += [
                    named
                    | {"test": test, "frame": frame, "bce": loss * frame, "copied": 3.0}
                    | {"f1": 1 - loss * frame / 9, "f1_copied": 0.1}
                    for frame in (1, 2, 3)
                ]
            curves += [named | {"step": step, "validation_loss": 9 / step} for step in (50, 100)]
    pd.DataFrame(scores).to_csv(folder / "world_models.csv", index=False)
    pd.DataFrame(simulations).to_csv(folder / "simulations.csv", index=False)
    pd.DataFrame(curves).to_csv(folder / "world_model_curves.csv", index=False)
    (folder / "run.json").write_text(json.dumps(INFO))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, 5)


def one(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_means_over_seeds(folder):
    rows = read_world_models(folder)["world_models"]
    table = score_table(rows)
    assert len(table) == 2 * 5
    row = one(table, test="crowd", model="rnem")
    assert (row["seeds"], row["groups"]) == (5, 8)
    assert row["relative_bce_mean"] == pytest.approx(1.04)
    assert row["relative_bce_std"] == pytest.approx(2 * np.std(np.arange(5) / 100, ddof=1))
    assert row["ari_mean"] == pytest.approx(0.48)
    assert np.isnan(one(table, test="crowd", model="lstm")["ari_mean"])


def test_models_are_paired_with_the_baselines_of_their_family(folder):
    pairs = pair_table(read_world_models(folder)["world_models"])
    found = pairs[pairs["test"] == "validation"].groupby("model")["against"].agg(set).to_dict()
    assert found == {"rnem": {"rnnem", "lstm"}, "rnnem": {"lstm"}, "rims": {"rims_lstm"}}
    row = one(pairs, test="crowd", model="rnem", against="lstm", score="relative_bce")
    assert row["improvement"] == pytest.approx(2 * 0.7)
    assert (row["p_better"], row["verdict"]) == (1 / 32, "better")
    worse = one(pairs, test="validation", model="rims", against="rims_lstm", score="relative_bce")
    assert worse["improvement"] == pytest.approx(-0.1)
    assert worse["verdict"] == "worse"
    ari = one(pairs, test="validation", model="rnem", against="rnnem", score="ari_last")
    assert ari["improvement"] == pytest.approx(0.05)
    assert not len(pairs[(pairs["against"] == "lstm") & (pairs["score"] == "ari_last")])


def test_the_page(folder):
    path, said = write_report(folder)
    page = path.read_text(encoding="utf-8")
    for section in SECTIONS:
        assert f"<h2>{section}</h2>" in page
    assert page.count("<figure") == 5
    assert (
        "Relative BCE on validation, mean over 5 seeds: rnem 0.520 is the least, then "
        "rims_lstm 0.520, rims 0.620, rnnem 0.720 and lstm 1.220. Better than copying: rnem, "
        "rims_lstm, rims and rnnem."
    ) in said
    assert "Relative BCE on crowd" in said
    assert "Better than copying: none." in said
    assert (
        "What rims improves on validation: over rims_lstm: relative BCE −0.100 (worse, not after "
        "correction), relative simulated BCE −0.100 (worse, not after correction), simulated F1 "
        "−0.020 (worse, not after correction)."
    ) in said
    assert "over lstm: relative BCE +0.700 (better), relative simulated BCE +0.700 (better)" in said
    assert "ARI on validation, mean over 5 seeds: rnem 0.740 (last frames 0.870), rnnem" in said
    assert "What failed on the way: train rims 1: these frames do not fit." in said
    assert "13.8 nats" in page
    for note in ("decided when training ended", "flipped pixels", "Noise is not the same for all"):
        assert note in page
    assert "tests: crowd" in page
    assert pd.read_csv(folder / "pairs.csv")["test"].tolist().count("crowd") == 4 + 3 * 3
    assert len(pd.read_csv(folder / "world_models_summary.csv")) == 10


def test_the_same_bytes_again(folder, tmp_path):
    pages = [write_report(folder, tmp_path / name / "report.html")[0] for name in ("a", "b")]
    first, second = (sorted(page.parent.rglob("*.*")) for page in pages)
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_four_seeds_are_too_few(tmp_path):
    _, said = write_report(write(tmp_path, 4))
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert set(pairs["verdict"]) == set(pairs["verdict_bh"]) == {"too few seeds"}
    assert "(too few seeds)" in said
    assert "(better" not in said
    assert "(worse" not in said


def test_what_is_missing_is_left_out(folder):
    (folder / "simulations.csv").unlink()
    (folder / "world_model_curves.csv").unlink()
    page = write_report(folder)[0].read_text(encoding="utf-8")
    assert page.count("<figure") == 2
    (folder / "world_models.csv").unlink()
    page, said = write_report(folder)
    assert "This run has no results yet." in page.read_text(encoding="utf-8")
    assert "What failed on the way" in said


def test_damaged_tables_are_named(folder):
    table = pd.read_csv(folder / "world_models.csv")
    pd.concat([table, table[:1]]).to_csv(folder / "world_models.csv", index=False)
    with pytest.raises(RMRError, match=r"world_models.csv has two rows for test validation"):
        write_report(folder)
    table.assign(relative_bce="much").to_csv(folder / "world_models.csv", index=False)
    with pytest.raises(RMRError, match=r"world_models.csv, column relative_bce: expected numbers"):
        write_report(folder)
    table.drop(columns="test").to_csv(folder / "world_models.csv", index=False)
    with pytest.raises(RMRError, match=r"world_models.csv lacks the columns test"):
        write_report(folder)


def test_dots_are_means_at_their_model(folder):
    rows = read_world_models(folder)["world_models"]
    figure = score_dots(rows, ("relative_bce", "ari"), 1.0)
    validation, crowd = figure.axes
    assert [validation.get_title(), crowd.get_title()] == ["validation", "crowd"]
    assert validation.get_xlim() == crowd.get_xlim()
    shown = np.concatenate([line.get_xdata() for panel in figure.axes for line in panel.lines])
    assert validation.get_xlim()[0] < np.nanmin(shown) < np.nanmax(shown) < validation.get_xlim()[1]
    labels = [label.get_text() for label in validation.get_yticklabels()]
    assert labels == list(LEVELS)
    dots = {
        (line.get_marker(), round(line.get_ydata()[0])): line.get_xdata()[0]
        for line in crowd.lines
        if line.get_marker() in ("o", "s") and line.get_label()[0] != "_"
    }
    assert dots["o", labels.index("lstm")] == pytest.approx(2 * 1.22)
    assert dots["s", labels.index("rnem")] == pytest.approx(1 - 0.52)
    assert ("s", labels.index("lstm")) not in dots
    with pytest.raises(RMRError, match=r"nothing to draw in .*ari"):
        score_dots(rows[rows["model"] == "lstm"], ("ari",))


def test_the_f1_of_simulations_is_drawn_too(folder):
    rows = read_world_models(folder)["simulations"]
    lines = {line.get_label(): line for line in simulation_curves(rows, "f1").axes[0].lines}
    expected = [1 - 0.52 * frame / 9 for frame in (1, 2, 3)]
    np.testing.assert_allclose(lines["rnem"].get_ydata(), expected)
    assert lines["last frame copied"].get_ydata().tolist() == pytest.approx([0.1] * 3)
    with pytest.raises(RMRError, match=r"nothing to draw in simulations\.csv"):
        simulation_curves(rows.assign(f1=np.nan), "f1")


def test_simulations_are_means_over_seeds_and_copying_is_dashed(folder):
    figure = simulation_curves(read_world_models(folder)["simulations"])
    validation = figure.axes[0]
    lines = {line.get_label(): line for line in validation.lines}
    np.testing.assert_allclose(lines["rnem"].get_ydata(), [0.52, 1.04, 1.56])
    assert lines["rnem"].get_xdata().tolist() == [1, 2, 3]
    assert lines["last frame copied"].get_linestyle() == "--"
    assert lines["last frame copied"].get_ydata().tolist() == [3, 3, 3]
