"""Tables of the report as HTML."""

import json
from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis import html, text
from rmr_gym.analysis.html import Entry, Group, Row
from rmr_gym.analysis.run import (
    ARM_LABELS,
    CELL_STATES,
    OBJECTIVE_LABELS,
    PROBE_LABELS,
    Run,
    blocks,
    in_order,
    values,
    where,
)
from rmr_gym.analysis.statistics import ALPHA, MIN_PAIRS
from rmr_gym.analysis.tables import BASELINES

NOTES = (
    "Bit F1 is micro-averaged over the bits of the RAM slots whose entropy is above the threshold; "
    "slot accuracy counts a slot only if all its 8 bits are right. Both are of a linear probe on "
    "frozen features, on validation episodes.",
    "RMR and C-SWM are one architecture, with the same initial encoder and the same batches for a "
    "seed; they differ in P: pretrained on RAM and frozen, or initialised afresh and trained.",
    "The controls keep the comparison honest. Frozen random P: nothing was pretrained. "
    "Weight-shuffled P: the pretrained weights, their order destroyed. No P: the action alone "
    "moves the latent. Untrained encoder: no training at all. Pixels through PCA: no network. "
    "Supervised on RAM: a ceiling, since it reads the answers. If RMR beats C-SWM but not the "
    "controls, what P learned from RAM is not what helped.",
    "Effective rank counts the directions that the features use; where training lowers it far "
    "below the untrained encoder's, the objective has thrown information away.",
    "Differences are paired by seed, with a 95% bootstrap interval of their mean. p is exact, of a "
    "one-sided paired Wilcoxon signed-rank test, once for better and once for worse. A verdict is "
    f"at p < {ALPHA}; 'same' means that neither direction is significant, and is no proof of "
    "equality. The corrected verdict uses Benjamini-Hochberg over the cells of its table.",
    f"Under {MIN_PAIRS} paired seeds no significance is claimed: with n seeds the smallest "
    "possible p is 1 / 2^n, and with few seeds a corrected p can hardly become small.",
    "Seeds vary the natural run. Where the abstract table shows one seed, all seeds share that one "
    "pretrained P, and a result speaks of it alone.",
    "Probes and checkpoints were fixed before the run, and all of them are shown: the sign of a "
    "difference can hang on either.",
    "The paper's figures come from other data (Agent57's episodes), 210x160 frames and its own "
    "budgets: compare signs and orders, not digits.",
)
"""How to read the report."""


def natural_section(table: pd.DataFrame) -> str:
    """Return the headline table; nothing where it is empty."""
    header = (
        *("arm", "seeds", "bit F1 (micro)", "paper", "macro F1", "slot accuracy"),
        *("effective rank", "dead slots", "to C-SWM", "verdict", "to untrained", "verdict"),
    )
    if table.empty:
        return ""
    rows: list[Row] = []
    for (game, objective), block in blocks(table, "game", "objective").items():
        rows.append(Group(f"{game}: {objective_title(objective)}, step {block[0]['checkpoint']:,}"))
        rows += [_natural_row(row) for row in block]
    probe = str(table.iloc[0]["probe"])
    caption = (
        f"Probe: {PROBE_LABELS.get(probe, probe)}; mean ± sample deviation over seeds; differences "
        "in bit F1, paired by seed, verdicts uncorrected"
    )
    return html.table(header, rows, caption)


def _natural_row(row: dict[Any, Any]) -> list[str | Entry]:
    return [
        row["label"],
        str(row["seeds"]),
        _spread(row, "micro_f1"),
        Entry(text.spread(row["paper_mean"], row["paper_std"]), "quiet"),
        _spread(row, "macro_f1"),
        _spread(row, "slot_accuracy"),
        _spread(row, "effective_rank", 1),
        text.number(row["dead_slots_mean"], 0),
        text.signed(row["cswm_difference"]),
        verdict_entry(row["cswm_verdict"]),
        text.signed(row["untrained_difference"]),
        verdict_entry(row["untrained_verdict"]),
    ]


def tests_section(natural: pd.DataFrame, contrast: pd.DataFrame) -> str:
    """Return every paired test of the headline table, and RMR against its controls."""
    header = (
        *("arm", "against", "pairs", "difference", "95% interval", "p better", "p worse"),
        *("verdict", "corrected p better", "corrected p worse", "corrected verdict"),
    )
    controls = blocks(contrast, "game", "objective")
    rows: list[Row] = []
    for (game, objective), block in blocks(natural, "game", "objective").items():
        rows.append(Group(f"{game}: {objective_title(objective)}, step {block[0]['checkpoint']:,}"))
        rows += [
            _test_row(row["label"], baseline, row, f"{baseline}_")
            for baseline in BASELINES
            for row in block
            if row[f"{baseline}_verdict"]
        ]
        rows += [
            _test_row(ARM_LABELS["rmr"], row["control"], row, "")
            for row in controls.get((game, objective), [])
        ]
    return html.table(header, rows, "Difference in bit F1, paired by seed") if rows else ""


def _test_row(label: str, baseline: str, row: dict[Any, Any], prefix: str) -> list[str | Entry]:
    return [
        label,
        ARM_LABELS.get(baseline, baseline),
        str(row[f"{prefix}pairs"]),
        text.signed(row[f"{prefix}difference"], 4),
        Entry(text.interval(row[f"{prefix}low"], row[f"{prefix}high"]), "quiet"),
        text.p_value(row[f"{prefix}p_better"]),
        text.p_value(row[f"{prefix}p_worse"]),
        verdict_entry(row[f"{prefix}verdict"]),
        text.p_value(row[f"{prefix}p_better_bh"]),
        text.p_value(row[f"{prefix}p_worse_bh"]),
        verdict_entry(row[f"{prefix}verdict_bh"]),
    ]


def checkpoints_section(table: pd.DataFrame) -> str:
    """Return mean F1 of every arm at every checkpoint under every probe."""
    if table.empty:
        return ""
    arms = in_order(values(table, "arm"), ARM_LABELS)
    labels = [ARM_LABELS.get(arm, arm) for arm in arms]
    header = ("probe", "step", *labels, "RMR to C-SWM", "verdict", "corrected")
    rows: list[Row] = []
    for (game, objective), block in blocks(table, "game", "objective").items():
        rows.append(Group(f"{game}: {objective_title(objective)}"))
        for probe, step in dict.fromkeys((row["probe"], row["checkpoint"]) for row in block):
            here = [row for row in block if (row["probe"], row["checkpoint"]) == (probe, step)]
            means = {row["arm"]: text.number(row["micro_f1_mean"]) for row in here}
            scores = [means.get(arm, text.MISSING) for arm in arms]
            shown = _rmrverdict_entry({row["arm"]: row for row in here}.get("rmr"))
            label = PROBE_LABELS.get(str(probe), str(probe))
            rows.append([label, f"{step:,}", *scores, *shown])
    return html.table(header, rows, "Mean bit F1 over seeds; references stand at their own step")


def _rmrverdict_entry(row: dict[Any, Any] | None) -> list[str | Entry]:
    if row is None:
        return [text.MISSING] * 3
    verdicts = [verdict_entry(row["cswm_verdict"]), verdict_entry(row["cswm_verdict_bh"])]
    return [text.signed(row["cswm_difference"]), *verdicts]


def abstract_section(table: pd.DataFrame) -> str:
    """Return the abstract models beside the copy baseline and the paper's figures."""
    header = (
        *("model", "seeds", "step", "slot accuracy", "paper", "bit F1 (micro)", "paper"),
        *("bit accuracy", "mask accuracy"),
    )
    rows: list[Row] = []
    for (game,), block in blocks(table, "game").items():
        rows.append(Group(game))
        rows += [_abstract_row(row) for row in block]
    return html.table(header, rows, "On slots of high entropy, validation episodes") if rows else ""


def _abstract_row(row: dict[Any, Any]) -> list[str | Entry]:
    return [
        row["label"],
        str(row["seeds"]),
        f"{row['step']:,}",
        _spread(row, "slot_accuracy"),
        Entry(text.number(row["paper_slot_accuracy"]), "quiet"),
        _spread(row, "bit_f1"),
        Entry(text.number(row["paper_bit_f1"]), "quiet"),
        _spread(row, "bit_accuracy"),
        _spread(row, "mask_accuracy"),
    ]


def run_summary(run: Run) -> str:
    """Return in one line what was run: command, seeds, end and length."""
    names = ("command", "seeds", "objective", "finished", "seconds")
    shown = [(name, _fact(name, run.info[name])) for name in names if name in run.info]
    return "; ".join(f"{'time' if name == 'seconds' else name}: {fact}" for name, fact in shown)


def description_section(run: Run) -> str:
    """Return what run.json says, the data sets, and where the time went."""
    facts = {name: value for name, value in run.info.items() if name not in ("datasets", "slots")}
    rows: list[Row] = [
        [label, Entry(_fact(label, value), "wrap")]
        for name, fact in facts.items()
        for label, value in _split(name, fact)
    ]
    parts = [html.table(("what", "value"), rows)] if rows else []
    return "".join([*parts, _datasets(run), _timings(run.timings), _cells(run.cells)])


def _split(name: str, fact: Any) -> list[tuple[str, Any]]:
    """Give each dictionary inside a dictionary a row of its own, after the plain values."""
    if not isinstance(fact, dict):
        return [(name, fact)]
    plain = {key: value for key, value in fact.items() if not isinstance(value, dict)}
    inner = [(f"{name}: {key}", value) for key, value in fact.items() if isinstance(value, dict)]
    return [*([(name, plain)] if plain else []), *inner]


def _datasets(run: Run) -> str:
    sets, slots = run.info.get("datasets"), run.info.get("slots")
    if not isinstance(sets, dict) or not sets:
        return ""
    facts = {game: each for game, each in sets.items() if isinstance(each, dict)}
    names = dict.fromkeys(name for each in facts.values() for name in each if name != "slots")
    counted = slots if isinstance(slots, dict) else {}
    rows: list[Row] = [
        [
            game,
            _fact("", counted.get(game, text.MISSING)),
            *(Entry(_fact(name, each.get(name, text.MISSING)), _wrapped(name)) for name in names),
        ]
        for game, each in facts.items()
    ]
    return html.heading("Data") + html.table(("game", "slots probed", *names), rows)


def _wrapped(name: str) -> str:
    return "wrap" if name == "fingerprint" else ""


def _timings(timings: pd.DataFrame) -> str:
    if timings.empty:
        return ""
    stages = list(dict.fromkeys(values(timings, "stage")))
    rows: list[Row] = []
    for game in dict.fromkeys(values(timings, "game")):
        of_game = where(timings, game=game)
        spent = [float(values(where(of_game, stage=stage), "seconds").sum()) for stage in stages]
        rows.append([game, *map(text.duration, spent), text.duration(sum(spent))])
    caption = "Time spent, summed over arms, seeds and worker processes"
    return html.heading("Time") + html.table(("game", *stages, "all"), rows, caption)


def _cells(cells: pd.DataFrame) -> str:
    """Return how many cells of a sweep are done, and which failed why."""
    if cells.empty:
        return ""
    states = list(values(cells, "state"))
    counts = [f"{states.count(state)} {state}" for state in in_order(states, CELL_STATES)]
    spent = text.duration(float(np.nansum(values(cells, "seconds").astype(float))))
    caption = f"{', '.join(counts)}; computing took {spent}"
    rows: list[Row] = [
        [row["key"], str(row["attempts"]), Entry(row["error"], "wrap")]
        for row in where(cells, state="failed").to_dict("records")
    ]
    failed = html.table(("failed cell", "attempts", "error"), rows) if rows else ""
    return html.heading("Cells of the sweep") + html.paragraph(f"{caption}.") + failed


def _fact(name: str, value: Any) -> str:
    """Return a value of run.json as one line."""
    if name == "seconds" and isinstance(value, int | float):
        return text.duration(float(value))
    if isinstance(value, dict):
        return "; ".join(f"{key} {_fact(key, each)}" for key, each in value.items())
    if isinstance(value, list):
        return ("; " if name == "problems" else ", ").join(_fact("", each) for each in value)
    return value if isinstance(value, str) else json.dumps(value)


def verdict_entry(found: str) -> Entry:
    """Return a verdict as a table cell, marked where it is better or worse."""
    mark = {"better": "▲ ", "worse": "▼ "}.get(found, "")
    return Entry(f"{mark}{found}" or text.MISSING, found if mark else "quiet")


def _spread(row: dict[Any, Any], metric: str, digits: int = 3) -> str:
    return text.spread(row[f"{metric}_mean"], row[f"{metric}_std"], digits)


def objective_title(name: str) -> str:
    """Return what an objective is called above a table."""
    return f"objective {OBJECTIVE_LABELS.get(name, name)}"
