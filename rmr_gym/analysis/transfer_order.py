"""Order in a transfer matrix: complete-link clusters, and rankings of donors and recipients."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from rmr_gym.analysis.run import blocks, values, where
from rmr_gym.analysis.statistics import bootstrap_interval
from rmr_gym.core.seeding import generator


@dataclass(frozen=True, eq=False)
class Clusters:
    """A complete-link clustering.

    Attributes:
        order: Positions of the items from one end of the tree to the other.
        links: As scipy.cluster.hierarchy has it; None under two items.
    """

    order: list[int]
    links: Float[np.ndarray, "merges 4"] | None


def improvements(
    table: pd.DataFrame, recipients: list[str], sources: list[str]
) -> Float[np.ndarray, "sources recipients"]:
    """Return the mean relative improvement in per cent of each cell; NaN where there is none.

    Args:
        table: Rows of one objective and baseline of `rmr_gym.analysis.transfer.transfer_table`.
        recipients: The columns.
        sources: The rows: donors, or arms of controls.
    """
    wide = table.pivot_table(index="source", columns="recipient", values="relative", sort=False)
    return wide.reindex(index=sources, columns=recipients).to_numpy(float)


def complete_link(rows: Float[np.ndarray, "items features"]) -> Clusters:
    """Cluster rows by complete linkage of their Euclidean distances.

    A distance is taken over the columns that both rows have, scaled up to all of them; rows
    without a common column are put as far apart as the farthest that have one.

    Source: RMR, section 5 (complete-link clustering of the transfer matrix). Differs: the paper
    names no distance; missing cells.
    """
    if len(rows) < 2:
        return Clusters(list(range(len(rows))), None)
    present = ~np.isnan(rows)
    shared = (present[:, None] & present[None]).sum(-1)
    squared = np.nansum((rows[:, None] - rows[None]) ** 2, axis=-1)
    distance = np.sqrt(squared * rows.shape[1] / np.maximum(shared, 1))
    distance = np.where(shared > 0, distance, distance.max())
    np.fill_diagonal(distance, 0)
    links = linkage(squareform(distance, checks=False), "complete", optimal_ordering=True)
    return Clusters([int(leaf) for leaf in leaves_list(links)], links)


def ranking_table(table: pd.DataFrame) -> pd.DataFrame:
    """Rank donors by what they give and recipients by what they gain from other games' P.

    A donor never gives to itself here, and cells can be missing; so a donor's plain mean depends
    on which recipients it has. The rank is by a mean adjusted for that: the relative improvement
    is split by least squares into a part of the donor and a part of the recipient.

    Args:
        table: A `rmr_gym.analysis.transfer.transfer_table`.

    Returns:
        One row an objective, role ("donor", "recipient") and name, the highest first. Columns:
        objective, against, role, name, is_game, cells (compared), relative (plain mean, per
        cent), adjusted, low, high (95% bootstrap interval of the adjusted mean over cells; NaN
        under two), better, same, worse, better_bh, worse_bh.
    """
    rows = []
    for (objective, against), _ in blocks(table, "objective", "against").items():
        part = where(table, objective=objective, against=against)
        for role in ("donor", "recipient"):
            ranked = sorted(_ranked(part, role), key=lambda row: -row["adjusted"])
            rows += [{"objective": objective, "against": against, **row} for row in ranked]
    return pd.DataFrame(rows, columns=_RANKING_COLUMNS)


def ranked_cells(table: pd.DataFrame, role: str) -> pd.DataFrame:
    """Return the cells that a ranking is about, without a game's own P, with a column "adjusted".

    Donors that are no game are ranked among the donors, and do not count for recipients.

    Args:
        table: Rows of one objective and baseline of a transfer table.
        role: "donor" or "recipient".
    """
    part = where(table, role=["game", "other"] if role == "donor" else "game")
    part = pd.DataFrame(part[~part["own"].to_numpy(bool)]).dropna(subset=["relative"])
    return part if part.empty else part.assign(adjusted=adjusted_cells(part, role))


def adjusted_cells(part: pd.DataFrame, role: str) -> pd.Series:
    """Return each cell's relative improvement less the effect of its other side.

    Effects are fitted to the cells of games alone, so that no control moves them.

    Args:
        part: Cells with columns source, recipient, role and relative, none missing.
        role: "donor" takes the recipient's effect away, "recipient" the donor's.
    """
    games = where(part, role="game")
    fitted = part if games.empty else games
    donors, recipients = (pd.get_dummies(fitted[name], dtype=float) for name in _SIDES.values())
    design = np.concatenate([donors, recipients], axis=1)
    effects = np.linalg.lstsq(design, fitted["relative"].to_numpy(float), rcond=None)[0]
    split = {"recipient": (donors, effects[: donors.shape[1]])}
    split["donor"] = recipients, effects[donors.shape[1] :]
    names, other = split[role]
    effect = dict(zip(names.columns, other - other.mean(), strict=True))
    side = values(part, _SIDES["donor" if role == "recipient" else "recipient"])
    less = [effect.get(name, 0.0) for name in side]
    return pd.Series(values(part, "relative") - np.array(less), index=part.index)


def _ranked(table: pd.DataFrame, role: str) -> Iterator[dict[str, Any]]:
    for (name,), cells in blocks(ranked_cells(table, role), _SIDES[role]).items():
        adjusted = np.array([cell["adjusted"] for cell in cells], float)
        low, high = bootstrap_interval(adjusted, generator(0, "ranking", role, name))
        verdicts = [cell["verdict"] for cell in cells]
        corrected = [cell["verdict_bh"] for cell in cells]
        yield {
            "role": role,
            "name": name,
            "is_game": role == "recipient" or cells[0]["role"] == "game",
            "cells": len(cells),
            "relative": float(np.mean([cell["relative"] for cell in cells])),
            "adjusted": float(adjusted.mean()),
            "low": low,
            "high": high,
            **{word: verdicts.count(word) for word in ("better", "same", "worse")},
            **{f"{word}_bh": corrected.count(word) for word in ("better", "worse")},
        }


_SIDES = {"donor": "source", "recipient": "recipient"}
_RANKING_COLUMNS = [
    *("objective", "against", "role", "name", "is_game", "cells", "relative", "adjusted"),
    *("low", "high", "better", "same", "worse", "better_bh", "worse_bh"),
]
