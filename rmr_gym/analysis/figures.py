"""Figures of a run. Each function returns a matplotlib Figure; no display and no pyplot state."""

import math

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from rmr_gym.analysis.canvas import (
    ACROSS,
    CHANGED,
    COLOURS,
    OTHER,
    finish,
    label_outer,
    log_where_it_helps,
    new_figure,
    panel_grid,
    save_figure,
    styled,
)
from rmr_gym.analysis.cells import Cell, cells
from rmr_gym.analysis.checkpoint_figures import (
    METRIC_LABELS,
    checkpoint_curves,
    panel_titles,
    require_rows,
)
from rmr_gym.analysis.run import (
    ARM_LABELS,
    MODEL_LABELS,
    OBJECTIVE_LABELS,
    REFERENCE_ARMS,
    Run,
    in_order,
    values,
    where,
)
from rmr_gym.core.errors import RMRError

__all__ = [
    "abstract_curves",
    "checkpoint_curves",
    "difference_dots",
    "frames_beside_ram",
    "natural_curves",
    "save_figure",
]

CURVE_POINTS = 200
"""A longer curve is averaged over groups of neighbouring steps."""


@styled
def abstract_curves(run: Run) -> Figure:
    """Draw the training loss of the abstract models: a panel a game, a colour a model.

    Raises:
        RMRError: If the run has no abstract curves.
    """
    require_rows(len(run.abstract_curves), run, "abstract_curves.csv")
    games = [game for game in run.games if game in set(run.abstract_curves["game"])]
    figure, panels = panel_grid(games)
    for game, panel in zip(games, panels, strict=True):
        _draw_curves(panel, where(run.abstract_curves, game=game), "model", MODEL_LABELS, "loss")
    finish(figure, panels, "gradient step", "loss", MODEL_LABELS)
    return figure


@styled
def natural_curves(run: Run, column: str = "loss") -> Figure:
    """Draw a training curve of the arms: a panel a game, a colour an arm, a thin line a seed.

    The supervised ceiling is left out: its loss is another one.

    Args:
        run: The run.
        column: "loss", "positive_energy" or "negative_energy".

    Raises:
        RMRError: If the run has no such curves.
    """
    trained = ~run.natural_curves["arm"].isin(list(REFERENCE_ARMS))
    curves = pd.DataFrame(run.natural_curves[trained]).dropna(subset=[column])
    require_rows(len(curves), run, "natural_curves.csv")
    keys = [
        (game, objective)
        for game in run.games
        for objective in in_order(values(where(curves, game=game), "objective"), OBJECTIVE_LABELS)
    ]
    figure, panels = panel_grid(panel_titles(keys))
    for (game, objective), panel in zip(keys, panels, strict=True):
        rows = where(curves, game=game, objective=objective)
        _draw_curves(panel, rows, "arm", ARM_LABELS, column)
    finish(figure, panels, "gradient step", METRIC_LABELS[column], ARM_LABELS)
    return figure


@styled
def difference_dots(
    run: Run, probe: str = "ridge", step: int | None = None, baseline: str = "cswm"
) -> Figure:
    """Draw each arm's bit F1 minus the baseline's: dots are seeds, diamonds above their mean.

    The bar through a diamond is the 95% bootstrap interval of the mean (two seeds or more).

    Args:
        run: The run.
        probe: Which probe's scores.
        step: Checkpoint; None for the last.
        baseline: The arm that the others are compared to.

    Raises:
        RMRError: If no arm can be paired with the baseline.
    """
    shown = [
        cell
        for cell in cells(run, probe, step)
        if any(cell.seed_differences(arm, baseline) for arm in cell.arms)
    ]
    require_rows(len(shown), run, "natural.csv")
    arms = in_order({arm for cell in shown for arm in cell.arms} - {baseline}, ARM_LABELS)
    titles = panel_titles([(cell.game, cell.objective) for cell in shown])
    titles = [f"{title}, step {cell.checkpoint}" for title, cell in zip(titles, shown, strict=True)]
    figure, panels = panel_grid(titles, height=0.9 + 0.22 * len(arms))
    for index, (cell, panel) in enumerate(zip(shown, panels, strict=True)):
        panel.axvline(0, color=OTHER, linewidth=1)
        for row, arm in enumerate(arms):
            _draw_difference(panel, row, cell, arm, baseline)
        panel.set_ylim(len(arms) - 0.5, -0.5)
        names = [ARM_LABELS.get(arm, arm) if index % ACROSS == 0 else "" for arm in arms]
        panel.set_yticks(range(len(arms)), names)
        panel.xaxis.set_major_locator(MaxNLocator(5))
    label_outer(panels, f"bit F1 minus that of {ARM_LABELS.get(baseline, baseline)}", "")
    return figure


@styled
def frames_beside_ram(run: Run, game: str, count: int = 3) -> Figure:
    """Draw frames of a game with the 128 RAM bytes of the same instant, in hexadecimal.

    Args:
        run: The run.
        game: Name of the game.
        count: At most so many frames.

    Raises:
        RMRError: If the run has no frames of the game.
    """
    pictures, memory = run.frames.get(f"{game}_rgb"), run.frames.get(f"{game}_ram")
    if pictures is None or memory is None or len(pictures) != len(memory) or not len(pictures):
        raise RMRError(
            f"{run.folder} has no frames of {game}: expected {game}_rgb and {game}_ram of equal "
            "length in frames.npz; run `rmr-gym compare` again"
        )
    count = min(count, len(pictures))
    figure = new_figure(3.2 * count, 6.6)
    axes = figure.subplots(2, count, squeeze=False, height_ratios=[1, 1.15])
    for index in range(count):
        axes[0, index].imshow(pictures[index], interpolation="nearest")
        axes[0, index].set_axis_off()
        axes[0, index].set_title(f"{game}, frame {index + 1}")
        before = memory[index - 1] if index else memory[index]
        _draw_ram(axes[1, index], memory[index], memory[index] != before)
    return figure


def _draw_curves(
    panel: Axes, rows: pd.DataFrame, by: str, labels: dict[str, str], column: str
) -> None:
    for order, name in enumerate(in_order(values(rows, by), labels)):
        of_name = where(rows, **{by: name}).dropna(subset=[column])
        seeds = sorted(set(values(of_name, "seed")))
        if not seeds:
            continue
        curves = [_thinned(where(of_name, seed=int(seed)), column) for seed in seeds]
        colour = COLOURS.get(name, OTHER)
        for steps, points in curves if len(curves) > 1 else []:
            panel.plot(steps, points, color=colour, alpha=0.25, linewidth=0.6)
        steps, points = _mean_curve(curves)
        height = 4 - 0.1 * order
        label = labels.get(name, name)
        panel.plot(steps, points, color=colour, linewidth=1.8, label=label, zorder=height)
    log_where_it_helps(panel, values(rows, column), 20)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _thinned(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Average a long curve over groups of neighbouring steps, so that a figure stays small."""
    rows = rows.sort_values("step")
    starts = np.arange(0, len(rows), math.ceil(len(rows) / CURVE_POINTS))
    counts = np.diff(np.append(starts, len(rows)))
    steps, points = values(rows, "step").astype(float), values(rows, column).astype(float)
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(points, starts) / counts


def _mean_curve(curves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Average curves at each step over those that have it."""
    table = pd.concat([pd.Series(points, index=steps) for steps, points in curves], axis=1)
    mean = table.sort_index().mean(axis=1)
    return mean.index.to_numpy(float), mean.to_numpy(float)


def _draw_difference(panel: Axes, row: int, cell: Cell, arm: str, baseline: str) -> None:
    dots = list(cell.seed_differences(arm, baseline).values())
    if not dots:
        return
    found = cell.difference(arm, baseline)
    colour = COLOURS.get(arm, OTHER)
    panel.plot(dots, [row + 0.24] * len(dots), "o", color=colour, alpha=0.5, markersize=3.5)
    if not math.isnan(found.low):
        panel.plot([found.low, found.high], [row, row], color=colour, linewidth=2)
    panel.plot(found.mean, row, "D", color=colour, markersize=5)


def _draw_ram(
    panel: Axes, memory: UInt8[np.ndarray, " slots"], changed: Bool[np.ndarray, " slots"]
) -> None:
    """Draw the bytes in rows of 8, value as colour and hexadecimal; changed ones are framed."""
    table = memory.reshape(-1, 8)
    panel.imshow(table, cmap="cividis", vmin=0, vmax=255, aspect="auto")
    for index, (byte, moved) in enumerate(zip(memory, changed, strict=True)):
        row, column = divmod(index, 8)
        style = {"color": "white" if byte < 140 else "black", "family": "monospace"}
        panel.text(
            column, row, f"{byte:02X}", ha="center", va="center", fontdict=style | {"size": 7}
        )
        if moved:
            corner = (column - 0.45, row - 0.45)
            panel.add_patch(Rectangle(corner, 0.9, 0.9, fill=False, color=CHANGED, linewidth=1.6))
    panel.set_xticks(range(8), [f"+{offset}" for offset in range(8)])
    panel.set_yticks(range(len(table)), [f"{0x80 + 8 * row:02X}" for row in range(len(table))])
    panel.tick_params(length=0, labelsize=7)
    panel.grid(visible=False)
