"""The comparison: pretrain, train every arm with paired seeds, probe, and write tables."""

import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rmr_gym.atomic import write_atomically
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.errors import RMRError
from rmr_gym.models.message_passing import describe_backend
from rmr_gym.palette import palette_to_rgb
from rmr_gym.protocol import stages
from rmr_gym.protocol.arms import ARMS, REFERENCES
from rmr_gym.protocol.config import as_json
from rmr_gym.protocol.natural import collapse_message
from rmr_gym.protocol.run_folder import (
    ProgressFor,
    data_summary,
    no_progress,
    problems,
    write_description,
    write_table,
)
from rmr_gym.protocol.stacked_cells import Member, run_stacked_cells
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
    tasks: Sequence[GameTask],
    seeds: Sequence[int],
    out: Path,
    *,
    command: str,
    workers: int = 1,
    scheduler: str | None = None,
    stack: int | None = None,
    progress_for: ProgressFor = no_progress,
) -> list[str]:
    """Run the whole comparison and write the run folder that the report reads.

    What is in the store is not computed again, so a run that was stopped goes on where it was.

    Args:
        tasks: One a game.
        seeds: Paired seeds of the arms.
        out: Run folder; its files are replaced.
        command: Written into ``run.json``.
        workers: Cells that run side by side.
        scheduler: Address of a Dask cluster that runs them instead; None: this machine.
        stack: See `rmr_gym.protocol.stacked_cells.run_stacked_cells`.
        progress_for: Gives the progress callback of a stage by its title.

    Returns:
        One sentence for every cell that failed or collapsed.

    Raises:
        RMRError: No task or seed; bad data; every cell failed.
    """
    if not tasks or not seeds:
        raise RMRError("a comparison needs at least one game and one seed")
    started = datetime.now(UTC)
    summaries = {task.game: _data_summary(task) for task in tasks}
    first = [
        Cell(f"pretrain {task.game}", pretrain_cell, (task,), inputs=cell_inputs(task))
        for task in tasks
    ]
    outcomes, notes = run_stacked_cells(
        [*first, *_arm_cells(tasks, seeds)],
        member_of,
        stack=stack,
        workers=workers,
        scheduler=scheduler,
        progress=progress_for("pretraining, natural training and probes"),
        folder=out,
    )
    abstract, natural = (
        {outcome.key: outcome for outcome in part}
        for part in (outcomes[: len(first)], outcomes[len(first) :])
    )
    found = problems(outcomes, natural.values(), "natural run") + notes
    _write_tables(out, tasks, seeds, abstract, natural)
    _write_frames(out, tasks)
    preset = tasks[0].preset
    write_description(
        *(out, KIND, tasks, seeds, started),
        command=command,
        workers=workers,
        objective=preset.natural.objective,
        checkpoints=list(preset.natural.checkpoints),
        probes=list(preset.probing.probes),
        message_passing=describe_backend(tasks[0].device, preset.model.precision),
        datasets=summaries,
        problems=found,
    )
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


def _key(task: GameTask, arm: str, seed: int) -> str:
    return f"natural {task.game} {arm} {seed}"


def _arm_cells(tasks: Sequence[GameTask], seeds: Sequence[int]) -> list[Cell]:
    return [
        Cell(_key(task, arm, seed), arm_cell, (task, arm, seed), _needs(task, arm), inputs)
        for task in tasks
        for inputs in [cell_inputs(task)]
        for seed in seeds
        for arm in (*ARMS, *REFERENCES)
        if arm != "pca" or seed == seeds[0]
    ]


def _needs(task: GameTask, arm: str) -> tuple[str, ...]:
    return (f"pretrain {task.game}",) if arm in ARMS and ARMS[arm].pretrained else ()


def _write_tables(
    out: Path,
    tasks: Sequence[GameTask],
    seeds: Sequence[int],
    abstract: dict[str, Outcome],
    natural: dict[str, Outcome],
) -> None:
    labels = []
    for task in tasks:
        base = {"game": task.game, "model": task.preset.model.core, "seed": stages.PRETRAIN_SEED}
        labels.append((abstract[f"pretrain {task.game}"], base))
    write_table(out / "abstract.csv", _rows(labels, "rows"), ABSTRACT_COLUMNS)
    write_table(out / "abstract_curves.csv", _rows(labels, "curve"), ABSTRACT_CURVE_COLUMNS)
    timings = [
        {"game": base["game"], "stage": "pretrain", "arm": "", "seed": base["seed"], **seconds}
        for outcome, base in labels
        for seconds in _seconds(outcome)
    ]
    labels = []
    for task in tasks:
        objective = task.preset.natural.objective
        for seed in seeds:
            for arm in (*ARMS, *REFERENCES):
                outcome = natural.get(_key(task, arm, seed))
                base = {"game": task.game, "objective": objective, "arm": arm, "seed": seed}
                labels += [(outcome, base)] if outcome else []
    write_table(out / "natural.csv", _rows(labels, "rows"), NATURAL_COLUMNS)
    write_table(out / "natural_curves.csv", _rows(labels, "curve"), NATURAL_CURVE_COLUMNS)
    timings += [
        {"game": base["game"], "stage": "natural", "arm": base["arm"], "seed": base["seed"]}
        | seconds
        for outcome, base in labels
        for seconds in _seconds(outcome)
    ]
    write_table(out / "timings.csv", timings, TIMING_COLUMNS)


def _rows(labels: Iterable[tuple[Outcome, dict[str, Any]]], part: str) -> list[dict[str, Any]]:
    return [
        base | row for outcome, base in labels if not outcome.error for row in outcome.value[part]
    ]


def _seconds(outcome: Outcome) -> list[dict[str, float]]:
    return [] if outcome.error else [{"seconds": round(outcome.value["seconds"], 2)}]


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
