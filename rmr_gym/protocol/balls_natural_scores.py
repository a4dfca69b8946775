"""Bouncing balls, natural: scores of the arms, their comparison, rollouts to look at."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.domains.balls import (
    HISTORY,
    BallsData,
    imagine,
    owners,
    score_frames,
    score_imagined,
    windows,
    windows_ahead,
)
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.protocol.balls import open_balls, wall_positions
from rmr_gym.protocol.balls_natural import (
    PixelTask,
    donor,
    find_arm,
    pixels_of,
    restored,
    stage_key,
    trained,
    warm_started,
)
from rmr_gym.protocol.store import Artifact, Scratch, Store
from rmr_gym.protocol.sweep import Cell, Outcome, run_cells
from rmr_gym.protocol.training import Progress

GATED = ("rmr", "baseline", "random_p", "shuffled_p")
WARM_START = "warm_start"
EVALUATION_SEED = 0
AHEAD = 8
"""Frames of a scored rollout."""

ROW = (
    "arm", "seed", "step", "mse", "copy_mse", "ratio_to_copy", "ari", "rollout_mse",
    "rollout_copy_mse",
)  # fmt: skip


@lru_cache(maxsize=2)
def true_masks(task: PixelTask) -> UInt8[np.ndarray, "chosen height width"]:
    """Return the owners of the pixels that the scored windows predict, from the states."""
    episodes = open_balls(task.data, task.preset.validation_share)
    data = pixels_of(task, "validation")
    state = episodes.dataset.load(columns=("state",), episodes=episodes.validation)["state"]
    radii = 1 - wall_positions(task.radii, state.shape[1]).numpy()[:, 0]
    rows = data.current[scored_windows(data, task.preset.windows)] + 1
    return owners(state[rows].astype(np.float32), radii.astype(np.float32), data.resolution)


def scored_windows(data: BallsData, count: int) -> np.ndarray:
    """Return the windows that scores are taken on, drawn once for all models and seeds."""
    order = generator(EVALUATION_SEED, "pixel windows").permutation(len(data.current))
    return np.sort(order[:count])


def scored(task: PixelTask, arm: str | None, seed: int) -> dict[str, Any]:
    """Return a row of scores of a trained arm (None: of the warm start) on validation windows.

    The warm start shows the last frame again, so its ``mse`` is that of a frame it has seen.
    """

    def run(scratch: Scratch) -> Artifact:
        del scratch
        data = pixels_of(task, "validation")
        index = scored_windows(data, task.preset.windows)
        artifact = trained(task, arm, seed) if arm else warm_started(task, seed)
        pipeline = restored(task, arm, seed, artifact).eval()
        scores = score_frames(pipeline, data, index, true_masks(task), again=arm is None)
        row = {"arm": arm or WARM_START, "seed": seed, "step": artifact.record["step"]}
        row |= scores._asdict()
        if arm is not None:
            longer = np.intersect1d(index, windows_ahead(data, AHEAD))
            names = ("rollout_mse", "rollout_copy_mse")
            row |= dict(zip(names, score_imagined(pipeline, data, longer, AHEAD), strict=True))
        return Artifact({"row": row})

    key = stage_key(task, arm, seed, task.preset.phases if arm else task.preset.warm_start) | {
        "windows": task.preset.windows,
        "radii": list(task.radii),
        "ahead": AHEAD,
    }
    return Store(task.store).get_or_run("balls_natural_scores", key, run).record["row"]


def compare(
    task: PixelTask,
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] = GATED,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Train and score every arm with every seed.

    Source: RMR, section 4: frozen P against P trained end to end, three seeds.
    Differs: controls with a random and with a shuffled P stand beside them.

    What is in the store is not computed again, so a run that was stopped goes on where it was.

    Args:
        task: Data, preset.
        seeds: Paired seeds.
        arms: Names in `BALLS_ARMS`.
        workers: Cells that run side by side.
        progress: Called after every finished cell.

    Returns:
        One outcome an arm and seed, the warm start of every seed first; values are rows.

    Raises:
        RMRError: No seed, an unknown arm.
    """
    for arm in arms:
        find_arm(arm)
    return _run_waves({"": task}, seeds, arms, workers, progress)


def bottleneck(
    task: PixelTask,
    dims: Sequence[int] = (2, 4, 8, 16, 32, 64),
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] = ("rmr", "baseline"),
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Train and score arms whose latents are narrow, and whose P is the interaction network.

    Source: RMR, Appendix C.
    Differs: the width is that of latents, messages and their hidden layers alike, as in
    `rmr_gym.protocol.balls_scores.bottleneck`; the preset's own width is there too.

    Returns:
        As `compare`; the rows have ``core`` and ``dim`` besides.
    """
    for arm in arms:
        find_arm(arm)
    own = task.preset.model.processor
    cores = [(own.core, dim) for dim in (*dims, own.dim)] + [("interaction", own.dim)]
    tasks = {f"{core} dim {dim} ": _narrowed(task, core, dim) for core, dim in cores}
    outcomes = _run_waves(tasks, seeds, arms, workers, progress)
    labels = {
        name: {"core": each.preset.model.processor.core, "dim": each.preset.model.processor.dim}
        for name, each in tasks.items()
    }
    return [
        outcome
        if outcome.error
        else outcome._replace(
            value=next(label for name, label in labels.items() if outcome.key.startswith(name))
            | outcome.value
        )
        for outcome in outcomes
    ]


def _narrowed(task: PixelTask, core: str, dim: int) -> PixelTask:
    preset = task.preset
    processor = replace(preset.model.processor, core=core, dim=dim)
    model = replace(preset.model, processor=processor)
    return replace(task, preset=replace(preset, model=model))


def _run_waves(
    tasks: dict[str, PixelTask],
    seeds: Sequence[int],
    arms: Sequence[str],
    workers: int,
    progress: Progress | None,
) -> list[Outcome]:
    """Pretrain every P, then warm every seed up, then train the arms; return all but the first."""
    if not seeds:
        raise RMRError("a comparison needs at least one seed")
    waves = [[Cell(f"{name}abstract P", _donor_cell, (task,)) for name, task in tasks.items()]]
    waves += [
        [
            Cell(f"{name}{arm or WARM_START} seed {seed}", scored, (task, arm, seed))
            for name, task in tasks.items()
            for seed in seeds
            for arm in group
        ]
        for group in ((None,), arms)
    ]
    total, outcomes = sum(map(len, waves)), []
    for wave in waves:
        outcomes += run_cells(
            wave, workers=workers, progress=_part_of(progress, len(outcomes), total)
        )
    return [outcome for outcome in outcomes if outcome.error or "arm" in outcome.value]


def _donor_cell(task: PixelTask) -> dict[str, Any]:
    return {"processor_hash": donor(task).record["processor_hash"]}


class Imagined(NamedTuple):
    """Rollouts of one arm beside the truth, colours in [0, 1]."""

    past: Float[np.ndarray, "rows time height width 3"]
    predicted: Float[np.ndarray, "rows steps height width 3"]
    truth: Float[np.ndarray, "rows steps height width 3"]
    masks: Float[np.ndarray, "rows steps slots height width"]


def imagined(task: PixelTask, arm: str, seed: int, count: int, steps: int) -> Imagined:
    """Roll a trained arm out from the middle of validation episodes.

    Raises:
        RMRError: No validation episode is long enough.
    """
    data = pixels_of(task, "validation")
    following = windows_ahead(data, steps)
    index = following[np.linspace(0, len(following) - 1, count + 2).astype(int)[1:-1]]
    clip = windows(data, index, steps).to(find_device(task.device))
    pipeline = restored(task, arm, seed, trained(task, arm, seed)).eval()
    predicted, masks = imagine(pipeline, clip[:, :HISTORY], steps)
    parts = (clip[:, :HISTORY], predicted, clip[:, HISTORY:], masks)
    return Imagined(*(part.cpu().numpy() for part in parts))


def _part_of(progress: Progress | None, before: int, total: int) -> Progress | None:
    return progress and (lambda done, _: progress(before + done, total))
