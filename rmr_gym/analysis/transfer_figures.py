"""The heat map of a transfer matrix with its clusters, and the rankings as dots."""

import math
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy.cluster.hierarchy import dendrogram

from rmr_gym.analysis import text
from rmr_gym.analysis.canvas import COLOURS, OTHER, new_figure, styled
from rmr_gym.analysis.run import blocks, where
from rmr_gym.analysis.statistics import MIN_PAIRS, TOO_FEW
from rmr_gym.analysis.transfer import AGAINST, ROLES
from rmr_gym.analysis.transfer_order import Clusters, complete_link, improvements, ranked_cells
from rmr_gym.core.errors import RMRError

MARKS = {
    ("better", "better"): ("▲", "better, also after Benjamini-Hochberg"),
    ("better", "same"): ("△", "better, p < 0.05 before correction only"),
    ("worse", "worse"): ("▼", "worse, also after Benjamini-Hochberg"),
    ("worse", "same"): ("▽", "worse, p < 0.05 before correction only"),
}
"""Mark of a cell by its raw and its corrected verdict, and what it says."""

_WIDE, _HIGH, _TREE, _NAMES = 0.5, 0.36, 0.7, 1.5
_HATCHED = {"facecolor": "#F2F2F2", "edgecolor": "#A6A6A6", "hatch": "////", "linewidth": 0.0}


@styled
def heat_map(table: pd.DataFrame) -> Figure:
    """Draw the matrix: donors down, recipients across, both in the order of their clusters.

    Below the donors that are games stand donors that are none, and below them the controls. A
    cell says by how many per cent it is above the baseline, and a mark whether that is
    significant; cells without scores are hatched; a frame is around a game's own P. Colours span
    the donors' cells; a control can lie beyond them.

    Source: RMR, Figure 4.

    Args:
        table: Rows of one objective and one baseline of
            `rmr_gym.analysis.transfer.transfer_table`.

    Raises:
        RMRError: If no cell has a pair.
    """
    if not (table["pairs"].to_numpy(float) > 0).any():
        raise RMRError("this transfer matrix has no cell to draw: let the run go on")
    table = pd.DataFrame(table[table["source"] != table["against"]])
    labels = dict(zip(table["source"], table["label"], strict=True))
    recipients = list(dict.fromkeys(table["recipient"]))
    down = {role: list(dict.fromkeys(where(table, role=role)["source"])) for role in ROLES}
    ours = improvements(table, recipients, down["game"])
    rows, columns = complete_link(ours), complete_link(ours.T)
    across = [recipients[index] for index in columns.order]
    down["game"] = [down["game"][index] for index in rows.order]
    figure, axes = _layout(len(across), [len(sources) for sources in down.values()])
    _draw_tree(axes["top"], columns, "top")
    norm = _norm(improvements(table, recipients, down["game"] + down["other"]))
    cells = {(row["source"], row["recipient"]): row for row in table.to_dict("records")}
    filled = [role for role in ROLES if down[role]]
    for role in filled:
        panel = axes[f"{role} cells"]
        _draw_block(panel, cells, down[role], across, norm)
        panel.set_yticks(range(len(down[role])), [labels[source] for source in down[role]])
        _draw_tree(axes[role], rows if role == "game" else None, "left")
    axes[f"{filled[-1]} cells"].set_xticks(range(len(across)), across, rotation=90)
    axes[f"{filled[-1]} cells"].set_xlabel("recipient (test game)")
    axes[f"{filled[0]} cells"].set_ylabel("donor (train game) of the frozen P")
    picture = ScalarMappable(norm, mpl.colormaps["RdBu"])
    label = f"bit F1 above {AGAINST[str(table['against'].iloc[0])]}, mean %"
    style: Any = {"orientation": "horizontal", "extend": "both"}
    figure.colorbar(picture, cax=axes["bar"], label=label, **style)
    figure.legend(handles=_legend(table), loc="outside lower center", ncols=2)
    return figure


def _layout(columns: int, rows: list[int]) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure with axes for both trees, for the cells of each role, for the colour bar."""
    heights = [_TREE, *(_HIGH * count for count in rows), 0.14]
    width = max(6.5, _WIDE * columns + _TREE + 2 * _NAMES)
    figure = new_figure(width, sum(heights) + _NAMES + 1.3)
    mosaic = [[".", "top"], *([role, f"{role} cells"] for role in ROLES), [".", "bar"]]
    kept = [index for index, height in enumerate(heights) if height]
    chosen: Any = [mosaic[index] for index in kept]
    axes = figure.subplot_mosaic(
        chosen,
        width_ratios=[_TREE, _WIDE * columns],
        height_ratios=[heights[index] for index in kept],
    )
    return figure, axes


def _draw_tree(panel: Axes, clusters: Clusters | None, orientation: str) -> None:
    panel.set_axis_off()
    if clusters is not None and clusters.links is not None:
        style: Any = {"ax": panel, "orientation": orientation, "no_labels": True}
        dendrogram(clusters.links, color_threshold=0, above_threshold_color=OTHER, **style)
        if orientation == "left":
            panel.invert_yaxis()


def _norm(shown: Float[np.ndarray, "rows columns"]) -> TwoSlopeNorm:
    """Span the colours evenly to both sides of 0."""
    most = float(np.nan_to_num(np.abs(shown)).max(initial=0)) or 1.0
    return TwoSlopeNorm(0, -most, most)


def _draw_block(
    panel: Axes,
    cells: dict[tuple[Any, Any], dict[Any, Any]],
    sources: list[str],
    across: list[str],
    norm: TwoSlopeNorm,
) -> None:
    panel.set_xlim(-0.5, len(across) - 0.5)
    panel.set_ylim(len(sources) - 0.5, -0.5)
    panel.grid(visible=False)
    panel.tick_params(length=0)
    panel.set_xticks([])
    for side in panel.spines.values():
        side.set_visible(False)
    for down, source in enumerate(sources):
        for right, recipient in enumerate(across):
            _draw_cell(panel, (right, down), cells.get((source, recipient)), norm)


def _draw_cell(
    panel: Axes, place: tuple[int, int], cell: dict[Any, Any] | None, norm: TwoSlopeNorm
) -> None:
    right, down = place
    corner = (right - 0.5, down - 0.5)
    if cell is None or math.isnan(cell["relative"]):
        panel.add_patch(Rectangle(corner, 1, 1, **_HATCHED))
        return
    colour = mpl.colormaps["RdBu"](norm(cell["relative"]))
    panel.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=0.6))
    if cell["own"]:
        inner = (right - 0.45, down - 0.45)
        panel.add_patch(Rectangle(inner, 0.9, 0.9, fill=False, edgecolor="black", linewidth=1.1))
    mark, _ = MARKS.get((cell["verdict"], cell["verdict_bh"]), ("", ""))
    dark = abs(norm(cell["relative"]) - 0.5) > 0.33
    panel.text(
        right,
        down,
        f"{text.signed(cell['relative'], 1)}{mark}",
        ha="center",
        va="center",
        fontsize=6.5,
        color="white" if dark else "black",
    )


def _legend(table: pd.DataFrame) -> list[Patch]:
    """Explain the marks and frames that the matrix has."""
    compared = table[table["pairs"].to_numpy(float) > 0]
    shown = set(zip(compared["verdict"], compared["verdict_bh"], strict=True))
    patches = [
        Patch(alpha=0, label=f"{mark} {said}")
        for verdicts, (mark, said) in MARKS.items()
        if verdicts in shown
    ]
    if TOO_FEW in set(compared["verdict"]):
        patches.append(Patch(alpha=0, label=f"cells under {MIN_PAIRS} seeds have no mark"))
    if len(compared) < len(table):
        patches.append(Patch(**_HATCHED, label="missing or not comparable"))
    if table["own"].to_numpy(bool).any():
        patches.append(Patch(facecolor="none", edgecolor="black", label="the game's own P"))
    return patches


@styled
def ranking_dots(table: pd.DataFrame, ranking: pd.DataFrame) -> Figure:
    """Draw what donors give and what recipients gain: dots are cells, diamonds their mean.

    Each is a relative improvement with the effect of the other side taken away, see
    `rmr_gym.analysis.transfer_order.ranking_table`; a game's own P is left out. A bar is the 95%
    bootstrap interval of the mean over cells.

    Args:
        table: Rows of one objective and one baseline of the transfer table.
        ranking: Their ranking.

    Raises:
        RMRError: If there is nothing to rank.
    """
    if ranking.empty:
        raise RMRError("this transfer matrix has no cell to rank: let the run go on")
    most = max(len(where(ranking, role=role)) for role in ("donor", "recipient"))
    figure = new_figure(9.5, 1.1 + 0.24 * most)
    panels = figure.subplots(1, 2)
    for panel, (role, side) in zip(
        panels, (("donor", "source"), ("recipient", "recipient")), strict=True
    ):
        rows = where(ranking, role=role).to_dict("records")
        dots = {name: block for (name,), block in blocks(ranked_cells(table, role), side).items()}
        panel.axvline(0, color=OTHER, linewidth=1)
        for down, row in enumerate(rows):
            _draw_rank(panel, down, row, [cell["adjusted"] for cell in dots[row["name"]]])
        panel.set_yticks(range(len(rows)), [row["name"] for row in rows])
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.set_title(f"{role}s")
    against = AGAINST[str(table["against"].iloc[0])]
    figure.supxlabel(f"bit F1 above {against}, %, adjusted", fontsize=9)
    return figure


def _draw_rank(panel: Axes, down: int, row: dict[Any, Any], dots: list[float]) -> None:
    colour = COLOURS["rmr"] if row["is_game"] else COLOURS["random_p"]
    panel.plot(dots, [down + 0.22] * len(dots), "o", color=colour, alpha=0.4, markersize=3)
    if not math.isnan(row["low"]):
        panel.plot([row["low"], row["high"]], [down, down], color=colour, linewidth=2)
    panel.plot(row["adjusted"], down, "D", color=colour, markersize=4.5)
