"""The page of models of crops that see less: more balls, fewer crops, modules taken out."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.core.errors import RMRError
from rmr_gym.report import charts
from rmr_gym.report.charts import own_names, validation_curves
from rmr_gym.report.names import called
from rmr_gym.report.page import Page, listing
from rmr_gym.report.runs import CURVES, Schema, groups, load_run, read_arrays, where
from rmr_gym.report.statistics import PRIVILEGED, means, model_pairs
from rmr_gym.report.tables import wide

QUESTIONS = {"balls": "balls", "views": "crops that are seen", "dropped": "modules taken out"}
"""What varies, and what it is called; where one does, the other two stay as in training."""

SCORES = {"f1": "F1", "balanced_accuracy": "balanced accuracy"}
"""Scores in the order of the tables, and what they are called there."""

HELD_OUT = "validation"
"""What the validation episodes of the training data are called among test sets."""

CONDITION = ("test", "balls", "views", "dropped")
TABLES = {
    "views": Schema(("model", "seed", "test", "views", "dropped"), ("balls", *SCORES)),
    **CURVES,
}
ACROSS = 5
"""Modules in a row of their maps."""


def report(folder: Path) -> Page:
    """Return the page of models of crops; what is missing is left out.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "views")
    rows, data = run["views"], run.info.get("data")
    balls = data.get("balls") if isinstance(data, dict) else None
    trained_on = balls if isinstance(balls, int) else None
    table, lost = view_table(rows), losses(rows, trained_on)
    costs, pairs = cost_table(lost), cost_pairs(lost)
    names = {m: f"{m} (privileged)" if m in PRIVILEGED else m for m in own_names(rows)}
    enclaves = sorted(run.folder.glob("enclaves_*.npz"))
    return Page(
        run,
        f"Models of crops: {listing(names) if names else 'no models yet'}",
        {
            "names": names,
            "privileged": PRIVILEGED,
            "questions": QUESTIONS,
            "enclaves": [path.stem for path in enclaves],
            "whole": where(table, views=table["views"].max(), dropped=0),
            "conditions": {
                title: wide(table, CONDITION, "model", [f"{score}_mean", f"{score}_std"])
                for score, title in SCORES.items()
            },
            "costs": costs.assign(
                name=called(costs["model"], names),
                what=called(costs["question"], QUESTIONS),
                percent=100 * costs["relative"],
            ),
            "pairs": pairs.assign(
                title="relative drop of F1", what=called(pairs["question"], QUESTIONS)
            ),
        },
        {
            "views": partial(views_figure, rows, trained_on),
            "validation": partial(validation_curves, run["world_model_curves"]),
            **{name: draw for path in enclaves for name, draw in enclave_figures(path)},
        },
        {"views_summary": table, "views_costs": costs, "views_pairs": pairs},
        len(rows) > 0,
    )


def varied(table: pd.DataFrame, trained_on: int | None) -> dict[str, pd.DataFrame]:
    """Return the rows in which one thing varies, by its name in `QUESTIONS`; none where none does.

    A further test set with as many balls as in training stands for the validation episodes.

    Args:
        table: Of views.csv.
        trained_on: Balls in training; None where the number of balls is not known.
    """
    held_out = table["test"] == HELD_OUT
    if trained_on in {*table["balls"][~held_out]}:
        table = where(table, ~held_out)
    usual = {"balls": trained_on, "views": table["views"].max(), "dropped": 0}
    found = {}
    for name in QUESTIONS:
        others = {o: at for o, at in usual.items() if o != name and at is not None}
        rows = where(table, **others)
        if len({*rows[name].dropna()}) > 1:
            found[name] = rows
    return found


def view_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds, one row a condition and model.

    Columns: those of `CONDITION`, model, seeds, and ``_mean`` and ``_std`` of each of `SCORES`.
    """
    return means(table, (*CONDITION, "model"), [*SCORES])


def losses(table: pd.DataFrame, trained_on: int | None) -> pd.DataFrame:
    """Return F1 in training's condition and in the hardest, of each model and seed that has both.

    The hardest are most balls, fewest crops, most modules taken out.

    Args:
        table: Of views.csv.
        trained_on: Balls in training; None where the number of balls is not known.

    Returns:
        A row a question, model and seed. Columns: these, usual, hardest, f1, f1_hardest.
    """
    found = [pd.DataFrame(columns=["question", "model", "seed", "usual", "hardest", *_ENDS])]
    for question, rows in varied(table, trained_on).items():
        least, most = rows[question].min(), rows[question].max()
        ends = {"balls": (trained_on, most), "views": (most, least), "dropped": (0, most)}
        usual, hardest = ends[question]
        if usual is not None and usual != hardest:
            f1 = groups(rows, "model", "seed", question)["f1"].mean()
            both = f1.unstack(question).reindex(columns=[usual, hardest]).dropna()
            both = both.set_axis(_ENDS, axis=1).reset_index()
            found.append(both.assign(question=question, usual=float(usual), hardest=hardest))
    return pd.concat(found[1:] or found)


_ENDS = ["f1", "f1_hardest"]


def cost_table(lost: pd.DataFrame) -> pd.DataFrame:
    """Return what F1 loses from training's condition to the hardest one.

    Args:
        lost: See `losses`.

    Returns:
        A row a question and model. Columns: these, seeds, usual, hardest; f1 and f1_hardest
        (means over the seeds), their difference ``drop``, and ``relative``, the drop over the
        score in training's condition.
    """
    table = groups(lost, "question", "model").agg(
        seeds=("seed", "size"),
        usual=("usual", "first"),
        hardest=("hardest", "first"),
        f1=("f1", "mean"),
        f1_hardest=("f1_hardest", "mean"),
    )
    drop = table["f1"] - table["f1_hardest"]
    relative = drop / table["f1"].where(table["f1"] != 0)
    return table.assign(drop=drop, relative=relative).reset_index()


def cost_pairs(lost: pd.DataFrame) -> pd.DataFrame:
    """Return how much less of its F1 each model loses than what it is compared with, by seed.

    Args:
        lost: See `losses`.

    Returns:
        The rows of `model_pairs` for each question; a seed's drop is relative to its own F1 in
        training's condition.
    """
    before = lost["f1"].where(lost["f1"] != 0)
    relative = (lost["f1"] - lost["f1_hardest"]) / before
    return model_pairs(lost.assign(relative=relative), "question", {"relative": -1})


def views_figure(table: pd.DataFrame, trained_on: int | None, score: str = "f1") -> Figure:
    """Draw a score against balls, crops and modules, a line a model: the mean over seeds.

    Source: S2RM, Figures 4, 6 and 7, and 20 and 21 of its appendix.

    Args:
        table: Of views.csv.
        trained_on: Balls in training; None where the number of balls is not known.
        score: Column that is drawn.

    Raises:
        RMRError: Nothing varies in the table.
    """
    names, up = own_names(table), score.replace("_", " ")
    panels = [
        charts.Panel(
            f"by {QUESTIONS[question]}",
            charts.over_seeds(rows, question, score, "model", names),
            *(QUESTIONS[question], up),
        )
        for question, rows in varied(table, trained_on).items()
    ]
    return charts.lines(panels, file="views.csv: several numbers of balls, crops or modules")


def enclave_figures(path: Path) -> Iterator[charts.Named]:
    """Yield which pixels each module attends to, and how much each can hear of each.

    Source: S2RM, Figures 5 and 9.

    Args:
        path: NPZ file with ``attended`` (modules, height, width) and ``heard`` (row: who hears;
            column: whom), from 0 to 1.

    Raises:
        RMRError: It is damaged, or lacks one of the two.
    """
    arrays = read_arrays(path)
    if not {"attended", "heard"} <= {*arrays}:
        raise RMRError(
            f"{path} lacks attended or heard: expected what `rmr-gym run views` wrote; delete it"
        )
    maps, heard = arrays["attended"], arrays["heard"]
    rows = {
        f"modules {start + 1} on": [*maps[start : start + ACROSS]]
        for start in range(0, len(maps), ACROSS)
    }
    modules = [str(module + 1) for module in range(len(heard))]
    yield path.stem, partial(charts.picture_grid, rows, inches=1.1)
    yield (
        f"{path.stem}_heard",
        partial(charts.heat_map, [charts.Block(modules, heard)], modules, " "),
    )
