"""The page of a sequence task: scores on longer sequences, returns, which RIMs are active when."""

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
from rmr_gym.report.statistics import means, paired

LABELS = {"rims": "RIMs", "lstm": "LSTM", "memoryless": "no memory", "expert": "expert"}
SPANS = {
    "copying": ("after", "blanks"), "digits": ("at", "pixels across"), "adding": ("of", "numbers"),
    "imitation": ("over", "instants"),
}  # fmt: skip
"""Tasks, and what their spans count, behind a preposition."""

SCORES = {"accuracy": 1, "cross_entropy": -1, "mse": -1}
"""Scores, and whether more (1) or less (-1) of them is better."""

_KEY = ("model", "active", "seed", "step")
_POINT = ("model", "active", "span", "dropped")
TABLES = {
    "sequences": Schema((*_KEY, "span", "dropped"), (*SCORES, "held_out")),
    "sequences_curves": Schema(_KEY, ("loss",)),
    "returns": Schema(("model", "seed", "strength"), ("return",)),
}


def sequences(folder: Path) -> Page:
    """Return the page of a run of a sequence task.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "sequences")
    rows, curves = run["sequences"], run["sequences_curves"].assign(panel="")
    loss = ("panel", "model", LABELS, "loss", "sequences_curves.csv")
    last, (at, spans) = chosen(rows), SPANS.get(str(run.info.get("task")), SPANS["copying"])
    scores = {score: sign for score, sign in SCORES.items() if len(rows[score].dropna())}
    whole, pair = where(last, dropped=-1), ("lstm",)
    tests = paired(whole, scores, "model", pair, ("span",), family=("score",))
    tables = {"sequences_summary": means(last, _POINT, [*scores])}
    tables["pairs"] = where(tests, tests["pairs"] > 0).drop(columns="gaps")
    arrays = read_arrays(folder / "activity.npz")
    seeds = [name.rpartition("_")[2] for name in arrays if name.startswith("pattern_")]
    played = run["returns"].assign(panel="noise on the joints, radians")
    tests = paired(played, "return", "model", pair, ("strength",), family=("model",))
    tables["returns_summary"] = means(played, ("model", "strength"), ["return"])
    tables["returns_pairs"] = where(tests, tests["pairs"] > 0).drop(columns="gaps")
    figures = {f"active_{seed}": partial(_activity, arrays, seed) for seed in seeds}
    figures["errors"] = partial(error_curves, rows, spans)
    axes: Any = ("panel", "strength", "return", "model", LABELS, "returns.csv")
    figures["returns"] = partial(charts.seed_lines, played, *axes, up="return")
    figures["loss"] = partial(charts.loss_figure, curves, *loss)
    return Page(
        run, tables, figures, {"seeds": seeds, "at": at, "spans": spans, "scores": [*scores]}
    )


def chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one checkpoint a model and seed: the least loss held out, or the last."""
    whole = where(rows, dropped=-1)
    order = whole["held_out"].fillna(-whole["step"]).groupby([whole["model"], whole["seed"]])
    return rows.merge(whole.loc[order.idxmin(), ["model", "seed", "step"]])


def error_curves(rows: pd.DataFrame, spans: str) -> Figure:
    """Draw the cross-entropy or squared error against the checkpoint, a panel a span.

    Args:
        rows: Of ``sequences.csv``.
        spans: What they are called.

    Raises:
        RMRError: There is none.
    """
    whole, score = where(rows, dropped=-1), "mse" if len(rows["mse"].dropna()) else "cross_entropy"
    whole = whole.assign(panel=[f"{span:.0f} {spans}" for span in whole["span"]])
    axes, file = ("panel", "step", score, "model"), "sequences.csv"
    up = "nats a digit" if score == "cross_entropy" else "squared error of the sum"
    titles: Any = {"across": "gradient step", "up": up, "log": 20.0}
    return charts.seed_lines(whole, *axes, LABELS, file, **titles)


def _activity(arrays: dict[str, np.ndarray], seed: str) -> Figure:
    titles = {"one sequence": f"pattern_{seed}", "share of sequences": f"share_{seed}"}
    patterns = {title: arrays[name].astype(float) for title, name in titles.items()}
    begins = (0, *map(int, arrays["begins"]))
    phases = ("digits", "blanks", "recall") if len(begins) > 1 else ("sequence",)
    return activation_figure(patterns, dict(zip(phases, begins, strict=True)))
