"""The page of the demonstration: a headline with its figure, films, curves."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rmr_gym.report import arms
from rmr_gym.report.charts import seed_lines
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Schema, load_run, where
from rmr_gym.report.tables import ARM_LABELS, MODEL_LABELS

TABLES = {
    "belief": Schema(("game", "reader", "seed", "step"), ("micro_f1",), ("reader",)),
    "agent": Schema(("env", "features", "seed", "step"), ("return",)),
    **arms.NATURAL,
    **arms.ABSTRACT,
}
LABELS = {
    **{"belief": "belief with P", "frames alone": "frames without memory"},
    **MODEL_LABELS,
    **ARM_LABELS,
    **{"mpnn": "P", "state": "PPO on positions and velocities", "random": "random play"},
}
CURVES = {
    "reading": ("belief", "game", "step", "micro_f1", "reader", "step of the episode", "bit F1"),
    "predicting": ("abstract", "game", "step", "bit_f1", "model", "gradient step", "bit F1"),
    "learning": ("natural_curves", "game", "step", "loss", "arm", "gradient step", "loss"),
    "probing": ("natural", "game", "step", "micro_f1", "arm", "gradient step", "bit F1"),
    "returns": ("agent", "env", "step", "return", "features", "steps of training", "mean return"),
}
"""Figures: table, columns of panels, of both axes and of lines, and what the axes are called."""


def demo(folder: Path) -> Page:
    """Return the page of a demonstration; what is missing is left out.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "demo")
    figures: dict[str, Any] = {film.stem: partial(Path, film) for film in folder.glob("*.gif")}
    for name, (table, *columns, across, up) in CURVES.items():
        rows = run[table]
        labels = {key: label for key, label in LABELS.items() if key in {*rows[columns[-1]]}}
        if table == "natural_curves":  # means of ten steps
            rows = rows.assign(step=rows["step"] // 10 * 10 + 5)
        level = where(rows, rows[columns[-1]].isin(["copy", "untrained"]), step=0)
        rows = pd.concat([rows, level.assign(step=rows["step"].max())])
        axes = {"across": across, "up": up}
        figures[name] = partial(seed_lines, rows, *columns, labels, f"{table}.csv", **axes)
    return Page(run, {}, figures, results=run["belief"])
