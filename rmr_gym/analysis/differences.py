"""Paired differences and means over seeds as columns of a table."""

from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis.cells import Cell
from rmr_gym.analysis.run import values
from rmr_gym.analysis.statistics import MIN_PAIRS, benjamini_hochberg, verdict

DIFFERENCE_COLUMNS = ("pairs", "difference", "low", "high", "p_better", "p_worse", "verdict")


def difference_columns(cell: Cell, arm: str, baseline: str, prefix: str) -> dict[str, Any]:
    """Return `DIFFERENCE_COLUMNS` of micro F1; no verdict where there is nothing to compare.

    Args:
        cell: Where the scores stand.
        arm: First arm of the difference.
        baseline: Second arm.
        prefix: Before the names of the columns.
    """
    result = cell.difference(arm, baseline)
    found = vars(result) | {"difference": result.mean}
    if arm == baseline or baseline not in cell.arms:
        found["verdict"] = ""
    return {f"{prefix}{name}": found[name] for name in DIFFERENCE_COLUMNS}


def with_corrected(table: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """Add p-values and verdicts after Benjamini-Hochberg over the rows with enough pairs.

    Args:
        table: With the columns of `difference_columns`; each direction is corrected on its own.
        prefix: Before the names of these columns.
    """
    enough = table[f"{prefix}pairs"].to_numpy(float) >= MIN_PAIRS
    corrected = {}
    for direction in ("p_better", "p_worse"):
        raw = table[f"{prefix}{direction}"].to_numpy(float)
        corrected[direction] = benjamini_hochberg(np.where(enough, raw, np.nan))
    raw_verdicts, pairs = table[f"{prefix}verdict"], table[f"{prefix}pairs"]
    verdicts = [
        verdict(better, worse, int(count)) if raw else ""
        for better, worse, count, raw in zip(*corrected.values(), pairs, raw_verdicts, strict=True)
    ]
    columns = {f"{prefix}{name}_bh": values for name, values in corrected.items()}
    return table.assign(**columns, **{f"{prefix}verdict_bh": verdicts})


def means(frame: pd.DataFrame, metrics: tuple[str, ...]) -> dict[str, float]:
    """Mean and sample deviation over the seeds that have a number; NaN where there are too few."""
    found = {}
    for metric in metrics:
        scores = values(frame, metric)
        scores = scores[~np.isnan(scores)]
        found[f"{metric}_mean"] = float(scores.mean()) if len(scores) else np.nan
        found[f"{metric}_std"] = float(scores.std(ddof=1)) if len(scores) > 1 else np.nan
    return found
