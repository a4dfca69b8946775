"""Pictures of models that see crops: what less sight costs, and where the modules are."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from rmr_gym.analysis.canvas import new_figure, panel_grid, styled
from rmr_gym.analysis.views import QUESTIONS, varied
from rmr_gym.core.errors import RMRError

_ACROSS, _INCHES = 5, 1.1


@styled
def views_figure(table: pd.DataFrame, trained_on: int | None, score: str = "f1") -> Figure:
    """Draw a score against balls, crops and modules, a line a model: the mean over seeds.

    Source: S2RM, Figures 4, 6 and 7, and 20 and 21 of its appendix.

    Args:
        table: Rows of `rmr-gym world-model views`.
        trained_on: Balls in training; None where the number of balls is not known.
        score: Column that is drawn.

    Raises:
        RMRError: Nothing varies in the table.
    """
    parts = varied(table, trained_on)
    if not parts:
        raise RMRError(
            "expected several numbers of balls, crops or dropped modules to draw, found one of each"
        )
    figure, panels = panel_grid([f"by {QUESTIONS[name]}" for name in parts])
    models = list(dict.fromkeys(table["model"]))
    for panel, (name, part) in zip(panels, parts.items(), strict=True):
        for index, model in enumerate(models):
            line = part[part["model"] == model].pivot_table(score, name)
            panel.plot(line.index.to_numpy(), line[score], f"C{index}o-", markersize=3, label=model)
        panel.set_xlabel(QUESTIONS[name])
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel(score.replace("_", " "))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


@styled
def enclaves_figure(
    attended: Float[np.ndarray, "slots height width"], heard: Float[np.ndarray, "slots slots"]
) -> Figure:
    """Draw which pixels each module attends to, and how much each can hear of each.

    Source: S2RM, Figures 5 and 9.

    Args:
        attended: From 0 (dark) to 1.
        heard: Row: who hears; column: whom. From 0 to 1.
    """
    rows = -(-len(attended) // _ACROSS)
    figure = new_figure(_INCHES * _ACROSS + 3.2, max(2.6, (_INCHES + 0.25) * rows))
    halves = figure.subfigures(1, 2, squeeze=False, width_ratios=[_INCHES * _ACROSS, 3.2])
    left, right = halves[0]
    axes = left.subplots(rows, _ACROSS, squeeze=False).ravel()
    for spare in axes[len(attended) :]:
        spare.remove()
    for module, (panel, pixels) in enumerate(zip(axes, attended, strict=False)):
        _map(panel, pixels)
        panel.set_title(f"module {module + 1}", fontsize=8)
        panel.set_xticks([])
        panel.set_yticks([])
    table = right.subplots()
    picture = _map(table, heard)
    table.set_title("who can hear whom")
    ticks = range(len(heard)), [str(module + 1) for module in range(len(heard))]
    table.set_xticks(*ticks)
    table.set_yticks(*ticks)
    table.set_xlabel("whom")
    table.set_ylabel("who")
    right.colorbar(picture, ax=table, shrink=0.7)
    return figure


def _map(panel: Axes, values: Float[np.ndarray, "height width"]) -> AxesImage:
    panel.grid(visible=False)
    return panel.imshow(values, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
