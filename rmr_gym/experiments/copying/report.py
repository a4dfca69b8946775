"""The page of the copying task: accuracy after longer pauses, and which RIMs are active when."""

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import charts
from rmr_gym.report.page import Page
from rmr_gym.report.pictures import activation_figure
from rmr_gym.report.runs import Schema, load_run, parts, read_arrays, where
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
    rows = run["copying"]
    table = means(where(rows, step=rows["step"].max()), (*_POINT, "step"), SCORES)
    arrays = read_arrays(folder / "activity.npz")
    seeds = [name.rpartition("_")[2] for name in arrays if name.startswith("pattern_")]
    active = {}
    for seed in seeds:
        titles = {"one sequence": f"pattern_{seed}", "share of sequences": f"share_{seed}"}
        patterns = {title: arrays[name].astype(float) for title, name in titles.items()}
        begins = (0, *map(int, arrays["begins"]))
        phases: dict[str, int] = dict(zip(("digits", "blanks", "recall"), begins, strict=True))
        active[f"active_{seed}"] = partial(activation_figure, patterns, phases)
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
            "loss": partial(loss_curves, run["copying_curves"]),
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
    panels = [
        charts.Panel(
            f"{span:.0f} blanks",
            charts.over_seeds(own, "step", "cross_entropy", "model", LABELS),
            *("gradient step", "nats a digit"),
            log=20.0,
        )
        for (span,), own in parts(where(rows, dropped=-1), "span").items()
    ]
    return charts.lines(panels, file="copying.csv")


def loss_curves(rows: pd.DataFrame) -> Figure:
    """Draw the training loss.

    Raises:
        RMRError: There is none.
    """
    drawn = charts.curves(rows, "loss", "model", LABELS)
    panel = charts.Panel("", drawn, "gradient step", "loss", log=20.0)
    return charts.lines([panel], file="copying_curves.csv")
