from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report
from rmr_gym.experiments.transfer import report as transfer
from rmr_gym.experiments.transfer.report import (
    ALL_PAIRS,
    OTHER_P,
    OWN_P,
    condensed,
    overview_table,
    read_matrix,
    transfer_table,
    transfer_tables,
)
from rmr_gym.report.arms import NATURAL
from rmr_gym.report.runs import load_run


def load(folder):
    return load_run(folder, transfer.TABLES)


def matrix_of(folder):
    return read_matrix(load(folder))


def row(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def planted(donor, recipient):
    return {"Pong": 0.02, "Breakout": -0.02}.get(donor, 0.0)


def test_every_pair_stands_once_and_roles_are_told_apart(make_transfer):
    matrix = matrix_of(make_transfer(games=3, others=("balls", "random_dynamics")))
    table = transfer_table(matrix)
    assert matrix.games == ["Pong", "Breakout", "Freeway"]
    donors = table[table["role"] != "control"]
    assert len(donors) == 5 * 3
    assert not donors.duplicated(["source", "recipient"]).any()
    assert donors["own"].sum() == 3
    assert set(table[table["role"] == "other"]["source"]) == {"balls", "random_dynamics"}
    assert set(table[table["role"] == "control"]["source"]) == {
        "cswm",
        "random_p",
        "shuffled_p",
        "untrained",
    }


def test_a_planted_effect_is_found_by_donor_in_both_directions(make_transfer):
    table = transfer_table(matrix_of(make_transfer(seeds=6, gain=planted)))
    for source, verdict, sign in (("Pong", "better", 1), ("Breakout", "worse", -1)):
        rows = table[table["source"] == source]
        assert set(rows["verdict"]) == {verdict}
        assert rows["relative"].to_numpy() == pytest.approx(sign * 100 * 0.02 / 0.75, abs=0.6)
        assert rows["difference"].to_numpy() == pytest.approx(sign * 0.02, abs=0.004)
    assert set(table[table["source"] == "Pong"]["p_better"]) == {1 / 64}


def test_numbers_equal_a_hand_count(make_transfer):
    folder = make_transfer(games=2, gain=planted)
    sweep = load(folder)
    found = row(transfer_table(read_matrix(sweep)), source="Pong", recipient="Breakout")
    at = (
        sweep["transfer"]
        .query("recipient == 'Breakout' and step == 300")
        .set_index("seed")["micro_f1"]
    )
    arm = sweep["transfer"].query("recipient == 'Breakout' and step == 300").set_index("seed")
    frozen = at[arm["donor"] == "Pong"].sort_index()
    trained = at[arm["arm"] == "cswm"].sort_index()
    assert found["difference"] == pytest.approx((frozen - trained).mean())
    assert found["relative"] == pytest.approx(100 * (frozen / trained - 1).mean())
    expected = stats.wilcoxon(frozen, trained, alternative="greater", method="exact").pvalue
    assert found["p_better"] == pytest.approx(expected)


def test_games_other_donors_and_controls_are_corrected_each_on_their_own(make_transfer):
    table = transfer_table(matrix_of(make_transfer(gain=planted)))
    assert set(table["role"]) == {"game", "other", "control"}
    for _, family in table.dropna(subset=["p_better"]).groupby("role"):
        expected = stats.false_discovery_control(family["p_better"].to_numpy())
        assert family["p_better_bh"].to_numpy() == pytest.approx(expected)


def test_null_data_is_hardly_marked(make_transfer):
    table = transfer_table(matrix_of(make_transfer(games=12, seeds=8)))
    donors = table[table["role"] != "control"]
    raw = donors["verdict"].isin(["better", "worse"]).mean()
    assert 0 < raw < 0.2
    assert donors["verdict_bh"].isin(["better", "worse"]).sum() == 0


def test_no_significance_under_five_seeds(make_transfer):
    matrix = matrix_of(make_transfer(seeds=3, gain=lambda *_: 0.2))
    table = transfer_table(matrix)
    compared = table[table["source"] != "cswm"]
    assert set(compared["verdict"]) == set(compared["verdict_bh"]) == {"too few seeds"}
    counts = row(overview_table(table), scope=ALL_PAIRS)
    assert (counts["too_few"], counts["better"], counts["worse"]) == (36, 0, 0)


def test_missing_cells_stay_in_the_table_and_cost_only_themselves(make_transfer):
    missing = {("Pong", "Freeway"), ("balls", "Pong")}
    whole = transfer_table(matrix_of(make_transfer("whole", games=4, gain=planted)))
    table = transfer_table(matrix_of(make_transfer(games=4, gain=planted, missing=missing)))
    assert len(table) == len(whole)
    lacking = table[(table["pairs"] == 0) & (table["source"] != "cswm")]
    assert set(zip(lacking["source"], lacking["recipient"], strict=True)) == missing
    assert lacking["relative"].isna().all()
    counts = row(overview_table(table), scope=ALL_PAIRS)
    assert (counts["cells"], counts["compared"]) == (16, 15)


def test_a_recipient_without_any_score_is_a_missing_column(make_transfer):
    folder = make_transfer(games=3)
    text = (folder / "transfer.csv").read_text().splitlines(keepends=True)
    lines = [line for line in text if "Freeway" not in line.split(",")[0]]
    (folder / "transfer.csv").write_text("".join(lines))
    table = transfer_table(matrix_of(folder))
    column = table[table["recipient"] == "Freeway"]
    assert list(column["source"]) == ["Pong", "Breakout", "Freeway", "balls"]
    assert (column["pairs"] == 0).all()


def test_the_own_p_and_controls_as_baselines(make_transfer):
    def gain(donor, recipient):
        return 0.03 if donor == recipient else 0.01

    controls = {"cswm": 0.0, "random_p": 0.01, "untrained": 0.05}
    matrix = matrix_of(make_transfer(seeds=6, gain=gain, controls=controls))
    tables = transfer_tables(matrix)
    compared = list(dict.fromkeys(tables["transfer_summary"]["against"]))
    assert compared == ["cswm", "random_p", "untrained", "own"]
    across = tables["transfer_overview"].set_index(["against", "scope"])
    assert across.loc[("cswm", OTHER_P), "verdict"] == "better"
    assert across.loc[("random_p", OWN_P), "difference"] == pytest.approx(0.02, abs=0.002)
    assert abs(across.loc[("random_p", OTHER_P), "difference"]) < 0.001
    assert across.loc[("untrained", OWN_P), "verdict"] == "worse"
    assert across.loc[("own", OTHER_P), "difference"] == pytest.approx(-0.02, abs=0.002)
    assert across.loc[("cswm", OTHER_P), "recipients"] == 6
    assert ("own", OWN_P) not in across.index


def test_one_value_a_recipient_is_tested_across_recipients(make_transfer):
    table = transfer_table(matrix_of(make_transfer(gain=lambda *_: 0.02)))
    found = row(overview_table(table), scope=OTHER_P)
    others = table[(table["role"] == "game") & ~table["own"]]
    means = others.groupby("recipient")["difference"].mean()
    assert found["difference"] == pytest.approx(means.mean())
    assert found["p_better"] == pytest.approx(0.5 ** len(means))


def test_robustness_holds_every_checkpoint(make_transfer):
    _, overview, robustness = transfer_tables(matrix_of(make_transfer(games=3))).values()
    assert set(robustness["checkpoint"]) == {100, 300}
    last = robustness[robustness["checkpoint"] == 300]
    headline = overview[overview["against"] == "cswm"]
    assert last["relative"].to_numpy() == pytest.approx(headline["relative"].to_numpy())


def test_the_condensed_run_averages_other_games_by_seed(make_transfer):
    sweep = load(make_transfer(games=3, gain=planted))
    matrix = read_matrix(sweep)
    natural = condensed(matrix, matrix.natural, NATURAL["natural"].key)
    assert set(natural["arm"]) == {*("rmr", OTHER_P, "cswm", "random_p", "shuffled_p", "untrained")}
    found = natural.query("game == 'Pong' and seed == 2 and step == 300").set_index("arm")
    scores = sweep["transfer"].query("recipient == 'Pong' and seed == 2 and step == 300")
    by_donor = scores.set_index("donor")["micro_f1"]
    assert found.loc["rmr", "micro_f1"] == pytest.approx(by_donor["Pong"])
    assert found.loc[OTHER_P, "micro_f1"] == pytest.approx(
        np.mean([by_donor["Breakout"], by_donor["Freeway"]])
    )


def test_a_run_that_has_only_begun_gives_empty_tables(make_transfer):
    folder = make_transfer(games=2)
    (folder / "transfer.csv").unlink()
    tables = transfer_tables(matrix_of(folder))
    assert all(table.empty for table in tables.values())
    assert "verdict_bh" in tables["transfer_summary"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.drop(columns="donor"), "lacks the columns donor"),
        (lambda table: pd.concat([table, table.tail(1)]), "two rows for recipient Breakout, donor"),
        (lambda table: table.assign(micro_f1="high"), "column micro_f1: expected numbers"),
        (
            lambda table: table.assign(donor=table["donor"].replace("balls", "")),
            "expected a donor for the arm rmr .* '' for the arm 'rmr'",
        ),
        (
            lambda table: table.assign(donor=table["donor"].fillna("Pong")),
            "expected a donor for the arm rmr .* 'Pong' for the arm 'cswm'",
        ),
    ],
)
def test_damaged_scores_are_named(make_transfer, edit, message):
    folder = make_transfer(games=2)
    edit(pd.read_csv(folder / "transfer.csv")).to_csv(folder / "transfer.csv", index=False)
    with pytest.raises(RMRError, match=message):
        matrix_of(folder)


def test_a_whole_report(make_transfer):
    folder = make_transfer(games=3, missing={("balls", "Pong")})
    line = "<b>,failed,2.0,2,NaN loss at step 40"
    (folder / "jobs.csv").write_text(f"key,state,seconds,attempts,error\n{line}\n")
    page = write_report(folder)[0].read_text(encoding="utf-8")
    for heading in (
        *("What the numbers say", "Counts and tests across recipients"),
        *("Scores beside the controls", "The same matrix against the controls"),
        *("Probes and checkpoints", "Probes over training", "Every pair"),
        *("What was run", "How to read this"),
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "<h2>Unfinished</h2>" not in page
    assert "NaN loss at step 40" in page
    assert "&lt;b&gt;" in page
    tables = {f"transfer_{name}.csv" for name in ("summary", "overview", "robustness")}
    assert tables <= {file.name for file in folder.iterdir()}
    saved = {file.name for file in (folder / "figures").iterdir()}
    maps = {"transfer_cswm_cswm.png", "transfer_cswm_random_p.png"}
    assert maps <= saved


def test_a_run_that_has_only_begun_has_a_report(make_transfer):
    folder = make_transfer(games=2)
    (folder / "transfer.csv").unlink()
    path, text = write_report(folder)
    assert "<h2>Unfinished</h2>" in path.read_text(encoding="utf-8")
    assert text == "This run has no results yet."


def test_headroom_stands_beside_the_probe(make_transfer):
    """The other games' P are one arm, pixels a row without seeds, and skill is made by seed."""
    folder, rows = make_transfer(games=3), []
    columns = ["recipient", "donor", "objective", "arm", "seed", "step"]
    columns += ["measure", "at", "bytes", "micro_f1"]
    sources = (("rmr", "Pong", 0.8), ("rmr", "Breakout", 0.7), ("cswm", "", 0.6), ("pca", "", 0.75))
    for seed, (arm, donor, f1) in product(range(5), sources):
        key = ("Pong", donor, "cswm", arm, seed, 300, "frames", 50, "all")
        if arm != "pca" or seed == 0:
            rows.append((*key, f1 + 0.01 * seed * (arm != "pca")))
        if arm != "pca":
            for measure, level in (("present", 0.5), ("forecast", f1), ("ceiling", 0.9)):
                rows.append((*key[:6], measure, 4, "all", level))
    pd.DataFrame(rows, columns=columns).to_csv(folder / "headroom.csv", index=False)
    page = write_report(folder)[0].read_text(encoding="utf-8")
    assert "<h2>Measures with headroom</h2>" in page
    summary = pd.read_csv(folder / "headroom_summary.csv")
    own = row(summary, measure="frames", arm="rmr")
    assert (own["seeds"], own["cswm_difference"]) == (5, pytest.approx(0.2))
    assert own["pca_pairs"] == 5
    assert own["pca_difference"] == pytest.approx(0.07)
    assert row(summary, measure="frames", arm=OTHER_P)["micro_f1_mean"] == pytest.approx(0.72)
    forecast = row(pd.read_csv(folder / "forecast_summary.csv"), arm="rmr")
    assert forecast["skill_mean"] == pytest.approx((0.8 - 0.5) / (0.9 - 0.5))
    assert (forecast["difference"], forecast["verdict"]) == (pytest.approx(0.3), "better")
