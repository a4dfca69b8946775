"""What the arms of a model of pixels say about each other, where they may say anything."""

from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis.run import blocks
from rmr_gym.analysis.statistics import signed_rank_p
from rmr_gym.core.errors import RMRError

REFERENCE, WARM_START = "baseline", "warm_start"
ERRORS = ("mse", "rollout_mse")
POINT = ("core", "dim")
"""Columns of a bottleneck sweep; arms are compared within one point of it."""


def worse_than_copy(table: pd.DataFrame) -> list[str]:
    """Return the arms and seeds whose frames are no better than the last frame seen.

    While there is one, no ratio between arms means anything.

    Args:
        table: ``arm``, ``seed``, ``ratio_to_copy`` and, of a sweep, ``core`` and ``dim``.
    """
    worse = _arms(table).query("not ratio_to_copy < 1")
    point = [name for name in POINT if name in worse]
    return [
        " ".join([*(f"{name} {row[name]}" for name in point), f"{row['arm']} seed {row['seed']}"])
        for row in worse.to_dict("records")
    ]


def ratio_table(table: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """Return, for each arm, its errors over those of the reference with the same seed.

    Args:
        table: ``arm``, ``seed``, ``mse``, ``ratio_to_copy`` and, where they are known,
            ``rollout_mse``, ``core``, ``dim``.
        reference: The arm to compare with.

    Returns:
        Rows ``core``, ``dim`` (of a sweep), ``error``, ``arm``, ``seeds``, ``ratio`` (geometric
        mean over seeds), ``lowest``, ``highest``, and the exact one-sided p of Wilcoxon's
        signed-rank test on the logarithms for lower errors (``p_better``) and for higher ones.

    Raises:
        RMRError: An arm is no better than copying the last frame; see `worse_than_copy`.
    """
    if worse := worse_than_copy(table):
        raise RMRError(
            f"no ratio between arms means anything while {worse[0]} is no better than copying the "
            "last frame: train longer or take a simpler world"
        )
    point = [name for name in POINT if name in table]
    names = [name for name in ERRORS if name in table]
    rows = []
    for values, group in blocks(_arms(table), *point).items():
        label = dict(zip(point, values, strict=True))
        for error in names:
            logs = _log_ratios(group, error, reference)
            rows += [
                label | {"error": error, "arm": arm} | _summary(np.array(found))
                for arm, found in logs.items()
            ]
    return pd.DataFrame(rows)


def _arms(table: pd.DataFrame) -> pd.DataFrame:
    return table.query("arm != @WARM_START")


def _log_ratios(rows: list[dict[Any, Any]], error: str, reference: str) -> dict[str, list[float]]:
    """Return the logarithms of an arm's errors over the reference's, where both have a seed."""
    errors = {(row["arm"], row["seed"]): float(row[error]) for row in rows}
    found: dict[str, list[float]] = {}
    for (arm, seed), value in errors.items():
        ratio = value / errors.get((reference, seed), np.nan)
        if arm != reference and not np.isnan(ratio):
            found.setdefault(arm, []).append(float(np.log(ratio)))
    return found


def _summary(logs: np.ndarray) -> dict[str, float | int]:
    ratios = np.exp(logs)
    return {
        "seeds": len(logs),
        "ratio": float(np.exp(logs.mean())),
        "lowest": float(ratios.min()),
        "highest": float(ratios.max()),
        "p_better": signed_rank_p(logs, "less"),
        "p_worse": signed_rank_p(logs, "greater"),
    }
