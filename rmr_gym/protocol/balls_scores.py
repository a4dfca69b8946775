"""Bouncing balls, abstract: score rollouts beside baselines, and narrow the latents."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains import balls
from rmr_gym.domains.balls import BallsData, BallsModel, Roller
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol.balls import (
    EVALUATION_SEED,
    BallsTask,
    Evaluation,
    pretrained,
    restored,
    wall_positions,
)
from rmr_gym.protocol.store import Artifact, Scratch, Store
from rmr_gym.protocol.sweep import Cell, Outcome, run_cells
from rmr_gym.protocol.training import Progress
from rmr_gym.stages.presets import as_json

BOTTLENECK_DIMS = (2, 4, 8, 16, 32, 64)
"""Widths of the latents in RMR, Appendix C."""


def scored(
    task: BallsTask, artifact: Artifact | None = None, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """Return rows of rollout scores on validation windows, computed now or found in the store.

    Args:
        task: Its preset says how to score; the model is the artifact's own.
        artifact: A pretrained pipeline; None for what it stands beside: the simulator's own
            trajectories and the baselines.
        progress: Called after every model.
    """

    def run(scratch: Scratch) -> Artifact:
        del scratch
        data = task.part("validation", task.preset.evaluation.horizon)
        rollers = _rollers(task, artifact, data.slots)
        rows = score_rollers(rollers, data, task.radii, task.preset.evaluation, progress)
        return Artifact({"rows": rows if artifact is None else rows[1:]})

    key = task.data_key() | {
        "evaluation": as_json(task.preset.evaluation),
        "radii": list(task.radii),
        "pipeline": artifact and [artifact.record["model"], _weights_hash(artifact)],
    }
    return Store(task.store).get_or_run("balls_rollouts", key, run).record["rows"]


def score_rollers(
    rollers: Mapping[str, Roller],
    data: BallsData,
    radii: Sequence[float],
    evaluation: Evaluation,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Roll every model out from the same windows and score it.

    Returns:
        One row a model; the first row, "simulator", is what truly happened: its energy drift,
        taken from displacements too, is what the others' must be read against.
    """
    walls = wall_positions(radii, data.slots)
    count, horizon = evaluation.windows, evaluation.horizon
    batches = balls.drawn_windows(data, count, horizon, EVALUATION_SEED)
    past, future = torch.cat(batches).split([balls.HISTORY, horizon], dim=1)
    rows = [{"model": "simulator", **balls.score_rollouts(past, future, future, walls)._asdict()}]
    for done, (name, roll) in enumerate(rollers.items(), 1):
        with torch.no_grad():
            parts = [roll(window[:, : balls.HISTORY], horizon) for window in batches]
        scores = balls.score_rollouts(past, torch.cat(parts), future, walls)
        rows.append({"model": name, **scores._asdict()})
        if progress:
            progress(done, len(rollers))
    return rows


class Width(NamedTuple):
    """One point of the bottleneck sweep: a processor core, the width of its latents, a seed."""

    core: str
    dim: int
    seed: int


def bottleneck(
    task: BallsTask,
    dims: Sequence[int] = BOTTLENECK_DIMS,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Pretrain and score the preset's model with narrow latents, and the interaction network.

    Source: RMR, Appendix C.
    Differs: the width is that of latents, messages and their hidden layers alike; the preset's own
    width is there too, for comparison.

    Returns:
        One outcome a point; its value is a row of scores with ``core``, ``dim``, ``seed``, and the
        errors on training and validation windows at the end of training.

    Raises:
        RMRError: No seed, or a point that comes twice.
    """
    own = task.preset.model
    cores = [(own.core, dim) for dim in (*dims, own.dim)] + [("interaction", own.dim)]
    points = [Width(core, dim, seed) for seed in seeds for core, dim in dict.fromkeys(cores)]
    if not points:
        raise RMRError("a sweep needs at least one seed")
    cells = [
        Cell(f"{point.core} dim {point.dim} seed {point.seed}", bottleneck_cell, (task, point))
        for point in points
    ]
    return run_cells(cells, workers=workers, progress=progress)


def bottleneck_cell(task: BallsTask, point: Width) -> dict[str, Any]:
    """Pretrain and score one point of the sweep."""
    model = replace(task.preset.model, core=point.core, dim=point.dim)
    narrowed = replace(task, preset=replace(task.preset, model=model))
    artifact = pretrained(narrowed, point.seed)
    errors = {
        name: artifact.record["rows"][-1][f"{name}_mse"] for name in ("training", "validation")
    }
    return {
        **point._asdict(),
        **{f"{name}_mse": error for name, error in errors.items()},
        **scored(narrowed, artifact)[0],
    }


def _rollers(task: BallsTask, artifact: Artifact | None, slots: int) -> dict[str, Roller]:
    if artifact is None:
        return balls.baselines(wall_positions(task.radii, slots))
    model = BallsModel(**artifact.record["model"])
    predict = partial(balls.next_positions, restored(model, artifact, slots).eval())
    return {model.core: partial(balls.rollout, predict)}


def _weights_hash(artifact: Artifact) -> str:
    model = BallsModel(**artifact.record["model"])
    return parameter_hash(restored(model, artifact, artifact.record["slots"]))
