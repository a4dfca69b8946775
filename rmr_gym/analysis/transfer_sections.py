"""Tables of a transfer report as HTML."""

from typing import Any

import pandas as pd

from rmr_gym.analysis import html, text
from rmr_gym.analysis.html import Entry, Group, Row
from rmr_gym.analysis.paper import paper_natural
from rmr_gym.analysis.run import ARM_LABELS, blocks, in_order, values, where
from rmr_gym.analysis.sections import objective_title, verdict_entry
from rmr_gym.analysis.statistics import MIN_PAIRS
from rmr_gym.analysis.tables import headline_probe, natural_table
from rmr_gym.analysis.transfer import AGAINST, OTHER_P, Matrix, condensed

MOST_ROWS = 200
"""A longer table of cells is left to its CSV file."""

NOTES = (
    "A donor is the game whose RAM trained P; P is then frozen, and an encoder of another game, "
    "the recipient, is trained against it. C-SWM, with the same initial encoder and batches, "
    "trains P.",
    "A cell of the matrix is the mean over seeds of the improvement in bit F1, in per cent of the "
    "baseline. Its test is the exact one-sided paired Wilcoxon test over seeds, in both "
    "directions, before and after Benjamini-Hochberg over the games' matrix; donors that are no "
    "game and the controls are corrected on their own.",
    f"Under {MIN_PAIRS} seeds no cell is marked as significant. 'Same' means that neither "
    "direction is significant, and is no proof of equality. Hatched cells have no scores.",
    "Tests across recipients take one value a recipient, the mean of its cells, so they speak of "
    "games and not of seeds; recipients share their donors, as all of a matrix does.",
    "The controls decide what a lead means. A frozen random P knows nothing: what it gains over "
    "C-SWM is no transfer of knowledge. An untrained encoder shows what training is worth.",
    "Rows and columns stand in the order of complete-link clusters of the Euclidean distance "
    "between their cells; distances skip missing cells. The paper names no distance.",
    "Rankings leave a game's own P out, and recipients are ranked on games' P alone. They are by "
    "means adjusted for the other side (additive fit of donor and recipient), since a donor does "
    "not meet itself as a recipient.",
    "There is one pretrained P a donor: results speak of it, and of no other training of it.",
)
"""How to read a transfer report."""


def overview_section(overview: pd.DataFrame) -> str:
    """Return counts of verdicts and tests across recipients; nothing where there is none."""
    header = (
        *("frozen P of", "cells", "compared", "better", "same", "worse", "under 5 seeds"),
        *("corrected: better", "same", "worse", "mean %", "recipients", "above 0"),
        *("mean difference", "95% interval", "p better", "p worse", "across recipients"),
    )
    rows: list[Row] = []
    for (objective, against), block in blocks(overview, "objective", "against").items():
        rows.append(Group(f"against {AGAINST[against]}, {objective_title(objective)}"))
        rows += [_overview_row(row) for row in block]
    caption = "Cells counted, each tested over seeds; and means of recipients, tested across them"
    return html.table(header, rows, caption) if rows else ""


def _overview_row(row: dict[Any, Any]) -> list[str | Entry]:
    counted = ("cells", "compared", "better", "same", "worse", "too_few")
    return [
        row["scope"],
        *(str(row[name]) for name in counted),
        *(str(row[f"{name}_bh"]) for name in ("better", "same", "worse")),
        text.signed(row["relative"], 1),
        str(row["recipients"]),
        str(row["above"]),
        text.signed(row["difference"], 4),
        Entry(text.interval(row["low"], row["high"]), "quiet"),
        text.p_value(row["p_better"]),
        text.p_value(row["p_worse"]),
        verdict_entry(row["verdict"]),
    ]


def scores_section(matrix: Matrix) -> str:
    """Return mean bit F1 of the own P, other games' P and every control, by recipient."""
    run = condensed(matrix)
    table = natural_table(run, headline_probe(run))
    arms = in_order(values(table, "arm"), [*ARM_LABELS, OTHER_P])
    labels = [ARM_LABELS.get(arm, arm) for arm in arms]
    rows: list[Row] = []
    for (game, objective), block in blocks(table, "game", "objective").items():
        scores = {row["arm"]: row for row in block}
        paper = paper_natural(str(game))
        rows.append(
            [
                str(game),
                objective_title(objective),
                *(_score(scores.get(arm)) for arm in arms),
                *(Entry(_paper(paper, arm), "quiet") for arm in ("rmr", "cswm")),
            ]
        )
    header = ("recipient", "", *labels, "paper: RMR", "paper: C-SWM")
    return html.table(header, rows, "Bit F1 at the last checkpoint, mean ± deviation over seeds")


def _score(row: dict[Any, Any] | None) -> str:
    return text.MISSING if row is None else text.spread(row["micro_f1_mean"], row["micro_f1_std"])


def _paper(paper: dict[str, float | str], arm: str) -> str:
    return text.number(float(paper.get(f"{arm}_mean", "nan")))


def ranking_section(ranking: pd.DataFrame) -> str:
    """Return donors and recipients, the highest first; nothing where there is none."""
    header = (
        *("name", "cells", "mean %", "adjusted %", "95% interval", "better", "same", "worse"),
        *("corrected: better", "worse"),
    )
    rows: list[Row] = []
    for (objective, role), block in blocks(ranking, "objective", "role").items():
        rows.append(Group(f"{role}s, {objective_title(objective)}"))
        rows += [
            [
                row["name"],
                str(row["cells"]),
                text.signed(row["relative"], 2),
                text.signed(row["adjusted"], 2),
                Entry(text.interval(row["low"], row["high"]), "quiet"),
                *(str(row[name]) for name in ("better", "same", "worse", "better_bh", "worse_bh")),
            ]
            for row in block
        ]
    return html.table(header, rows, "Against C-SWM; a game's own P left out") if rows else ""


def robustness_section(table: pd.DataFrame) -> str:
    """Return counts and means at every probe and checkpoint; nothing where there is none."""
    header = (
        *("frozen P of", "compared", "better", "same", "worse", "corrected: better", "worse"),
        *("mean %", "recipients above 0"),
    )
    rows: list[Row] = []
    keys = ("objective", "probe", "checkpoint")
    for (objective, probe, step), block in blocks(table, *keys).items():
        rows.append(Group(f"{objective_title(objective)}, probe {probe}, step {step:,}"))
        counted = ("compared", "better", "same", "worse", "better_bh", "worse_bh")
        rows += [
            [
                row["scope"],
                *(str(row[name]) for name in counted),
                text.signed(row["relative"], 1),
                f"{row['above']} of {row['recipients']}",
            ]
            for row in block
        ]
    return html.table(header, rows, "Against C-SWM") if rows else ""


def cells_section(cells: pd.DataFrame) -> str:
    """Return every cell against C-SWM with its tests, or where to find them if they are many."""
    table = where(cells, against="cswm")
    if len(table) > MOST_ROWS:
        return html.paragraph(f"{len(table)} cells a baseline: see transfer_summary.csv.")
    header = (
        *("P of", "seeds", "bit F1", "mean %", "difference", "95% interval", "p better"),
        *("p worse", "verdict", "corrected p better", "corrected p worse", "corrected verdict"),
    )
    rows: list[Row] = []
    for (objective, recipient), block in blocks(table, "objective", "recipient").items():
        rows.append(
            Group(f"to {recipient}: {objective_title(objective)}, step {block[0]['checkpoint']:,}")
        )
        rows += [_cell_row(row) for row in block if row["source"] != "cswm"]
    return html.table(header, rows, "Against C-SWM, paired by seed") if rows else ""


def _cell_row(row: dict[Any, Any]) -> list[str | Entry]:
    return [
        row["label"],
        str(row["seeds"]),
        text.number(row["micro_f1_mean"]),
        text.signed(row["relative"], 2),
        text.signed(row["difference"], 4),
        Entry(text.interval(row["low"], row["high"]), "quiet"),
        text.p_value(row["p_better"]),
        text.p_value(row["p_worse"]),
        verdict_entry(row["verdict"] if row["pairs"] else "missing"),
        text.p_value(row["p_better_bh"]),
        text.p_value(row["p_worse_bh"]),
        verdict_entry(row["verdict_bh"] if row["pairs"] else ""),
    ]
