"""Pages of world models: scored on frames, and on crops where they see less."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.core.errors import RMRError
from rmr_gym.report import charts
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Schema, groups, load_run, read_arrays, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, means, paired
from rmr_gym.report.tables import called, label, labels_of

CURVES = {"world_model_curves": Schema(("model", "seed", "step"), ("validation_loss",))}

FRAME_SCORES = labels_of("frames")
"""Scores in the order of the tables, and what they are called there."""

BETTER = {
    "relative_bce": -1, "gain": 1, "relative_rollout_bce": -1, "rollout_f1": 1, "ari_last": 1,
}  # fmt: skip
"""Scores that are compared, and whether more (1) or less (-1) of them is better."""

SIMULATED = labels_of("simulated")
"""Scores of simulated frames, and what they are called; those of references end in their name."""

REFERENCES = labels_of("reference")
_SIMULATED = (*SIMULATED, "copied", *(f"{s}_{name}" for s in SIMULATED for name in REFERENCES))


FRAMES = {
    "world_models": Schema(("test", "model", "seed"), ("balls", "groups", *FRAME_SCORES)),
    "simulations": Schema(("test", "model", "seed", "frame"), _SIMULATED),
    **CURVES,
}
"""Tables of a run that scores on frames."""

QUESTIONS = labels_of("question")
"""What varies, and what it is called; where one does, the other two stay as in training."""

LATER = {
    *("changed_bce", "gain", "f1_moving"),
    *(f"rollout_f1_{kind}" for kind in ("moving", "copied", "velocities")),
    *("f1_friends", "f1_enemies", "f1_copied", "log_likelihood", "nmse", "nmse_copied"),
}
"""Scores that are left out where a run has none of them."""

CROP_SCORES = tuple(name for name in labels_of("crops") if name != "relative")

HELD_OUT = "validation"
"""What the validation episodes of the training data are called among test sets."""

CONDITION = ("test", "balls", "views", "dropped")
CROPS = {
    "views": Schema(("model", "seed", "test", "views", "dropped"), ("balls", *CROP_SCORES)),
    **CURVES,
}
"""Tables of a run that scores on crops."""

ACROSS = 5
"""Modules in a row of their maps."""

FAMILIES = {
    "rnem": ("rnnem", "rnn", "lstm", "memoryless", "memoryless_noisy"),
    "rnnem": ("rnn", "lstm", "memoryless", "memoryless_noisy"),
    "nem": ("rnn", "lstm", "memoryless", "memoryless_noisy"),
    "rnn": ("memoryless", "memoryless_noisy"),
    "lstm": ("memoryless", "memoryless_noisy"),
    "rims": ("rims_lstm", "memoryless"),
    "s2": ("crops_lstm", "crops_rims", "crops_rmc"),
    "crops": ("crops_lstm",),
}
"""What world models are compared with, by how their names begin."""

ABLATED = {"rnem_no_attention": "rnem", "s2gru_": "s2gru"}
"""What something was left out of, by how the names of those that lack it begin."""

PRIVILEGED = ("crops_oracle",)
"""Models that are shown what they are asked about: references, compared with nothing."""

KNOWING = "_rmr"


def world_models(folder: Path) -> Page:
    """Return the page of a comparison of world models; what is missing is left out.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, FRAMES, "world_models")
    rows, simulations = run["world_models"], run["simulations"]
    relative, curves = ("relative_bce", "relative_relational_bce"), SIMULATED
    figures = {
        "relative_bce": partial(score_dots, rows, relative, 1.0),
        **{f"simulations_{name}": partial(simulation_curves, simulations, name) for name in curves},
        "gain": partial(score_dots, rows, ("gain",), 1.0),
        "ari": partial(score_dots, rows, ("ari", "ari_last")),
        "validation": partial(validation_curves, run["world_model_curves"]),
    }
    scores = score_table(rows)
    of = [f": {balls:.0f} balls" if balls > 0 else "" for balls in scores["balls"]]
    tables = {"world_models_summary": scores, "pairs": model_pairs(rows, "test", BETTER)}
    return Page(run, tables, figures, {"scores": scores.assign(of=of)})


def score_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds.

    Args:
        rows: Of ``world_models.csv``.

    Returns:
        One row a test set and model, with the number of balls, of groups while scoring and of
        seeds, and ``_mean`` and ``_std`` of each of `FRAME_SCORES`, see `LATER`.
    """
    return means(rows, ("test", "balls", "model", "groups"), _known(rows, FRAME_SCORES))


def _known(rows: pd.DataFrame, scores: Iterable[str]) -> list[str]:
    return [score for score in scores if score not in LATER or len(rows[score].dropna())]


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
    looks = looks.assign(score=scores, label=called(scores, FRAME_SCORES))
    shown = dots.reset_index().merge(looks, on="score").assign(row=lambda dot: dot["model"])
    models = [name for name in charts.own_names(rows) if name in {*shown["model"]}]
    panels = charts.faceted(shown, "test", charts.Dots.of)
    return charts.dots(panels, models, mark, shared=True, file=f"world_models.csv: {scores[0]}")


def simulation_curves(rows: pd.DataFrame, score: str = "bce") -> Figure:
    """Draw a score of every simulated frame, a panel a test set; references are dashed.

    Source: R-NEM, Figure 4, right.

    Args:
        rows: Of ``simulations.csv``.
        score: "bce", "f1" or "f1_moving".

    Raises:
        RMRError: There are none.
    """
    known = rows.dropna(subset=score).assign(bce_copied=rows["copied"])
    titles: Any = {"across": "simulated frame", "up": SIMULATED[score]}
    more = [known.assign(model=n, **{score: known[f"{score}_{n}"]}) for n in REFERENCES]
    every = pd.concat([known, *more]).dropna(subset=score)
    axes, names = ("test", "frame", score, "model"), charts.own_names(known) | REFERENCES
    return charts.seed_lines(every, *axes, names, "simulations.csv", marked=False, **titles)


def views(folder: Path) -> Page:
    """Return the page of models of crops; what is missing is left out.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, CROPS, "views")
    rows, data = run["views"], run.info.get("data")
    balls = data.get("balls") if isinstance(data, dict) else None
    trained_on = balls if isinstance(balls, int) else None
    lost, paths = losses(rows, trained_on), sorted(run.folder.glob("enclaves_*.npz"))
    tables = {"views_summary": view_table(rows), "views_costs": cost_table(lost)}
    tables["views_pairs"] = cost_pairs(lost)
    figures = {
        "views": partial(views_figure, rows, trained_on),
        "validation": partial(validation_curves, run["world_model_curves"]),
        **{name: draw for path in paths for name, draw in enclave_figures(path)},
    }
    shown = {"enclaves": [path.stem for path in paths], "names": list(charts.own_names(rows))}
    return Page(run, tables, figures, shown)


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

    Columns: those of `CONDITION`, model, seeds, and ``_mean`` and ``_std`` of those of
    `CROP_SCORES` that there are.
    """
    return means(table, (*CONDITION, "model"), _known(table, CROP_SCORES))


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
    columns = {name: (name, "first") for name in ("usual", "hardest")}
    columns |= {name: (name, "mean") for name in _ENDS}
    table = groups(lost, "question", "model").agg(seeds=("seed", "size"), **columns)
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
    names, up = charts.own_names(table), label(score)
    panels = []
    for question, rows in varied(table, trained_on).items():
        drawn = charts.over_seeds(rows, question, score, "model", names)
        across = QUESTIONS[question]
        panels.append(charts.Panel(f"by {across}", drawn, across, up))
    return charts.lines(panels, file="views.csv: several numbers of balls, crops or modules")


def enclave_figures(path: Path) -> Iterator[charts.NamedFigure]:
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


def opponents(model: str, models: Sequence[str]) -> list[str]:
    """Return what a world model is compared with: what it ablates, then baselines of its family.

    Args:
        model: Its name; where it ends in ``_rmr``, all of its family come after the baselines.
        models: What there is.
    """
    if model in PRIVILEGED:
        return []
    family = next((family for family in FAMILIES if model.startswith(family)), "")
    named = [whole for part, whole in ABLATED.items() if model.startswith(part)]
    named += FAMILIES.get(family, ())
    if model.endswith(KNOWING):
        inside = model.removesuffix(KNOWING)
        named += [other for other in models if f"{other}_".startswith(f"{inside}_")]
    return [other for other in dict.fromkeys(named) if other in models and other != model]


def model_pairs(scores: pd.DataFrame, column: str, better: Mapping[str, int]) -> pd.DataFrame:
    """Compare every world model with its `opponents`, seed by seed.

    Args:
        scores: A row a model and seed, with the columns "model" and "seed", those of ``better``
            and the column.
        column: What is never compared across, for instance "test"; each value is corrected alone.
        better: Scores that are compared, and whether more (1) or less (-1) of them is better.

    Returns:
        One row a value of the column, model, opponent and score that both have. Columns: these
        (the opponent as "against"), pairs, improvement (the mean by which the model is better,
        whichever sign that has in the score), low, high, p_better, p_worse, verdict, and after
        Benjamini-Hochberg p_better_bh, p_worse_bh, verdict_bh.
    """
    tests = paired(scores, better, "model", opponents, (column,), family=(column,))
    columns = [column, "model", "against", "score", *DIFFERENCE, *CORRECTED]
    tests = pd.DataFrame(where(tests, tests["pairs"] > 0), columns=columns)
    return tests.rename(columns={"difference": "improvement"}).reset_index(drop=True)


def validation_curves(rows: pd.DataFrame) -> Figure:
    """Draw the loss on validation sequences along training.

    Args:
        rows: Of ``world_model_curves.csv``.

    Raises:
        RMRError: There are none.
    """
    rows, axes = rows.assign(panel="validation loss"), ("panel", "step", "validation_loss", "model")
    names, file = charts.own_names(rows), "world_model_curves.csv"
    shown: Any = {"across": "step", "up": "nats a frame", "log": 8.0}
    return charts.seed_lines(rows, *axes, names, file, marked=False, **shown)
