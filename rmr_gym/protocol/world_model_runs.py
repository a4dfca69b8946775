"""What every run of several world models shares: cells that train, tables, run.json."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.run_folder import circumstances, problems, write_table
from rmr_gym.protocol.sweep import Cell, Outcome, run_cells
from rmr_gym.protocol.world_model_checks import check_test
from rmr_gym.protocol.world_model_presets import find_world_model
from rmr_gym.protocol.world_model_rollouts import count_balls, data_name
from rmr_gym.protocol.world_models import WorldTask, trained, training_key
from rmr_gym.stages.presets import as_json

CURVES = {"world_model_curves": ("model", "seed", "step", "validation_loss")}
"""The table that cells of `training_cell` fill."""


def training_cell(task: WorldTask, seed: int) -> Cell:
    """Return the cell that trains a model, or finds it."""
    inputs = training_key(task, seed)
    return Cell(f"train {task.model} {seed}", train_cell, (task, seed), inputs=inputs)


def train_cell(task: WorldTask, seed: int) -> dict[str, Any]:
    """Return the looks that a training took at the validation loss."""
    looks = trained(task, seed).record["looks"]
    return {"world_model_curves": [{"model": task.model, "seed": seed, **look} for look in looks]}


def summaries(task: WorldTask, sets: Iterable[Path | None]) -> dict[str, dict[str, Any]]:
    """Return what run.json says of each test set; None, the validation episodes, is none.

    Raises:
        RMRError: There is no such data set, two have one name, or one is no test set, see
            `check_test`.
    """
    found: dict[str, Path] = {}
    for data in dict.fromkeys(sets):
        if data is not None and found.setdefault(name := data_name(data), data) != data:
            raise RMRError(f"expected test sets of different names, found two called {name}")
    for data in found.values():
        check_test(task, data)
    return {name: data_summary(data) for name, data in found.items()}


def data_summary(data: Path) -> dict[str, Any]:
    """Return what run.json says of a data set; no frame is read for it.

    Raises:
        RMRError: There is none.
    """
    dataset = TransitionDataset(data)
    return {
        "name": data_name(data),
        "fingerprint": dataset.fingerprint,
        "episodes": len(dataset.episodes),
        "balls": count_balls(data),
    }


def run_world_models(
    kind: str,
    tasks: Sequence[WorldTask],
    seeds: Sequence[int],
    cells: Sequence[Cell],
    out: Path,
    computing: Computing,
    *,
    tables: Mapping[str, Sequence[str]],
    **facts: Any,
) -> list[str]:
    """Run cells whose values are rows by table; run.json says what is run before it begins.

    Args:
        kind: Of the run.
        tasks: One a model, all on the same data.
        seeds: Of every model.
        cells: Those of `training_cell` and what comes after them.
        out: Run folder; what is finished there is not computed again.
        computing: How; world models know no stacks.
        tables: Columns of each table by its name.
        **facts: Further entries of run.json.

    Returns:
        One sentence for every cell that failed.

    Raises:
        RMRError: Results of other settings in the folder, or every cell failed.
    """
    started, data = datetime.now(UTC), data_summary(tasks[0].data)

    def describe(found: list[str]) -> None:
        described = {
            "kind": kind,
            "preset": tasks[0].preset.name,
            "device": tasks[0].device,
            "models": [task.model for task in tasks],
            "steps": {task.model: task.preset.steps for task in tasks},
            "seeds": list(seeds),
            "data": data,
            **facts,
            **circumstances(started, computing.workers),
            "command": computing.command,
            "workers": computing.workers,
            "config": {task.model: _config(task) for task in tasks},
            "problems": found,
        }
        write_atomically(out / "run.json", json.dumps(described, indent=1))

    def grown(outcomes: Sequence[Outcome]) -> None:
        for name, columns in tables.items():
            values = [each.value for each in outcomes if each.error is None]
            rows = [row for value in values for row in value.get(name, [])]
            write_table(out / f"{name}.csv", rows, columns)

    describe([])
    outcomes = run_cells(
        cells,
        workers=computing.workers,
        scheduler=computing.scheduler,
        folder=out,
        progress=computing.progress_for(kind.replace("_", " ")),
        grown=grown,
    )
    found = problems(outcomes, {key for cell in cells for key in cell.after})
    describe(found)
    return found


def _config(task: WorldTask) -> dict[str, Any]:
    arm = find_world_model(task.model).arm
    donor = {"processor": task.donor.record["processor_hash"]} if arm and arm.pretrained else {}
    return as_json(task.preset) | {"sizes": as_json(task.sizes)} | donor
