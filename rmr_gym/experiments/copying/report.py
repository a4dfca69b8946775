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


def copying(folder: Path) -> Page:
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
    figures = {f"active_{seed}": partial(_activity, arrays, seed) for seed in seeds}
    figures["errors"] = partial(error_curves, rows)
    figures["loss"] = partial(charts.loss_figure, curves, *loss)
    return Page(run, {"copying_summary": table}, figures, {"seeds": seeds})


def error_curves(rows: pd.DataFrame) -> Figure:
    """Draw the cross-entropy of recalled digits against the checkpoint, a panel a pause.

    Raises:
        RMRError: There is none.
    """
    whole = where(rows, dropped=-1)
    whole = whole.assign(panel=[f"{span:.0f} blanks" for span in whole["span"]])
    axes, file = ("panel", "step", "cross_entropy", "model"), "copying.csv"
    titles: Any = {"across": "gradient step", "up": "nats a digit", "log": 20.0}
    return charts.seed_lines(whole, *axes, LABELS, file, **titles)


def _activity(arrays: dict[str, np.ndarray], seed: str) -> Figure:
    titles = {"one sequence": f"pattern_{seed}", "share of sequences": f"share_{seed}"}
    patterns = {title: arrays[name].astype(float) for title, name in titles.items()}
    begins = (0, *map(int, arrays["begins"]))
    phases: dict[str, int] = dict(zip(("digits", "blanks", "recall"), begins, strict=True))
    return activation_figure(patterns, phases)
