"""The ground that figures are drawn on: style, colours, panels, legend, files."""

import io
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically

COLOURS = {
    "rmr": "#0072B2",
    "cswm": "#D55E00",
    "random_p": "#E69F00",
    "shuffled_p": "#009E73",
    "no_p": "#CC79A7",
    "untrained": "#000000",
    "supervised": "#56B4E9",
    "pca": "#7F7F7F",
    "copy": "#7F7F7F",
    "mlp": "#E69F00",
    "deep_sets": "#009E73",
    "mpnn": "#0072B2",
}
"""A colour an arm or model, of Okabe and Ito's palette: colour-blind readers tell them apart."""

OTHER = "#555555"
"""Colour of what has none of its own."""

CHANGED = "#FF5A1F"
"""Frame of a RAM byte that changed; bright on each colour of a byte."""

MARKERS = {"rmr": "o", "cswm": "s", "random_p": "^", "shuffled_p": "v", "no_p": "D"}
STYLE: Any = {
    "svg.hashsalt": "rmr_gym",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


ACROSS = 3
"""Panels in a row."""

styled = mpl.rc_context(STYLE)
"""Decorator: the function draws in `STYLE`, and leaves matplotlib's settings as they were."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches that needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(
    titles: list[str], height: float = 2.3, most: int = ACROSS
) -> tuple[Figure, list[Axes]]:
    """Make a grid of panels, each with its title.

    Args:
        titles: One title a panel.
        height: Inches of a row of panels.
        most: Panels in a row, where there are so many.
    """
    across = min(most, len(titles))
    down = math.ceil(len(titles) / across)
    figure = new_figure(max(4.8, 3.3 * across), height * down + 0.6)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for spare in axes[len(titles) :]:
        spare.remove()
    panels = list(axes[: len(titles)])
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title)
    return figure, panels


def label_outer(panels: list[Axes], across: str, up: str, most: int = ACROSS) -> None:
    """Label the lowest panel of each column and the first of each row of so many panels."""
    for index, panel in enumerate(panels):
        if index % most == 0:
            panel.set_ylabel(up)
        if index + most >= len(panels):
            panel.set_xlabel(across)


def log_where_it_helps(panel: Axes, shown: np.ndarray, span: int) -> None:
    """Draw in powers of ten what is positive and spans more than a factor of ``span``."""
    shown = shown[np.isfinite(shown)]
    if len(shown) and shown.min() > 0 and shown.max() > span * shown.min():
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_locator(NullLocator())


def finish(
    figure: Figure,
    panels: list[Axes],
    across: str,
    up: str,
    labels: dict[str, str],
    most: int = ACROSS,
    columns: int | None = None,
) -> None:
    """Label the outer axes and put one legend for all panels under them.

    Args:
        figure: Where.
        panels: Of the figure.
        across: Label of the x axes.
        up: Label of the y axes.
        labels: In the order of the legend; others come after them.
        most: Panels in a row.
        columns: Of the legend; by default 2 to 4, as there are panels.
    """
    label_outer(panels, across, up, most)
    handles = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = [label for label in labels.values() if label in handles]
    order += [label for label in handles if label not in order]
    columns = columns or {1: 2, 2: 3}.get(min(len(panels), most), 4)
    figure.legend(
        [handles[label] for label in order], order, loc="outside lower center", ncols=columns
    )


def draw_seeds(panel: Axes, rows: pd.DataFrame, along: str, metric: str, **style: Any) -> None:
    """Draw the mean over seeds as a line and, of two seeds or more, their range as a band.

    Args:
        panel: Where.
        rows: One row a seed and place.
        along: Column of the places, from left to right.
        metric: Column of the height; rows without a number are left out.
        style: Of the line; the band takes its colour.
    """
    scored = rows.dropna(subset=[metric])
    at, heights = scored[along].to_numpy(float), scored[metric].to_numpy(float)
    places = np.unique(at)
    seeds = [heights[at == place] for place in places]
    if any(len(there) > 1 for there in seeds):
        low, high = [there.min() for there in seeds], [there.max() for there in seeds]
        panel.fill_between(places, low, high, color=style["color"], alpha=0.15, linewidth=0)
    panel.plot(places, [there.mean() for there in seeds], markersize=5, **style)


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as "svg" or "png", the same bytes for the same figure.

    Args:
        figure: What to draw.
        kind: "svg" or "png".
    """
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=130, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> Path:
    """Save a figure as SVG or PNG, as the file's ending says.

    Raises:
        RMRError: For another ending, or a path that cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("svg", "png"):
        raise RMRError(f"cannot save a figure as {path.name}: choose an ending of .svg or .png")
    return write_atomically(path, figure_bytes(figure, kind))
