"""The algorithmic bottleneck on Atari: how the scores fall as the latents get narrower."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import stages
from rmr_gym.protocol.compare import TIMING_COLUMNS, arm_cell, cell_inputs
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.run_folder import natural_facts, run_sweep, write_table
from rmr_gym.protocol.stacked_cells import Member
from rmr_gym.protocol.stacked_stages import AbstractMember, NaturalMember
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.sweep import Cell, Outcome
from rmr_gym.protocol.transfer import Names, scores_of

KIND = "bottleneck"
DIMS = (2, 4, 8, 16, 32, 64)
"""Widths of the latents (RMR, Appendix C)."""

ARMS = ("rmr", "cswm", "untrained")

BOTTLENECK_COLUMNS = (
    "game", "dim", "objective", "arm", "seed", "step", "probe", "micro_f1", "macro_f1",
    "slot_accuracy", "effective_rank", "dead_slots",
)  # fmt: skip
BOTTLENECK_ABSTRACT_COLUMNS = (
    "game", "dim", "step", "slot_accuracy", "bit_f1", "bit_accuracy", "mask_accuracy", "loss",
)  # fmt: skip


def narrowed(task: GameTask, dim: int) -> GameTask:
    """Return the task with latents of another width.

    Raises:
        RMRError: A width below 1.
    """
    model = replace(task.preset.model, dim=dim)
    return replace(task, preset=replace(task.preset, model=model))


def abstract_cell(task: GameTask) -> dict[str, Any]:
    """Pretrain P on a game's RAM and return its scores, with the loss last seen at each."""
    record = stages.pretrained(task).record
    rows = [
        row | {"loss": _loss_at(record["curve"], row["step"])}
        for row in record["rows"]
        if row["model"] != "copy"
    ]
    return {"rows": rows, "seconds": record["seconds"]}


def natural_cell(task: GameTask, arm: str, seed: int) -> dict[str, Any]:
    """Train and probe one arm."""
    return scores_of(arm_cell(task, arm, seed))


def member_of(cell: Cell) -> Member | None:
    """Return the training that a cell needs."""
    if cell.run is abstract_cell:
        return AbstractMember(*cell.arguments)
    return NaturalMember(*cell.arguments) if cell.run is natural_cell else None


def bottleneck(
    tasks: Sequence[GameTask],
    dims: Sequence[int],
    seeds: Sequence[int],
    out: Path,
    computing: Computing,
) -> list[str]:
    """Pretrain, train and probe with latents of several widths; a run folder of kind "bottleneck".

    Finished cells are kept in the folder and never computed again; tables grow meanwhile.

    Source: RMR, Appendix C, Figure 5 (dim z in 2..64, all else unchanged).
    Differs: the baseline and the untrained encoder are narrowed alike. As messages and their hidden
    layers are as wide as the latents, P narrows with them; the probe reads 128 times dim features,
    so part of a fall is the probe's: the untrained encoder shows how much.

    Args:
        tasks: One a game, under one preset.
        dims: Widths.
        seeds: Paired seeds.
        out: Run folder.
        computing: How.

    Returns:
        One sentence for every cell that failed or collapsed.

    Raises:
        RMRError: Nothing to do, a game or width that comes twice, results of other settings in the
            folder, or every cell failed.
    """
    if not tasks or not dims or not seeds:
        raise RMRError("a bottleneck sweep needs at least one game, one width and one seed")
    cells, names = bottleneck_cells(tasks, dims, seeds)
    return run_sweep(
        *(KIND, cells, tasks, seeds, out, computing),
        grown=lambda outcomes: _write(out, names, outcomes),
        member_of=member_of,
        **natural_facts(tasks[0]),
        dims=list(dims),
    )


def bottleneck_cells(
    tasks: Sequence[GameTask], dims: Sequence[int], seeds: Sequence[int]
) -> tuple[list[Cell], Names]:
    """Return the cells, a P's pretraining before what needs it, and what their rows say."""
    cells, names = [], {}
    for task, dim in ((narrowed(task, dim), dim) for task in tasks for dim in dims):
        inputs = cell_inputs(task)
        abstract = f"pretrain {task.game} {dim}"
        base = {"game": task.game, "dim": dim, "objective": task.preset.natural.objective}
        names[abstract] = base | {"arm": "", "seed": stages.PRETRAIN_SEED}
        cells.append(Cell(abstract, abstract_cell, (task,), inputs=inputs))
        for seed, arm in ((seed, arm) for seed in seeds for arm in ARMS):
            key = f"natural {task.game} {dim} {arm} {seed}"
            names[key] = base | {"arm": arm, "seed": seed}
            needs = (abstract,) if arm == "rmr" else ()
            cells.append(Cell(key, natural_cell, (task, arm, seed), needs, inputs))
    return cells, names


def _loss_at(curve: Sequence[dict[str, Any]], step: int) -> float | None:
    """Return the last logged loss up to a step."""
    return next((point["loss"] for point in reversed(curve) if point["step"] <= step), None)


def _write(out: Path, names: Names, outcomes: Sequence[Outcome]) -> None:
    done = [(names[each.key], each.value) for each in outcomes if each.error is None]
    rows = [(name, name | row) for name, value in done for row in value["rows"]]
    natural = [row for name, row in rows if name["arm"]]
    abstract = [row for name, row in rows if not name["arm"]]
    write_table(out / "bottleneck.csv", natural, BOTTLENECK_COLUMNS)
    write_table(out / "bottleneck_abstract.csv", abstract, BOTTLENECK_ABSTRACT_COLUMNS)
    timings = [
        {
            **name,
            "stage": f"{'natural' if name['arm'] else 'pretrain'} dim {name['dim']}",
            "seconds": round(value["seconds"], 2),
        }
        for name, value in done
    ]
    write_table(out / "timings.csv", timings, TIMING_COLUMNS)
