"""A sweep on a GPU: the trainings that its cells need run in stacks before the cells.

A stack is a cell of its own, which leaves in the store what its runs leave one by one; the cells
after it find their training there and only probe. What a stack could not train is trained by the
cell that needs it; a stack that killed its process `DEATHS` times is tried no more.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.arms import ARMS
from rmr_gym.protocol.stacked import can_stack
from rmr_gym.protocol.stacked_stages import (
    AbstractMember,
    NaturalMember,
    abstract_stack,
    natural_stack,
)
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.sweep import Cell, Outcome, run_cells
from rmr_gym.protocol.sweep_folder import SweepFolder

STACK = 40
"""Runs of a stack on a GPU, unless another number is asked for."""

DEATHS = 2

Member = NaturalMember | AbstractMember
MemberOf = Callable[[Cell], Member | None]
"""Tells which training a cell needs; None: none."""


def run_stacked_cells(
    cells: Sequence[Cell],
    member_of: MemberOf,
    *,
    stack: int | None,
    folder: Path,
    grown: Callable[[list[Outcome]], object] = lambda outcomes: None,
    **options: Any,
) -> tuple[list[Outcome], list[str]]:
    """Run cells as `rmr_gym.protocol.sweep.run_cells` does, stacks of their trainings before them.

    Args:
        cells: The cells of a sweep.
        member_of: Which training a cell needs.
        stack: At most so many runs train as one; None: `STACK` on a GPU, 1 elsewhere.
        folder: Run folder; the trainings of cells that are done there are stacked no more.
        grown: As in `run_cells`.
        **options: Further options of `run_cells`.

    Returns:
        Outcomes in the order of ``cells``, and a sentence for each stack that did not go as meant.

    Raises:
        RMRError: As `run_cells`; a stack below 1.
    """
    if stack is not None and stack < 1:
        raise RMRError(f"a stack must be of 1 run or more, got {stack}")
    kept = SweepFolder(folder)
    members = {cell.key: member_of(cell) for cell in cells}
    wanted = {
        cell.key: member
        for cell in cells
        if (member := members[cell.key]) and _may_stack(member) and kept.find(cell) is None
    }
    outcomes = run_cells(
        stacked_cells(cells, wanted, stack, kept.crashes),
        folder=folder,
        grown=lambda found: grown([each for each in found if each.key in members]),
        **options,
    )
    notes = [
        f"{each.key}: {said.strip()}"
        for each in outcomes
        if each.key not in members and (said := each.error or each.value["note"])
    ]
    return [each for each in outcomes if each.key in members], notes


def _may_stack(member: Member) -> bool:
    preset = member.task.preset
    if isinstance(member, AbstractMember):
        return preset.model.core != "interaction"
    return member.arm in ARMS and can_stack(preset.natural, preset.model)


def stacked_cells(
    cells: Sequence[Cell],
    members: Mapping[str, Member],
    stack: int | None,
    crashes: Callable[[str], int] = lambda _: 0,
) -> list[Cell]:
    """Return the cells, a stack before those that share what it trains.

    Natural runs share a stack with those of the same recipient and settings, pretrainings with
    those of the same settings. Runs of one arm and donor are neighbours, since seeds of one P pass
    their messages together. A stack is named after its cells, so that it is found again when the
    same ones are still to do.
    """
    groups: dict[object, list[Cell]] = {}
    for cell in cells:
        if cell.key in members:
            groups.setdefault(_shared(members[cell.key]), []).append(cell)
    leaders: dict[str, Cell] = {}
    for group in groups.values():
        group.sort(key=lambda cell: _by_processor(members[cell.key]))
        for part in _parts(group, _size(members[group[0].key].task, stack)):
            leader = _leader(part, members)
            if crashes(leader.key) < DEATHS:
                leaders |= dict.fromkeys((cell.key for cell in part), leader)
    found: list[Cell] = []
    met: set[str] = set()
    for cell in cells:
        leader = leaders.get(cell.key)
        if leader and leader.key not in met:
            found.append(leader)
            met.add(leader.key)
        found.append(cell._replace(after=(*cell.after, leader.key)) if leader else cell)
    return found


def _shared(member: Member) -> tuple[str, GameTask]:
    """Return what the runs of a stack have in common."""
    if isinstance(member, NaturalMember):
        return "natural", member.task
    return "abstract", replace(member.task, game="", data=Path())


def _by_processor(member: Member) -> tuple[str, str]:
    if isinstance(member, AbstractMember):
        return member.task.game, ""
    return member.arm, member.donor.name if member.donor else ""


def _size(task: GameTask, stack: int | None) -> int:
    if stack is None:
        return STACK if torch.device(task.device).type == "cuda" else 1
    return stack


def _parts(group: Sequence[Cell], size: int) -> list[Sequence[Cell]]:
    """Cut a group into stacks of 2 to ``size`` runs that are as equal as can be."""
    if size < 2 or len(group) < 2:
        return []
    count = -(-len(group) // size)
    bounds = [index * len(group) // count for index in range(count + 1)]
    parts = (group[first:last] for first, last in pairwise(bounds))
    return [part for part in parts if len(part) > 1]


def _leader(part: Sequence[Cell], members: Mapping[str, Member]) -> Cell:
    """Return the cell that trains a stack."""
    keys = [cell.key for cell in part]
    runs = tuple(members[key] for key in keys)
    natural = isinstance(runs[0], NaturalMember)
    what = runs[0].task.game if natural else "pretraining"
    digest = hashlib.sha256(repr(keys).encode()).hexdigest()[:8]
    after = tuple(dict.fromkeys(need for cell in part for need in cell.after))
    train = natural_stack if natural else abstract_stack
    return Cell(f"stack {what} {digest}", train, (runs,), after)
