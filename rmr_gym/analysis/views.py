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
from rmr_gym.analysis.world_model_pairs import paired_by

QUESTIONS = {"balls": "balls", "views": "crops that are seen", "dropped": "modules taken out"}
"""What varies, and what it is called; where one does, the other two stay as in training."""

SCORES = {"f1": "F1", "balanced_accuracy": "balanced accuracy"}
"""Scores in the order of the tables, and what they are called there."""

DROPS = {"relative": "relative drop of F1"}
"""What is paired by seed, and what it is called there; less of it is better."""

HELD_OUT = "validation"
"""What the validation episodes of the training data are called among test sets."""

CONDITION = ("test", "balls", "views", "dropped")
KEY = ("model", "seed", "test", "views", "dropped")
LOSS_ROW = ("question", "model", "seed", "usual", "hardest", "f1", "f1_hardest")
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

    A further test set with as many balls as in training stands for the validation episodes.

    Args:
        table: As `read_views` gives it.
        trained_on: Balls in training; None where the number of balls is not known.
    """
    held_out = values(table, "test") == HELD_OUT
    if (values(table, "balls")[~held_out] == trained_on).any():
        table = pd.DataFrame(table[~held_out])
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
    for (question, model), block in blocks(losses(table, trained_on), "question", "model").items():
        before, after = (fmean(row[name] for row in block) for name in ("f1", "f1_hardest"))
        lost = before - after, (before - after) / before if before else math.nan
        ends = block[0]["usual"], block[0]["hardest"]
        named = (question, model, len(block), *ends, before, after, *lost)
        rows.append(dict(zip(COST_ROW, named, strict=True)))
    return pd.DataFrame(rows, columns=list(COST_ROW))


def cost_pairs(table: pd.DataFrame, trained_on: int | None) -> pd.DataFrame:
    """Return how much less of its F1 each model loses than what it is compared with, by seed.

    Args:
        table: As `read_views` gives it.
        trained_on: Balls in training; None where the number of balls is not known.

    Returns:
        The rows of `paired_by` for each question; a seed's drop is relative to its own F1 in
        training's condition.
    """
    lost = losses(table, trained_on)
    before, after = lost["f1"].astype(float), lost["f1_hardest"].astype(float)
    relative = (before - after) / before.where(before != 0)
    return paired_by(lost.assign(relative=relative), "question", dict.fromkeys(DROPS, -1))


def losses(table: pd.DataFrame, trained_on: int | None) -> pd.DataFrame:
    """Return F1 in training's condition and in the hardest, of each model and seed that has both.

    Args:
        table: As `read_views` gives it.
        trained_on: Balls in training; None where the number of balls is not known.

    Returns:
        A row a question, model and seed, with the columns of `LOSS_ROW`.
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
            rows += list(_losses(name, part, float(ends[0]), float(ends[1])))
    return pd.DataFrame(rows, columns=list(LOSS_ROW))


def _places(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return the distinct numbers in a column, in order."""
    found = np.unique(values(rows, column).astype(float))
    return found[~np.isnan(found)]


def _losses(
    question: str, part: pd.DataFrame, usual: float, hardest: float
) -> Iterator[dict[str, Any]]:
    for model in dict.fromkeys(values(part, "model")):
        first, last = (
            _by_seed(where(part, **{question: place}, model=model)) for place in (usual, hardest)
        )
        for seed in [seed for seed in first if seed in last]:
            named = (question, model, seed, usual, hardest, first[seed], last[seed])
            yield dict(zip(LOSS_ROW, named, strict=True))


def _by_seed(rows: pd.DataFrame) -> dict[int, float]:
    """Return the mean F1 of each seed that has one."""
    return {
        seed: fmean(row["f1"] for row in block)
        for (seed,), block in blocks(rows.dropna(subset="f1"), "seed").items()
    }
