"""What the pages of world models share: paired differences as a table, and notes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rmr_gym.analysis import html, text
from rmr_gym.analysis.html import Entry, Group, Row
from rmr_gym.analysis.run import blocks
from rmr_gym.analysis.sections import verdict_entry
from rmr_gym.analysis.statistics import MIN_PAIRS

VALIDATION = (
    "The episodes of 'validation' were not trained on, but they decided when training ended and "
    "which weights were kept; R-NEM has a test set apart, S2RM has none of as many balls. For a "
    "claim, score on a test set that was recorded with another seed."
)
SHARED = (
    "With one seed, all models of whole frames see the same batches, and so do all models of "
    "crops. Noise is not the same for all: models with one group draw other flips than models with "
    "several, and in training crops_rims, whose dropout draws too, looks at other places than the "
    "other models of crops; when they are scored, all of these look at the same places."
)
PAIRED = (
    "Differences are paired by seed and positive where the model is better, with a 95% bootstrap "
    "interval of their mean; p is exact, of one-sided Wilcoxon signed-rank tests in both "
    "directions; the corrected verdict is after Benjamini-Hochberg. 'same' is no proof of "
    f"equality, and under {MIN_PAIRS} paired seeds no significance is claimed."
)
"""How to read what is paired."""


def spoken_verdict(row: Mapping[Any, Any]) -> str:
    """Return the verdict of a row of `paired_by`, and whether correction takes it back."""
    if row["verdict"] in ("better", "worse") and row["verdict_bh"] != row["verdict"]:
        return f"{row['verdict']}, not after correction"
    return row["verdict"]


def pairs_section(
    pairs: pd.DataFrame,
    column: str,
    scores: Mapping[str, str],
    named: Mapping[str, str] | None = None,
) -> str:
    """Return the rows of `paired_by` as a table; nothing where there are none.

    Args:
        pairs: The rows.
        column: Which heads groups of rows.
        scores: What scores are called.
        named: What the values of the column are called, where that is something else.
    """
    header = (
        *("model", "against", "score", "pairs", "better by", "95% interval"),
        *("p better", "p worse", "verdict", "corrected verdict"),
    )
    shown: list[Row] = []
    for (value,), rows in blocks(pairs, column).items():
        shown.append(Group(named[value] if named else value))
        shown += [
            [
                row["model"],
                row["against"],
                scores[row["score"]],
                str(row["pairs"]),
                text.signed(row["improvement"]),
                Entry(text.interval(row["low"], row["high"]), "quiet"),
                text.p_value(row["p_better"]),
                text.p_value(row["p_worse"]),
                verdict_entry(row["verdict"]),
                verdict_entry(row["verdict_bh"]),
            ]
            for row in rows
        ]
    caption = "Paired by seed; positive where the model is better, whichever sign the score has"
    return html.table(header, shown, caption) if shown else ""
