"""Stage 1, abstract: train encoder, P and decoders to predict the RAM after an action."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import batch_indices
from rmr_gym.domains.atari import (
    AbstractData,
    AtariModel,
    RamScores,
    abstract_pipeline,
    predict_ram,
    ram_scores,
)
from rmr_gym.models.rmr.losses import ram_loss
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, find_device
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import NOWHERE, Artifact, Room, stage
from rmr_gym.runs.training import Checkpoint, Phase, Step, Trained, train
from rmr_gym.stages.games import PRETRAIN_SEED
from rmr_gym.stages.presets import Pretraining


@runtime_checkable
class AbstractWorld(Protocol):
    """What a P can be pretrained on, for instance `rmr_gym.stages.games.GameData`."""

    def key(self) -> Any:
        """Return what decides results, as JSON."""
        ...

    def abstract(self, part: str) -> AbstractData:
        """Return the "training" or the "validation" transitions."""
        ...

    @property
    def scored_bytes(self) -> np.ndarray:
        """The bytes that are scored."""
        ...


@stage(version=3)
def pretrain(
    data: AbstractWorld,
    model: AtariModel,
    config: Pretraining,
    seed: int = PRETRAIN_SEED,
    device: str = "cpu",
    room: Room = NOWHERE,
) -> Artifact:
    """Train the abstract pipeline and score it on validation transitions.

    Source: RMR, section 5 (abstract pipeline), Appendices B and F.
    Differs: the number of steps is not stated; it is the preset's.

    Args:
        data: Transitions to learn from and to score on.
        model: Sizes.
        config: Steps, batch, rate, checkpoints.
        seed: Fixes initial weights and batches.
        device: Where to train, for instance "cpu" or "cuda".
        room: Room for unfinished state.

    Returns:
        Tensors ``processor.*``, ``encoder.*``, ``decoder.*``; the record holds ``rows`` (scores
        by checkpoint), ``copy`` (that of the copy baseline), ``curve`` and ``processor_hash``.
    """
    place = find_device(device)
    training, validation = data.abstract("training"), data.abstract("validation")
    pipeline = abstract_pipeline(model, seed).to(place)
    held_out = scored_part(validation, config.validation_rows, seed)

    def step_at(step: int, phase: Phase) -> Step:
        index = batch_indices(training, phase.batch, seed, "pretrain", step)
        rows = training.current[index]
        bits, following = (
            torch.from_numpy(training.bits[at]).float().to(place) for at in (rows, rows + 1)
        )
        logits = pipeline(bits, torch.from_numpy(training.action[index]).to(place))
        return Step(ram_loss(logits, bits, following))

    def checkpoint_at(step: int) -> Checkpoint:
        return scored_checkpoint(pipeline, held_out, data.scored_bytes, model.core, step)

    trained = train(
        pipeline,
        step_at,
        checkpoint_at,
        phases=[Phase(config.steps, config.learning_rate, config.batch)],
        checkpoints=config.checkpoints,
        room=room,
    )
    return finished(pipeline, trained, copy_scores(held_out, data.scored_bytes))


def scored_checkpoint(
    pipeline: EncodeProcessDecode, data: AbstractData, scored: np.ndarray, core: str, step: int
) -> Checkpoint:
    """Score the pipeline's predictions on the chosen RAM bytes."""
    predicted = predict_ram(pipeline, data)
    scores = ram_scores(predicted, data.bits[data.current], data.bits[data.current + 1], scored)
    return Checkpoint({}, {"model": core, "step": step, **scores._asdict()})


def finished(pipeline: EncodeProcessDecode, trained: Trained, copied: RamScores) -> Artifact:
    """Return what training leaves, the scores of the copy baseline beside."""
    record = {
        "copy": [{"model": "copy", "step": 0, **copied._asdict()}],
        "rows": [row | {"loss": _loss_at(trained.curve, row["step"])} for row in trained.records],
        "curve": trained.curve,
        "processor_hash": parameter_hash(pipeline.processor),
    }
    tensors = {name: tensor.detach().cpu() for name, tensor in pipeline.state_dict().items()}
    return Artifact(record, tensors)


def _loss_at(curve: list[dict[str, Any]], step: int) -> float | None:
    """Return the last logged loss up to a step."""
    return next((point["loss"] for point in reversed(curve) if point["step"] <= step), None)


def copy_scores(data: AbstractData, scored: np.ndarray) -> RamScores:
    """Score the baseline that says that nothing changes."""
    bits = data.bits[data.current]
    return ram_scores(bits.astype(bool), bits, data.bits[data.current + 1], scored)


def scored_part(data: AbstractData, rows: int, seed: int) -> AbstractData:
    """Return at most so many transitions to score on, drawn by the seed."""
    if rows >= len(data.current):
        return data
    picked = np.sort(generator(seed, "validation rows").permutation(len(data.current))[:rows])
    return data._replace(action=data.action[picked], current=data.current[picked])
