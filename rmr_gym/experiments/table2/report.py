"""The page of abstract models alone: ours beside the paper's, and both over copying (Table 2)."""

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts
from rmr_gym.report.names import MODEL_LABELS
from rmr_gym.report.page import Page, about
from rmr_gym.report.runs import Run, groups, in_order, load_run, where

METRICS = {"slot_accuracy": "slot accuracy", "bit_f1": "bit F1"}
_KEPT = ("game", "model", "label", "step", "seeds")


def report(folder: Path) -> Page:
    """Return the page of a run that trained abstract models alone.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, arms.ABSTRACT, "table2")
    abstract = arms.abstract_table(run)
    table = beside_paper(abstract)
    summary = model_summary(table)
    figures = {
        "abstract_beside_paper": partial(abstract_dots, run),
        "abstract_loss": partial(arms.abstract_curves, run),
    }
    title = f"Abstract models of Atari RAM: {about(run.games, 'game')}"
    tables = {"table2": table, "table2_summary": summary, "abstract_summary": abstract}
    shown = {"above_copying": arms.above_copying(abstract)}
    return Page(run, title, shown, figures, tables, len(abstract) > 0)


def beside_paper(abstract: pd.DataFrame) -> pd.DataFrame:
    """Return one row a game and model at its last step: ours, the paper's, and both over copying.

    Source: RMR, Appendix B, Table 2.

    Args:
        abstract: `rmr_gym.report.arms.abstract_table`.

    Returns:
        Columns: game, model, label, step, seeds; for slot_accuracy and bit_f1: ``<metric>`` (mean
        over seeds), ``<metric>_std``, ``paper_<metric>``, ``<metric>_over_copy`` and
        ``paper_<metric>_over_copy`` (the model's minus the copy baseline's; NaN without it).
    """
    table = pd.DataFrame(abstract[[*_KEPT]])
    copied = where(abstract, model="copy").set_index("game")
    for metric in METRICS:
        ours, paper = f"{metric}_mean", f"paper_{metric}"
        table[metric], table[f"{metric}_std"] = abstract[ours], abstract[f"{metric}_std"]
        table[paper] = abstract[paper]
        for name in (ours, paper):
            over = abstract[name].to_numpy() - copied[name].reindex(abstract["game"]).to_numpy()
            table[f"{name.removesuffix('_mean')}_over_copy"] = over
    return table


def model_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model: means over the games that both we and the paper have.

    Args:
        table: See `beside_paper`.

    Returns:
        Columns: model, label, games; ``<metric>`` and ``paper_<metric>`` (means); ``beats_copy``
        and ``paper_beats_copy`` (games in which bit F1 is above the copy baseline's); ``best`` and
        ``paper_best`` (games in which its bit F1 is the highest of the models that are there).
    """
    known = table.dropna(subset=["bit_f1", "paper_bit_f1"]).reset_index(drop=True)
    several = where(known, groups(known, "game")["model"].transform("size") > 1)
    for source in ("", "paper_"):
        best = groups(several, "game")[f"{source}bit_f1"].idxmax()
        known[f"{source}best"] = known.index.isin(best)
        known[f"{source}beats_copy"] = known[f"{source}bit_f1_over_copy"] > 0
    kinds = dict.fromkeys(METRICS, "mean") | {"beats_copy": "sum", "best": "sum"}
    found = {f"{s}{name}": (f"{s}{name}", kinds[name]) for s in ("", "paper_") for name in kinds}
    summary = groups(known, "model", "label").agg(games=("game", "size"), **found)
    return arms.ordered(summary.reset_index(), model=MODEL_LABELS)


def abstract_dots(run: Run) -> Figure:
    """Draw ours (filled) and the paper's (hollow) scores of every model: a row a game.

    Raises:
        RMRError: If the run has no abstract scores.
    """
    table = beside_paper(arms.abstract_table(run))
    models = in_order(table["model"], MODEL_LABELS)
    places = table["model"].map(models.index).astype(float)
    shown = table.assign(
        row=table["game"],
        shift=(places + 0.5) / (len(models) + 1) - 0.4,
        color=charts.colours(table["model"]),
        marker="o",
    )
    panels = [
        charts.Panel(
            title, charts.Dots.of(shown.assign(mean=table[name], hollow=table[f"paper_{name}"]))
        )
        for name, title in METRICS.items()
    ]
    games = list(dict.fromkeys(table["game"]))
    return charts.dots(panels, games, most=len(METRICS), file="abstract.csv")
