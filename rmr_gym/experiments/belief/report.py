"""The page of beliefs: bit F1 by steps since the start, P beside every control."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Run, Schema, groups, in_order, load_run, parts, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, draws_by, means, paired
from rmr_gym.report.tables import called, labels_of

KEY = ("game", "labels", "arm", "seed", "start", "k", "bytes")
TABLES = {"belief": Schema(KEY, ("count", "tracks", "micro_f1"), ("bytes",)), **arms.ABSTRACT}

Labels = Mapping[str, str]
BELIEF_LABELS = labels_of("belief")
PLACE = ("game", "labels", "bytes", "k")
CLAIM = 16
"""The step that the claim is about, by the rule of choosing."""

KINDS = labels_of("bytes")
"""Kinds of bytes, and what they are called."""


def belief(folder: Path) -> Page:
    """Return the page of a run of beliefs; what is missing is said.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "belief")
    labels = BELIEF_LABELS | {name: f"P of {name}" for name in run.info.get("donors", ())}
    rows = over_starts(run, labels)
    summary, tests = belief_table(rows, labels), belief_tests(rows, labels)
    tables = {"belief_summary": summary, "belief_tests": tests, "belief_errors": errors(summary)}
    kinds = in_order(summary["bytes"], KINDS)
    figures = {f"belief_{kind}": partial(belief_curves, rows, kind, labels) for kind in kinds}
    return Page(run, tables, figures, {"kinds": kinds, "labels_of_arms": labels})


def claim_first(errors: pd.DataFrame) -> list[tuple[Any, pd.DataFrame]]:
    """Return the rows of each number of labels and of each step, those of the claim first."""
    return sorted(parts(errors, "labels", "k").items(), key=lambda item: item[0][1] != CLAIM)


def over_starts(run: Run, labels: Labels = BELIEF_LABELS) -> pd.DataFrame:
    """Return the mean over the starts of tracks of each seed's bit F1."""
    rows = groups(run["belief"], "game", "labels", "bytes", "k", "arm", "seed")
    table = rows["micro_f1"].mean().reset_index().astype({"labels": int, "k": int})
    return arms.ordered(table, game=run.games, arm=labels)


def belief_table(rows: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """Return means and deviations over seeds, one row a game, arm and step.

    Args:
        rows: See `over_starts`.
        labels: What arms and donors are called.
    """
    table = means(rows, [*PLACE, "arm"], ["micro_f1"])
    table.insert(5, "label", called(table["arm"], labels))
    return table


def belief_tests(rows: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """Return P less every control, paired by seed; corrected over the games of a step.

    Args:
        rows: See `over_starts`.
        labels: What arms and donors are called.
    """
    controls = [name for name in labels if name != "rmr"]
    family, draws = ("labels", "bytes", "k", "arm", "against"), draws_by(*PLACE, "arm", "against")
    tests = paired(rows, "micro_f1", "arm", controls, PLACE, family=family, draws=draws)
    tests = where(tests, (tests["arm"] == "rmr") & (tests["pairs"] > 0))
    return pd.DataFrame(tests[[*PLACE, "against", *DIFFERENCE, *CORRECTED]]).reset_index(drop=True)


def errors(summary: pd.DataFrame) -> pd.DataFrame:
    """Return how much lower the errors (1 - F1) with P are than those of the best control.

    Args:
        summary: See `belief_table`.

    Returns:
        One row a game, number of labels, kind of bytes and step. Columns are these, rmr and control
        (mean bit F1), best (the control), lower (per cent of the control's errors; below 0 where
        P's are more); and the last three, called ``other_...``, with P alone left out, which is P
        itself without frames.
    """
    own = where(summary, arm="rmr").set_index([*PLACE])["micro_f1_mean"]
    table = pd.DataFrame({"rmr": own})
    others = where(summary, summary["arm"] != "rmr").dropna(subset=["micro_f1_mean"])
    for name, left in (("", others), ("other_", where(others, others["arm"] != "p_alone"))):
        best = left.loc[groups(left, *PLACE)["micro_f1_mean"].idxmax()].set_index([*PLACE])
        table[f"{name}control"], table[f"{name}best"] = best["micro_f1_mean"], best["label"]
        table[f"{name}lower"] = 100 * (1 - (1 - own) / (1 - table[f"{name}control"]))
    return table.dropna(subset=["rmr", "control"]).reset_index()


def belief_curves(rows: pd.DataFrame, kind: str, labels: Labels = BELIEF_LABELS) -> Figure:
    """Draw bit F1 against the steps since the start, a panel a game and number of labels.

    Raises:
        RMRError: There are no scores.
    """
    rows = where(rows, bytes=kind)
    rows = rows.assign(panel=rows["game"] + ", " + rows["labels"].astype(str) + " labelled frames")
    axes = ("panel", "k", "micro_f1", "arm")
    titles: Any = {"across": "steps since the start", "up": "bit F1"}
    return charts.seed_lines(rows, *axes, labels, "belief.csv", **titles)
