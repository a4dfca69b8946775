"""The page of abstract balls: rollouts of P beside baselines, by the width of the latents."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import charts
from rmr_gym.report.charts import own_names
from rmr_gym.report.names import called
from rmr_gym.report.page import Page, about
from rmr_gym.report.runs import Schema, load_run, where
from rmr_gym.report.statistics import means
from rmr_gym.report.tables import grouped

SCORES = (
    *("training_mse", "validation_mse", "mse_1", "ratio_1", "mse_10", "ratio_10"),
    *("outside", "excursion", "energy"),
)
RATIOS = {"ratio_1": "1 instant", "ratio_10": "10 instants"}
_POINT = ("game", "model", "predict", "aggregation", "dim", "step")
TABLES = {
    "rollouts": Schema((*_POINT, "seed"), SCORES),
    "curves": Schema(("game", "model", "dim", "seed", "step"), ("loss",)),
}


def report(folder: Path) -> Page:
    """Return the page of abstract models of balls.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "balls")
    rows = run["rollouts"]
    table = means(rows.assign(dim=rows["dim"].where(rows["dim"] >= 0)), _POINT, SCORES)
    return Page(
        run,
        f"Bouncing balls, abstract: {about(run.games, 'world')}",
        {"rollouts": table},
        {"ratios": partial(width_curves, rows), "loss": partial(loss_curves, run["curves"])},
        {"rollouts_summary": table},
        len(rows) > 0,
    )


def width_curves(rows: pd.DataFrame) -> Figure:
    """Draw the errors of rollouts against the width of the latents.

    Source: RMR, Figure 5, for balls.

    Args:
        rows: Of rollouts.csv; those without latents are left out.

    Raises:
        RMRError: There is none.
    """
    narrow = where(rows, rows["dim"] >= 0)
    ticks = sorted({int(dim) for dim in narrow["dim"]})
    axes: Any = {"across": "width of the latents", "up": "error over that of reflection"}
    long = narrow.melt(["game", "model", "dim"], [*RATIOS], "ratio")
    long["panel"] = long["game"] + ", " + called(long["ratio"], RATIOS)
    long = grouped(long, "game", "ratio")
    draw = partial(charts.over_seeds, x="dim", y="value", by="model", labels=own_names(narrow))
    panels = charts.faceted(long, "panel", draw, ticks=ticks, log=10.0, **axes)
    return charts.lines(panels, len(RATIOS), file="rollouts.csv")


def loss_curves(rows: pd.DataFrame) -> Figure:
    """Draw the training loss of every core and width, a panel a world.

    Raises:
        RMRError: There is none.
    """
    names = [f"{model}, {dim} wide" for model, dim in zip(rows["model"], rows["dim"], strict=True)]
    named = rows.assign(model=np.array(names, object))
    return charts.loss_figure(named, "game", "model", own_names(named), "loss", "curves.csv")
