"""What a bottleneck run says in plain sentences; every word of a result is derived from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis import text
from rmr_gym.analysis.bottleneck import (
    abstract_sizes,
    missing_sizes,
    narrowing_table,
    size_table,
)
from rmr_gym.analysis.reading import Finding, unfinished
from rmr_gym.analysis.run import ARM_LABELS, OBJECTIVE_LABELS, blocks, in_order, values, where
from rmr_gym.analysis.statistics import MIN_PAIRS, TOO_FEW
from rmr_gym.analysis.sweep_run import SweepRun
from rmr_gym.analysis.tables import headline_probe

PAPER = "the paper, in words only: F1 falls as dim z is reduced"


@dataclass(frozen=True, eq=False)
class BottleneckSummary:
    """All tables of a bottleneck run: see `rmr_gym.analysis.bottleneck`.

    Attributes:
        sizes: `size_table`.
        narrowing: `narrowing_table`.
        abstract: `abstract_sizes`.
    """

    sizes: pd.DataFrame
    narrowing: pd.DataFrame
    abstract: pd.DataFrame


def summarise_bottleneck(sweep: SweepRun) -> BottleneckSummary:
    """Compute all tables of a bottleneck run, under its headline probe."""
    probe = headline_probe(sweep.view(sweep.scores))
    return BottleneckSummary(
        sizes=size_table(sweep, probe),
        narrowing=narrowing_table(sweep, probe),
        abstract=abstract_sizes(sweep),
    )


def bottleneck_reading(sweep: SweepRun, summary: BottleneckSummary) -> list[Finding]:
    """Return the findings that the report of a bottleneck run opens with.

    Args:
        sweep: The run.
        summary: Its tables.
    """
    objectives = in_order(values(summary.narrowing, "objective"), OBJECTIVE_LABELS)
    findings = []
    for objective in objectives:
        narrowing = where(summary.narrowing, objective=objective)
        sizes = where(summary.sizes, objective=objective, arm="rmr")
        found = [*_narrowest(narrowing), *_beyond_the_probe(narrowing), *_leads(sizes)]
        lead = f"{OBJECTIVE_LABELS.get(objective, objective)}, " if len(objectives) > 1 else ""
        findings += [each._replace(subject=lead + each.subject) for each in found]
    return [
        *findings,
        *_abstract(summary.abstract),
        *_missing(missing_sizes(sweep, summary.sizes)),
        *unfinished(sweep.base),
    ]


def _at_narrowest(narrowing: pd.DataFrame) -> dict[str, list[dict[Any, Any]]]:
    """Return by arm the narrowest size that each game has of it, where there is a pair."""
    compared = pd.DataFrame(narrowing[narrowing["pairs"].to_numpy(float) > 0])
    last = compared.sort_values("dim", kind="stable").drop_duplicates(subset=["game", "arm"])
    found = {str(arm): rows for (arm,), rows in blocks(last, "arm").items()}
    return {arm: found[arm] for arm in in_order(found, ARM_LABELS)}


def _narrowest(narrowing: pd.DataFrame) -> Iterator[Finding]:
    for arm, rows in _at_narrowest(narrowing).items():
        judged = [row for row in rows if row["verdict"] != TOO_FEW]
        lower, higher = (
            [sum(row[column] == word for row in judged) for column in ("verdict", "verdict_bh")]
            for word in ("worse", "better")
        )
        mean = float(np.mean([row["difference"] for row in rows]))
        spans = text.listing(sorted({f"{row['dim']} against {row['widest']}" for row in rows}))
        said = [f"dim {spans}: {text.signed(mean)} in bit F1, a mean of {_games(len(rows))}"]
        if judged:
            said.append(
                f"of {_games(len(judged))} lower on {lower[0]} ({lower[1]} after correction for "
                f"the number of tests), higher on {higher[0]} ({higher[1]})"
            )
        if len(judged) < len(rows):
            unjudged = _games(len(rows) - len(judged))
            said.append(f"no significance is claimed on {unjudged} under {MIN_PAIRS} seeds")
        if arm == "rmr":
            said.append(PAPER)
        yield Finding(f"The narrowest latent of {ARM_LABELS.get(arm, arm)}", f"{'; '.join(said)}.")


def _beyond_the_probe(narrowing: pd.DataFrame) -> Iterator[Finding]:
    """Compare RMR's fall to that of arms whose P cannot be the reason."""
    found = _at_narrowest(narrowing)
    own = {row["game"]: row for row in found.get("rmr", [])}
    for arm in ("cswm", "untrained"):
        pairs = [
            (own[row["game"]]["difference"], row["difference"])
            for row in found.get(arm, [])
            if row["game"] in own and row["dim"] == own[row["game"]]["dim"]
        ]
        if pairs:
            rmr, other = np.mean(pairs, axis=0)
            more = sum(first < second for first, second in pairs)
            yield Finding(
                f"Is the fall larger than that of {ARM_LABELS[arm]}?",
                f"{ARM_LABELS['rmr']} {text.signed(rmr)}, {ARM_LABELS[arm]} {text.signed(other)}; "
                f"larger for RMR on {more} of {_games(len(pairs))}. What falls for both comes with "
                "a smaller latent and not with a frozen P.",
            )


def _leads(sizes: pd.DataFrame) -> Iterator[Finding]:
    said = []
    for (dim,), rows in blocks(sizes, "dim").items():
        compared = [row for row in rows if row["cswm_pairs"]]
        if compared:
            mean = float(np.mean([row["cswm_difference"] for row in compared]))
            above = sum(row["cswm_difference"] > 0 for row in compared)
            said.append(f"dim {dim} {text.signed(mean)} (above 0 on {above} of {len(compared)})")
    if said:
        subject = f"{ARM_LABELS['rmr']} minus {ARM_LABELS['cswm']}, mean of games"
        yield Finding(subject, f"{', '.join(said)}.")


def _abstract(table: pd.DataFrame) -> Iterator[Finding]:
    ends = []
    for rows in blocks(table, "game").values():
        if len(rows) > 1:
            ends.append((rows[-1]["bit_f1"], rows[0]["bit_f1"]))
    if ends:
        widest, narrowest = np.nanmean(ends, axis=0)
        lower = sum(narrow < wide for wide, narrow in ends)
        yield Finding(
            "P itself, on RAM",
            f"mean bit F1 {widest:.3f} at the widest and {narrowest:.3f} at the narrowest latent; "
            f"lower at the narrowest on {lower} of {_games(len(ends))}, one training each.",
        )


def _missing(names: list[str]) -> Iterator[Finding]:
    if names:
        shown = text.listing(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        yield Finding(f"No score of {ARM_LABELS['rmr']}", f"{shown}.")


def _games(count: int) -> str:
    return f"{count} game{'' if count == 1 else 's'}"
