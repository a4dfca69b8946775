"""Transfer: every donor's frozen P for every recipient, beside what needs no donor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.compare import TIMING_COLUMNS, arm_cell, cell_inputs
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.run_folder import natural_facts, run_sweep, write_table
from rmr_gym.protocol.stacked_cells import Member
from rmr_gym.protocol.stacked_stages import AbstractMember, NaturalMember
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.sweep import Cell, Outcome
from rmr_gym.protocol.transfer_donors import Donor, check_donor

KIND = "transfer"
CONTROLS = ("cswm", "random_p", "shuffled_p", "no_p", "untrained")
"""The baseline and the controls, once a recipient and seed; what is shuffled is its own P."""

TRANSFER_COLUMNS = (
    "recipient", "donor", "objective", "arm", "seed", "step", "probe", "micro_f1", "macro_f1",
    "slot_accuracy", "effective_rank", "dead_slots",
)  # fmt: skip

Names = dict[str, dict[str, Any]]
"""What the rows of a cell say beside its scores, by the cell's key."""


def donor_cell(donor: Donor) -> dict[str, Any]:
    """Pretrain a donor's P, or find it."""
    record = donor.pretrained().record
    return {"processor": record["processor_hash"], "seconds": record.get("seconds", 0.0)}


def transfer_cell(task: GameTask, donor: Donor, seed: int) -> dict[str, Any]:
    """Train the recipient's encoder through the donor's frozen P and probe it."""
    artifact = donor.pretrained()
    check_donor(donor.name, artifact.part("processor"), task.preset.model)
    return scores_of(arm_cell(task, "rmr", seed, artifact))


def control_cell(task: GameTask, arm: str, seed: int) -> dict[str, Any]:
    """Train and probe the baseline or a control."""
    return scores_of(arm_cell(task, arm, seed))


def member_of(cell: Cell) -> Member | None:
    """Return the training that a cell needs."""
    if cell.run is donor_cell:
        (donor,) = cell.arguments
        return AbstractMember(donor.task) if donor.task else None
    if cell.run is transfer_cell:
        task, donor, seed = cell.arguments
        return NaturalMember(task, "rmr", seed, donor)
    return NaturalMember(*cell.arguments) if cell.run is control_cell else None


def scores_of(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a cell of a sweep keeps of an arm: all but the curve."""
    return {name: value[name] for name in ("rows", "seconds", "collapsed")}


def transfer(
    tasks: Sequence[GameTask],
    donors: Sequence[Donor],
    seeds: Sequence[int],
    out: Path,
    computing: Computing,
) -> list[str]:
    """Run the matrix of donors and recipients and write a run folder of kind "transfer".

    Finished cells are kept in the folder and never computed again; tables grow meanwhile.

    Source: RMR, section 5, transfer; Figure 4 (24 x 24 games, 20 seeds).
    Differs: controls beside the baseline, and donors that are not games.

    Args:
        tasks: The recipients, under one preset.
        donors: Names must differ.
        seeds: Paired seeds.
        out: Run folder.
        computing: How.

    Returns:
        One sentence for every cell that failed or collapsed.

    Raises:
        RMRError: Nothing to do, a donor or recipient that comes twice, missing data, results of
            other settings in the folder, or every cell failed.
    """
    if not tasks or not donors or not seeds:
        raise RMRError("a transfer needs at least one recipient, one donor and one seed")
    cells, names = transfer_cells(tasks, donors, seeds)
    return run_sweep(
        *(KIND, cells, tasks, seeds, out, computing),
        grown=lambda outcomes: _write(out, names, outcomes),
        member_of=member_of,
        **natural_facts(tasks[0]),
        recipients=[task.game for task in tasks],
        donors=[donor.name for donor in donors],
    )


def transfer_cells(
    tasks: Sequence[GameTask], donors: Sequence[Donor], seeds: Sequence[int]
) -> tuple[list[Cell], Names]:
    """Return the cells, donors first, then recipient by recipient, and what their rows say."""
    common = {name: value for name, value in cell_inputs(tasks[0]).items() if name != "data"}
    first = [
        Cell(_donor_key(donor), donor_cell, (donor,), inputs=common | {"donor": donor.inputs})
        for donor in donors
    ]
    rest, names = [], {}
    own = {donor.name: _donor_key(donor) for donor in donors if donor.task}
    for task in tasks:
        inputs = {"recipient": cell_inputs(task)}
        base = {"recipient": task.game, "objective": task.preset.natural.objective}
        for seed in seeds:
            for arm in CONTROLS:
                key = f"control {task.game} {arm} {seed}"
                names[key] = base | {"donor": "", "arm": arm, "seed": seed}
                shuffles = arm == "shuffled_p" and task.game in own
                needs = (own[task.game],) if shuffles else ()
                rest.append(Cell(key, control_cell, (task, arm, seed), needs, inputs))
            for donor in donors:
                key = f"transfer {task.game} {donor.name} {seed}"
                names[key] = base | {"donor": donor.name, "arm": "rmr", "seed": seed}
                needs, both = (_donor_key(donor),), inputs | {"donor": donor.inputs}
                rest.append(Cell(key, transfer_cell, (task, donor, seed), needs, both))
    return [*first, *rest], names


def _donor_key(donor: Donor) -> str:
    return f"donor {donor.name}"


def _write(out: Path, names: Names, outcomes: Sequence[Outcome]) -> None:
    done = [outcome for outcome in outcomes if outcome.error is None]
    rows = [
        names[outcome.key] | row
        for outcome in done
        if outcome.key in names
        for row in outcome.value["rows"]
    ]
    write_table(out / "transfer.csv", rows, TRANSFER_COLUMNS)
    timings = [_timing(outcome, names.get(outcome.key)) for outcome in done]
    write_table(out / "timings.csv", timings, TIMING_COLUMNS)


def _timing(outcome: Outcome, name: dict[str, Any] | None) -> dict[str, Any]:
    seconds = {"seconds": round(outcome.value["seconds"], 2)}
    if name is None:
        game = outcome.key.removeprefix("donor ")
        return {"game": game, "stage": "pretrain", "arm": "", "seed": 0, **seconds}
    arm = f"P of {name['donor']}" if name["donor"] else name["arm"]
    return {
        "game": name["recipient"],
        "stage": "natural",
        "arm": arm,
        "seed": name["seed"],
    } | seconds
