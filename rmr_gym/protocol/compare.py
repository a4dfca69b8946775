"""The comparison: pretrain, train every arm with paired seeds, probe, and write tables."""

import io
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.core.palette import palette_to_rgb
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.models.rmr.message_passing import describe_backend
from rmr_gym.protocol import stages
from rmr_gym.protocol.arms import ARMS, REFERENCES
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.config import as_json
from rmr_gym.protocol.natural import collapse_message
from rmr_gym.protocol.run_folder import data_summary, natural_facts, run_sweep, write_table
from rmr_gym.protocol.stacked_cells import Member
from rmr_gym.protocol.stacked_stages import AbstractMember, NaturalMember
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import STAGE_VERSIONS, Artifact
from rmr_gym.protocol.sweep import Cell, Outcome

KIND = "compare"
EXAMPLE_FRAMES = 4

_PROPOSALS = ("name", "games", "seeds")
"""Entries of a preset that decide no result."""

_STAGES = ("pretrain", "natural", "supervised", "probe")

ABSTRACT_COLUMNS = (
    "game", "model", "seed", "step", "slot_accuracy", "bit_f1", "bit_accuracy", "mask_accuracy",
)  # fmt: skip
ABSTRACT_CURVE_COLUMNS = ("game", "model", "seed", "step", "loss")
NATURAL_CURVE_COLUMNS = (
    "game", "objective", "arm", "seed", "step", "loss", "positive_energy", "negative_energy",
)  # fmt: skip
TIMING_COLUMNS = ("game", "stage", "arm", "seed", "seconds")
NATURAL_COLUMNS = (
    "game", "objective", "arm", "seed", "step", "probe", "micro_f1", "macro_f1", "slot_accuracy",
    "effective_rank", "dead_slots",
)  # fmt: skip


def pretrain_cell(task: GameTask) -> dict[str, Any]:
    """Pretrain one game's P and return rows for the tables."""
    record = stages.pretrained(task).record
    return {"rows": record["rows"], "curve": record["curve"], "seconds": record["seconds"]}


def arm_cell(task: GameTask, arm: str, seed: int, donor: Artifact | None = None) -> dict[str, Any]:
    """Train one arm of one seed, probe every checkpoint, and return rows for the tables."""
    if arm in REFERENCES and arm != "supervised":
        return _reference(task, arm, seed)
    encoders = stages.trained_encoders(task, arm, seed, donor)
    rows = []
    for step in stages.kept_steps(encoders):
        probed = stages.probed(task, stages.kept_encoder(task, seed, encoders, step))
        rows += [{"step": step, **row} for row in probed.record["rows"]]
    return {
        "rows": rows,
        "curve": encoders.record["curve"],
        "seconds": encoders.record["seconds"],
        "collapsed": collapse_message(encoders.record),
    }


def member_of(cell: Cell) -> Member | None:
    """Return the training that a cell of `pretrain_cell` or `arm_cell` needs."""
    if cell.run is pretrain_cell:
        return AbstractMember(*cell.arguments)
    return NaturalMember(*cell.arguments) if cell.run is arm_cell else None


def _reference(task: GameTask, arm: str, seed: int) -> dict[str, Any]:
    if arm == "pca":
        probed = stages.probed_pixels(task)
    else:
        probed = stages.probed(task, stages.untrained_encoder(task, seed))
    rows = [{"step": 0, **row} for row in probed.record["rows"]]
    return {"rows": rows, "curve": [], "seconds": probed.record["seconds"], "collapsed": None}


def compare(
    tasks: Sequence[GameTask], seeds: Sequence[int], out: Path, computing: Computing
) -> list[str]:
    """Run the whole comparison and write the run folder that the report reads.

    What is in the store is not computed again, so a run that was stopped goes on where it was.

    Args:
        tasks: One a game.
        seeds: Paired seeds of the arms.
        out: Run folder; finished cells are kept there, tables grow meanwhile.
        computing: How.

    Returns:
        One sentence for every cell that failed or collapsed.

    Raises:
        RMRError: No task or seed; bad data; results of other settings in the folder; every arm
            failed.
    """
    if not tasks or not seeds:
        raise RMRError("a comparison needs at least one game and one seed")
    cells, names = comparison_cells(tasks, seeds)
    summaries = {task.game: _data_summary(task) for task in tasks}
    found = run_sweep(
        *(KIND, cells, tasks, seeds, out, computing),
        grown=lambda outcomes: _write(out, names, outcomes),
        member_of=member_of,
        **natural_facts(tasks[0]),
        datasets=summaries,
        message_passing=describe_backend(tasks[0].device, tasks[0].preset.model.precision),
    )
    _write_frames(out, tasks)
    return found


def cell_inputs(task: GameTask) -> dict[str, Any]:
    """Return what decides the results on a game, whatever the folders and whoever asks."""
    config = as_json(task.preset)
    return {
        "config": {name: config[name] for name in config if name not in _PROPOSALS},
        "device": task.device,
        "data": TransitionDataset(task.data).fingerprint,
        "stages": {name: STAGE_VERSIONS[name] for name in _STAGES},
        **({} if task.cnn == "fp32" else {"cnn": task.cnn}),
    }


def comparison_cells(
    tasks: Sequence[GameTask], seeds: Sequence[int]
) -> tuple[list[Cell], dict[str, dict[str, Any]]]:
    """Return the cells, pretraining before what needs it, and what their rows say."""
    first: list[Cell] = []
    rest: list[Cell] = []
    names: dict[str, dict[str, Any]] = {}
    for task in tasks:
        inputs, pretraining = cell_inputs(task), f"pretrain {task.game}"
        model = {"model": task.preset.model.core, "arm": "", "seed": stages.PRETRAIN_SEED}
        names[pretraining] = {"game": task.game, "stage": "pretrain", **model}
        first.append(Cell(pretraining, pretrain_cell, (task,), inputs=inputs))
        base = {"game": task.game, "objective": task.preset.natural.objective, "stage": "natural"}
        for seed, arm in product(seeds, (*ARMS, *REFERENCES)):
            if arm == "pca" and seed != seeds[0]:
                continue
            key = f"natural {task.game} {arm} {seed}"
            names[key] = base | {"arm": arm, "seed": seed}
            needs = (pretraining,) if arm in ARMS and ARMS[arm].pretrained else ()
            rest.append(Cell(key, arm_cell, (task, arm, seed), needs, inputs))
    return [*first, *rest], names


def _write(out: Path, names: dict[str, dict[str, Any]], outcomes: Sequence[Outcome]) -> None:
    done = [(names[each.key], each.value) for each in outcomes if each.error is None]
    for path, stage, part, columns in (
        ("abstract.csv", "pretrain", "rows", ABSTRACT_COLUMNS),
        ("abstract_curves.csv", "pretrain", "curve", ABSTRACT_CURVE_COLUMNS),
        ("natural.csv", "natural", "rows", NATURAL_COLUMNS),
        ("natural_curves.csv", "natural", "curve", NATURAL_CURVE_COLUMNS),
    ):
        rows = [name | row for name, value in done if name["stage"] == stage for row in value[part]]
        write_table(out / path, rows, columns)
    timings = [name | {"seconds": round(value["seconds"], 2)} for name, value in done]
    write_table(out / "timings.csv", timings, TIMING_COLUMNS)


def _data_summary(task: GameTask) -> dict[str, Any]:
    sets = stages.probe_sets(task)
    return data_summary(task) | {
        "probe_train_rows": len(sets.training.frames),
        "probe_test_rows": len(sets.test.frames),
        "probe_test_rows_dropped": sets.dropped,
    }


def _write_frames(out: Path, tasks: Sequence[GameTask]) -> None:
    arrays = {}
    for task in tasks:
        episodes = stages.open_episodes(task)
        loaded = episodes.dataset.load(columns=("pixels", "ram"), episodes=episodes.validation[:1])
        rows = np.linspace(0, len(loaded["ram"]) - 1, EXAMPLE_FRAMES).astype(int)
        arrays[f"{task.game}_rgb"] = palette_to_rgb(loaded["pixels"][rows])
        arrays[f"{task.game}_ram"] = loaded["ram"][rows]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(out / "frames.npz", buffer.getvalue())
