"""The page of the copying task: accuracy after longer pauses, and which RIMs are active when."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import charts
from rmr_gym.report.page import Page
from rmr_gym.report.pictures import activation_figure
from rmr_gym.report.runs import Schema, load_run, read_arrays, where
from rmr_gym.report.statistics import means

LABELS = {"rims": "RIMs", "lstm": "LSTM"}
SCORES = ("accuracy", "cross_entropy")
_KEY = ("model", "active", "seed", "step")
_POINT = ("model", "active", "span", "dropped")
TABLES = {
    "copying": Schema((*_KEY, "span", "dropped"), SCORES),
    "copying_curves": Schema(_KEY, ("loss",)),
}


def report(folder: Path) -> Page:
    """Return the page of a run of the copying task.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "copying")
    rows, curves = run["copying"], run["copying_curves"].assign(panel="")
    loss = ("panel", "model", LABELS, "loss", "copying_curves.csv")
    table = means(where(rows, step=rows["step"].max()), (*_POINT, "step"), SCORES)
    arrays = read_arrays(folder / "activity.npz")
    seeds = [name.rpartition("_")[2] for name in arrays if name.startswith("pattern_")]
    active = {f"active_{seed}": partial(_activity, arrays, seed) for seed in seeds}
    return Page(
        run,
        "Copying after longer pauses",
        {
            "labels": LABELS,
            "whole": where(table, dropped=-1),
            "lost": where(table, table["dropped"] >= 0),
            "seeds": seeds,
        },
        {
            "errors": partial(error_curves, rows),
            "loss": partial(charts.loss_figure, curves, *loss),
            **active,
        },
        {"copying_summary": table},
        len(rows) > 0,
    )


def error_curves(rows: pd.DataFrame) -> Figure:
    """Draw the cross-entropy of recalled digits against the checkpoint, a panel a pause.

    Raises:
        RMRError: There is none.
    """
    whole = where(rows, dropped=-1)
    whole = whole.assign(panel=[f"{span:.0f} blanks" for span in whole["span"]])
    draw = partial(charts.over_seeds, x="step", y="cross_entropy", by="model", labels=LABELS)
    axes: Any = {"across": "gradient step", "up": "nats a digit", "log": 20.0}
    return charts.lines(charts.faceted(whole, "panel", draw, **axes), file="copying.csv")


def _activity(arrays: dict[str, np.ndarray], seed: str) -> Figure:
    titles = {"one sequence": f"pattern_{seed}", "share of sequences": f"share_{seed}"}
    patterns = {title: arrays[name].astype(float) for title, name in titles.items()}
    begins = (0, *map(int, arrays["begins"]))
    phases: dict[str, int] = dict(zip(("digits", "blanks", "recall"), begins, strict=True))
    return activation_figure(patterns, phases)
