"""Scores of world models as dots, their simulations and their training as curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmr_gym.analysis.canvas import (
    ACROSS,
    COLOURS,
    OTHER,
    draw_seeds,
    finish,
    log_where_it_helps,
    panel_grid,
    styled,
)
from rmr_gym.analysis.run import values, where
from rmr_gym.analysis.world_models import SCORES, names
from rmr_gym.core.errors import RMRError

_CYCLE, _LINES = tuple(dict.fromkeys(COLOURS.values())), ("-", "--", "-.", ":")
_DOTS = ("o", "s")
SIMULATED = {"bce": ("copied", "BCE in nats a frame"), "f1": ("f1_copied", "F1 of lit pixels")}
"""Scores of simulated frames: the column of the last frame copied, and what they are called."""


@styled
def score_dots(rows: pd.DataFrame, scores: Sequence[str], mark: float | None = None) -> Figure:
    """Draw scores of every model and seed, a panel a test set, all on one scale.

    Source: R-NEM, Figures 3 and 4, left.

    Args:
        rows: Of ``world_models.csv``.
        scores: One or two columns; the first are circles, the second squares.
        mark: Where a dotted line stands.

    Raises:
        RMRError: There is none of these scores.
    """
    known = rows.dropna(subset=[*scores], how="all")
    tests, models = names(known, "test"), names(known, "model")[::-1]
    if not tests:
        raise RMRError(f"this run has no {' and no '.join(scores)}")
    figure, panels = panel_grid(tests, height=0.8 + 0.28 * len(models))
    for index, (test, panel) in enumerate(zip(tests, panels, strict=True)):
        if mark is not None:
            panel.axvline(mark, color=OTHER, linestyle=":")
        for dot, score, up in zip(_DOTS, scores, (0.15, -0.15), strict=False):
            style: dict[str, Any] = {"color": _CYCLE[_DOTS.index(dot)]}
            for height, model in enumerate(models):
                found = values(where(known, test=test, model=model), score)
                found = found[~np.isnan(found)]
                at = height + up
                panel.plot(found, [at] * len(found), "|", markersize=7, **style)
                mean = [found.mean()] if len(found) else []
                panel.plot(mean, [at] * len(mean), dot, label=SCORES[score], markersize=5, **style)
        panel.set_yticks(range(len(models)), models if index % ACROSS == 0 else [""] * len(models))
        panel.set_ylim(-0.6, len(models) - 0.4)
    lefts, rights = zip(*(panel.get_xlim() for panel in panels), strict=True)
    for panel in panels:
        panel.set_xlim(min(lefts), max(rights))
    finish(figure, panels, "", "", {})
    return figure


@styled
def simulation_curves(rows: pd.DataFrame, score: str = "bce") -> Figure:
    """Draw a score of every simulated frame, a panel a test set; copying the last frame dashed.

    Source: R-NEM, Figure 4, right.

    Args:
        rows: Of ``simulations.csv``.
        score: "bce" or "f1".

    Raises:
        RMRError: There are none.
    """
    copied, label = SIMULATED[score]
    rows = rows.dropna(subset=score)
    tests, styles = names(rows, "test"), _styles(rows)
    if not tests:
        raise RMRError("this run has no simulations")
    figure, panels = panel_grid(tests, height=2.6)
    for test, panel in zip(tests, panels, strict=True):
        here = where(rows, test=test)
        for model, style in styles.items():
            draw_seeds(panel, where(here, model=model), "frame", score, label=model, **style)
        dashed = {"color": OTHER, "linestyle": "--", "label": "last frame copied"}
        draw_seeds(panel, here, "frame", copied, **dashed)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(figure, panels, "simulated frame", label, {})
    return figure


@styled
def validation_curves(rows: pd.DataFrame) -> Figure:
    """Draw the loss on validation sequences along training.

    Args:
        rows: Of ``world_model_curves.csv``.

    Raises:
        RMRError: There are none.
    """
    if rows.empty:
        raise RMRError("this run has no validation losses")
    figure, panels = panel_grid(["validation loss"], height=2.8)
    for model, style in _styles(rows).items():
        of_model = where(rows, model=model)
        draw_seeds(panels[0], of_model, "step", "validation_loss", label=model, **style)
    log_where_it_helps(panels[0], values(rows, "validation_loss").astype(float), 8)
    finish(figure, panels, "step", "nats a frame", {}, columns=3)
    return figure


def _styles(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return colour and line of each model."""
    return {
        model: {
            "color": _CYCLE[index % len(_CYCLE)],
            "linestyle": _LINES[index // len(_CYCLE) % len(_LINES)],
        }
        for index, model in enumerate(names(rows, "model"))
    }
