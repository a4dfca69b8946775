"""Scores of world models read back: means over seeds, and pairs by seed, test set by test set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from rmr_gym.analysis.differences import means
from rmr_gym.analysis.run import blocks, values, where
from rmr_gym.analysis.run_files import read_table
from rmr_gym.analysis.world_model_pairs import paired_by

SCORES = {
    "bce": "BCE",
    "relative_bce": "relative BCE",
    "relative_relational_bce": "relative relational BCE",
    "relative_rollout_bce": "relative simulated BCE",
    "rollout_f1": "simulated F1",
    "ari": "ARI",
    "ari_last": "ARI of the last frames",
}
"""Scores in the order of the tables, and what they are called there."""

KEYS = {
    "world_models": ("test", "model", "seed"),
    "simulations": ("test", "model", "seed", "frame"),
    "world_model_curves": ("model", "seed", "step"),
}
"""Columns that name a row of each table."""

COLUMNS = {
    "world_models": ("balls", "groups", *SCORES),
    "simulations": ("bce", "copied", "f1", "f1_copied"),
    "world_model_curves": ("validation_loss",),
}
"""Further columns that are read of each table."""


def read_world_models(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the tables of a run of `rmr-gym world-model evaluate`; what is missing is empty.

    Raises:
        RMRError: A table is damaged.
    """
    return {
        name: read_table(folder / f"{name}.csv", (*key, *COLUMNS[name]), key)
        for name, key in KEYS.items()
    }


def names(rows: pd.DataFrame, column: str) -> list[str]:
    """Return the names in a column, in the order in which they come."""
    return [str(name) for name in dict.fromkeys(values(rows, column))]


def score_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds.

    Args:
        rows: Of ``world_models.csv``.

    Returns:
        One row a test set and model, with the number of balls, of groups while scoring and of
        seeds, and ``_mean`` and ``_std`` of each of `SCORES`.
    """
    scored = [f"{score}_{kind}" for score in SCORES for kind in ("mean", "std")]
    columns = ["test", "balls", "model", "groups", "seeds", *scored]
    return pd.DataFrame(list(_means(rows)), columns=columns)


def _means(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for (test, model), block in blocks(rows, "test", "model").items():
        yield {
            "test": test,
            "balls": block[0]["balls"],
            "model": model,
            "groups": block[0]["groups"],
            "seeds": len(block),
            **means(where(rows, test=test, model=model), tuple(SCORES)),
        }


def pair_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what is compared on each test set, see `paired_by`; each is corrected on its own."""
    return paired_by(rows, "test")
