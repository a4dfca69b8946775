"""Stage 1, abstract: train encoder, P and decoders to predict the RAM after an action."""

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
from rmr_gym.protocol.config import Pretraining
from rmr_gym.protocol.store import Artifact, Scratch
from rmr_gym.protocol.training import Kept, Progress, Step, Trained, train


def pretrain(
    config: Pretraining,
    model: AtariModel,
    training: AbstractData,
    validation: AbstractData,
    slots: np.ndarray,
    *,
    seed: int = 0,
    device: str = "cpu",
    scratch: Scratch | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Train the abstract pipeline and score it on validation transitions.

    Source: RMR, section 5 (abstract pipeline), Appendices B and F.
    Differs: the number of steps is not stated; it is the preset's.

    Args:
        config: Steps, batch, rate, checkpoints.
        model: Sizes.
        training: Transitions to learn from.
        validation: Transitions to score on.
        slots: RAM cells that count in the scores.
        seed: Fixes initial weights and batches.
        device: Where to train, for instance "cpu" or "cuda".
        scratch: Room for unfinished state.
        progress: Called after every step.

    Returns:
        Tensors ``processor.*``, ``encoder.*``, ``decoder.*``; the record holds ``rows`` (scores
        by checkpoint, the copy baseline first) and ``curve``.
    """
    place = find_device(device)
    pipeline = abstract_pipeline(model, seed).to(place)
    held_out = scored_part(validation, config.validation_rows, seed)

    def step_at(step: int) -> Step:
        index = batch_indices(training, config.batch, seed, "pretrain", step)
        rows = training.current[index]
        bits, following = (
            torch.from_numpy(training.bits[at]).float().to(place) for at in (rows, rows + 1)
        )
        logits = pipeline(bits, torch.from_numpy(training.action[index]).to(place))
        return Step(ram_loss(logits, bits, following), {})

    def checkpoint_at(step: int) -> Kept:
        scores = score(pipeline, held_out, slots)
        return Kept({}, {"model": model.core, "step": step, **scores._asdict()})

    trained = train(
        pipeline,
        step_at,
        checkpoint_at,
        checkpoints=config.checkpoints,
        learning_rate=config.learning_rate,
        scratch=scratch,
        progress=progress,
    )
    return finished(pipeline, trained, copy_scores(held_out, slots))


def finished(pipeline: EncodeProcessDecode, trained: Trained, copied: RamScores) -> Artifact:
    """Return what training leaves, the scores of the copy baseline first."""
    record = {
        "rows": [{"model": "copy", "step": 0, **copied._asdict()}, *trained.records],
        "curve": trained.curve,
        "processor_hash": parameter_hash(pipeline.processor),
    }
    tensors = {name: tensor.detach().cpu() for name, tensor in pipeline.state_dict().items()}
    return Artifact(record, tensors)


def score(pipeline: EncodeProcessDecode, data: AbstractData, slots: np.ndarray) -> RamScores:
    """Score the pipeline's predictions on the chosen RAM cells."""
    predicted = predict_ram(pipeline, data)
    return ram_scores(predicted, data.bits[data.current], data.bits[data.current + 1], slots)


def copy_scores(data: AbstractData, slots: np.ndarray) -> RamScores:
    """Score the baseline that says that nothing changes."""
    bits = data.bits[data.current]
    return ram_scores(bits.astype(bool), bits, data.bits[data.current + 1], slots)


def scored_part(data: AbstractData, rows: int, seed: int) -> AbstractData:
    """Return at most so many transitions to score on, drawn by the seed."""
    if rows >= len(data.current):
        return data
    picked = np.sort(generator(seed, "validation rows").permutation(len(data.current))[:rows])
    return data._replace(action=data.action[picked], current=data.current[picked])
