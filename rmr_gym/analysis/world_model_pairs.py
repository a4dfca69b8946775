"""World models against baselines and what they ablate, a pretrained P inside against other P."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from rmr_gym.analysis.differences import with_corrected
from rmr_gym.analysis.run import values, where
from rmr_gym.analysis.statistics import paired_difference

BETTER = {"relative_bce": -1, "relative_rollout_bce": -1, "rollout_f1": 1, "ari_last": 1}
"""Scores that are compared, and whether more (1) or less (-1) of them is better."""

PAIR_ROW = (
    "model", "against", "score", "pairs", "improvement", "low", "high", "p_better", "p_worse",
    "verdict", "p_better_bh", "p_worse_bh", "verdict_bh",
)  # fmt: skip

BASELINES = {
    "rnem": ("rnnem", "rnn", "lstm", "memoryless"),
    "rnnem": ("rnn", "lstm", "memoryless"),
    "nem": ("rnn", "lstm", "memoryless"),
    "rnn": ("memoryless",),
    "lstm": ("memoryless",),
    "rims": ("rims_lstm", "memoryless"),
    "s2": ("crops_lstm", "crops_rims", "crops_rmc"),
    "crops": ("crops_lstm",),
}
"""What models are compared with, by how their names begin."""

ABLATED = {"rnem_no_attention": "rnem", "s2gru_": "s2gru"}
"""What something was left out of, by how the names of those that lack it begin."""

PRIVILEGED = ("crops_oracle",)
"""Models that are shown what they are asked about: references, compared with nothing."""

KNOWING = "_rmr"
BOOTSTRAP_SEED = 0


def paired_by(
    scores: pd.DataFrame, column: str, better: Mapping[str, int] = BETTER
) -> pd.DataFrame:
    """Return `paired_rows` of each value of a column, behind that column; each is corrected alone.

    Args:
        scores: As `paired_rows` takes them, and the column.
        column: What is never compared across, for instance "test".
        better: As `BETTER`.
    """
    found = [
        {column: value, **row}
        for value in dict.fromkeys(values(scores, column))
        for row in paired_rows(where(scores, **{column: value}), better).to_dict("records")
    ]
    return pd.DataFrame(found, columns=[column, *PAIR_ROW])


def paired_rows(scores: pd.DataFrame, better: Mapping[str, int] = BETTER) -> pd.DataFrame:
    """Compare every model with its `opponents`, seed by seed.

    Args:
        scores: Of one test set, a row a model and seed, with the columns "model" and "seed" and
            those of ``better``.
        better: As `BETTER`.

    Returns:
        The columns of `PAIR_ROW`. ``improvement`` is the mean by which the model is better,
        whichever sign that has in the score; p-values are those of the exact one-sided Wilcoxon
        tests, raw and after Benjamini-Hochberg over all rows. What one of the two has no score of
        is left out.
    """
    tables = {
        str(name): rows.set_index("seed") for name, rows in scores.groupby("model", sort=False)
    }
    rows = [
        row
        for name, model in tables.items()
        for other in opponents(name, [*tables])
        for row in _compared(model, tables[other], (name, other), better)
    ]
    if not rows:
        return pd.DataFrame(columns=list(PAIR_ROW))
    return pd.DataFrame(with_corrected(pd.DataFrame(rows), ""), columns=list(PAIR_ROW))


def opponents(model: str, models: Sequence[str]) -> list[str]:
    """Return what a model is compared with: what it ablates, then the baselines of its family.

    Args:
        model: Its name; where it ends in ``_rmr``, all of its family come after the baselines.
        models: What there is.
    """
    if model in PRIVILEGED:
        return []
    family = next((family for family in BASELINES if model.startswith(family)), "")
    named = [whole for part, whole in ABLATED.items() if model.startswith(part)]
    named += BASELINES.get(family, ())
    if model.endswith(KNOWING):
        inside = model.removesuffix(KNOWING)
        named += [other for other in models if f"{other}_".startswith(f"{inside}_")]
    return [other for other in dict.fromkeys(named) if other in models and other != model]


def _compared(
    model: pd.DataFrame, control: pd.DataFrame, pair: tuple[str, str], better: Mapping[str, int]
) -> list[dict[str, object]]:
    rows = []
    for score, sign in better.items():
        differences = sign * (model[score].astype(float) - control[score].astype(float))
        found = paired_difference(differences.dropna().to_numpy(), _bootstrap())
        if found.pairs:
            rows.append(
                {"model": pair[0], "against": pair[1], "score": score}
                | vars(found)
                | {"improvement": found.mean}
            )
    return rows


def _bootstrap() -> np.random.Generator:
    return np.random.default_rng(BOOTSTRAP_SEED)
