import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmr_gym.experiments.reports import write_report

RESULTS = Path(__file__).parents[2] / "results"


def run_of(folder, kind, **tables):
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "run.json").write_text(json.dumps({"kind": kind}))
    return folder


def test_committed_ratios_of_balls_come_out_again(tmp_path):
    rows = pd.read_csv(RESULTS / "balls_natural.csv").assign(game="B", core="mpnn", dim=32)
    rows["arm"] = rows["arm"].str.replace("baseline", "cswm")
    path, text = write_report(run_of(tmp_path, "balls-natural", balls_natural=rows))
    assert "rmr_aligned over cswm on B, mpnn, 32 wide: next frame 0.372 (0.349 to 0.395)" in text
    again = pd.read_csv(tmp_path / "balls_natural_ratios.csv").set_index(["error", "arm"])
    committed = pd.read_csv(RESULTS / "balls_natural_ratios.csv")
    committed["arm"] = committed["arm"].str.replace("baseline", "cswm")
    committed = committed.set_index(["error", "arm"])
    columns = list(committed)
    pd.testing.assert_frame_equal(again.loc[committed.index, columns], committed, rtol=1.1e-5)
    assert "data:image/svg" in path.read_text(encoding="utf-8")


def test_no_ratios_while_an_arm_is_worse_than_copying(tmp_path):
    rows = pd.read_csv(RESULTS / "balls_natural.csv").assign(game="B", core="mpnn", dim=32)
    _, text = write_report(
        run_of(tmp_path, "balls-natural", balls_natural=rows.assign(ratio_to_copy=1.5))
    )
    assert text.startswith("No ratio between arms: ")
    assert "no better than copying the last frame." in text
    assert not (tmp_path / "balls_natural_ratios.csv").exists()


def test_rollouts_of_balls(tmp_path):
    rows = pd.read_csv(RESULTS / "balls_abstract.csv").rename(columns={"steps": "step"})
    path, text = write_report(run_of(tmp_path, "balls", rollouts=rows.assign(game="B")))
    assert text.startswith("Error after 10 steps over copying, B: mpnn, 128 wide, 0.131 (2 seeds)")
    assert "simulator" in path.read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "ratios.svg").is_file()


def test_copying_shows_accuracy_and_activity(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"pattern_0": rng.random((22, 6)).round(), "share_0": rng.random((22, 6))}
    np.savez(tmp_path / "activity.npz", begins=np.array([10, 12]), **arrays)
    folder = run_of(tmp_path, "copying", copying=pd.read_csv(RESULTS / "copying.csv"))
    path, text = write_report(folder)
    assert "Accuracy after 48 blanks: RIMs 0.885 (5 seeds), LSTM 0.549 (5 seeds)." in text
    saved = {file.name for file in (tmp_path / "figures").iterdir()}
    assert saved == {"accuracy.svg", "active_0.png"}
    assert "<h2>Which RIMs are active</h2>" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["balls", "balls-natural", "copying"])
def test_runs_that_have_only_begun(tmp_path, kind):
    assert write_report(run_of(tmp_path, kind))[1] == "This run has no results yet."
