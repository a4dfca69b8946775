"""The page of the measures beside the bit probe: labels, and ranking of predictions."""

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import charts
from rmr_gym.report.arms import beside, last_steps, ordered
from rmr_gym.report.names import ARM_LABELS, called, label
from rmr_gym.report.page import Page, about
from rmr_gym.report.runs import Schema, groups, in_order, load_run, where
from rmr_gym.report.statistics import draws_by, means, paired
from rmr_gym.report.tables import grouped

ALL_LABELS = "all_labels"
"""Category of the mean over all labels of a game."""

BASELINES = ("cswm", "shuffled_p", "untrained")
"""What the other arms are compared with."""

PARTS = {"labels": "category", "ranking": "ahead"}
"""What the scores of each table are apart by, beside game and arm."""

SCORES = {
    "labels": {"macro_f1": "macro F1", "weighted_f1": "weighted F1", "accuracy": "accuracy"},
    "ranking": {
        "mrr": "MRR",
        "hits_at_1": "Hits@1",
        "tied": "tied",
        "copy_mrr": "MRR of the present state",
        "copy_hits_at_1": "Hits@1 of the present state",
    },
}
"""Scores of each table; arms are compared by the first."""

_RUN = ("game", "objective", "arm", "seed", "step")
TABLES = {
    "labels": Schema((*_RUN, "category", "label"), (*SCORES["labels"],)),
    "ranking": Schema((*_RUN, "ahead"), ("similarity", *SCORES["ranking"])),
}


def report(folder: Path) -> Page:
    """Return the page of measures; what is missing is left out.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES)
    rows = {"labels": where(run["labels"], label="average"), "ranking": run["ranking"]}
    pairs = {name: measure_pairs(table, name) for name, table in rows.items()}
    tables = {name: measure_table(table, pairs[name], name) for name, table in rows.items()}
    labels, ranking = tables.values()
    overall = where(labels, category=ALL_LABELS)
    games = list(dict.fromkeys([*labels["game"], *ranking["game"]]))
    return Page(
        run,
        f"Labels and ranks: {about(games, 'game')}",
        {
            "pairs": pairs,
            "labels": grouped(overall, "game"),
            "categories": grouped(where(labels, labels["category"] != ALL_LABELS), "game"),
            "ranking": grouped(ranking, "game"),
            "baselines": {baseline: label(baseline) for baseline in BASELINES},
        },
        {
            "labels": partial(label_dots, rows["labels"]),
            "ranking": partial(ranking_curves, rows["ranking"]),
        },
        {f"{name}_summary": table for name, table in tables.items()},
        len(labels) + len(ranking) > 0,
    )


def measure_pairs(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return every arm's first score less that of each baseline, at the last checkpoint.

    Args:
        rows: Means over labels, or ranks.
        name: "labels" or "ranking".

    Returns:
        The columns of `rmr_gym.report.statistics.paired`; Benjamini-Hochberg is over the games of
        one category (or ``ahead``).
    """
    part = PARTS[name]
    place = ("game", "objective", part)
    rows = ordered(last_steps(rows, "game", "objective", "arm"), arm=ARM_LABELS)
    family, draws = (part, "against"), draws_by(*place, "arm", "against")
    score = next(iter(SCORES[name]))
    return paired(rows, score, "arm", BASELINES, place, family=family, draws=draws)


def measure_table(rows: pd.DataFrame, pairs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return means over seeds at the last checkpoint, and paired differences to the baselines.

    Args:
        rows: Means over labels, or ranks.
        pairs: `measure_pairs` of them.
        name: "labels" or "ranking".

    Returns:
        One row a game, objective, category (or ``ahead``) and arm. Columns: these, label (of the
        arm), step, of ranks similarity (by which they are made), seeds; ``_mean`` and ``_std`` of
        each of `SCORES`; and for each of `BASELINES` the columns of a test.
    """
    part = PARTS[name]
    rows = ordered(last_steps(rows, "game", "objective", "arm"), arm=ARM_LABELS)
    more = ["similarity"] if name == "ranking" else []
    key = ["game", "objective", part, "arm", "step", *more]
    table = means(rows, key, [*SCORES[name]])
    table.insert(4, "label", called(table["arm"], ARM_LABELS))
    order = {part: list(dict.fromkeys(rows[part])), "game": list(dict.fromkeys(rows["game"]))}
    return beside(ordered(table, **order), pairs, ("game", "objective", part, "arm"), BASELINES)


def label_dots(rows: pd.DataFrame, score: str = "macro_f1") -> Figure:
    """Draw the mean over labels of every arm and seed, a panel a game.

    Raises:
        RMRError: There are no labels.
    """
    rows = last_steps(where(rows, category=ALL_LABELS), "game", "objective", "arm")
    shown = groups(rows, "game", "arm")[score].agg(points=list, mean="mean").reset_index()
    shown = shown.assign(row=called(shown["arm"], ARM_LABELS), color=charts.colours(shown["arm"]))
    panels = charts.faceted(shown, "game", charts.Dots.of, across=SCORES["labels"][score])
    names = [label(arm) for arm in in_order(rows["arm"], ARM_LABELS)]
    return charts.dots(panels, names, file="labels.csv")


def ranking_curves(rows: pd.DataFrame, score: str = "mrr") -> Figure:
    """Draw ranks against the number of predicted steps, a panel a game.

    Raises:
        RMRError: There are no ranks.
    """
    rows = last_steps(rows, "game", "objective", "arm")
    draw = partial(charts.over_seeds, x="ahead", y=score, by="arm", labels=ARM_LABELS)
    axes = {"across": "predicted steps", "up": SCORES["ranking"][score]}
    return charts.lines(charts.faceted(rows, "game", draw, **axes), file="ranking.csv")
