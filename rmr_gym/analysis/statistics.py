"""Paired tests, their correction over a table, and intervals of paired differences."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

ALPHA = 0.05
"""Level at which a one-sided test is called significant, as in the paper."""

MIN_PAIRS = 5
"""No significance is claimed under so many seeds: at 4 the smallest exact p is 1/16 > 0.05."""

TOO_FEW = "too few seeds"

Alternative = Literal["greater", "less"]
Verdict = Literal["better", "worse", "same", "too few seeds"]


@dataclass(frozen=True)
class PairedDifference:
    """What n pairs say about the difference first - second.

    Attributes:
        pairs: Pairs in which both values are there.
        mean: Mean difference; NaN without pairs.
        low: Lower end of the 95% bootstrap interval of the mean; NaN under two pairs.
        high: Upper end of it.
        p_better: One-sided exact p of "first > second"; NaN without pairs.
        p_worse: One-sided exact p of "first < second"; NaN without pairs.
        verdict: What the raw p-values say at `ALPHA`, see `verdict`.
    """

    pairs: int
    mean: float
    low: float
    high: float
    p_better: float
    p_worse: float
    verdict: Verdict


def signed_rank_p(differences: Float[np.ndarray, " pairs"], alternative: Alternative) -> float:
    """Return the exact one-sided p of Wilcoxon's signed-rank test on paired differences.

    Zero differences are dropped (Wilcoxon's own rule), equal sizes share their middle rank, and
    the null distribution of the rank sum is counted out for exactly these ranks, so that p is exact
    with ties as well. NaN differences are dropped. Sizes that agree to 12 digits of the largest
    difference count as equal, so that rounding in the last bit breaks no tie.

    Source: RMR, section 5 (one-sided paired Wilcoxon test). Differs: exact with ties and zeros.

    Args:
        differences: One difference a pair.
        alternative: "greater": differences tend to be above 0; "less": below.

    Returns:
        p in (0, 1]; 1 where every difference is 0, NaN where there is no difference.
    """
    present = differences[~np.isnan(differences)]
    if present.size == 0:
        return float("nan")
    largest = np.abs(present).max()
    if largest == 0:
        return 1.0
    relative = np.round(present / largest, 12)
    relative = relative[relative != 0]
    doubled = np.rint(2 * rankdata(np.abs(relative))).astype(int)
    signed = relative if alternative == "greater" else -relative
    reached = int(doubled[signed > 0].sum())
    return float(min(1.0, _rank_sum_distribution(doubled)[reached:].sum()))


def _rank_sum_distribution(doubled_ranks: np.ndarray) -> np.ndarray:
    """Return P(W = w) for w = 0, 1, ..., where W adds each rank with probability 1/2."""
    probability = np.zeros(int(doubled_ranks.sum()) + 1)
    probability[0] = 1.0
    for rank in doubled_ranks:
        added = np.zeros_like(probability)
        added[rank:] = probability[: len(probability) - rank]
        probability = 0.5 * (probability + added)
    return probability


def benjamini_hochberg(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return p-values adjusted for the false discovery rate over all tests.

    The i-th smallest of m becomes min over j >= i of p_j m / j. NaN stays NaN and counts as no
    test.

    Source: Benjamini and Hochberg 1995.
    """
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if tested.size == 0:
        return adjusted
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * tested.size / np.arange(1, tested.size + 1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def verdict(p_better: float, p_worse: float, pairs: int) -> Verdict:
    """Say what two one-sided tests at `ALPHA` show: better, worse, same or too few seeds.

    "same" means that neither direction is significant; it is no proof of equality.

    Args:
        p_better: p of "first > second".
        p_worse: p of "first < second".
        pairs: Number of pairs behind them.
    """
    if pairs < MIN_PAIRS:
        return TOO_FEW
    if p_better < ALPHA:
        return "better"
    return "worse" if p_worse < ALPHA else "same"


def bootstrap_interval(
    values: Float[np.ndarray, " pairs"], rng: np.random.Generator, resamples: int = 5000
) -> tuple[float, float]:
    """Return the 95% percentile-bootstrap interval of the mean; NaN under two values.

    Args:
        values: One value a pair.
        rng: Where the resamples come from.
        resamples: How many there are.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    picks = rng.integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)


def paired_difference(
    differences: Float[np.ndarray, " pairs"], rng: np.random.Generator
) -> PairedDifference:
    """Say what paired differences show; NaN differences are dropped.

    Args:
        differences: First minus second, one a pair.
        rng: For the bootstrap interval.
    """
    present = differences[~np.isnan(differences)]
    low, high = bootstrap_interval(present, rng)
    p_better = signed_rank_p(present, "greater")
    p_worse = signed_rank_p(present, "less")
    return PairedDifference(
        pairs=len(present),
        mean=float(present.mean()) if len(present) else float("nan"),
        low=low,
        high=high,
        p_better=p_better,
        p_worse=p_worse,
        verdict=verdict(p_better, p_worse, len(present)),
    )
