from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rmr_gym.report import statistics
from rmr_gym.report.statistics import corrected, means, paired, paired_difference, signed_rank_p


def by_enumeration(differences, alternative):
    """The definition, written out: every assignment of signs to the ranks is equally likely."""
    kept = differences[differences != 0]
    ranks = stats.rankdata(np.abs(kept))
    sign = 1 if alternative == "greater" else -1
    observed = ranks[sign * kept > 0].sum()
    sums = [ranks[np.array(signs, bool)].sum() for signs in product([0, 1], repeat=len(kept))]
    return float(np.mean(np.array(sums) >= observed - 1e-9))


@pytest.mark.parametrize("alternative", ["greater", "less"])
@pytest.mark.parametrize("pairs", [1, 3, 5, 20, 50])
def test_equals_scipy_without_ties(pairs, alternative):
    differences = np.random.default_rng(pairs).normal(0.3, 1, pairs)
    expected = stats.wilcoxon(differences, alternative=alternative, method="exact").pvalue
    assert signed_rank_p(differences, alternative) == pytest.approx(expected, rel=1e-10)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9).filter(any))
def test_equals_enumeration_with_ties_and_zeros(values):
    differences = np.array(values, float)
    for alternative in ("greater", "less"):
        assert signed_rank_p(differences, alternative) == pytest.approx(
            by_enumeration(differences, alternative)
        )


def test_known_smallest_p():
    assert signed_rank_p(np.array([0.1, 0.2, 0.3]), "greater") == pytest.approx(1 / 8)
    assert signed_rank_p(np.arange(1.0, 6.0), "greater") == pytest.approx(1 / 32)
    assert signed_rank_p(np.arange(1.0, 6.0), "less") == 1


def test_all_zero_and_none():
    assert signed_rank_p(np.zeros(6), "greater") == 1
    assert np.isnan(signed_rank_p(np.array([]), "less"))
    assert np.isnan(signed_rank_p(np.array([np.nan]), "less"))


def test_rounding_in_the_last_bit_breaks_no_tie():
    differences = np.array([0.3 - 0.2, 0.1, 0.2 - 0.1, -0.1, 0.4 - 0.3])
    assert len(set(np.abs(differences))) > 1
    clean = np.array([1.0, 1.0, 1.0, -1.0, 1.0])
    assert signed_rank_p(differences, "greater") == signed_rank_p(clean, "greater")


def test_two_hundred_pairs_are_exact_and_near_the_normal_law():
    differences = np.random.default_rng(0).normal(0.1, 1, 200)
    approximate = stats.wilcoxon(differences, alternative="greater", method="approx").pvalue
    assert signed_rank_p(differences, "greater") == pytest.approx(approximate, rel=0.02)


def made(p):
    pairs = np.where(np.isnan(p), 0, 5)
    return pd.DataFrame({"p_better": p, "p_worse": 1 - p, "pairs": pairs, "verdict": "same"})


def test_correction_equals_scipy_and_skips_nan_and_few_pairs():
    p = np.random.default_rng(0).random(30) ** 2
    expected = stats.false_discovery_control(p)
    assert corrected(made(p), ())["p_better_bh"].to_numpy() == pytest.approx(expected)
    with_gaps = np.insert(p, [0, 7, 30], np.nan)
    found = corrected(made(with_gaps), ())["p_better_bh"].to_numpy()
    assert (np.isnan(found) == np.isnan(with_gaps)).all()
    assert found[~np.isnan(found)] == pytest.approx(expected)
    few = made(with_gaps)
    few.loc[len(few)] = [1e-9, 1.0, 4, "too few seeds"]
    found = corrected(few, ())
    assert found["p_better_bh"].dropna().to_numpy() == pytest.approx(expected)
    assert found["verdict_bh"].iloc[-1] == "too few seeds"
    assert corrected(made(np.array([np.nan])), ())["p_better_bh"].isna().all()


def test_families_are_corrected_apart():
    table = made(np.tile([0.01, 0.04, 0.5], 2)).assign(game=[*"aaabbb"])
    found = corrected(table, ("game",))["p_better_bh"].to_numpy()
    assert found == pytest.approx(np.tile(stats.false_discovery_control([0.01, 0.04, 0.5]), 2))


@pytest.mark.parametrize(
    ("p_better", "p_worse", "pairs", "expected"),
    [
        (0.031, 1.0, 5, "better"),
        (1.0, 0.031, 5, "worse"),
        (0.05, 0.96, 20, "same"),
        (0.0001, 1.0, 4, "too few seeds"),
        (float("nan"), float("nan"), 0, "too few seeds"),
    ],
)
def test_verdict(p_better, p_worse, pairs, expected):
    assert statistics.verdict(p_better, p_worse, pairs) == expected


def test_paired_difference_of_a_worse_arm():
    differences = -np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3])
    result = paired_difference(differences, np.random.default_rng(0))
    assert result["verdict"] == "worse"
    assert result["difference"] == pytest.approx(-0.2)
    assert -0.3 < result["low"] < -0.2 < result["high"] < -0.1
    assert result["p_worse"] == pytest.approx(1 / 64)
    assert result["p_better"] == 1


def test_pairs_with_a_missing_value_are_dropped():
    result = paired_difference(np.array([1.0, np.nan]), np.random.default_rng(0))
    assert (result["pairs"], result["difference"], result["verdict"]) == (1, 1.0, "too few seeds")
    assert np.isnan(result["low"])
    empty = paired_difference(np.array([]), np.random.default_rng(0))
    assert empty["pairs"] == 0
    assert np.isnan(empty["difference"])


def test_bootstrap_interval_covers_about_95_percent():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = statistics.bootstrap_interval(rng.normal(0, 1, 30), rng, 500)
        covered += low < 0 < high
    assert 0.88 < covered / 200 < 0.99


def rows(**arms):
    return pd.DataFrame(
        {"game": "Pong", "arm": arm, "seed": seed, "f1": f1, "loss": 1 - f1}
        for arm, scores in arms.items()
        for seed, f1 in enumerate(scores)
    )


ARMS = {"rmr": [0.5, 0.6, 0.7, 0.8, 0.9], "cswm": [0.4, 0.4, 0.4, 0.4, 0.4], "pca": [0.1]}


def test_every_level_is_paired_with_every_baseline():
    found = paired(rows(**ARMS), "f1", "arm", ("cswm", "untrained"), ("game",))
    assert list(found["arm"]) == ["rmr", "rmr", "cswm", "cswm", "pca", "pca"]
    ours = found.iloc[0]
    assert (ours["pairs"], ours["p_better"], ours["verdict"]) == (5, 1 / 32, "better")
    assert ours["difference"] == pytest.approx(0.3)
    assert ours["relative"] == pytest.approx(75)
    assert ours["gaps"] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert ours["low"] < 0.3 < ours["high"]
    for row in (found.iloc[1], found.iloc[2]):
        assert (row["pairs"], row["verdict"], row["verdict_bh"]) == (0, "", ""), (
            "nothing to compare"
        )
    assert found.iloc[4]["pairs"] == 5, "what has no seeds stands beside every seed"
    assert found.iloc[4]["verdict"] == "worse"


def test_scores_of_which_less_is_better_and_chosen_opponents():
    both = {"f1": 1, "loss": -1}
    found = paired(rows(**ARMS), both, "arm", lambda arm, _: ["cswm"] if arm == "rmr" else [])
    assert list(found["score"]) == ["f1", "loss"]
    assert list(found["verdict"]) == ["better", "better"]
    assert found["difference"].to_numpy() == pytest.approx(0.3)


def test_pairs_are_made_of_what_both_have_and_parts_stay_apart():
    table = pd.concat([rows(**ARMS), rows(**ARMS).assign(game="Hero")])
    table = table[(table["game"] == "Pong") | (table["seed"] != 2)]
    found = paired(table, "f1", "arm", ("cswm",), ("game",)).set_index(["game", "arm"])
    assert found.loc[("Pong", "rmr"), "pairs"] == 5
    assert found.loc[("Hero", "rmr"), "pairs"] == 4
    assert found.loc[("Hero", "rmr"), "verdict"] == "too few seeds"


def test_nothing_to_pair_has_all_columns():
    empty = paired(rows(**ARMS).iloc[:0], "f1", "arm", ("cswm",), ("game",))
    assert empty.empty
    assert {"against", "verdict", "p_better_bh", "verdict_bh"} <= {*empty}


def test_means_leave_out_what_is_missing():
    table = rows(rmr=[0.2, np.nan, 0.4], cswm=[0.5])
    found = means(table, ("game", "arm"), ("f1",), "f1").set_index("arm")
    assert found.loc["rmr", ["seeds", "f1_mean"]].tolist() == [2, pytest.approx(0.3)]
    assert found.loc["rmr", "f1_std"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert np.isnan(found.loc["cswm", "f1_std"])
    assert means(table, ("arm",), ("f1",))["seeds"].tolist() == [3, 1]
    assert list(means(table.iloc[:0], ("arm",), ("f1",))) == ["arm", "seeds", "f1_mean", "f1_std"]
