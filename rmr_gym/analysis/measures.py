"""Tables of the measures beside the bit probe: labels, and ranking of predictions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis.differences import DIFFERENCE_COLUMNS, means, with_corrected
from rmr_gym.analysis.run import ARM_LABELS, in_order, values, where
from rmr_gym.analysis.run_files import read_table
from rmr_gym.analysis.statistics import paired_difference
from rmr_gym.core.seeding import generator

ARMS = ARM_LABELS | {"player": "player that sees RAM"}
"""Arms in the order of the tables."""

ALL_LABELS = "all_labels"
"""Category of the mean over all labels of a game."""

BASELINES = ("cswm", "shuffled_p", "untrained")
"""What the other arms are compared to."""

_RUN = ("game", "objective", "arm", "seed", "step")
KEYS = {"labels": (*_RUN, "category", "label"), "ranking": (*_RUN, "ahead")}
"""Columns that name a row of each table."""

PARTS = {"labels": "category", "ranking": "ahead"}
"""What the scores of each table are apart by, beside game and arm."""

SCORES = {
    "labels": ("macro_f1", "weighted_f1", "accuracy"),
    "ranking": ("mrr", "hits_at_1", "tied"),
}
"""Scores of each table; arms are compared by the first."""


def read_measures(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the means of all labels of a game and category, and the ranks, one row an arm.

    Raises:
        RMRError: A table is damaged.
    """
    tables = {}
    for name, key in KEYS.items():
        columns = (*key, *SCORES[name])
        tables[name] = pd.DataFrame(read_table(folder / f"{name}.csv", columns, key)[[*columns]])
    labels = tables["labels"]
    tables["labels"] = where(labels, label="average").drop(columns="label")
    return tables


def measure_table(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return means over seeds at the last checkpoint, and paired differences to the baselines.

    Args:
        rows: As `read_measures` gives them.
        name: "labels" or "ranking".

    Returns:
        One row a game, objective, category (or ``ahead``) and arm. Columns: these, label (of the
        arm), step, seeds; ``_mean`` and ``_std`` of each of `SCORES`; and for each of `BASELINES`
        the columns of `rmr_gym.analysis.differences.DIFFERENCE_COLUMNS`, before and after
        Benjamini-Hochberg over the games of one category (or ``ahead``).
    """
    part = PARTS[name]
    compared = [f"{baseline}_{column}" for baseline in BASELINES for column in DIFFERENCE_COLUMNS]
    scored = [f"{score}_{kind}" for score in SCORES[name] for kind in ("mean", "std")]
    columns = ["game", "objective", part, "arm", "label", "step", "seeds", *scored, *compared]
    corrected = []
    for value in dict.fromkeys(values(rows, part)):
        found = pd.DataFrame(list(_lines(where(rows, **{part: value}), name)), columns=columns)
        for baseline in BASELINES:
            found = with_corrected(found, f"{baseline}_")
        corrected.append(found)
    return pd.concat(corrected, ignore_index=True) if corrected else pd.DataFrame(columns=columns)


def last_step(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each arm's last checkpoint, game by game."""
    latest = rows.groupby(["game", "objective", "arm"])["step"].transform("max")
    return pd.DataFrame(rows[rows["step"] == latest])


def _lines(rows: pd.DataFrame, name: str) -> Iterable[dict[str, Any]]:
    rows, part, score = last_step(rows), PARTS[name], SCORES[name][0]
    for game, objective in dict.fromkeys(
        zip(values(rows, "game"), values(rows, "objective"), strict=True)
    ):
        here = where(rows, game=game, objective=objective)
        arms = {arm: where(here, arm=arm) for arm in in_order(values(here, "arm"), ARMS)}
        for arm, of_arm in arms.items():
            yield {
                "game": game,
                "objective": objective,
                part: values(of_arm, part)[0],
                "arm": arm,
                "label": ARMS.get(arm, arm),
                "step": int(values(of_arm, "step")[0]),
                "seeds": len(of_arm),
                **means(of_arm, SCORES[name]),
                **_compared(arms, arm, score, (game, objective, values(of_arm, part)[0])),
            }


def _compared(
    arms: dict[str, pd.DataFrame], arm: str, score: str, names: tuple[Any, ...]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for baseline in BASELINES:
        there = baseline in arms and baseline != arm
        differences = _by_seed(arms[arm], arms[baseline], score) if there else np.empty(0)
        rng = generator(0, "interval", *map(str, (*names, arm, baseline)))
        result = paired_difference(differences, rng)
        told = vars(result) | {"difference": result.mean}
        if not there:
            told["verdict"] = ""
        found |= {f"{baseline}_{column}": told[column] for column in DIFFERENCE_COLUMNS}
    return found


def _by_seed(first: pd.DataFrame, second: pd.DataFrame, score: str) -> np.ndarray:
    """Return differences by seed; an arm that was measured once stands beside every seed."""
    scores = [
        dict(zip(values(each, "seed"), values(each, score), strict=True))
        for each in (first, second)
    ]
    if len(scores[0]) == 1:
        scores[0] = dict.fromkeys(scores[1], next(iter(scores[0].values())))
    return np.array(
        [scores[0][seed] - scores[1][seed] for seed in scores[1] if seed in scores[0]], float
    )
