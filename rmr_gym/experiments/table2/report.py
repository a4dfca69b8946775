"""The page of abstract models alone: ours beside the paper's, and both over copying (Table 2)."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts
from rmr_gym.report.arms import MODEL_LABELS, label
from rmr_gym.report.page import Page, about
from rmr_gym.report.runs import Row, Run, in_order, load_run, where
from rmr_gym.report.tables import Column, Shown, Table, by, number, signed, spread, whole

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
    shown = {
        "summary_table": _summary_shown(summary),
        "games": _games_shown(table),
        "abstract": arms.abstract_shown(abstract),
    }
    figures = {
        "abstract_beside_paper": partial(abstract_dots, run),
        "abstract_loss": partial(arms.abstract_curves, run),
    }
    title = f"Abstract models of Atari RAM: {about(run.games, 'game')}"
    tables = {"table2": table, "table2_summary": summary, "abstract_summary": abstract}
    found = list(arms.above_copying(abstract))
    return Page(run, title, found, shown, figures, tables, len(abstract) > 0)


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
        for name in (ours, f"{metric}_std", paper):
            table[name.removesuffix("_mean")] = abstract[name]
        for name in (ours, paper):
            over = abstract[name] - abstract["game"].map(copied[name])
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
    known = table.dropna(subset=["bit_f1", "paper_bit_f1"])
    several = known[known.groupby("game")["model"].transform("size") > 1]
    rows = []
    for model in in_order(known["model"], MODEL_LABELS):
        ours = where(known, model=model)
        row: dict[str, Any] = {"model": model, "label": label(model), "games": len(ours)}
        for source in ("", "paper_"):
            best = several.loc[several.groupby("game")[f"{source}bit_f1"].idxmax(), "model"]
            row |= {f"{source}{metric}": ours[f"{source}{metric}"].mean() for metric in METRICS}
            row[f"{source}beats_copy"] = int((ours[f"{source}bit_f1_over_copy"] > 0).sum())
            row[f"{source}best"] = int((best == model).sum())
        rows.append(row)
    columns = [f"{s}{name}" for s in ("", "paper_") for name in (*METRICS, "beats_copy", "best")]
    return pd.DataFrame(rows, columns=["model", "label", "games", *columns])


def abstract_dots(run: Run) -> Figure:
    """Draw ours (filled) and the paper's (hollow) scores of every model: a row a game.

    Raises:
        RMRError: If the run has no abstract scores.
    """
    table = beside_paper(arms.abstract_table(run))
    models = in_order(table["model"], MODEL_LABELS)
    games = list(dict.fromkeys(table["game"]))
    panels = [
        charts.Panel(
            name,
            [
                charts.Dots(
                    *(row["game"], (), row[metric]),
                    hollow=row[f"paper_{metric}"],
                    label=row["label"],
                    shift=(models.index(row["model"]) + 0.5) / (len(models) + 1) - 0.4,
                    style={"color": charts.look(row["model"])["color"], "marker": "o"},
                )
                for row in table.to_dict("records")
            ],
        )
        for metric, name in METRICS.items()
    ]
    return charts.dots(panels, games, most=len(METRICS), file="abstract.csv")


def _both(metric: str, title: str, shown: Shown) -> list[Column]:
    return [Column(metric, title, shown), Column(f"paper_{metric}", "paper", shown, "quiet")]


def _summary_shown(summary: pd.DataFrame) -> Table:
    columns = [Column("label", "model"), Column("games", "games")]
    for metric, name in METRICS.items():
        columns += _both(metric, name, by(number))
    columns += _both("beats_copy", "above copying", _share)
    columns += _both("best", "best of the models", _share)
    return Table(summary, columns)


def _share(row: Row, key: str) -> str:
    return f"{row[key]} of {row['games']}"


def _games_shown(table: pd.DataFrame) -> Table:
    columns = [Column("label", "model"), Column("seeds", "seeds"), Column("step", "step", whole)]
    for metric, name in METRICS.items():
        columns.append(Column(metric, name, _spread))
        columns.append(Column(f"paper_{metric}", "paper", by(number), "quiet"))
        columns += _both(f"{metric}_over_copy", "over copying", by(signed))[:1]
        columns.append(Column(f"paper_{metric}_over_copy", "paper", by(signed), "quiet"))
    return Table(table, columns, lambda row: row["game"])


def _spread(row: Row, key: str) -> str:
    return spread(row[key], row[f"{key}_std"])
