"""World models, scored on test sets over seeds: a run folder of kind "world_models"."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.sweep import Cell
from rmr_gym.protocol.world_model_checks import check_lengths
from rmr_gym.protocol.world_model_presets import find_world_model
from rmr_gym.protocol.world_model_rollouts import count_balls, data_name
from rmr_gym.protocol.world_model_runs import (
    CURVES,
    run_world_models,
    summaries,
    training_cell,
)
from rmr_gym.protocol.world_model_scores import ROW, Simulation, scored, scoring_key
from rmr_gym.protocol.world_models import WorldTask

KIND = "world_models"
TABLES = {
    "world_models": ("test", "balls", *ROW),
    "simulations": ("test", "model", "seed", "frame", *Simulation._fields),
    **CURVES,
}


@dataclass(frozen=True)
class Trial:
    """What trained models are scored on.

    Attributes:
        data: A data set, all of which is used; None: the validation episodes.
        groups: K while scoring, of models that have groups; None: as in training.

    Raises:
        RMRError: Fewer than two groups.
    """

    data: Path | None = None
    groups: int | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups < 2:
            raise RMRError(f"expected 2 groups or more while scoring, got {self.groups}")

    @property
    def name(self) -> str:
        """What it is called in tables and keys."""
        return data_name(self.data)

    def groups_of(self, task: WorldTask) -> int | None:
        """Return K while scoring a model."""
        return self.groups if find_world_model(task.model).grouped else None


def compare_world_models(
    tasks: Sequence[WorldTask],
    seeds: Sequence[int],
    trials: Sequence[Trial],
    out: Path,
    computing: Computing,
) -> list[str]:
    """Train and score world models; what is finished, here or in the store, is found again.

    The folder gets ``world_models.csv``, ``simulations.csv``, ``world_model_curves.csv``,
    ``run.json`` and ``jobs.csv``.

    Args:
        tasks: One a model, all on the same data.
        seeds: Of every model.
        trials: What they are scored on.
        out: Run folder.
        computing: How; world models know no stacks.

    Returns:
        One sentence for every cell that failed.

    Raises:
        RMRError: Nothing to compare, equal models or test sets, data that cannot be scored, results
            of other settings in the folder, or every cell failed.
    """
    if not tasks or not seeds or not trials:
        raise RMRError("a comparison of world models needs a model, a seed and a test set")
    sets = [trial.data for trial in trials]
    twice = sorted({data_name(data) for data in sets if sets.count(data) > 1})
    if twice:
        raise RMRError(
            f"expected each test set once, found {', '.join(twice)} more than once: name it once"
        )
    tests = summaries(tasks[0], sets)
    for task in tasks:
        check_lengths(task, sets, task.preset.horizon)
    prints = {name: each["fingerprint"] for name, each in tests.items()}
    cells = [
        cell
        for task in tasks
        for seed in seeds
        for cell in (
            training_cell(task, seed),
            *(_scoring_cell(task, seed, trial, prints.get(trial.name)) for trial in trials),
        )
    ]
    groups = {trial.name: {"groups": trial.groups} for trial in trials if trial.name in tests}
    return run_world_models(
        *(KIND, tasks, seeds, cells, out, computing),
        tables=TABLES,
        tests={name: each | groups[name] for name, each in tests.items()},
    )


def score_cell(task: WorldTask, seed: int, trial: Trial) -> dict[str, Any]:
    """Score a trained model on a test set."""
    row = scored(task, seed, trial.data, trial.groups_of(task))
    curves = row["simulation"]
    named = {"test": trial.name, "model": task.model, "seed": seed}
    scores = {name: row[name] for name in ROW}
    return {
        "world_models": [named | {"balls": count_balls(trial.data or task.data)} | scores],
        "simulations": [
            named | {"frame": frame} | dict(zip(curves, each, strict=True))
            for frame, each in enumerate(zip(*curves.values(), strict=True), 1)
        ],
    }


def _scoring_cell(task: WorldTask, seed: int, trial: Trial, fingerprint: str | None) -> Cell:
    return Cell(
        f"score {task.model} {seed} {trial.name}",
        score_cell,
        (task, seed, trial),
        after=(f"train {task.model} {seed}",),
        inputs=scoring_key(task, seed, fingerprint, trial.groups_of(task)),
    )
