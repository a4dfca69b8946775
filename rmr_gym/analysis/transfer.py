"""Tables of a transfer matrix: every donor's frozen P on every recipient, against each control.

Rows of the matrix are donors (the paper's train games), columns recipients (its test games).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.analysis.cells import Cell, cells
from rmr_gym.analysis.differences import DIFFERENCE_COLUMNS, difference_columns, with_corrected
from rmr_gym.analysis.paper import paper_natural
from rmr_gym.analysis.run import (
    ARM_LABELS,
    KEYS,
    OBJECTIVE_LABELS,
    Run,
    in_order,
    values,
    where,
)
from rmr_gym.analysis.sweep_run import SweepRun

OWN = "own"
AGAINST = {
    "cswm": "C-SWM (P trained)",
    "random_p": "a frozen random P",
    "shuffled_p": "a weight-shuffled P",
    "no_p": "no P",
    "untrained": "an untrained encoder",
    OWN: "the recipient's own P",
}
"""What the cells of the matrix are compared to, the paper's choice first."""

ROLES = ("game", "other", "control")
"""What a row is: the matrix itself, donors that are no game, and controls; each family of tests."""

OWN_P, OTHER_P = "own game's P", "other games' P"


@dataclass(frozen=True, eq=False)
class Matrix:
    """What a transfer run is about, and its scores in the form of a comparison.

    Attributes:
        run: Its natural table has the recipient as game, and `donor_arm` as arm of a frozen P.
        recipients: In the order of the run, those without scores too.
        donors: As well.
        games: Donors that are games; the others are, for instance, balls.
    """

    run: Run
    recipients: list[str]
    donors: list[str]
    games: list[str]


def donor_arm(donor: str) -> str:
    """Return the name that the arm with a donor's frozen P has in `Matrix.run`."""
    return f"P of {donor}"


def read_matrix(sweep: SweepRun) -> Matrix:
    """Return the matrix of a transfer run; run.json's recipients and donors, or games, name it."""
    recipients = sweep.named("recipients", "games", column="recipient")
    donors = sweep.named("donors", "games", column="donor")
    names = zip(values(sweep.scores, "donor"), values(sweep.scores, "arm"), strict=True)
    arms = [donor_arm(donor) if donor else arm for donor, arm in names]
    natural = sweep.scores.drop(columns="donor").rename(columns={"recipient": "game"})
    known = {*recipients, *map(str, sweep.info.get("games") or [])}
    return Matrix(
        run=sweep.view(natural.assign(arm=np.array(arms, object))),
        recipients=recipients,
        donors=donors,
        games=[donor for donor in donors if donor in known or paper_natural(donor)],
    )


def transfer_table(
    matrix: Matrix, probe: str = "ridge", step: int | None = None, against: str = "cswm"
) -> pd.DataFrame:
    """Return one row a cell of the matrix, also for cells without scores, and a row a control.

    Source: RMR, section 5, Figure 4. Differs: both one-sided tests, exact; a correction for the
    number of tests; other baselines than C-SWM; controls as further rows.

    Args:
        matrix: The matrix.
        probe: Which probe's scores.
        step: Checkpoint; None for the last that a trained arm of the recipient reached.
        against: What is subtracted, one of `AGAINST`; all but "own" are arms.

    Returns:
        Columns: objective, probe, checkpoint, against, recipient, source (donor, or arm of a
        control), label, role ("game", "other" for donors that are no game, "control"), own
        (donor and recipient are one game), seeds, micro_f1_mean, relative (mean over seeds of the
        improvement in per cent of the baseline); of the difference in micro F1 paired by seed:
        pairs, difference, low, high, p_better, p_worse, verdict; and after Benjamini-Hochberg
        over the games' matrix, over donors that are no game, and over the controls, each on its
        own: p_better_bh, p_worse_bh, verdict_bh.
    """
    rows = [
        _row(cell, source, role, against)
        for cell in _columns(matrix, probe, step)
        for source, role in _sources(matrix)
        if role != "control" or source in cell.arms
    ]
    table = pd.DataFrame(rows, columns=_TABLE_COLUMNS)
    families = [
        where(table, objective=objective, role=role)
        for objective in dict.fromkeys(values(table, "objective"))
        for role in ROLES
    ]
    corrected = [with_corrected(part, "") for part in families if len(part)]
    return pd.concat(corrected).sort_index() if corrected else with_corrected(table, "")


def _columns(matrix: Matrix, probe: str, step: int | None) -> Iterator[Cell]:
    """Yield a column of the matrix an objective and recipient; an empty one without scores."""
    found = {(cell.objective, cell.game): cell for cell in cells(matrix.run, probe, step)}
    for objective in in_order({objective for objective, _ in found}, OBJECTIVE_LABELS):
        for recipient in matrix.recipients:
            nothing = Cell(recipient, objective, probe, 0, {})
            yield found.get((objective, recipient), nothing)


def _sources(matrix: Matrix) -> Iterator[tuple[str, str]]:
    others = [donor for donor in matrix.donors if donor not in matrix.games]
    yield from ((donor, "game") for donor in matrix.games)
    yield from ((donor, "other") for donor in others)
    yield from ((arm, "control") for arm in ARM_LABELS if arm != "rmr")


def _row(cell: Cell, source: str, role: str, against: str) -> dict[str, Any]:
    arm = source if role == "control" else donor_arm(source)
    baseline = donor_arm(cell.game) if against == OWN else against
    scores = values(cell.arms[arm], "micro_f1") if arm in cell.arms else np.empty(0)
    scores = scores[~np.isnan(scores)]
    return {
        "objective": cell.objective,
        "probe": cell.probe,
        "checkpoint": cell.checkpoint,
        "against": against,
        "recipient": cell.game,
        "source": source,
        "label": ARM_LABELS[source] if role == "control" else source,
        "role": role,
        "own": role == "game" and source == cell.game,
        "seeds": len(scores),
        "micro_f1_mean": float(scores.mean()) if len(scores) else np.nan,
        "relative": cell.relative_improvement(arm, baseline),
        **difference_columns(cell, arm, baseline, ""),
    }


def baselines(matrix: Matrix) -> list[str]:
    """Return those of `AGAINST` that the run can be compared to."""
    arms = set(values(matrix.run.natural, "arm"))
    own = any(donor_arm(game) in arms for game in matrix.recipients)
    return [name for name in AGAINST if name in arms or (name == OWN and own)]


def condensed(matrix: Matrix) -> Run:
    """Return the scores with the own P as the arm "rmr" and one arm for all other games' P.

    The other games' P are averaged for each seed, step and probe.
    """
    others = [donor_arm(donor) for donor in matrix.donors if donor not in matrix.games]
    natural = matrix.run.natural
    natural = pd.DataFrame(natural[~natural["arm"].isin(others)])
    own = {(game, donor_arm(game)): "rmr" for game in matrix.recipients}
    names = own | {
        (game, donor_arm(donor)): OTHER_P
        for game in matrix.recipients
        for donor in matrix.games
        if donor != game
    }
    arms = zip(values(natural, "game"), values(natural, "arm"), strict=True)
    renamed = natural.assign(arm=[names.get((game, arm), arm) for game, arm in arms])
    scores = renamed.groupby(list(KEYS["natural"]), as_index=False, sort=False)
    return replace(matrix.run, natural=scores.mean(numeric_only=True))


_TABLE_COLUMNS = [
    *("objective", "probe", "checkpoint", "against", "recipient", "source", "label", "role", "own"),
    *("seeds", "micro_f1_mean", "relative"),
    *DIFFERENCE_COLUMNS,
]
