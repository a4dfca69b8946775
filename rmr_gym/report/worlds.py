"""What pages of world models share: who is compared with whom, and losses along training."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report.charts import Panel, lines, over_seeds, own_names
from rmr_gym.report.runs import Schema, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, paired

CURVES = {"world_model_curves": Schema(("model", "seed", "step"), ("validation_loss",))}

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


def model_pairs(scores: pd.DataFrame, column: str, better: Mapping[str, int]) -> pd.DataFrame:
    """Compare every model with its `opponents`, seed by seed.

    Args:
        scores: A row a model and seed, with the columns "model" and "seed", those of ``better``
            and the column.
        column: What is never compared across, for instance "test"; each value is corrected alone.
        better: Scores that are compared, and whether more (1) or less (-1) of them is better.

    Returns:
        One row a value of the column, model, opponent and score that both have. Columns: these
        (the opponent as "against"), pairs, improvement (the mean by which the model is better,
        whichever sign that has in the score), low, high, p_better, p_worse, verdict, and after
        Benjamini-Hochberg p_better_bh, p_worse_bh, verdict_bh.
    """
    tests = paired(scores, better, "model", opponents, (column,), family=(column,))
    columns = [column, "model", "against", "score", *DIFFERENCE, *CORRECTED]
    tests = pd.DataFrame(where(tests, tests["pairs"] > 0), columns=columns)
    return tests.rename(columns={"difference": "improvement"}).reset_index(drop=True)


def validation_curves(rows: pd.DataFrame) -> Figure:
    """Draw the loss on validation sequences along training.

    Args:
        rows: Of ``world_model_curves.csv``.

    Raises:
        RMRError: There are none.
    """
    labels = own_names(rows)
    drawn = over_seeds(rows, "step", "validation_loss", "model", labels, marker=None)
    panel = Panel("validation loss", drawn, "step", "nats a frame", log=8.0)
    return lines([panel], file="world_model_curves.csv")
