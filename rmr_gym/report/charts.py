"""Four charts that serve every figure: lines, dots with intervals, heat maps, grids of pictures."""

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from importlib.resources import files
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from scipy.cluster.hierarchy import dendrogram

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.report.runs import in_order, parts, records, where
from rmr_gym.report.tables import looks_of

LOOKS = looks_of("arm", "model", "reference", "belief")
"""Colour and marker of arms and abstract models."""

OTHER = "#555555"
"""Colour of what has none of its own."""

CYCLE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#7F7F7F")
DASHES = ("-", "--", "-.", ":")
ACROSS = 3
"""Panels in a row."""

TITLE = 36
"""Letters in a line of a panel's title, and of what its axis is called."""

CURVE_POINTS = 200
"""A longer curve is averaged over groups of neighbouring steps."""

FAINT = 0.25
"""Share of ink of lines behind others."""

TOLD = 40
"""Values that a page tells of a long line."""

HATCHED: Any = {"facecolor": "#F2F2F2", "edgecolor": "#A6A6A6", "hatch": "////", "linewidth": 0.0}

Numbers = Sequence[float | int] | np.ndarray
NamedFigure = tuple[str, Callable[[], Figure]]
"""Name of a figure, and what draws it."""

_STYLE: Any = mpl.rc_params_from_file(
    str(files("rmr_gym.report") / "templates" / "figures.mplstyle"), use_default_template=False
)
styled = mpl.rc_context(_STYLE)
"""Decorator: the function draws in one style, and leaves matplotlib's settings as they were."""


@dataclass(frozen=True, eq=False)
class Line:
    """A line of a panel.

    Attributes:
        label: In the legend.
        x: Places; none for a level line across the panel.
        y: Heights; of a level line one.
        low: Lower end of a band around it.
        high: Upper end.
        faint: Thin lines behind it, for instance one a seed: x and y of each.
        style: Colour and what else matplotlib takes.
    """

    label: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    faint: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    style: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Dots:
    """A row of dots, their mean with its interval, and what is shown hollow beside.

    Attributes:
        row: Name of the row.
        points: Small dots, for instance one a seed.
        mean: Large dot.
        low: Lower end of its interval; NaN for none.
        high: Upper end.
        hollow: Reference value, joined to the mean; NaN for none.
        label: In the legend.
        shift: Down from the middle of the row.
        color: Of all of them.
        marker: Of the mean.
    """

    row: str
    points: Numbers = ()
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    hollow: float = math.nan
    label: str = ""
    shift: float = 0.0
    color: str = OTHER
    marker: str = "D"

    @classmethod
    def of(cls, rows: pd.DataFrame) -> list["Dots"]:
        """Return dots a row of a table: its columns that are called like the attributes here."""
        names = [option.name for option in fields(cls) if option.name in rows]
        return [cls(**{name: row[name] for name in names}) for row in records(rows)]


class Panel(NamedTuple):
    """A part of a chart.

    Attributes:
        title: Above it.
        marks: Lines, or rows of dots.
        across: Label of the x axis; said once where panels below each other share it.
        up: Label of the y axis.
        ticks: Places on the x axis of lines; a logarithmic one where they span more than a factor
            of 5.
        log: Factor of positive heights above which the y axis is logarithmic.
    """

    title: str
    marks: Sequence[Any]
    across: str = ""
    up: str = ""
    ticks: Sequence[int] = ()
    log: float = math.inf


class Block(NamedTuple):
    """Rows of a heat map that stand together.

    Attributes:
        rows: Their names.
        values: Rows by columns; NaN is hatched.
        texts: Written in each field; none: nothing is.
        framed: Fields with a frame, as (row, column).
        links: Tree of the rows, as scipy.cluster.hierarchy has it.
        title: Above the block.
    """

    rows: Sequence[str]
    values: Float[np.ndarray, "rows columns"]
    texts: Sequence[Sequence[str]] = ()
    framed: Iterable[tuple[int, int]] = ()
    links: np.ndarray | None = None
    title: str = ""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches that needs no display."""
    return Figure(figsize=(width, height), layout="constrained")


def look(name: str, place: int = 0) -> dict[str, Any]:
    """Return colour and marker of an arm or model; by its place where it has none of its own."""
    colour, dash = CYCLE[place % len(CYCLE)], DASHES[place // len(CYCLE) % len(DASHES)]
    return {"color": colour, "marker": "o", "linestyle": dash} | LOOKS.get(name, {})


def colours(names: Iterable[str]) -> list[str]:
    """Return the colours of arms or models."""
    return [look(name)["color"] for name in names]


def own_names(rows: pd.DataFrame, column: str = "model") -> dict[str, str]:
    """Return the names in a column, as they come, as their own labels."""
    return {str(name): str(name) for name in rows[column]}


def faceted(
    rows: pd.DataFrame, column: str, draw: Callable[[pd.DataFrame], Sequence[Any]], **axes: Any
) -> list[Panel]:
    """Return a panel for each value of a column, which is its title.

    Args:
        rows: What is drawn.
        column: Of the titles.
        draw: From the rows of a panel to its lines, or to its rows of dots.
        **axes: Further fields of every panel.
    """
    return [Panel(str(name), draw(own), **axes) for (name,), own in parts(rows, column).items()]


@styled
def lines(panels: Sequence[Panel], most: int = ACROSS, file: str = "the run") -> Figure:
    """Draw lines with bands, a panel beside the other.

    Args:
        panels: What to draw.
        most: Panels in a row.
        file: Where the data should be.

    Raises:
        RMRError: There is nothing to draw.
    """
    figure, axes = _grid(panels, 2.4, most, file)
    for panel, ax in zip(panels, axes, strict=True):
        for place, line in enumerate(panel.marks):
            _draw_line(ax, line, 4 - 0.1 * place)
        heights = np.concatenate([np.asarray(line.y, float) for line in panel.marks] or [[]])
        _log_where_it_helps(ax, heights, panel.log)
        places = np.concatenate([np.asarray(line.x, float) for line in panel.marks] or [[]])
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=bool((places % 1 == 0).all())))
        if ticks := panel.ticks:
            ax.set_xscale("log" if ticks[-1] > 5 * ticks[0] > 0 else "linear")
            ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            ax.set_xticks([], minor=True)
    return figure


def _style(mark: Line | Dots) -> dict[str, Any]:
    """Return how a line, or the mean of dots, is drawn."""
    if isinstance(mark, Line):
        return {"linewidth": 1.6, "markersize": 4} | mark.style
    return {"color": mark.color, "marker": mark.marker, "markersize": 4.5, "linestyle": "none"}


def _draw_line(ax: Axes, line: Line, order: float) -> None:
    style = _style(line)
    if not len(line.x):
        ax.axhline(float(line.y[0]), label=line.label, zorder=order, **style)
        return
    for x, y in line.faint:
        ax.plot(x, y, color=style["color"], alpha=FAINT, linewidth=0.6)
    if line.low is not None and line.high is not None:
        band: Any = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
        band["step"] = "pre" if "drawstyle" in style else None
        ax.fill_between(line.x, line.low, line.high, **band)
    ax.plot(line.x, line.y, label=line.label, zorder=order, **style)


def over_seeds(
    rows: pd.DataFrame, x: str, y: str, by: str, labels: Mapping[str, str], **style: Any
) -> list[Line]:
    """Return a line a name: the mean over seeds and, of two seeds or more, their range.

    Args:
        rows: One row a seed and place; those without a number are left out.
        x: Column of the places.
        y: Column of the heights.
        by: Column of the names.
        labels: What the names are called, in order; others come after them.
        style: Of all lines.
    """
    drawn = []
    for name, own, look_of in _by_name(rows, y, by, labels):
        points = own.groupby(x)[y].agg(["mean", "min", "max"]).reset_index()
        at, mean, low, high = points.to_numpy(float).T
        band = (low, high) if own.duplicated(x).any() else ()
        drawn.append(Line(name, at, mean, *band, style=look_of | style))
    return drawn


def seed_lines(
    rows: pd.DataFrame,
    panel: str,
    x: str,
    y: str,
    by: str,
    labels: Mapping[str, str],
    file: str,
    most: int = ACROSS,
    marked: bool = True,
    **axes: Any,
) -> Figure:
    """Draw `over_seeds`, a panel for each value of a column; without their markers if asked for.

    Raises:
        RMRError: There is nothing to draw.
    """
    style = {} if marked else {"marker": None}
    draw = partial(over_seeds, x=x, y=y, by=by, labels=labels, **style)
    return lines(faceted(rows, panel, draw, **axes), most, file)


def curves(rows: pd.DataFrame, y: str, by: str, labels: Mapping[str, str]) -> list[Line]:
    """Return a line a name: the mean of its seeds along the steps, with each seed thin behind.

    Args:
        rows: One row a seed and step.
        y: Column of the heights.
        by: Column of the names.
        labels: What the names are called, in order.
    """
    drawn = []
    for name, own, look_of in _by_name(rows, y, by, labels):
        seeds = [_thinned(seed, y) for _, seed in own.groupby("seed")]
        mean = pd.concat(seeds, axis=1).sort_index().mean(axis=1)
        faint = [(seed.index.to_numpy(), seed.to_numpy()) for seed in seeds if len(seeds) > 1]
        style = look_of | {"marker": None}
        drawn.append(Line(name, mean.index.to_numpy(), mean.to_numpy(), faint=faint, style=style))
    return drawn


def loss_figure(rows: pd.DataFrame, panel: str, by: str, labels: Any, y: str, file: str) -> Figure:
    """Draw `curves` of a training, a panel for each value of a column.

    Raises:
        RMRError: There are none.
    """
    axes: Any = {"across": "gradient step", "up": y.replace("_", " "), "log": 20.0}
    draw = partial(curves, y=y, by=by, labels=labels)
    return lines(faceted(rows, panel, draw, **axes), file=file)


def _by_name(
    rows: pd.DataFrame, y: str, by: str, labels: Mapping[str, str]
) -> Iterator[tuple[str, pd.DataFrame, dict[str, Any]]]:
    """Yield what each name is called, its rows that have a number, and how it looks."""
    for place, name in enumerate(in_order([*labels, *rows[by]], labels)):
        own = where(rows, **{by: name}).dropna(subset=[y])
        if len(own):
            yield labels.get(name, name), own, look(name, place)


def _thinned(rows: pd.DataFrame, y: str) -> pd.Series:
    """Average a long curve over groups of neighbouring steps, so that a figure stays small."""
    rows = rows.sort_values("step")
    group = np.arange(len(rows)) // math.ceil(len(rows) / CURVE_POINTS)
    step, height = (rows[name].astype(float).groupby(group).mean() for name in ("step", y))
    return pd.Series(np.array(height), np.array(step))


@styled
def dots(
    panels: Sequence[Panel],
    rows: Sequence[str],
    mark: float = math.nan,
    shared: bool = False,
    most: int = ACROSS,
    file: str = "the run",
) -> Figure:
    """Draw rows of dots with their means and intervals, a panel beside the other.

    Args:
        panels: What to draw.
        rows: Names of the rows, from the top.
        mark: Where a line stands, for instance at no difference.
        shared: All panels have one scale.
        most: Panels in a row.
        file: Where the data should be.

    Raises:
        RMRError: There is nothing to draw.
    """
    figure, axes = _grid(panels, 0.7 + 0.24 * len(rows), most, file)
    for index, (panel, ax) in enumerate(zip(panels, axes, strict=True)):
        if shared and index:
            ax.sharex(axes[0])
        ax.axvline(mark, color=OTHER, linewidth=1, linestyle=":")
        for dot in panel.marks:
            _draw_dots(ax, dot, rows.index(dot.row) + dot.shift)
        ax.set_yticks(range(len(rows)), rows if index % most == 0 else [""] * len(rows))
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def _draw_dots(ax: Axes, dots: Dots, height: float) -> None:
    style = _style(dots)
    colour = style["color"]
    small = {"color": colour, "alpha": 0.45, "markersize": 3}
    ax.plot(dots.points, [height + 0.22] * len(dots.points), "o", **small)
    ax.plot([dots.low, dots.high], [height, height], color=colour, linewidth=2)
    ax.plot([dots.mean, dots.hollow], [height, height], color=colour, linewidth=0.8, alpha=0.5)
    ax.plot([dots.hollow], [height], **style, fillstyle="none")
    ax.plot([dots.mean], [height], **style, label=dots.label or None)


@styled
def heat_map(
    blocks: Sequence[Block],
    columns: Sequence[str],
    label: str = "",
    colours: str = "viridis",
    span: tuple[float, float] = (0.0, 1.0),
    links: np.ndarray | None = None,
    legend: Sequence[Patch] = (),
    inches: tuple[float, float] = (0.5, 0.36),
) -> Figure:
    """Draw blocks of rows, one under the other, as fields in colour over the same columns.

    Args:
        blocks: What to draw.
        columns: Names of the columns.
        label: Of the colour bar; none: there is no bar.
        colours: Name of matplotlib's colour map.
        span: Values of the first and of the last colour; what lies beyond is drawn as these.
        links: Tree of the columns.
        legend: What is explained below.
        inches: Width and height of a field.
    """
    heights = [inches[1] * len(block.rows) for block in blocks]
    width = inches[0] * len(columns)
    figure = new_figure(max(5.0, width + 3.0), sum(heights) + 0.35 * len(blocks) + 2.0)
    trees = [block.links for block in blocks]
    side = 0.01 if all(tree is None for tree in trees) else 0.7
    top = 0.01 if links is None else 0.7
    ratios: Any = {"width_ratios": [side, width], "height_ratios": [top, *heights]}
    axes = figure.subplots(len(blocks) + 1, 2, **ratios)
    picture = ScalarMappable(Normalize(*span), colours)
    for ax, tree in zip(axes[:, 0], [None, *trees], strict=True):
        _draw_tree(ax, tree, "left")
    _draw_tree(axes[0, 1], links, "top")
    for block, ax in zip(blocks, axes[1:, 1], strict=True):
        _draw_block(ax, block, len(columns), picture)
    axes[-1, 1].set_xticks(range(len(columns)), columns, rotation=90)
    if label:
        figure.colorbar(picture, ax=axes.ravel().tolist(), label=label, shrink=0.8)
    if legend:
        figure.legend(handles=[*legend], loc="outside lower center", ncols=2)
    return figure


def _draw_block(ax: Axes, block: Block, columns: int, colours: ScalarMappable) -> None:
    ax.set_title(block.title, loc="left")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks(range(len(block.rows)), block.rows)
    ax.add_patch(Rectangle((-0.5, -0.5), columns, len(block.rows), **HATCHED, zorder=0))
    values = np.ma.masked_invalid(block.values)
    style: Any = {"cmap": colours.cmap, "norm": colours.norm, "interpolation": "nearest"}
    ax.imshow(values, aspect="auto", **style)
    for row, column in block.framed:
        corner = (column - 0.45, row - 0.45)
        ax.add_patch(Rectangle(corner, 0.9, 0.9, fill=False, edgecolor="black", linewidth=1.1))
    for row, texts in enumerate(block.texts):
        for column, text in enumerate(texts):
            red, green, blue, _ = np.asarray(colours.to_rgba(block.values[row, column]))
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color=ink)


def _draw_tree(ax: Axes, links: np.ndarray | None, side: str) -> None:
    ax.set_axis_off()
    if links is not None:
        style: Any = {"ax": ax, "orientation": side, "no_labels": True}
        dendrogram(links, color_threshold=0, above_threshold_color=OTHER, **style)
        if side == "left":
            ax.invert_yaxis()


@styled
def picture_grid(
    rows: Mapping[str, Sequence[np.ndarray | None]],
    titles: Sequence[str] = (),
    edges: Sequence[Any] = (),
    inches: float = 0.8,
) -> Figure:
    """Draw pictures in rows: colours in [0, 1], or numbers in [0, 1] from dark to bright.

    Args:
        rows: Pictures by the name of their row; None leaves a place free.
        titles: Above the columns.
        edges: Colour around the pictures of each column; by default gray.
        inches: Height and width of a picture.
    """
    wide = max(map(len, rows.values()))
    figure = new_figure(inches * wide + 0.3, inches * len(rows) + 0.3)
    axes = figure.subplots(len(rows), wide, squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        filled = [column for column, picture in enumerate(pictures) if picture is not None]
        for column, ax in enumerate(line):
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set(visible=True, edgecolor=[*edges, *[OTHER] * wide][column], lw=1.5)
            if column not in filled:
                ax.set_axis_off()
            else:
                picture = np.clip(np.asarray(pictures[column]), 0, 1)
                ax.imshow(picture, vmin=0, vmax=1, interpolation="nearest")
        line[filled[0]].set_ylabel(name, fontsize=7)
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=7)
    return figure


def _grid(
    panels: Sequence[Panel], height: float, most: int, file: str
) -> tuple[Figure, list[Axes]]:
    """Make axes with titles and labels, and one legend for all panels under them."""
    if not any(panel.marks for panel in panels):
        raise RMRError(f"there is nothing to draw in {file}: let the run go on, or run it again")
    across = min(most, len(panels))
    down = math.ceil(len(panels) / across)
    figure = new_figure(max(4.8, 3.3 * across), height * down + 0.6)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for spare in axes[len(panels) :]:
        spare.remove()
    for index, (panel, ax) in enumerate(zip(panels, axes, strict=False)):
        left = panels[index - 1] if index % most else None
        below = panels[index + most] if index + most < len(panels) else None
        ax.set_title(fill(panel.title, TITLE))
        ax.set_ylabel("" if left and left.up == panel.up else panel.up)
        ax.set_xlabel("" if below and below.across == panel.across else fill(panel.across, TITLE))
    _legend(figure, [mark for panel in panels for mark in panel.marks])
    return figure, list(axes[: len(panels)])


def _legend(figure: Figure, marks: Sequence[Line | Dots]) -> None:
    handles = {mark.label: Line2D([], [], **_style(mark)) for mark in reversed(marks) if mark.label}
    if handles:
        labels = list(dict.fromkeys(mark.label for mark in marks if mark.label))
        columns = max(1, min(5, int(13 * figure.get_figwidth() / (max(map(len, labels)) + 8))))
        rows = math.ceil(len(labels) / columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * max(0, rows - 2))
        keys = [handles[label] for label in labels]
        figure.legend(keys, labels, loc="outside lower center", ncols=columns)


def _log_where_it_helps(ax: Axes, heights: np.ndarray, span: float) -> None:
    """Draw in powers of ten what is positive and spans more than a factor of ``span``."""
    heights = heights[np.isfinite(heights)]
    if len(heights) and heights.min() > 0 and heights.max() > span * heights.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_locator(NullLocator())


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as "svg" or "png", the same bytes for the same figure."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format=kind, dpi=120, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def told(figure: Figure) -> list[tuple[float, float, str]]:
    """Return the values of lines and dots of a figure that was drawn, in words, and where they are.

    Places are shares of the figure's width and height, from its left and its top. Lines behind
    others say nothing, and long ones about `TOLD` values.
    """
    points: list[tuple[float, float, str]] = []
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    for ax in figure.axes:
        in_rows = isinstance(ax.yaxis.get_major_locator(), FixedLocator)
        for line in ax.lines:
            if line.get_alpha() == FAINT or line.get_transform() != ax.transData:
                continue
            values = np.asarray(line.get_xydata(), float)
            values = values[:: max(1, len(values) // TOLD)]
            label = str(line.get_label()) * (not str(line.get_label()).startswith("_"))
            places = (ax.transData - figure.transFigure).transform(values)
            for (x, y), (left, bottom) in zip(values, places, strict=True):
                name, value = (rows[round(y)], x) if in_rows else (f"{label} {x:g}".strip(), y)
                points.append((round(left, 4), round(1 - bottom, 4), f"{name}: {value:.4g}"))
    return [point for point in points if math.isfinite(point[0] + point[1])]


def save_figure(figure: Figure, path: Path) -> Path:
    """Save a figure as SVG or PNG, as the file's ending says.

    Raises:
        RMRError: For another ending, or a path that cannot be written.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("svg", "png"):
        raise RMRError(f"cannot save a figure as {path.name}: choose an ending of .svg or .png")
    return write_atomically(path, figure_bytes(figure, kind))
