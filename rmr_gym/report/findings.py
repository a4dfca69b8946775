"""What numbers say in plain sentences, good news and bad news in one form.

An experiment says its own in ``findings.j2``: a paragraph a finding, its subject and its statement
with `APART` between them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rmr_gym.report.runs import JOB_STATES, Row, Run, in_order, records
from rmr_gym.report.statistics import MIN_PAIRS, TOO_FEW
from rmr_gym.report.tables import signed

WORDS = {"better": "better", "worse": "worse", "same": "not significant"}


APART = " :: "


class Finding(NamedTuple):
    """One thing that a run shows."""

    subject: str
    statement: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.statement}"


def read_findings(text: str) -> list[Finding]:
    """Return the findings of a text, which may break its lines anywhere, before a full stop too."""
    joined = re.sub(r"[ \n]+([.,;])(?=\s)", r"\1", text)
    paragraphs = (" ".join(part.split()) for part in joined.split("\n\n"))
    split = (paragraph.partition(APART) for paragraph in paragraphs if paragraph)
    return [Finding(subject, statement) for subject, _, statement in split]


def against(
    tests: pd.DataFrame,
    subject: str,
    score: str = "bit F1",
    unit: str = "game",
    place: str = "game",
) -> str:
    """Say on how many games something is better, worse, neither, or not to be judged.

    Args:
        tests: Of `rmr_gym.report.statistics.paired`, a row a game; those without a pair do not
            count.
        subject: "A against B".
        score: What is compared.
        unit: What a row is.
        place: Column of its name.

    Returns:
        A paragraph of findings; nothing without a pair.
    """
    rows = records(tests, tests["pairs"] > 0)
    if not rows:
        return ""
    judged = [row for row in rows if row["verdict"] != TOO_FEW]
    gaps = [row["difference"] for row in rows if row["verdict"] == TOO_FEW]
    clauses = []
    if judged:
        clauses.append(f"of {counted(judged, unit)} {tally(judged, 'verdict', place)}")
        clauses.append(f"after correction for the number of tests {tally(judged, 'verdict_bh')}")
    if gaps:
        clauses.append(
            f"no significance is claimed on {counted(gaps, unit)} with fewer than {MIN_PAIRS} "
            f"pairs, where the mean difference is above 0 on {sum(gap > 0 for gap in gaps)} and "
            f"below 0 on {sum(gap < 0 for gap in gaps)}"
        )
    mean = float(np.mean([row["difference"] for row in rows]))
    clauses.append(f"mean difference in {score} {signed(mean)}")
    return f"\n\n{subject}{APART}{'; '.join(clauses)}.\n\n"


def tally(rows: Sequence[Row], column: str, place: str = "") -> str:
    """Return ``better on 1 (Pong), worse on 0, not significant on 2 (...)``.

    Args:
        rows: What is counted.
        column: Of their verdicts.
        place: Column of their names; none: none is named.
    """
    names = {
        word: [row.get(place, "") for row in rows if row[column] == verdict]
        for verdict, word in WORDS.items()
    }
    return spoken(names, 6 if place else 0)


def spoken(groups: Mapping[str, Sequence[str]], most: int = 6) -> str:
    """Return ``better on 2 (Pong and Hero), worse on 0``: how many, and which if they are few."""
    return ", ".join(
        f"{word} on {len(names)}{named(names, most)}" for word, names in groups.items()
    )


def unfinished(run: Run) -> Iterator[Finding]:
    """Say what failed, and how many jobs of a sweep are not done."""
    problems = run.info.get("problems")
    if isinstance(problems, list) and problems:
        yield Finding("What failed on the way", f"{'; '.join(map(str, problems))}.")
    states = list(run["jobs"]["state"])
    if states.count("done") < len(states):
        yield Finding("Unfinished", f"of {len(states)} jobs of the sweep {states_of(states)}.")


def states_of(states: list[str]) -> str:
    """Return how many jobs are in which state."""
    return ", ".join(f"{states.count(state)} {state}" for state in in_order(states, JOB_STATES))


def listing(names: Iterable[Any]) -> str:
    """Return ``a, b and c``."""
    *most, last = map(str, names)
    return f"{', '.join(most)} and {last}" if most else last


def named(names: Iterable[str], most: int = 6) -> str:
    """Return `` (a, b and c)``; nothing for no name, or for too many to read."""
    known = list(names)
    return f" ({listing(known)})" if 0 < len(known) <= most else ""


def counted(things: Sized | int, unit: str = "game") -> str:
    """Return ``1 game`` or ``3 games``."""
    count = len(things) if isinstance(things, Sized) else things
    return f"{count} {unit}{'' if count == 1 else 's'}"
