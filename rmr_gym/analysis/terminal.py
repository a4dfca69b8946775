"""The headline table as plain text of 80 columns, for the command line."""

from typing import Any

import pandas as pd

from rmr_gym.analysis import text
from rmr_gym.analysis.paper import paper_natural
from rmr_gym.analysis.run import OBJECTIVE_LABELS, blocks
from rmr_gym.analysis.statistics import MIN_PAIRS, TOO_FEW

SHORT_LABELS = {"supervised": "supervised (ceiling)"}
NOTES = f"""\
Bit F1 of the probe on RAM slots of high entropy, mean ± deviation over seeds;
slots: share of slots with all 8 bits right; rank: effective rank of the
features. Differences are paired by seed; better, worse: exact one-sided
Wilcoxon test, p < 0.05, not corrected for the number of tests. Under {MIN_PAIRS} seeds
no significance is claimed.
"""


def natural_text(table: pd.DataFrame) -> str:
    """Return a natural table (see `rmr_gym.analysis.tables.natural_table`) as plain text."""
    if table.empty:
        return "No natural results in this run yet.\n"
    parts = [_block(block) for block in blocks(table, "game", "objective").values()]
    return "\n\n".join([*parts, NOTES])


def _block(block: list[dict[Any, Any]]) -> str:
    first, most = block[0], max(row["seeds"] for row in block)
    objective = OBJECTIVE_LABELS.get(first["objective"], first["objective"])
    seeds = f"{most} seed{'' if most == 1 else 's'}"
    head = (
        f"{first['game']}: {objective}, step {first['checkpoint']}, {first['probe']} probe, {seeds}"
    )
    columns = ("arm", "bit F1", "slots", "rank", "to C-SWM", "to untrained")
    lines = [columns, *(_row(row, most) for row in block)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    padded = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([head, *(f"  {line}" for line in padded), *_paper(first["game"])])


def _paper(game: str) -> list[str]:
    there = paper_natural(game)
    if not there:
        return []
    return [f"  the paper: RMR {there['rmr_mean']:.3f}, C-SWM {there['cswm_mean']:.3f}"]


def _row(row: dict[Any, Any], most: int) -> tuple[str, ...]:
    label = SHORT_LABELS.get(row["arm"]) or str(row["label"])
    return (
        label if row["seeds"] == most else f"{label} (n={row['seeds']})",
        text.spread(row["micro_f1_mean"], row["micro_f1_std"]).replace(" ", ""),
        text.number(row["slot_accuracy_mean"]),
        text.number(row["effective_rank_mean"], 1),
        _difference(row, "cswm_"),
        _difference(row, "untrained_"),
    )


def _difference(row: dict[Any, Any], prefix: str) -> str:
    pairs = row[f"{prefix}pairs"]
    if not pairs:
        return text.MISSING
    found = row[f"{prefix}verdict"]
    shown = f"(n={pairs})" if found == TOO_FEW else found
    return f"{text.signed(row[f'{prefix}difference'])} {shown}"
