"""Pages of bouncing balls: rollouts of P by the width of the latents; arms on pixels."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import gmean

from rmr_gym.report import charts
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Schema, groups, load_run, parts, records, where
from rmr_gym.report.statistics import CORRECTED, corrected, means, paired
from rmr_gym.report.tables import called, grouped

SCORES = (
    *("training_mse", "validation_mse", "mse_1", "ratio_1", "mse_10", "ratio_10"),
    *("outside", "excursion", "energy"),
)
WIDTH = "width of the latents"
RATIOS = {"ratio_1": "1 instant", "ratio_10": "10 instants"}
_POINT = ("game", "model", "predict", "aggregation", "dim", "step")
ROLLED = {
    "rollouts": Schema((*_POINT, "seed"), SCORES),
    "curves": Schema(("game", "model", "dim", "seed", "step"), ("loss",)),
}
"""Tables of a run of abstract models."""

REFERENCE, WARM_START, ALIGNED = "cswm", "warm_start", "_aligned"
CLAIMED = {"rmr": REFERENCE, "rmr" + ALIGNED: REFERENCE + ALIGNED}
"""Arms and what they are compared with, whose errors of the next frame are the claims."""

_GAPS = {"ratio": "difference", "low": "high", "high": "low"}
ERRORS = {"mse": "next frame", "rollout_mse": "rollout of 8 frames"}
POINT = ("game", "core", "dim")
"""Arms are compared within one point of a sweep."""

_VALUES = (
    *("mse", "copy_mse", "ratio_to_copy", "ari"),
    *("alone", "attempts", "rollout_mse", "rollout_copy_mse"),
)
TRAINED = {"balls_natural": Schema((*POINT, "arm", "seed"), _VALUES)}
"""Table of a run on pixels."""


def balls(folder: Path) -> Page:
    """Return the page of abstract models of balls.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, ROLLED, "balls")
    rows = run["rollouts"]
    table = means(rows.assign(dim=rows["dim"].where(rows["dim"] >= 0)), _POINT, SCORES)
    figures = {"ratios": partial(width_curves, rows), "loss": partial(loss_curves, run["curves"])}
    return Page(run, {"rollouts_summary": table}, figures)


def width_curves(rows: pd.DataFrame) -> Figure:
    """Draw the errors of rollouts against the width of the latents.

    Source: RMR, Figure 5, for balls.

    Args:
        rows: Of rollouts.csv; those without latents are left out.

    Raises:
        RMRError: There is none.
    """
    narrow = where(rows, rows["dim"] >= 0)
    titles: Any = {"across": WIDTH, "up": "error over that of reflection", "log": 10.0}
    long = narrow.melt(["game", "model", "dim"], [*RATIOS], "ratio")
    long["panel"] = long["game"] + ", " + called(long["ratio"], RATIOS)
    long = grouped(long, "game", "ratio")
    axes, file = ("panel", "dim", "value", "model"), "rollouts.csv"
    titles["ticks"] = sorted({int(dim) for dim in narrow["dim"]})
    return charts.seed_lines(long, *axes, charts.own_names(narrow), file, len(RATIOS), **titles)


def loss_curves(rows: pd.DataFrame) -> Figure:
    """Draw the training loss of every core and width, a panel a world.

    Raises:
        RMRError: There is none.
    """
    names = [f"{model}, {dim} wide" for model, dim in zip(rows["model"], rows["dim"], strict=True)]
    named = rows.assign(model=np.array(names, object))
    return charts.loss_figure(named, "game", "model", charts.own_names(named), "loss", "curves.csv")


def balls_natural(folder: Path) -> Page:
    """Return the page of a comparison on pixels; no ratios while an arm is no better than copying.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TRAINED, "balls_natural")
    rows = run["balls_natural"]
    ratios = pd.DataFrame() if rows.empty else ratio_table(rows)
    figures = {"arms": partial(arms_figure, rows), "widths": partial(ratio_curves, rows)}
    return Page(run, {"balls_natural_ratios": ratios}, figures, {"worse": worse_than_copy(rows)})


def worse_than_copy(table: pd.DataFrame) -> list[str]:
    """Return the arms and seeds whose frames are no better than the last frame seen.

    While there is one, no ratio between arms means anything; tests, which rank, do.

    Args:
        table: ``arm``, ``seed``, ``ratio_to_copy`` and what `POINT` names, where it is known.
    """
    point = [name for name in POINT if name in table]
    return [
        " ".join([*(f"{name} {row[name]}" for name in point), f"{row['arm']} seed {row['seed']}"])
        for row in records(table.query("arm != @WARM_START and not ratio_to_copy < 1"))
    ]


def ratio_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each arm, its errors over those of the baseline with the same seed.

    Arms with an aligned start are compared with the baseline, and with that of the same start.

    Args:
        table: ``arm``, ``seed``, ``mse``, ``ratio_to_copy`` and, where they are known,
            ``rollout_mse`` and what `POINT` names.

    Returns:
        Columns: those of `POINT`, ``error``, ``arm``, ``against``, ``seeds``, ``ratio`` (geometric
        mean over seeds), ``low`` and ``high`` (its 95% bootstrap interval), these three empty while
        an arm is no better than copying the last frame (`worse_than_copy`), and the exact one-sided
        p of Wilcoxon's signed-rank test on the logarithms for lower errors (``p_better``) and for
        higher ones, for `CLAIMED` also after Benjamini and Hochberg's correction over them.
    """
    point = [name for name in POINT if name in table]
    logs = table.query("arm != @WARM_START")
    logs = logs.assign(**{name: np.log(logs[name]) for name in ERRORS if name in table})
    less = {name: -1 for name in ERRORS if name in table}
    tests = paired(logs, less, "arm", _references, point)
    tests = where(tests, tests["pairs"] > 0)
    claims = where(tests, [*map(CLAIMED.get, tests["arm"])] == tests["against"], score="mse")
    tests[[*CORRECTED[:2]]] = corrected(claims, point)[[*CORRECTED[:2]]]
    ratios = {name: np.exp(-tests[gap].astype(float)) for name, gap in _GAPS.items()}
    if worse_than_copy(table):
        ratios = dict.fromkeys(_GAPS, np.nan)
    tests = tests.assign(**ratios).rename(columns={"pairs": "seeds", "score": "error"})
    columns = [*point, "error", "arm", "against", "seeds", *_GAPS, "p_better", "p_worse"]
    tests = tests.sort_values("error", kind="stable", key=lambda names: names.map([*less].index))
    return pd.DataFrame(tests[[*columns, *CORRECTED[:2]]]).reset_index(drop=True)


def _references(arm: str, arms: list[str]) -> list[str]:
    return [REFERENCE, REFERENCE + ALIGNED] if arm.endswith(ALIGNED) else [REFERENCE]


def arms_figure(table: pd.DataFrame) -> Figure:
    """Draw the error of every arm and seed over that of copying the last frame.

    Left the next frame, right a rollout; large dots are means (geometric) over seeds, arms that
    hand the abstract pipeline over are in another colour. Of a sweep the first point is drawn.

    Args:
        table: ``arm``, ``seed``, ``mse``, ``copy_mse``, ``rollout_mse``, ``rollout_copy_mse`` and
            what `POINT` names, where it is known.

    Raises:
        RMRError: There is none.
    """
    point = [name for name in POINT if name in table]
    rows = next(iter(parts(table.query("arm != @WARM_START"), *point).values()), table)
    across = "error over that of the last frame seen"
    panels = [
        charts.Panel(title, charts.Dots.of(_over_copying(rows, error)), across)
        for error, title in ERRORS.items()
    ]
    names = list(dict.fromkeys(rows["arm"]))
    figure = charts.dots(panels, names, 1.0, most=2, file="balls_natural.csv")
    for ax in figure.axes:
        ax.set_xscale("log", subs=[2, 5])
    return figure


def _over_copying(rows: pd.DataFrame, error: str) -> pd.DataFrame:
    """Return the ratios of every arm to copying, their geometric mean and a colour."""
    ratios = rows.assign(ratio=rows[error] / rows[error.replace("mse", "copy_mse")])
    shown = groups(ratios, "arm")["ratio"].agg(points=list, mean=gmean).reset_index()
    aligned = shown["arm"].str.endswith(ALIGNED)
    return shown.assign(row=shown["arm"], color=np.where(aligned, *charts.CYCLE[2::-2]))


def ratio_curves(table: pd.DataFrame) -> Figure:
    """Draw the error of every arm over that of copying against the width of the latents.

    Args:
        table: Of balls_natural.csv; the interaction network, which has one width, is left out.

    Raises:
        RMRError: There is one width alone.
    """
    rows = where(table, table["arm"] != WARM_START)
    rows = where(rows, core=list(rows["core"][:1]))
    dims = sorted({int(dim) for dim in rows["dim"]})
    drawn = charts.over_seeds(rows, "dim", "ratio_to_copy", "arm", {}) if len(dims) > 1 else []
    axes = (WIDTH, "error over that of the last frame seen", dims, 10.0)
    return charts.lines([charts.Panel("next frame", drawn, *axes)], file="balls_natural.csv")
