"""Encoders as folders that wrappers and agents read, made from what the stages leave."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.domains.atari import ACTIONS, SLOTS, ProbeData
from rmr_gym.domains.balls import HISTORY
from rmr_gym.models.objects import FrameStackEncoder
from rmr_gym.models.pretrained import BallsEncoderConfig, EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.processors import load_weights, parameter_hash
from rmr_gym.runs.store import Artifact, Progress, Store, Task
from rmr_gym.stages.arms import ARMS, arm_core, find_arm, fresh_processor
from rmr_gym.stages.balls import (
    BALLS_ARMS,
    BallsWorld,
    frame_pipeline,
    kept_frames,
)
from rmr_gym.stages.chain import ENCODERS, UNTRAINED, Game
from rmr_gym.stages.natural import kept_encoder, kept_step
from rmr_gym.stages.probe import METRICS, Features, encode


def pretrained_encoder(
    game: Game,
    arm: str,
    seed: int,
    store: Store,
    *,
    donor: Task | None = None,
    step: int | None = None,
    progress: Progress | None = None,
) -> PretrainedEncoder:
    """Return an encoder with the P that it was trained through, facts for its card, and scores.

    What is in the store is found, the rest is trained and probed now.

    Args:
        game: Under a preset.
        arm: A name in `rmr_gym.stages.chain.ENCODERS`.
        seed: Of the run.
        store: Of finished stages.
        donor: Whose P is used; None: the game's own.
        step: Checkpoint; None for the last.
        progress: Called after every step of training.

    Raises:
        RMRError: Unknown arm, a checkpoint that is not kept, or an encoder that collapsed.
    """
    if arm not in ENCODERS:
        raise unknown_name("arm", arm, ENCODERS)
    task = game.trained(arm, seed, donor)
    artifact = store.compute(task, progress)
    if artifact.record["note"]:
        raise RMRError(artifact.record["note"])
    step = kept_step(artifact, step)
    encoder = kept_encoder(game.preset.model, artifact, step)
    processor = _processor(game, arm, artifact, step)
    training = {"arm": arm, "seed": seed, "step": step}
    provenance = _provenance(game, training) | {"metrics": _scores(game, task, seed, step, store)}
    core = arm_core(arm, game.preset.model) if processor else None
    config = _config(game, affine=encoder.affine is not None, core=core)
    return PretrainedEncoder(config, encoder.cpu(), processor, provenance)


def _processor(game: Game, arm: str, artifact: Artifact, step: int) -> Any:
    weights = artifact.part(f"{step}.processor")
    if arm not in ARMS or not weights:
        return None
    processor = fresh_processor(arm, game.preset.model, 0)
    load_weights(processor, weights, f"the P at step {step}")
    return processor.cpu()


def _scores(game: Game, task: Task, seed: int, step: int, store: Store) -> list[dict[str, Any]]:
    """Return the probe's scores of the encoder and of what it must beat."""
    beside = {"untrained encoder": game.scored(UNTRAINED, seed)}
    beside["pixels through PCA"] = game.probed_reference(game.pixels)
    probed = {"this encoder": game.probed(task), **beside}
    rows = [
        {"features": name} | row
        for name, scores in probed.items()
        for row in store.compute(scores).record["rows"]
        if name != "this encoder" or row["step"] == step
    ]
    return [{name: row[name] for name in ("features", *METRICS)} for row in rows]


def _config(game: Game, *, affine: bool, core: str | None) -> EncoderConfig:
    model = game.preset.model
    return EncoderConfig(
        game=game.name,
        height=model.height,
        width=model.width,
        slots=SLOTS,
        maps=model.maps,
        dim=model.dim,
        trunk=model.trunk,
        core=core,
        aggregation=model.aggregation,
        precision=model.precision,
        actions=ACTIONS,
        affine=affine,
    )


def _provenance(game: Game, training: dict[str, Any]) -> dict[str, Any]:
    episodes, recording = game.data.open(), game.preset.recording
    return {
        "data": {
            "fingerprint": episodes.dataset.fingerprint,
            "episodes": len(episodes.dataset.episodes),
            "training_episodes": len(episodes.training),
            "transitions": len(episodes.dataset),
            "frameskip": recording.frameskip,
            "repeat_action_probability": recording.repeat_action_probability,
            "scored_ram_bytes": len(game.data.scored_bytes),
        },
        "training": {"objective": game.preset.natural.objective, **training},
    }


class EncoderReference(NamedTuple):
    """The features of an encoder from a folder; they count by its weights and not by its path."""

    path: Path
    device: str = "cpu"
    slots: int = SLOTS

    def key(self) -> list[str]:
        """Return the hash of the weights, and where they compute."""
        encoder = PretrainedEncoder.from_pretrained(self.path).encoder
        return [parameter_hash(encoder), self.device]

    def features(self, train: ProbeData, test: ProbeData) -> tuple[Features, Features]:
        """Encode both sets of frames."""
        encoder = PretrainedEncoder.from_pretrained(self.path).encoder.to(find_device(self.device))
        return encode(encoder, train), encode(encoder, test)


_SCORES = ("arm", "step", "mse", "copy_mse", "ratio_to_copy", "ari")


def pretrained_balls_encoder(
    world: BallsWorld,
    arm: str,
    seed: int,
    store: Store,
    *,
    donor: Task | None = None,
    progress: Progress | None = None,
) -> PretrainedEncoder:
    """Return the encoder of an arm of balls with the P behind it, trained now or found.

    Args:
        world: Under a preset.
        arm: A name in `rmr_gym.stages.balls.BALLS_ARMS`, or "untrained", the encoder with its
            initial weights and without P.
        seed: Of the run.
        store: Of finished stages.
        donor: Whose P is used; None: one that is pretrained on the same data set.
        progress: Called after every step of training.

    Raises:
        RMRError: Unknown arm.
    """
    if arm not in (*BALLS_ARMS, UNTRAINED):
        raise unknown_name("arm", arm, (*BALLS_ARMS, UNTRAINED))
    data, model = world.data, world.preset.pixels
    pipeline, step, scores, core = frame_pipeline(data, model, seed), 0, [], None
    if arm != UNTRAINED:
        task = world.trained(arm, seed, donor)
        artifact = store.compute(task, progress)
        pipeline, step = kept_frames(data, model, artifact), artifact.record["step"]
        tasks = (world.started(seed), task)
        scores = [store.compute(world.scored(scored)).record["rows"][0] for scored in tasks]
        core = find_arm(arm, BALLS_ARMS).core
    training = {"preset": world.preset.preset, "arm": arm, "seed": seed, "step": step}
    metrics = [{name: _readable(row[name]) for name in _SCORES} for row in scores]
    encoder = pipeline.eval().encoder
    return PretrainedEncoder(
        _balls_config(world, len(encoder.encoder.start), core),
        FrameStackEncoder(encoder.encoder, encoder.join),
        pipeline.processor if core else None,
        {"data": data.summary(), "training": training, "metrics": metrics},
    )


def _balls_config(world: BallsWorld, slots: int, core: str | None) -> BallsEncoderConfig:
    model = world.preset.pixels
    first, later = model.iterations
    return BallsEncoderConfig(
        game=world.data.label,
        resolution=world.data.frames("training").resolution,
        instants=HISTORY,
        slots=slots,
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


def _readable(value: Any) -> Any:
    """Return a score of a card; JSON knows no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
