"""A transfer matrix in sum: verdicts counted, and kinds of donors tested across recipients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis.cells import trained_steps
from rmr_gym.analysis.differences import DIFFERENCE_COLUMNS
from rmr_gym.analysis.run import blocks, where
from rmr_gym.analysis.statistics import TOO_FEW, paired_difference
from rmr_gym.analysis.tables import headline_probe
from rmr_gym.analysis.transfer import OTHER_P, OWN_P, Matrix, baselines, transfer_table
from rmr_gym.analysis.transfer_order import ranking_table
from rmr_gym.core.seeding import generator

ALL_PAIRS = "all pairs of games"


@dataclass(frozen=True, eq=False)
class TransferSummary:
    """All tables of a transfer run.

    Attributes:
        cells: `transfer_table` against every one of `baselines`.
        overview: `overview_table` of it.
        ranking: `rmr_gym.analysis.transfer_order.ranking_table` of what is against C-SWM.
        robustness: `overview_table` against C-SWM for every probe and checkpoint.
    """

    cells: pd.DataFrame
    overview: pd.DataFrame
    ranking: pd.DataFrame
    robustness: pd.DataFrame


def summarise_transfer(matrix: Matrix) -> TransferSummary:
    """Compute all tables of a transfer run, the headline under its headline probe."""
    probe = headline_probe(matrix.run)
    parts = [transfer_table(matrix, probe, against=against) for against in baselines(matrix)]
    cells = pd.concat(parts, ignore_index=True) if parts else transfer_table(matrix, probe)
    return TransferSummary(
        cells=cells,
        overview=overview_table(cells),
        ranking=ranking_table(where(cells, against="cswm")),
        robustness=_robustness(matrix),
    )


def _robustness(matrix: Matrix) -> pd.DataFrame:
    parts = [
        overview_table(transfer_table(matrix, probe, step)).assign(checkpoint=step)
        for probe in matrix.run.probes
        for step in trained_steps(where(matrix.run.natural, probe=probe))
    ]
    empty = pd.DataFrame(columns=[*_OVERVIEW_COLUMNS, "checkpoint"])
    return pd.concat(parts, ignore_index=True) if parts else empty


def overview_table(table: pd.DataFrame) -> pd.DataFrame:
    """Count the verdicts of a `transfer_table`, and test each kind of donor across recipients.

    The test takes one value a recipient, the mean of its cells' differences, so that it speaks
    of other games as well and not of these seeds alone.

    Returns:
        One row an objective, a baseline and a scope (`ALL_PAIRS` as the paper counts, `OWN_P`,
        `OTHER_P`, each donor that is no game, each control), where a cell has a pair. Columns:
        objective, probe, against, scope, cells (expected), compared, better, same, worse, too_few
        (cells with fewer than 5 pairs), better_bh, same_bh, worse_bh, relative (mean of the
        compared cells, per cent), recipients, above (recipients with a mean above 0),
        difference, low, high, p_better, p_worse, verdict (of the test across recipients).
    """
    rows = []
    for (objective, against), block in blocks(table, "objective", "against").items():
        for scope, inside in _scopes(block).items():
            compared = [row for row in inside if row["pairs"]]
            if compared:
                names = {"objective": objective, "probe": block[0]["probe"], "against": against}
                counted = _counted(compared)
                rows.append(
                    names
                    | {"scope": scope, "cells": len(inside), "compared": len(compared)}
                    | counted
                    | _across_recipients(compared, (*names.values(), scope))
                )
    return pd.DataFrame(rows, columns=_OVERVIEW_COLUMNS)


def _scopes(block: list[dict[Any, Any]]) -> dict[str, list[dict[Any, Any]]]:
    games = [row for row in block if row["role"] == "game"]
    scopes = {
        ALL_PAIRS: games,
        OWN_P: [row for row in games if row["own"]],
        OTHER_P: [row for row in games if not row["own"]],
    }
    for row in block:
        if row["role"] != "game":
            scopes.setdefault(row["label"], []).append(row)
    return scopes


def _counted(compared: list[dict[Any, Any]]) -> dict[str, Any]:
    raw = [row["verdict"] for row in compared]
    corrected = [row["verdict_bh"] for row in compared]
    relative = [row["relative"] for row in compared if not np.isnan(row["relative"])]
    words = ("better", "same", "worse")
    return {
        **{word: raw.count(word) for word in words},
        "too_few": raw.count(TOO_FEW),
        **{f"{word}_bh": corrected.count(word) for word in words},
        "relative": float(np.mean(relative)) if relative else np.nan,
    }


def _across_recipients(compared: list[dict[Any, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    by_recipient: dict[str, list[float]] = {}
    for row in compared:
        by_recipient.setdefault(row["recipient"], []).append(row["difference"])
    means = np.array([np.mean(found) for found in by_recipient.values()], float)
    result = paired_difference(means, generator(0, "across recipients", *names))
    found = vars(result) | {"difference": result.mean}
    return {
        "recipients": result.pairs,
        "above": int((means > 0).sum()),
        **{name: found[name] for name in DIFFERENCE_COLUMNS[1:]},
    }


_OVERVIEW_COLUMNS = [
    *("objective", "probe", "against", "scope", "cells", "compared"),
    *("better", "same", "worse", "too_few", "better_bh", "same_bh", "worse_bh", "relative"),
    *("recipients", "above"),
    *DIFFERENCE_COLUMNS[1:],
]
