"""Probe scores against training steps: one score, or bit F1 and effective rank side by side."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmr_gym.analysis.canvas import (
    COLOURS,
    MARKERS,
    OTHER,
    draw_seeds,
    finish,
    log_where_it_helps,
    panel_grid,
    styled,
)
from rmr_gym.analysis.cells import cells, trained_steps, with_references
from rmr_gym.analysis.run import (
    ARM_LABELS,
    OBJECTIVE_LABELS,
    REFERENCE_ARMS,
    Run,
    in_order,
    values,
    where,
)
from rmr_gym.core.errors import RMRError

METRIC_LABELS = {
    "micro_f1": "bit F1 (micro)",
    "macro_f1": "bit F1 (macro)",
    "slot_accuracy": "slot accuracy",
    "effective_rank": "effective rank",
    "loss": "loss",
    "positive_energy": "positive energy",
    "negative_energy": "negative energy",
}


@styled
def checkpoint_curves(run: Run, metric: str = "micro_f1", probe: str = "ridge") -> Figure:
    """Draw a probe score against the checkpoint: lines are means, bands the range of seeds.

    Arms without checkpoints (untrained, PCA) are level lines.

    Args:
        run: The run.
        metric: "micro_f1", "macro_f1", "slot_accuracy" or "effective_rank".
        probe: Which probe's scores.

    Raises:
        RMRError: If the run has no natural results, or none under this probe.
    """
    keys, tables = _by_game(run, probe)
    figure, panels = panel_grid(panel_titles(keys))
    for rows, panel in zip(tables, panels, strict=True):
        _draw_checkpoints(panel, rows, metric)
    finish(figure, panels, _ACROSS, METRIC_LABELS[metric], ARM_LABELS)
    return figure


@styled
def f1_beside_rank(run: Run, probe: str = "ridge") -> Figure:
    """Draw bit F1 and, beside it, effective rank against the checkpoint, a row a game.

    Args:
        run: The run.
        probe: Which probe's bit F1.

    Raises:
        RMRError: If the run has no natural results, or none under this probe.
    """
    keys, tables = _by_game(run, probe)
    pairs = [(title, metric) for title in panel_titles(keys) for metric in _BESIDE]
    titles = [f"{title}: {METRIC_LABELS[metric]}" for title, metric in pairs]
    figure, panels = panel_grid(titles, most=len(_BESIDE))
    for index, panel in enumerate(panels):
        _draw_checkpoints(panel, tables[index // len(_BESIDE)], pairs[index][1])
    finish(figure, panels, _ACROSS, "", ARM_LABELS, most=len(_BESIDE))
    return figure


_ACROSS = "checkpoint (gradient steps)"
_BESIDE = ("micro_f1", "effective_rank")


def _by_game(run: Run, probe: str) -> tuple[list[tuple[str, str]], list[pd.DataFrame]]:
    """Return games and objectives, and the rows of each, with the references of any objective."""
    require_rows(len(run.natural), run, "natural.csv")
    keys = [(cell.game, cell.objective) for cell in cells(run, probe)]
    tables = [
        with_references(where(run.natural, game=game, probe=probe), objective)
        for game, objective in keys
    ]
    return keys, tables


def panel_titles(keys: list[tuple[str, str]]) -> list[str]:
    """Title panels by game, and by objective where there is more than one."""
    if len({objective for _, objective in keys}) == 1:
        return [game for game, _ in keys]
    return [f"{game}, {OBJECTIVE_LABELS.get(objective, objective)}" for game, objective in keys]


def require_rows(rows: int, run: Run, file: str) -> None:
    """Refuse a table of the run that has no rows to draw."""
    if not rows:
        raise RMRError(
            f"{run.folder} has nothing to draw in {file}: let the run go on, or run "
            "its command again"
        )


def _draw_checkpoints(panel: Axes, rows: pd.DataFrame, metric: str) -> None:
    ticks = trained_steps(rows)
    for order, arm in enumerate(in_order(values(rows, "arm"), ARM_LABELS)):
        of_arm = where(rows, arm=arm).dropna(subset=[metric])
        if of_arm.empty:
            continue
        style = {
            "color": COLOURS.get(arm, OTHER),
            "label": ARM_LABELS.get(arm, arm),
            "zorder": 4 - 0.1 * order,
        }
        if arm in REFERENCE_ARMS and not set(values(of_arm, "step")) & set(ticks):
            last = where(of_arm, step=int(values(of_arm, "step").max()))
            level = float(values(last, metric).mean())
            panel.axhline(level, linestyle="--" if arm == "untrained" else ":", **style)
        else:
            draw_seeds(panel, of_arm, "step", metric, marker=MARKERS.get(arm, "*"), **style)
    if len(ticks) > 1 and ticks[-1] > 5 * ticks[0]:
        panel.set_xscale("log")
    if metric == "effective_rank":
        log_where_it_helps(panel, values(rows, metric), 5)
    panel.set_xticks(ticks, [f"{step:,}" for step in ticks])
    panel.set_xticks([], minor=True)
