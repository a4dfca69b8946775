"""Table 2: abstract models of every game beside the paper's figures, as table, text and figure."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmr_gym.analysis import html, text
from rmr_gym.analysis.canvas import COLOURS, OTHER, figure_bytes, new_figure, styled
from rmr_gym.analysis.html import Entry, Group, Row
from rmr_gym.analysis.run import MODEL_LABELS, Run, blocks, in_order, values, where
from rmr_gym.analysis.tables import abstract_table
from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically

METRICS = {"slot_accuracy": "slot accuracy", "bit_f1": "bit F1"}
COPY = "copy"
TITLE = "Table 2: abstract models beside the paper"
FIGURE = "abstract_beside_paper.png"


def abstract_comparison(run: Run) -> pd.DataFrame:
    """Return one row a game and model at its last step: ours, the paper's, and both over copying.

    Source: RMR, Appendix B, Table 2.

    Returns:
        Columns: game, model, label, step, seeds; for slot_accuracy and bit_f1: ``<metric>`` (mean
        over seeds), ``<metric>_std``, ``paper_<metric>``, ``<metric>_over_copy`` and
        ``paper_<metric>_over_copy`` (the model's minus the copy baseline's; NaN without it).
    """
    table = abstract_table(run)
    rows = [
        _row(row, {each["model"]: each for each in block}.get(COPY))
        for block in blocks(table, "game").values()
        for row in block
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _row(row: dict[Any, Any], copied: dict[Any, Any] | None) -> dict[str, Any]:
    found = {name: row[name] for name in ("game", "model", "label", "step", "seeds")}
    for metric in METRICS:
        ours, paper = f"{metric}_mean", f"paper_{metric}"
        found |= {metric: row[ours], f"{metric}_std": row[f"{metric}_std"], paper: row[paper]}
        found[f"{metric}_over_copy"] = row[ours] - copied[ours] if copied else np.nan
        found[f"{paper}_over_copy"] = row[paper] - copied[paper] if copied else np.nan
    return found


def model_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model: means over the games that both we and the paper have.

    Args:
        table: See `abstract_comparison`.

    Returns:
        Columns: model, label, games; ``<metric>`` and ``paper_<metric>`` (means); ``beats_copy``
        and ``paper_beats_copy`` (games in which bit F1 is above the copy baseline's); ``best`` and
        ``paper_best`` (games in which its bit F1 is the highest of the models that are there).
    """
    known = table.dropna(subset=["bit_f1", "paper_bit_f1"])
    rows = []
    for model in in_order(values(known, "model"), MODEL_LABELS):
        ours = where(known, model=model)
        row: dict[str, Any] = {
            "model": model,
            "label": MODEL_LABELS.get(model, model),
            "games": len(ours),
        }
        for source in ("", "paper_"):
            row |= {f"{source}{metric}": ours[f"{source}{metric}"].mean() for metric in METRICS}
            over = values(ours, f"{source}bit_f1_over_copy").astype(float)
            row[f"{source}beats_copy"] = int((over > 0).sum())
            row[f"{source}best"] = sum(name == model for name in _best(known, f"{source}bit_f1"))
        rows.append(row)
    return pd.DataFrame(rows, columns=_SUMMARY_COLUMNS)


def _best(table: pd.DataFrame, column: str) -> list[str]:
    return [
        max(block, key=lambda row: row[column])["model"]
        for block in blocks(table, "game").values()
        if len(block) > 1
    ]


def write_abstract_comparison(run: Run, folder: Path) -> list[Path]:
    """Write ``table2.csv``, ``table2_summary.csv`` and the figure; return their paths.

    Raises:
        RMRError: If the run has no abstract scores, or a file cannot be written.
    """
    table = abstract_comparison(run)
    tables = {"table2.csv": table, "table2_summary.csv": model_summary(table)}
    content = figure_bytes(abstract_dots(run), "png")
    return [
        *(
            write_atomically(folder / name, each.to_csv(index=False, float_format="%.6g"))
            for name, each in tables.items()
        ),
        write_atomically(folder / "figures" / FIGURE, content),
    ]


def abstract_comparison_section(run: Run) -> str:
    """Return Table 2 as HTML: a summary a model, the figure, every game; nothing without scores."""
    table = abstract_comparison(run)
    if table.empty:
        return ""
    caption = "Filled: ours, mean over seeds. Hollow: the paper's. One row a game."
    return "".join(
        (
            _summary_html(model_summary(table)),
            html.picture(figure_bytes(abstract_dots(run), "png"), "png", caption),
            _table_html(table),
        )
    )


def _summary_html(summary: pd.DataFrame) -> str:
    header = (
        *("model", "games", "slot accuracy", "paper", "bit F1", "paper"),
        *("above copying", "paper", "best of the models", "paper"),
    )
    rows: list[Row] = [
        [
            row["label"],
            str(row["games"]),
            *_pair(row, "slot_accuracy"),
            *_pair(row, "bit_f1"),
            *(_count(row, name) for name in ("beats_copy", "paper_beats_copy")),
            *(_count(row, name) for name in ("best", "paper_best")),
        ]
        for row in summary.to_dict("records")
    ]
    caption = "Means over the games that both have; counts are games, by bit F1"
    return html.table(header, rows, caption) if rows else ""


def _count(row: dict[Any, Any], name: str) -> Entry:
    return Entry(f"{row[name]} of {row['games']}", "quiet" if name.startswith("paper") else "")


def _pair(row: dict[Any, Any], metric: str) -> list[str | Entry]:
    return [text.number(row[metric]), Entry(text.number(row[f"paper_{metric}"]), "quiet")]


def _table_html(table: pd.DataFrame) -> str:
    header = (
        *("model", "seeds", "step", "slot accuracy", "paper", "over copying", "paper"),
        *("bit F1", "paper", "over copying", "paper"),
    )
    rows: list[Row] = []
    for (game,), block in blocks(table, "game").items():
        rows.append(Group(game))
        rows += [_game_row(row) for row in block]
    return html.table(header, rows, "On slots of high entropy, validation episodes")


def _game_row(row: dict[Any, Any]) -> list[str | Entry]:
    cells: list[str | Entry] = [row["label"], str(row["seeds"]), f"{row['step']:,}"]
    for metric in METRICS:
        over = () if row["model"] == COPY else (f"{metric}_over_copy", f"paper_{metric}_over_copy")
        ours, paper = (text.signed(row[name]) for name in over) if over else ("", "")
        spread = text.spread(row[metric], row[f"{metric}_std"])
        cells += [spread, Entry(text.number(row[f"paper_{metric}"]), "quiet")]
        cells += [ours, Entry(paper, "quiet")]
    return cells


@styled
def abstract_dots(run: Run) -> Figure:
    """Draw ours (filled) and the paper's (hollow) scores of every model: a row a game.

    Raises:
        RMRError: If the run has no abstract scores.
    """
    table = abstract_comparison(run)
    if table.empty:
        raise RMRError(f"{run.folder} has no abstract scores: run `rmr-gym abstract table`")
    games = list(dict.fromkeys(values(table, "game")))
    models = in_order(values(table, "model"), MODEL_LABELS)
    figure = new_figure(9.5, 1.6 + 0.16 * (len(models) + 1) * len(games))
    panels = figure.subplots(1, len(METRICS), sharey=True, squeeze=False)[0]
    for (metric, label), panel in zip(METRICS.items(), panels, strict=True):
        for order, model in enumerate(models):
            _draw_model(panel, where(table, model=model), metric, games, order, len(models))
        panel.set_xlabel(label)
        panel.set_yticks(range(len(games)), games)
        panel.set_ylim(len(games) - 0.5, -0.5)
    panels[0].plot([], [], "o", color=OTHER, fillstyle="none", label="hollow: the paper")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(models) + 1)
    return figure


def _draw_model(
    panel: Axes, rows: pd.DataFrame, metric: str, games: list[str], order: int, models: int
) -> None:
    """Draw one model's dots, a little below those of the models before it."""
    model = str(values(rows, "model")[0])
    colour = COLOURS.get(model, OTHER)
    at = np.array([games.index(game) for game in values(rows, "game")], float)
    at += (order - (models - 1) / 2) / (models + 1)
    ours, paper = (values(rows, name).astype(float) for name in (metric, f"paper_{metric}"))
    panel.hlines(at, ours, paper, color=colour, linewidth=0.8, alpha=0.5)
    style = {"color": colour, "markersize": 4, "linestyle": "none"}
    panel.plot(paper, at, "o", fillstyle="none", **style)
    panel.plot(ours, at, "o", label=MODEL_LABELS.get(model, model), **style)


_COLUMNS = [
    *("game", "model", "label", "step", "seeds"),
    *(
        name
        for metric in METRICS
        for name in (
            *(metric, f"{metric}_std", f"paper_{metric}"),
            *(f"{metric}_over_copy", f"paper_{metric}_over_copy"),
        )
    ),
]
_SUMMARY_COLUMNS = [
    *("model", "label", "games"),
    *(f"{source}{name}" for source in ("", "paper_") for name in (*METRICS, "beats_copy", "best")),
]
