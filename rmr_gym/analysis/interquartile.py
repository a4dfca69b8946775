"""Interquartile means and performance profiles of runs, with stratified bootstrap intervals."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000


def iqm(runs: Float[np.ndarray, "*rows runs"]) -> Float[np.ndarray, "*rows"]:
    """Return the interquartile mean of the last axis: a quarter of the runs is cut at either end.

    Of n runs, int(n / 4) fall at each end, and the others count alike.

    Source: Agarwal et al. 2021, section 4.3.
    """
    ordered = np.sort(runs, axis=-1)
    cut = ordered.shape[-1] // 4
    return np.asarray(ordered[..., cut : ordered.shape[-1] - cut].mean(-1))


def stratified_interval(
    strata: Sequence[Float[np.ndarray, " runs"]],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Return the 95% percentile-bootstrap interval of the interquartile mean.

    Runs are drawn anew within each world. NaN where no world has two runs.

    Source: Agarwal et al. 2021, section 4.1.

    Args:
        strata: Runs of each world.
        rng: Where the draws come from.
        resamples: How many there are.
    """
    if max(map(len, strata)) < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(iqm(_drawn_anew(strata, rng, resamples)), [0.025, 0.975])
    return float(low), float(high)


def _drawn_anew(
    strata: Sequence[Float[np.ndarray, " runs"]], rng: np.random.Generator, resamples: int
) -> Float[np.ndarray, "resamples all_runs"]:
    drawn = [runs[rng.integers(len(runs), size=(resamples, len(runs)))] for runs in strata]
    return np.concatenate(drawn, axis=1)


def profile(
    runs: Float[np.ndarray, "*rows runs"], thresholds: Float[np.ndarray, " thresholds"]
) -> Float[np.ndarray, "*rows thresholds"]:
    """Return the share of runs above each threshold.

    Source: Agarwal et al. 2021, section 4.2 (score distribution).
    """
    return (runs[..., None] > thresholds).mean(-2)


def profile_band(
    strata: Sequence[Float[np.ndarray, " runs"]],
    thresholds: Float[np.ndarray, " thresholds"],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Float[np.ndarray, "2 thresholds"]:
    """Return the 95% interval of `profile` at each threshold, as `stratified_interval` draws it."""
    if max(map(len, strata)) < 2:
        return np.full((2, len(thresholds)), np.nan)
    shares = profile(_drawn_anew(strata, rng, resamples), thresholds)
    return np.quantile(shares, [0.025, 0.975], axis=0)
