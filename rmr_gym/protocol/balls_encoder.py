"""Bouncing balls, natural: what an arm left in the store as a pretrained encoder with its P."""

import math
from typing import Any

from rmr_gym.core.errors import unknown_name
from rmr_gym.domains.balls import HISTORY, FramePipeline
from rmr_gym.models.objects import FrameStackEncoder
from rmr_gym.models.pretrained import BallsEncoderConfig, PretrainedEncoder
from rmr_gym.protocol.balls import open_balls
from rmr_gym.protocol.balls_natural import (
    BALLS_ARMS,
    PixelTask,
    find_arm,
    pixels_of,
    restored,
    trained,
)
from rmr_gym.protocol.balls_natural_scores import scored
from rmr_gym.protocol.training import Progress

UNTRAINED = "untrained"
"""The encoder with its initial weights, a control; it has no P."""

_METRICS = ("arm", "step", "mse", "copy_mse", "ratio_to_copy", "ari")


def pretrained_encoder(
    task: PixelTask, arm: str, seed: int, progress: Progress | None = None
) -> PretrainedEncoder:
    """Return the encoder of an arm with the P behind it, trained now or found in the store.

    Args:
        task: Data, preset.
        arm: A name in `BALLS_ARMS`, or `UNTRAINED`.
        seed: Of the comparison.
        progress: Called after every step, where it has to be trained.

    Raises:
        RMRError: Unknown arm.
    """
    if arm not in (*BALLS_ARMS, UNTRAINED):
        raise unknown_name("arm", arm, (*BALLS_ARMS, UNTRAINED))
    if arm == UNTRAINED:
        pipeline, step, metrics, core = restored(task, None, seed), 0, [], None
    else:
        artifact = trained(task, arm, seed, progress)
        pipeline, step = restored(task, arm, seed, artifact), artifact.record["step"]
        metrics = [_readable(scored(task, which, seed)) for which in (None, arm)]
        core = find_arm(arm).core
    pipeline = pipeline.cpu().eval()
    training = {"preset": task.preset.name, "arm": arm, "seed": seed, "step": step}
    return PretrainedEncoder(
        _config(task, pipeline, core),
        FrameStackEncoder(pipeline.encoder.encoder, pipeline.encoder.join),
        pipeline.processor if core else None,
        {"data": _data(task), "training": training, "metrics": metrics},
    )


def _config(task: PixelTask, pipeline: FramePipeline, core: str | None) -> BallsEncoderConfig:
    model = task.preset.model
    first, later = model.iterations
    return BallsEncoderConfig(
        game=_world(task),
        resolution=pixels_of(task, "training").resolution,
        instants=HISTORY,
        slots=len(pipeline.encoder.encoder.start),
        dim=model.processor.dim,
        slot_dim=model.slot_dim,
        channels=model.channels,
        cell=model.cell,
        first_rounds=first,
        later_rounds=later,
        core=model.processor.core if core == "configured" else core,
        aggregation=model.processor.aggregation,
        passes=model.processor.passes,
        precision=model.processor.precision,
    )


def _world(task: PixelTask) -> str:
    """Return the name in the id of the environment that the data were recorded from."""
    env_id = open_balls(task.data, task.preset.validation_share).dataset.manifest.env_id
    return (env_id or "balls").split("/")[-1].split("-")[0]


def _data(task: PixelTask) -> dict[str, Any]:
    episodes = open_balls(task.data, task.preset.validation_share)
    manifest = episodes.dataset.manifest
    return {
        "fingerprint": episodes.dataset.fingerprint,
        "episodes": len(episodes.dataset.episodes),
        "training_episodes": len(episodes.training),
        "transitions": len(episodes.dataset),
        "env_id": manifest.env_id,
        "options": manifest.env_kwargs,
    }


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of the card; JSON knows no NaN."""
    found = {name: row[name] for name in _METRICS}
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in found.items()
    }
