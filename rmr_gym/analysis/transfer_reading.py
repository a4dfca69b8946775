"""What a transfer matrix says in plain sentences; every word of a result is derived from it."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from rmr_gym.analysis import text
from rmr_gym.analysis.paper import PAPER_TRANSFER
from rmr_gym.analysis.reading import Finding, unfinished
from rmr_gym.analysis.run import OBJECTIVE_LABELS, blocks, in_order, values, where
from rmr_gym.analysis.statistics import ALPHA, MIN_PAIRS, TOO_FEW
from rmr_gym.analysis.transfer import AGAINST, OTHER_P, OWN, OWN_P, Matrix
from rmr_gym.analysis.transfer_overview import ALL_PAIRS, TransferSummary

ANSWERS = {
    "better": "yes",
    "same": "not shown",
    "worse": "no, worse",
    TOO_FEW: f"not tested on fewer than {MIN_PAIRS} recipients",
}
KNOWS_NOTHING = ("random_p", "shuffled_p", "no_p")
CONTROLS = ("random_p", "shuffled_p", "untrained")
"""Without these, a lead is not put down to anything."""

Rows = list[dict[Any, Any]]


def transfer_reading(matrix: Matrix, summary: TransferSummary) -> list[Finding]:
    """Return the findings that the report of a transfer run opens with.

    Args:
        matrix: The run.
        summary: Its tables.
    """
    objectives = in_order(summary.cells["objective"], OBJECTIVE_LABELS)
    others = [donor for donor in matrix.donors if donor not in matrix.games]
    findings = []
    for objective in objectives:
        overview = where(summary.overview, objective=objective).to_dict("records")
        cells = where(summary.cells, objective=objective, against="cswm")
        found = [
            *_answer("Does a frozen P of the same game help?", OWN_P, overview),
            *_answer("Does a frozen P of another game help?", OTHER_P, overview),
            *(
                said
                for donor in others
                for said in _answer(f"Does a frozen P of {donor}, no game, help?", donor, overview)
            ),
            *_other_games_against_own(overview),
            _knowledge_of_games(others, overview),
            *_counts(overview),
            *_relative(overview),
            *_ends(where(summary.ranking, objective=objective)),
            *_smallest_p(cells),
            *_missing(cells),
        ]
        lead = f"{OBJECTIVE_LABELS.get(objective, objective)}, " if len(objectives) > 1 else ""
        findings += [each._replace(subject=lead + each.subject) for each in found]
    return [*findings, *unfinished(matrix.run)]


def _answer(question: str, scope: str, overview: Rows) -> Iterator[Finding]:
    """Answer by the test across recipients, against C-SWM and each control that was run."""
    rows = {row["against"]: row for row in overview if row["scope"] == scope}
    rows.pop(OWN, None)
    if not rows:
        return
    said = [
        f"against {AGAINST[against]} {ANSWERS[row['verdict']]}: {text.signed(row['difference'])} "
        f"in bit F1, above 0 on {row['above']} of {_recipients(row['recipients'])}"
        for against, row in rows.items()
    ]
    yield Finding(question, f"{'; '.join(said)}. {_conclusion(rows)}")


def _conclusion(rows: dict[str, dict[Any, Any]]) -> str:
    """Say what follows for knowledge, and for the training as a whole."""
    absent = [AGAINST[name] for name in CONTROLS if name not in rows]
    if absent:
        return f"Not run: {text.listing(absent)}; so no lead can be put down to knowledge."
    if any(row["verdict"] == TOO_FEW for row in rows.values()):
        return f"Tests across recipients need {MIN_PAIRS} of them; these numbers settle nothing."
    short = [name for name, row in rows.items() if row["verdict"] != "better"]
    ignorant = [AGAINST[name] for name in short if name in KNOWS_NOTHING]
    said = (
        f"It is not above {text.listing(ignorant)}: that what P learnt helps is not shown."
        if ignorant
        else "It is above every P that knows nothing: that P was trained makes a difference."
    )
    if "untrained" not in short:
        return said
    return f"{said} It is not above an untrained encoder: that training so helps is not shown."


def _other_games_against_own(overview: Rows) -> Iterator[Finding]:
    for row in overview:
        if (row["against"], row["scope"]) == (OWN, OTHER_P):
            yield Finding("Other games' P against the own", f"{_beside_own(row)}.")


def _knowledge_of_games(others: Sequence[str], overview: Rows) -> Finding:
    """Ask whether a P that knows no game does as well as the recipient's own."""
    rows = [row for row in overview if row["against"] == OWN and row["scope"] in others]
    said = "; ".join(f"P of {row['scope']}, no game, is {_beside_own(row)}" for row in rows)
    if not rows:
        said = "no donor that is no game was run"
        follows = "whether any trained P would do as well is open"
    elif any(row["verdict"] == TOO_FEW for row in rows):
        follows = "these numbers settle nothing"
    elif all(row["verdict"] == "worse" for row in rows):
        follows = "what helps is more than any trained P has"
    else:
        follows = "that knowledge of games helps is not shown"
    return Finding("Is it knowledge of games?", f"{said}: {follows}.")


def _beside_own(row: dict[Any, Any]) -> str:
    words = {"better": "better than", "worse": "worse than", "same": "not told apart from"}
    return (
        f"{words.get(row['verdict'], 'not tested against')} the recipient's own P: "
        f"{text.signed(row['difference'])} in bit F1, above 0 on {row['above']} of "
        f"{_recipients(row['recipients'])}"
    )


def _counts(overview: Rows) -> Iterator[Finding]:
    for row in overview:
        if row["scope"] != ALL_PAIRS or row["against"] == OWN:
            continue
        judged = row["compared"] - row["too_few"]
        said = []
        if judged:
            said.append(f"of {judged} pairs {_shares(row, '', judged)}")
            said.append(f"after Benjamini-Hochberg {_shares(row, '_bh', judged)}")
        if row["too_few"]:
            said.append(
                f"no significance is claimed on {row['too_few']} with fewer than {MIN_PAIRS} seeds"
            )
        if row["against"] == "cswm":
            paper = ", ".join(f"{share}% {word}" for word, share in PAPER_TRANSFER.items())
            said.append(f"the paper (24 x 24 pairs, 20 seeds, uncorrected): {paper}")
        subject = f"Pairs of games, frozen P against {AGAINST[row['against']]}"
        yield Finding(subject, f"{'; '.join(said)}.")


def _shares(row: dict[Any, Any], suffix: str, judged: int) -> str:
    words = {"better": "better", "same": "neither", "worse": "worse"}
    counts = {said: row[f"{word}{suffix}"] for word, said in words.items()}
    return ", ".join(f"{n} ({100 * n / judged:.1f}%) {said}" for said, n in counts.items())


def _relative(overview: Rows) -> Iterator[Finding]:
    """Put what a P that knows nothing gains beside what the donors gain."""
    rows = [row for row in overview if row["against"] == "cswm" and row["scope"] != ALL_PAIRS]
    said = [f"{row['scope']} {text.signed(row['relative'], 1)}%" for row in rows]
    if said:
        yield Finding("Mean improvement over C-SWM", f"{', '.join(said)}.")


def _ends(ranking: pd.DataFrame) -> Iterator[Finding]:
    for (role,), rows in blocks(ranking, "role").items():
        if len(rows) >= 2:
            most = min(3, len(rows) // 2)
            best, worst = (
                text.listing([_ranked(row) for row in part]) for part in (rows[:most], rows[-most:])
            )
            yield Finding(
                f"Strongest and weakest {role}s",
                f"{best}; at the other end {worst}. Against C-SWM, a game's own P left out, "
                "adjusted for missing cells; 95% intervals over cells.",
            )


def _ranked(row: dict[Any, Any]) -> str:
    mean, low, high = (text.signed(row[name], 1) for name in ("adjusted", "low", "high"))
    return f"{row['name']} {mean}%" + ("" if math.isnan(row["low"]) else f" ({low} to {high})")


def _smallest_p(cells: pd.DataFrame) -> Iterator[Finding]:
    """Say how coarse the exact test is with the seeds there are."""
    pairs = values(where(cells, role="game"), "pairs").astype(int)
    pairs = pairs[pairs >= MIN_PAIRS]
    if not len(pairs):
        return
    smallest = 0.5 ** int(pairs.max())
    needed = math.floor(len(pairs) * smallest / ALPHA) + 1
    if needed > 1:
        yield Finding(
            "How coarse the test of a cell is",
            f"with {pairs.max()} seeds p cannot be below {smallest:.3g}; after correction over "
            f"{len(pairs)} cells none is marked unless at least {needed} reach it.",
        )


def _missing(cells: pd.DataFrame) -> Iterator[Finding]:
    donors = where(cells, role=["game", "other"]).to_dict("records")
    lacking = [f"{row['source']} to {row['recipient']}" for row in donors if not row["pairs"]]
    if lacking:
        shown = text.named(lacking) or f" (among them {text.listing(lacking[:3])})"
        yield Finding(
            "Missing cells", f"{len(lacking)} of {len(donors)} have no pair of seeds{shown}."
        )


def _recipients(count: int) -> str:
    return f"{count} recipient{'' if count == 1 else 's'}"
