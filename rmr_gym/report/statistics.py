"""Means over seeds, exact paired tests, corrections, intervals: every test of every table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import false_discovery_control, rankdata

from rmr_gym.core.seeding import generator
from rmr_gym.report.runs import parts

ALPHA = 0.05
"""Level at which a one-sided test is called significant, as in the paper."""

MIN_PAIRS = 5
"""No significance is claimed under so many seeds: at 4 the smallest exact p is 1/16 > 0.05."""

TOO_FEW = "too few seeds"

SEEDLESS = ("pca", "player")
"""Arms without randomness: noted once, they stand beside every seed."""

DIFFERENCE = ("pairs", "difference", "low", "high", "p_better", "p_worse", "verdict")
CORRECTED = ("p_better_bh", "p_worse_bh", "verdict_bh")
"""Columns of a test, and what a correction adds."""

Pairs = Float[np.ndarray, " pairs"]
Draws = Callable[[Mapping[str, Any]], np.random.Generator]


def draws_by(*columns: str) -> Draws:
    """Return draws that are named after what some columns of a row say."""

    def named(row: Mapping[str, Any]) -> np.random.Generator:
        names = [row[name] if name == "checkpoint" else str(row[name]) for name in columns]
        return generator(0, "interval", *names)

    return named


def paired(
    table: pd.DataFrame,
    value: str | Mapping[str, int],
    factor: str,
    baselines: Sequence[str] | Callable[[Any, list[Any]], Iterable[Any]],
    by: Sequence[str] = (),
    pair: Sequence[str] = ("seed",),
    family: Sequence[str] = ("against",),
    draws: Draws = lambda _: np.random.default_rng(0),
) -> pd.DataFrame:
    """Compare levels of a factor with baselines, pair by pair.

    Source: RMR, section 5 (one-sided paired Wilcoxon test). Differs: exact with ties and zeros,
    both directions, a correction for the number of tests.

    Args:
        table: One row a pair, level and part.
        value: Column that is compared, or several, each with 1 (more is better) or -1 (less is).
        factor: Column whose levels are compared, for instance "arm".
        baselines: What every level is compared with, or a function of the level and of all levels
            that returns this.
        by: Columns of the parts that are never compared with each other, for instance "game".
        pair: Columns that name a pair.
        family: Columns, of those that are returned, within which Benjamini and Hochberg's
            correction is made.
        draws: From the names of a row to where its bootstrap resamples come from.

    Returns:
        One row a part, level, baseline and score, levels as they come. Columns: those of ``by``
        and the factor, against, score; `DIFFERENCE` (first minus second, positive where the first
        is better; the 95% bootstrap interval of the mean; exact one-sided p; no verdict where the
        baseline is missing or the level itself); relative (mean improvement in per cent of the
        baseline, over pairs with one above 0); gaps (the differences behind it); `CORRECTED`.
    """
    signs = {value: 1} if isinstance(value, str) else value
    rows = []
    for names, block in parts(table, *by).items():
        wide: Any = block.pivot(index=[*pair], columns=factor, values=[*signs])
        levels = list(dict.fromkeys(block[factor]))
        for level in levels:
            chosen = baselines(level, levels) if callable(baselines) else baselines
            for against in chosen:
                for score, sign in signs.items():
                    name = dict(zip(by, names, strict=True))
                    name |= {factor: level, "against": against, "score": score}
                    rows.append(name | _compared(wide[score], level, against, sign, draws, name))
    columns = [*by, factor, "against", "score", *DIFFERENCE, "relative", "gaps"]
    return corrected(pd.DataFrame(rows, columns=columns), family)


def _compared(
    wide: pd.DataFrame, level: Any, against: Any, sign: int, draws: Draws, name: Mapping[str, Any]
) -> dict[str, Any]:
    if level == against or against not in wide:
        nothing: dict[str, Any] = dict.fromkeys((*DIFFERENCE, "relative"), np.nan)
        return nothing | {"pairs": 0, "verdict": "", "gaps": np.empty(0)}
    first, second = wide[level].dropna(), wide[against].dropna()
    if level in SEEDLESS and len(first) == 1:
        first = pd.Series(first.iloc[0], second.index)
    if against in SEEDLESS and len(second) == 1:
        second = pd.Series(second.iloc[0], first.index)
    gaps = (first - second).dropna()
    second = second[gaps.index]
    gains = (100 * gaps / second)[second > 0]
    signed = sign * gaps.to_numpy(float)
    more = {"relative": gains.mean() if len(gains) else np.nan, "gaps": signed}
    return paired_difference(signed, draws(name)) | more


def paired_difference(differences: Pairs, rng: np.random.Generator) -> dict[str, Any]:
    """Return `DIFFERENCE` of first minus second; NaN differences are dropped.

    Args:
        differences: One a pair.
        rng: For the bootstrap interval.
    """
    present = differences[~np.isnan(differences)]
    count, interval = len(present), bootstrap_interval(present, rng)
    mean = float(present.mean()) if count else float("nan")
    p_values = signed_rank_p(present, "greater"), signed_rank_p(present, "less")
    values = (count, mean, *interval, *p_values, verdict(*p_values, count))
    return dict(zip(DIFFERENCE, values, strict=True))


def signed_rank_p(differences: Pairs, alternative: str) -> float:
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
    relative = np.round(present / (np.abs(present).max() or 1.0), 12)
    relative = relative[relative != 0]
    doubled = np.rint(2 * rankdata(np.abs(relative))).astype(int)
    signed = relative if alternative == "greater" else -relative
    reached = int(doubled[signed > 0].sum())
    return float(min(1.0, _rank_sum_distribution(doubled)[reached:].sum()))


def _rank_sum_distribution(doubled_ranks: np.ndarray) -> np.ndarray:
    """Return P(W = w) for w = 0, 1, ..., where W adds each rank with probability 1/2."""
    probability = np.ones(1)
    for rank in doubled_ranks:
        nothing = np.zeros(rank)
        probability = 0.5 * (np.append(probability, nothing) + np.append(nothing, probability))
    return probability


def verdict(p_better: float, p_worse: float, pairs: int) -> str:
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
    values: Pairs, rng: np.random.Generator, resamples: int = 5000
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


def corrected(table: pd.DataFrame, family: Sequence[str]) -> pd.DataFrame:
    """Add p-values and verdicts after Benjamini-Hochberg over the rows with enough pairs.

    Source: Benjamini and Hochberg 1995.

    Args:
        table: With the columns of `DIFFERENCE`; each direction is corrected on its own.
        family: Columns within whose values it is corrected; none: over the whole table.
    """
    adjusted = pd.DataFrame(np.nan, table.index, CORRECTED[:2])
    for rows in parts(table, *family).values():
        for side in ("p_better", "p_worse"):
            p = rows[side].astype(float).where(rows["pairs"] >= MIN_PAIRS).dropna()
            adjusted.loc[p.index, f"{side}_bh"] = false_discovery_control(p) if len(p) else p
    tests = zip(adjusted["p_better_bh"], adjusted["p_worse_bh"], table["pairs"], strict=True)
    verdicts = [
        verdict(*test) if raw else "" for test, raw in zip(tests, table["verdict"], strict=True)
    ]
    return table.assign(**adjusted, verdict_bh=np.array(verdicts, object))


def means(
    table: pd.DataFrame, by: Sequence[str], scores: Sequence[str], counted: str | None = None
) -> pd.DataFrame:
    """Return one row a part, with means and sample deviations over the rows that have a number.

    Args:
        table: One row a seed.
        by: Columns of the parts.
        scores: Columns that are averaged.
        counted: Score whose numbers are counted as seeds; None counts the rows.

    Returns:
        Columns: by, seeds; ``<score>_mean`` and ``<score>_std`` (NaN under two) of each score.
    """
    columns = [f"{score}_{kind}" for score in scores for kind in ("mean", "std")]
    if table.empty:
        return pd.DataFrame(columns=[*by, "seeds", *columns])
    grouped = table.groupby([*by], sort=False, dropna=False)
    summary = grouped[[*scores]].agg(["mean", "std"])
    summary.columns = columns
    summary.insert(0, "seeds", grouped[counted].count() if counted else grouped.size())
    return summary.reset_index()
