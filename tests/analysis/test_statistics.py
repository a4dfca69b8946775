from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rmr_gym.analysis import statistics
from rmr_gym.analysis.statistics import benjamini_hochberg, paired_difference, signed_rank_p


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


def test_benjamini_hochberg_equals_scipy_and_skips_nan():
    p = np.random.default_rng(0).random(30) ** 2
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    with_gaps = np.insert(p, [0, 7, 30], np.nan)
    adjusted = benjamini_hochberg(with_gaps)
    assert (np.isnan(adjusted) == np.isnan(with_gaps)).all()
    assert adjusted[~np.isnan(adjusted)] == pytest.approx(stats.false_discovery_control(p))
    assert np.isnan(benjamini_hochberg(np.array([np.nan, np.nan]))).all()


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
    assert result.verdict == "worse"
    assert result.mean == pytest.approx(-0.2)
    assert -0.3 < result.low < -0.2 < result.high < -0.1
    assert result.p_worse == pytest.approx(1 / 64)
    assert result.p_better == 1


def test_pairs_with_a_missing_value_are_dropped():
    result = paired_difference(np.array([1.0, np.nan]), np.random.default_rng(0))
    assert (result.pairs, result.mean, result.verdict) == (1, 1.0, "too few seeds")
    assert np.isnan(result.low)
    empty = paired_difference(np.array([]), np.random.default_rng(0))
    assert empty.pairs == 0
    assert np.isnan(empty.mean)


def test_bootstrap_interval_covers_about_95_percent():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = statistics.bootstrap_interval(rng.normal(0, 1, 30), rng, 500)
        covered += low < 0 < high
    assert 0.88 < covered / 200 < 0.99
