"""The comparison: pretrain, train every arm with paired seeds, probe, and write tables."""

import io
import json
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rmr_gym.atomic import write_atomically
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.errors import RMRError
from rmr_gym.models.kernels import cpu_engine
from rmr_gym.palette import palette_to_rgb
from rmr_gym.protocol import stages
from rmr_gym.protocol.arms import ARMS, REFERENCES
from rmr_gym.protocol.config import as_json
from rmr_gym.protocol.natural import collapse_message
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import STAGE_VERSIONS, Artifact
from rmr_gym.protocol.sweep import Cell, Outcome, run_cells
from rmr_gym.protocol.training import Progress

EXAMPLE_FRAMES = 4
VERSIONS = ("rmr-gym", "torch", "numpy", "scipy", "gymnasium", "ale-py")

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
    progress_for: Callable[[str], Progress | None] = lambda _: None,
) -> list[str]:
    """Run the whole comparison and write the run folder that the report reads.

    What is in the store is not computed again, so a run that was stopped goes on where it was.

    Args:
        tasks: One a game.
        seeds: Paired seeds of the arms.
        out: Run folder; its files are replaced.
        command: Written into ``run.json``.
        workers: Cells that run side by side.
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
    outcomes = run_cells(
        [*first, *_arm_cells(tasks, seeds)],
        workers=workers,
        progress=progress_for("pretraining, natural training and probes"),
        folder=out,
    )
    abstract, natural = (
        {outcome.key: outcome for outcome in part}
        for part in (outcomes[: len(first)], outcomes[len(first) :])
    )
    problems = _problems([*abstract.values(), *natural.values()])
    if all(outcome.error for outcome in natural.values()):
        raise RMRError(f"every natural run failed; the first said: {problems[0]}")
    _write_tables(out, tasks, seeds, abstract, natural)
    _write_frames(out, tasks)
    description = _description(tasks, seeds, command, workers, started)
    description |= {"datasets": summaries, "problems": problems}
    description["slots"] = {game: summary["slots"] for game, summary in summaries.items()}
    write_atomically(out / "run.json", json.dumps(description, indent=1))
    return problems


def cell_inputs(task: GameTask) -> dict[str, Any]:
    """Return what decides the results on a game, whatever the folders and whoever asks."""
    config = as_json(task.preset)
    return {
        "config": {name: config[name] for name in config if name not in _PROPOSALS},
        "device": task.device,
        "data": TransitionDataset(task.data).fingerprint,
        "stages": {name: STAGE_VERSIONS[name] for name in _STAGES},
    }


def _description(
    tasks: Sequence[GameTask], seeds: Sequence[int], command: str, workers: int, started: datetime
) -> dict[str, Any]:
    finished, preset = datetime.now(UTC), tasks[0].preset
    return {
        "kind": "compare",
        "command": command,
        "preset": preset.name,
        "config": as_json(preset),
        "device": tasks[0].device,
        "message_passing": _message_passing(preset.model.precision),
        "games": [task.game for task in tasks],
        "seeds": list(seeds),
        "objective": preset.natural.objective,
        "checkpoints": list(preset.natural.checkpoints),
        "probes": list(preset.probing.probes),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in VERSIONS},
        "machine": machine(workers),
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": (finished - started).total_seconds(),
    }


def _message_passing(precision: str) -> str:
    engine = cpu_engine(precision)
    return f"compiled, {engine.unit}" if engine else f"PyTorch, {precision}"


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


def _problems(outcomes: Iterable[Outcome]) -> list[str]:
    found = []
    for outcome in outcomes:
        if outcome.error:
            found.append(f"{outcome.key}: {outcome.error.strip()}")
        elif outcome.value.get("collapsed"):
            found.append(f"{outcome.key}: {outcome.value['collapsed']}")
    return found


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
    _write_table(out / "abstract.csv", _rows(labels, "rows"), ABSTRACT_COLUMNS)
    _write_table(out / "abstract_curves.csv", _rows(labels, "curve"), ABSTRACT_CURVE_COLUMNS)
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
    _write_table(out / "natural.csv", _rows(labels, "rows"), NATURAL_COLUMNS)
    _write_table(out / "natural_curves.csv", _rows(labels, "curve"), NATURAL_CURVE_COLUMNS)
    timings += [
        {"game": base["game"], "stage": "natural", "arm": base["arm"], "seed": base["seed"]}
        | seconds
        for outcome, base in labels
        for seconds in _seconds(outcome)
    ]
    _write_table(out / "timings.csv", timings, TIMING_COLUMNS)


def _rows(labels: Iterable[tuple[Outcome, dict[str, Any]]], part: str) -> list[dict[str, Any]]:
    return [
        base | row for outcome, base in labels if not outcome.error for row in outcome.value[part]
    ]


def _seconds(outcome: Outcome) -> list[dict[str, float]]:
    return [] if outcome.error else [{"seconds": round(outcome.value["seconds"], 2)}]


def _write_table(path: Path, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    write_atomically(path, pd.DataFrame(rows, columns=list(columns)).to_csv(index=False))


def _data_summary(task: GameTask) -> dict[str, Any]:
    episodes = stages.open_episodes(task)
    sets = stages.probe_sets(task)
    return {
        "fingerprint": episodes.dataset.fingerprint,
        "episodes": len(episodes.dataset.episodes),
        "transitions": len(episodes.dataset),
        "slots": len(episodes.slots),
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


def machine(workers: int) -> dict[str, Any]:
    """Describe the machine as far as it matters for the time that a run took."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "workers": workers,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "platform": platform.platform(),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
