import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmr_gym.experiments import write_report

RESULTS = Path(__file__).parents[2] / "results"


def run_of(folder, kind, **tables):
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "run.json").write_text(json.dumps({"kind": kind}))
    return folder


def test_committed_ratios_of_balls_come_out_again(tmp_path):
    rows = pd.read_csv(RESULTS / "balls_natural.csv").assign(game="B", core="mpnn", dim=32)
    path, text = write_report(run_of(tmp_path, "balls-natural", balls_natural=rows))
    assert "rmr_aligned over cswm on B, mpnn, 32 wide: next frame 0.372 (0.349 to 0.395)" in text
    names = ["error", "arm", "against"]
    again = pd.read_csv(tmp_path / "balls_natural_ratios.csv").set_index(names)
    committed = pd.read_csv(RESULTS / "balls_natural_ratios.csv")
    committed = committed.set_index(names)
    columns = list(committed)
    pd.testing.assert_frame_equal(again.loc[committed.index, columns], committed, rtol=1.1e-5)
    assert "data:image/svg" in path.read_text(encoding="utf-8")


def test_the_claims_about_balls_come_out_again(tmp_path):
    folder = shutil.copytree(RESULTS / "balls-natural", tmp_path / "run")
    committed = pd.read_csv(folder / "balls_natural_ratios.csv")
    _, text = write_report(folder)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "balls_natural_ratios.csv"), committed)
    claims = committed.dropna(subset="p_better_bh").set_index("arm")
    assert dict(claims["against"]) == {"rmr": "cswm", "rmr_aligned": "cswm_aligned"}
    assert claims.loc["rmr_aligned", "p_better_bh"] < 0.05 < claims.loc["rmr", "p_better_bh"]
    assert claims["ratio"].isna().all(), "two runs are no better than copying"
    tested = "mpnn, 128 wide: next frame p of lower errors 0.00781, 8 seeds"
    assert f"rmr_aligned over cswm_aligned on BouncingBalls, {tested}" in text


def test_widths_of_balls_are_drawn(tmp_path):
    rows = pd.read_csv(RESULTS / "balls_natural_bottleneck.csv").assign(game="B")
    _, text = write_report(run_of(tmp_path, "balls-natural", balls_natural=rows))
    assert text.startswith("No ratio between arms: game B core mpnn dim 4 rmr seed 0, ")
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"arms.svg", "widths.svg"}


def test_no_ratios_while_an_arm_is_worse_than_copying(tmp_path):
    rows = pd.read_csv(RESULTS / "balls_natural.csv").assign(game="B", core="mpnn", dim=32)
    _, text = write_report(
        run_of(tmp_path, "balls-natural", balls_natural=rows.assign(ratio_to_copy=1.5))
    )
    assert text.startswith("No ratio between arms: ")
    assert "no better than copying the last frame." in text
    table = pd.read_csv(tmp_path / "balls_natural_ratios.csv")
    assert table[["ratio", "low", "high"]].isna().all(axis=None)
    assert table["p_better"].notna().all()


def test_rollouts_of_balls(tmp_path):
    rows = pd.read_csv(RESULTS / "balls_abstract.csv").rename(columns={"steps": "step"})
    path, text = write_report(run_of(tmp_path, "balls", rollouts=rows.assign(game="B")))
    assert text.startswith(
        "Error after 1 and 10 instants over that of linear extrapolation with reflection at the "
        "walls, B: mpnn that predicts the change, 128 wide, 4,000 steps, 0.085 and 0.098 (1 seed), "
    )
    assert "simulator" in path.read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "ratios.svg").is_file()


def test_copying_shows_accuracy_and_activity(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"pattern_0": rng.random((22, 6)).round(), "share_0": rng.random((22, 6))}
    np.savez(tmp_path / "activity.npz", begins=np.array([10, 12]), **arrays)
    folder = run_of(tmp_path, "sequences", sequences=pd.read_csv(RESULTS / "copying.csv"))
    path, text = write_report(folder)
    assert "Accuracy after 48 blanks: RIMs 1.000 (1 seed), LSTM 0.610 (1 seed)." in text
    saved = {file.name for file in (tmp_path / "figures").iterdir()}
    assert saved == {"errors.svg", "active_0.png"}
    assert "<h2>Which RIMs are active</h2>" in path.read_text(encoding="utf-8")


def test_committed_digits_come_out_again(tmp_path):
    folder = shutil.copytree(RESULTS / "sequences-digits", tmp_path / "run")
    _, text = write_report(folder)
    assert (
        "Accuracy at 7 pixels across: RIMs 0.571 (5 seeds), LSTM 0.463 (5 seeds). RIMs less LSTM "
        "+0.108 (better, not after correction)."
    ) in text
    again, committed = (
        pd.read_csv(at / "pairs.csv") for at in (folder, RESULTS / "sequences-digits")
    )
    pd.testing.assert_frame_equal(again, committed, rtol=1e-4)


def test_committed_imitation_comes_out_again(tmp_path):
    folder = shutil.copytree(RESULTS / "sequences-imitation", tmp_path / "run")
    _, text = write_report(folder)
    assert "Return with noise of 0.05 radians on the joints: expert 1,298 (1 seed), RIMs " in text
    again, committed = (
        pd.read_csv(at / "returns_pairs.csv") for at in (folder, RESULTS / "sequences-imitation")
    )
    pd.testing.assert_frame_equal(again, committed, rtol=1e-4)
    claim = again[(again.model == "rims") & (again.strength == 0.05)].iloc[0]
    assert claim.p_better > 0.05
    assert (folder / "figures" / "returns.svg").is_file()


@pytest.mark.parametrize("kind", ["balls", "balls-natural", "sequences"])
def test_runs_that_have_only_begun(tmp_path, kind):
    assert write_report(run_of(tmp_path, kind))[1] == "This run has no results yet."
