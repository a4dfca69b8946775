"""A pretrained P inside world models against other P and against none, paired by seed."""

import numpy as np
import pandas as pd

from rmr_gym.analysis.differences import with_corrected
from rmr_gym.analysis.statistics import paired_difference

BETTER = {"relative_bce": -1, "relative_rollout_bce": -1, "ari_last": 1}
"""Scores that are compared, and whether more (1) or less (-1) of them is better."""

PAIR_ROW = (
    "model", "against", "score", "pairs", "improvement", "low", "high", "p_better", "p_worse",
    "verdict", "p_better_bh", "p_worse_bh", "verdict_bh",
)  # fmt: skip
KNOWING = "_rmr"
BOOTSTRAP_SEED = 0


def paired_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare every model with a pretrained P inside with its family, seed by seed.

    Args:
        scores: A row a model and seed, with the columns "model" and "seed" and those of `BETTER`.

    Returns:
        The columns of `PAIR_ROW`. ``improvement`` is the mean by which the model with the
        pretrained P is better, whichever sign that has in the score; p-values are those of the
        exact one-sided Wilcoxon tests, raw and after Benjamini-Hochberg over all rows. Empty where
        there is no such model, or nothing beside it.
    """
    tables = {name: rows.set_index("seed") for name, rows in scores.groupby("model", sort=False)}
    rows = []
    for name, known in tables.items():
        if not str(name).endswith(KNOWING):
            continue
        family = str(name).removesuffix(KNOWING)
        for other, control in tables.items():
            if other != name and (other == family or str(other).startswith(f"{family}_")):
                rows += _compared(known, control, str(name), str(other))
    if not rows:
        return pd.DataFrame(columns=list(PAIR_ROW))
    return pd.DataFrame(with_corrected(pd.DataFrame(rows), ""), columns=list(PAIR_ROW))


def _compared(
    known: pd.DataFrame, control: pd.DataFrame, name: str, other: str
) -> list[dict[str, object]]:
    rows = []
    for score, sign in BETTER.items():
        differences = sign * (known[score].astype(float) - control[score].astype(float))
        found = paired_difference(differences.dropna().to_numpy(), _bootstrap())
        rows.append(
            {"model": name, "against": other, "score": score}
            | vars(found)
            | {"improvement": found.mean}
        )
    return rows


def _bootstrap() -> np.random.Generator:
    return np.random.default_rng(BOOTSTRAP_SEED)
