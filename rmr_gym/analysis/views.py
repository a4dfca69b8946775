"""Scores of models of crops read back: what varies, means over seeds, what less sight costs."""

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis.differences import means
from rmr_gym.analysis.run import blocks, values, where
from rmr_gym.analysis.run_files import read_table

QUESTIONS = {"balls": "balls", "views": "crops that are seen", "dropped": "modules taken out"}
"""What varies, and what it is called; where one does, the other two stay as in training."""

SCORES = {"f1": "F1", "balanced_accuracy": "balanced accuracy"}
"""Scores in the order of the tables, and what they are called there."""

CONDITION = ("test", "balls", "views", "dropped")
KEY = ("model", "seed", "test", "views", "dropped")
COST_ROW = (
    "question",
    "model",
    "seeds",
    "usual",
    "hardest",
    "f1",
    "f1_hardest",
    "drop",
    "relative",
)


def read_views(folder: Path) -> pd.DataFrame:
    """Read the scores of a run of `rmr-gym world-model views`; empty where there are none.

    Raises:
        RMRError: The table is damaged.
    """
    return read_table(folder / "views.csv", (*KEY, "balls", *SCORES), KEY)


def varied(table: pd.DataFrame, trained_on: int | None) -> dict[str, pd.DataFrame]:
    """Return the rows in which one thing varies, by its name in `QUESTIONS`; none where none does.

    Args:
        table: As `read_views` gives it.
        trained_on: Balls in training; None where the number of balls is not known.
    """
    usual = {"balls": trained_on, "views": table["views"].max(), "dropped": 0}
    parts = {}
    for name in QUESTIONS:
        others = [other for other in usual if other != name and usual[other] is not None]
        rows = np.all([values(table, other) == usual[other] for other in others], axis=0)
        part = pd.DataFrame(table[rows])
        if len(_places(part, name)) > 1:
            parts[name] = part
    return parts


def view_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds, one row a condition and model.

    Columns: those of `CONDITION`, model, seeds, and ``_mean`` and ``_std`` of each of `SCORES`.
    """
    columns = [*CONDITION, "model", "seeds"]
    columns += [f"{score}_{kind}" for score in SCORES for kind in ("mean", "std")]
    rows = []
    for names, block in blocks(table.fillna({"balls": -1}), *CONDITION, "model").items():
        row = dict(zip((*CONDITION, "model"), names, strict=True))
        row["balls"] = np.nan if row["balls"] < 0 else row["balls"]
        rows.append({**row, "seeds": len(block), **means(pd.DataFrame(block), tuple(SCORES))})
    return pd.DataFrame(rows, columns=columns)


def costs(table: pd.DataFrame, trained_on: int | None) -> pd.DataFrame:
    """Return what F1 loses from training's condition to the hardest one.

    The hardest are most balls, fewest crops, most modules taken out.

    Args:
        table: As `read_views` gives it.
        trained_on: Balls in training; None where the number of balls is not known.

    Returns:
        A row a question and model, with the columns of `COST_ROW`: means over the seeds that have
        both scores, their difference ``drop``, and ``relative``, the drop over the score in
        training's condition.
    """
    rows = []
    for name, part in varied(table, trained_on).items():
        found = _places(part, name)
        ends = {
            "balls": (trained_on, found[-1]),
            "views": (found[-1], found[0]),
            "dropped": (0, found[-1]),
        }[name]
        if ends[0] is not None and ends[0] != ends[1]:
            rows += list(_costs(name, part, float(ends[0]), float(ends[1])))
    return pd.DataFrame(rows, columns=list(COST_ROW))


def _places(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return the distinct numbers in a column, in order."""
    found = np.unique(values(rows, column).astype(float))
    return found[~np.isnan(found)]


def _costs(
    question: str, part: pd.DataFrame, usual: float, hardest: float
) -> Iterator[dict[str, Any]]:
    for model in dict.fromkeys(values(part, "model")):
        first, last = (
            _by_seed(where(part, **{question: place}, model=model)) for place in (usual, hardest)
        )
        both = [seed for seed in first if seed in last]
        if both:
            before, after = (fmean(each[seed] for seed in both) for each in (first, last))
            lost = before - after, (before - after) / before if before else math.nan
            named = (question, model, len(both), usual, hardest, before, after, *lost)
            yield dict(zip(COST_ROW, named, strict=True))


def _by_seed(rows: pd.DataFrame) -> dict[int, float]:
    """Return the mean F1 of each seed that has one."""
    return {
        seed: fmean(row["f1"] for row in block)
        for (seed,), block in blocks(rows.dropna(subset="f1"), "seed").items()
    }
