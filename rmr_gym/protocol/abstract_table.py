"""Table 2 of the paper: how well RAM transition models predict the next RAM, model by model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.protocol import stages
from rmr_gym.protocol.compare import (
    ABSTRACT_COLUMNS,
    ABSTRACT_CURVE_COLUMNS,
    TIMING_COLUMNS,
    cell_inputs,
)
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.run_folder import run_sweep, write_table
from rmr_gym.protocol.stacked_stages import AbstractMember
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.sweep import Cell, Outcome

KIND = "table2"
MODELS = ("mlp", "deep_sets", "mpnn")
"""Trained models of the table, in the paper's order; the copy baseline stands before them."""


def model_task(task: GameTask, model: str) -> GameTask:
    """Return the task with another core of P."""
    changed = replace(task.preset.model, core=model)
    return replace(task, preset=replace(task.preset, model=changed))


def model_cell(task: GameTask, model: str, seed: int) -> dict[str, Any]:
    """Train one model of one seed on a game's RAM and return rows for the tables."""
    record = stages.pretrained(model_task(task, model), seed=seed).record
    return {"rows": record["rows"], "curve": record["curve"], "seconds": record["seconds"]}


def member_of(cell: Cell) -> AbstractMember:
    """Return the pretraining that a cell of `model_cell` needs."""
    task, model, seed = cell.arguments
    return AbstractMember(model_task(task, model), seed)


def abstract_table(
    tasks: Sequence[GameTask],
    seeds: Sequence[int],
    out: Path,
    computing: Computing,
    *,
    models: Sequence[str] = MODELS,
) -> list[str]:
    """Train every model on every game and write a run folder of kind "table2".

    What is in the store, from `rmr-gym pretrain` or another run, is not trained again.

    Source: RMR, Appendix B, Table 2. Differs: any number of seeds (the paper does not state its
    own); the number of steps is the preset's.

    Args:
        tasks: One a game.
        seeds: Of initial weights, batches and the scored validation rows.
        out: Run folder; what is finished there is not computed again.
        computing: How.
        models: Names in `MODELS`.

    Returns:
        One sentence for every cell that failed.

    Raises:
        RMRError: Nothing to train, an unknown model, bad data, or every cell failed.
    """
    if not tasks or not seeds or not models:
        raise RMRError("the table of abstract models needs a game, a model and a seed at least")
    for model in models:
        if model not in MODELS:
            raise unknown_name("abstract model", model, MODELS)
    names = {
        f"abstract {task.game} {model} {seed}": (task, model, seed)
        for task in tasks
        for seed in seeds
        for model in models
    }
    cells = [
        Cell(key, model_cell, arguments, inputs=cell_inputs(arguments[0]))
        for key, arguments in names.items()
    ]

    def write(outcomes: list[Outcome]) -> None:
        _write(out, {names[each.key]: each.value for each in outcomes if each.error is None})

    return run_sweep(
        *(KIND, cells, tasks, seeds, out, computing),
        grown=write,
        member_of=member_of,
        models=["copy", *models],
    )


def _write(out: Path, values: dict[tuple[GameTask, str, int], dict[str, Any]]) -> None:
    scores, curves, timings = [], [], []
    copied: set[tuple[str, int]] = set()
    for (task, model, seed), value in values.items():
        base = {"game": task.game, "model": model, "seed": seed}
        rows = [row for row in value["rows"] if row["model"] != "copy"]
        if (task.game, seed) not in copied:  # the same whichever model stands beside it
            copied.add((task.game, seed))
            rows = value["rows"]
        scores += [base | row for row in rows]
        curves += [base | point for point in value["curve"]]
        timed = {"game": task.game, "stage": "pretrain", "arm": model, "seed": seed}
        timings.append(timed | {"seconds": round(value["seconds"], 2)})
    write_table(out / "abstract.csv", scores, ABSTRACT_COLUMNS)
    write_table(out / "abstract_curves.csv", curves, ABSTRACT_CURVE_COLUMNS)
    write_table(out / "timings.csv", timings, TIMING_COLUMNS)
