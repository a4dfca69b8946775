"""What the recorded players score: one heat map of games by heads, one table a game."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.analysis.canvas import styled

SKILLS = ("low", "middle", "high")


def policy_summary(returns: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Return one row a game: published scores, random play, each skill, the best head.

    Args:
        returns: Columns game, head, mean_return; one row a game and head.
        references: Columns game, random, human.
    """
    table = returns.pivot(index="game", columns="head", values="mean_return")
    plain = table[["uniform-1", *(f"{skill}-e00-h00" for skill in SKILLS)]]
    plain.columns = ["uniform", *SKILLS]
    known = references.set_index("game").loc[table.index]
    best = pd.DataFrame({"best": table.max(axis=1), "best head": table.idxmax(axis=1)})
    published = known.rename(columns={"random": "published random", "human": "published human"})
    return plain.join(best).join(published).round(1).reset_index()


@styled
def policy_heat_map(returns: pd.DataFrame) -> Figure:
    """Draw what every head scores, each game scaled from its worst head (0) to its best (1)."""
    order = list(dict.fromkeys(returns["head"]))
    table = returns.pivot(index="game", columns="head", values="mean_return")[order]
    low, high = table.min(axis=1), table.max(axis=1)
    span = (high - low).where(high > low)
    scaled = table.sub(low, axis=0).div(span, axis=0)
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots()
    colours: Any = mpl.colormaps["viridis"].with_extremes(bad="#D9D9D9")
    values = np.ma.masked_invalid(scaled.to_numpy(float))
    picture = axes.imshow(values, aspect="auto", cmap=colours, vmin=0, vmax=1)
    axes.set_xticks(range(len(order)), order, rotation=90, fontsize=7)
    titles = [
        f"{game} ({worst:g} to {best:g})"
        for game, worst, best in zip(table.index, low, high, strict=True)
    ]
    axes.set_yticks(range(len(titles)), titles, fontsize=7)
    axes.grid(visible=False)
    figure.colorbar(picture, label="mean return, scaled from the worst head to the best")
    return figure
