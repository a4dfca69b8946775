"""The page of a comparison of world models."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import charts
from rmr_gym.report.charts import own_names, validation_curves
from rmr_gym.report.names import called
from rmr_gym.report.page import Page, listing
from rmr_gym.report.runs import CURVES, Schema, groups, load_run
from rmr_gym.report.statistics import PRIVILEGED, means, model_pairs

SCORES = {
    "bce": "BCE",
    "relative_bce": "relative BCE",
    "relative_relational_bce": "relative relational BCE",
    "relative_rollout_bce": "relative simulated BCE",
    "rollout_f1": "simulated F1",
    "ari": "ARI",
    "ari_last": "ARI of the last frames",
}
"""Scores in the order of the tables, and what they are called there."""

BETTER = {"relative_bce": -1, "relative_rollout_bce": -1, "rollout_f1": 1, "ari_last": 1}
"""Scores that are compared, and whether more (1) or less (-1) of them is better."""

SIMULATED = {"bce": ("copied", "BCE in nats a frame"), "f1": ("f1_copied", "F1 of lit pixels")}
"""Scores of simulated frames: the column of the last frame copied, and what they are called."""

_SIMULATED = ("bce", "copied", "f1", "f1_copied")
TABLES = {
    "world_models": Schema(("test", "model", "seed"), ("balls", "groups", *SCORES)),
    "simulations": Schema(("test", "model", "seed", "frame"), _SIMULATED),
    **CURVES,
}


def report(folder: Path) -> Page:
    """Return the page of a comparison of world models; what is missing is left out.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "world_models")
    rows, simulations = run["world_models"], run["simulations"]
    scores, pairs = score_table(rows), model_pairs(rows, "test", BETTER)
    models = [*own_names(rows)]
    relative = ("relative_bce", "relative_relational_bce")
    return Page(
        run,
        f"World models: {listing(models) if models else 'no models yet'}",
        {
            "scores": scores.assign(
                name=[f"{m} (privileged)" if m in PRIVILEGED else m for m in scores["model"]],
                of=[f": {balls:.0f} balls" if balls > 0 else "" for balls in scores["balls"]],
            ),
            "columns": [(score, title, "spread") for score, title in SCORES.items()],
            "pairs": pairs.assign(title=called(pairs["score"], SCORES)),
            "privileged": PRIVILEGED,
        },
        {
            "relative_bce": partial(score_dots, rows, relative, 1.0),
            "simulations": partial(simulation_curves, simulations),
            "simulations_f1": partial(simulation_curves, simulations, "f1"),
            "ari": partial(score_dots, rows, ("ari", "ari_last")),
            "validation": partial(validation_curves, run["world_model_curves"]),
        },
        {"world_models_summary": scores, "pairs": pairs},
        len(rows) > 0,
    )


def score_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds.

    Args:
        rows: Of ``world_models.csv``.

    Returns:
        One row a test set and model, with the number of balls, of groups while scoring and of
        seeds, and ``_mean`` and ``_std`` of each of `SCORES`.
    """
    return means(rows, ("test", "balls", "model", "groups"), [*SCORES])


def score_dots(rows: pd.DataFrame, scores: Sequence[str], mark: float = float("nan")) -> Figure:
    """Draw scores of every model and seed, a panel a test set, all on one scale.

    Source: R-NEM, Figures 3 and 4, left.

    Args:
        rows: Of ``world_models.csv``.
        scores: One or two columns; the first are circles, the second squares.
        mark: Where a dotted line stands.

    Raises:
        RMRError: There is none of these scores.
    """
    long = rows.melt(["test", "model"], [*scores], "score").dropna(subset="value")
    dots = groups(long, "test", "model", "score")["value"].agg(points=list, mean="mean")
    styles = zip(charts.CYCLE, "os", (-0.15, 0.15), strict=False)
    looks = pd.DataFrame(styles, columns=["color", "marker", "shift"])[: len(scores)]
    looks = looks.assign(score=scores, label=called(scores, SCORES))
    shown = dots.reset_index().merge(looks, on="score").assign(row=lambda dot: dot["model"])
    models = [name for name in own_names(rows) if name in {*shown["model"]}]
    panels = charts.faceted(shown, "test", charts.Dots.of)
    return charts.dots(panels, models, mark, shared=True, file=f"world_models.csv: {scores[0]}")


def simulation_curves(rows: pd.DataFrame, score: str = "bce") -> Figure:
    """Draw a score of every simulated frame, a panel a test set; copying the last frame dashed.

    Source: R-NEM, Figure 4, right.

    Args:
        rows: Of ``simulations.csv``.
        score: "bce" or "f1".

    Raises:
        RMRError: There are none.
    """
    copied, title = SIMULATED[score]
    known, last = rows.dropna(subset=score), {"copied": "last frame copied"}
    both = pd.concat([known, known.assign(model="copied", **{score: known[copied]})])
    names, axes = own_names(known) | last, {"across": "simulated frame", "up": title}
    draw = partial(charts.over_seeds, x="frame", y=score, by="model", labels=names, marker=None)
    return charts.lines(charts.faceted(both, "test", draw, **axes), file="simulations.csv")
