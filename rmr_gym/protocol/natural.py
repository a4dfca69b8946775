"""Stage 2, natural: train a pixel encoder through P, without ever reading RAM."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import batch_indices, derangement
from rmr_gym.domains.atari import SLOTS, AtariModel, NaturalData, natural_pipeline
from rmr_gym.domains.atari_alignment import AbstractLatents, fit_decoder, match_moments
from rmr_gym.models.rmr.losses import ContrastiveTerms, hinge_loss, info_nce_loss
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, find_device
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol.arms import arm_processor, find_arm
from rmr_gym.protocol.config import Natural
from rmr_gym.protocol.store import Artifact, Scratch
from rmr_gym.protocol.training import Kept, Progress, Step, train

DEAD_SLOT_SHARE = 1e-4
HEALTH_ROWS = 256


class Latents(NamedTuple):
    """What an objective sees: g(P(f(x), a)), f(x), f(y) and the negative partners."""

    predicted: Tensor
    current: Tensor
    following: Tensor
    permutation: Tensor


def _cswm(config: Natural, latents: Latents) -> ContrastiveTerms:
    return hinge_loss(*latents, sigma=config.sigma, hinge=config.hinge, negatives=config.negatives)


def _infonce(config: Natural, latents: Latents) -> ContrastiveTerms:
    return info_nce_loss(
        latents.predicted,
        latents.following,
        temperature=config.temperature,
        sigma=config.sigma,
    )


class Objective(NamedTuple):
    """A loss on latents, the batches that it is defined on, and how training goes.

    Attributes:
        terms: The loss on the latents of one predicted step.
        sampling: Kind of batch, see `rmr_gym.data.sampling.batch_indices`.
        horizon: Predicted steps; each goes through P and the decoder, the loss is their mean.
        aligned: Encoder and decoder start from the abstract latents' moments, see
            `rmr_gym.domains.atari_alignment`.
    """

    terms: Callable[[Natural, Latents], ContrastiveTerms]
    sampling: Literal["uniform", "window"]
    horizon: int = 1
    aligned: bool = False


OBJECTIVES: dict[str, Objective] = {
    "cswm": Objective(_cswm, "uniform"),
    "infonce": Objective(_infonce, "window"),
    "infonce_3step": Objective(_infonce, "window", horizon=3),
    "cswm_aligned": Objective(_cswm, "uniform", aligned=True),
    "infonce_aligned": Objective(_infonce, "window", aligned=True),
}
"""Objectives by name; ``_3step``: three steps are predicted."""


class Batch(NamedTuple):
    """One batch of pixel transitions."""

    frames: Tensor
    following: Tensor
    action: Tensor
    permutation: Tensor


def natural_batch(
    config: Natural, data: NaturalData, seed: int, step: int, ahead: int = 0
) -> Batch:
    """Return the batch of a step: a function of the seed and the step, the same for every arm.

    Args:
        config: Objective and batch size.
        data: Frames and actions.
        seed: Of the run.
        step: Training step.
        ahead: Agent steps by which the transitions come later, below the objective's horizon.
    """
    index = batch_indices(
        data,
        config.batch,
        seed,
        "natural",
        step,
        kind=OBJECTIVES[config.objective].sampling,
        frames=data.frames.numpy(),
    )
    index = _with_room(data, index, OBJECTIVES[config.objective].horizon) + ahead
    rows = torch.from_numpy(data.current[index])
    partners = derangement(config.batch, generator(seed, "negatives", step))
    return Batch(
        data.frames[rows], data.frames[rows + 1], data.action[index], torch.from_numpy(partners)
    )


def _with_room(data: NaturalData, index: np.ndarray, horizon: int) -> np.ndarray:
    """Move transitions near an episode's end forward, so that ``horizon`` of them follow on."""
    if horizon == 1:
        return index
    first = np.searchsorted(data.episode, data.episode[index])
    end = np.searchsorted(data.episode, data.episode[index], side="right")
    if (end - first < horizon).any():
        raise RMRError(
            f"predicting {horizon} steps needs episodes of so many, found one of "
            f"{int((end - first).min())}: record longer episodes"
        )
    return np.minimum(index, end - horizon)


def train_natural(
    config: Natural,
    model: AtariModel,
    data: NaturalData,
    arm: str,
    *,
    pretrained: dict[str, Tensor] | None = None,
    latents: AbstractLatents | None = None,
    seed: int = 0,
    device: str = "cpu",
    scratch: Scratch | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Train the pixel pipeline of one arm and keep its encoder at the checkpoints.

    Source: RMR, section 5, natural pipeline: g(P(f(x), a)) is drawn to f(y).
    Differs: encoder initialisation and input scaling (decisions page, 11a). Training ends early at
    a checkpoint where most slots are dead (11b); the record says so in ``collapsed_at``.

    Args:
        config: Objective, checkpoints, batch, rate.
        model: Sizes.
        data: Frames and actions.
        arm: A name in `rmr_gym.protocol.arms.ARMS`.
        pretrained: State dict of the donor's processor.
        latents: Of the donor's abstract encoder, for the objectives that start aligned.
        seed: Shared by paired arms: equal initial encoders and decoders, equal batches.
        device: Where to train, for instance "cpu" or "cuda".
        scratch: Room for unfinished state.
        progress: Called after every step.

    Returns:
        Tensors ``<step>.*``, one encoder state dict a checkpoint; the record holds ``curve``,
        ``health``, ``collapsed_at`` and the hashes of P before and after.

    Raises:
        RMRError: Unknown arm, missing or misfitting donor, loss that is not a number.
    """
    objective = OBJECTIVES[config.objective]
    processor = arm_processor(arm, model, seed, pretrained)
    pipeline = natural_pipeline(model, processor, seed, affine=objective.aligned)
    encoder = pipeline.encoder
    encoder.standardise_by(data.mean_frame, data.deviation)
    if objective.aligned:
        _align(pipeline, data, latents, arm)
    place = find_device(device)
    pipeline.to(place)
    centre = latents.current.mean(0).to(place) if objective.aligned and latents else 0.0
    before = parameter_hash(pipeline.processor)

    def step_at(step: int) -> Step:
        batches = [
            Batch(*(part.to(place) for part in natural_batch(config, data, seed, step, ahead)))
            for ahead in range(objective.horizon)
        ]
        logs = _mean_terms(config, pipeline, batches, centre)._asdict()
        return Step(logs.pop("loss"), logs)

    def checkpoint_at(step: int) -> Kept:
        dead = count_dead_slots(encoder, data)
        tensors = {f"{step}.{name}": value for name, value in encoder.state_dict().items()}
        return Kept(tensors, {"step": step, "dead_slots": dead}, stop=dead > SLOTS // 2)

    trained = train(
        pipeline,
        step_at,
        checkpoint_at,
        checkpoints=config.checkpoints,
        learning_rate=config.learning_rate,
        scratch=scratch,
        progress=progress,
    )
    after = parameter_hash(pipeline.processor)
    if find_arm(arm).frozen and after != before:
        raise RuntimeError(f"the frozen P of arm {arm!r} changed in training; this is a bug")
    record = {
        "arm": arm,
        "curve": trained.curve,
        "health": trained.records,
        "collapsed_at": trained.records[-1]["step"] if trained.stopped else None,
        "processor_hash": {"before": before, "after": after},
    }
    return Artifact(record, trained.tensors)


def _mean_terms(
    config: Natural, pipeline: EncodeProcessDecode, batches: list[Batch], centre: Tensor | float
) -> ContrastiveTerms:
    """Predict step after step from the first frames; return the terms' mean over the steps."""
    frames = [batches[0].frames, *(batch.following for batch in batches)]
    states = list(pipeline.encoder(torch.cat(frames)).chunk(len(frames)))
    predicted, terms = states[0], []
    for batch, current, following in zip(batches, states, states[1:], strict=False):
        predicted = pipeline.decoder(pipeline.processor(predicted, batch.action))
        seen = Latents(predicted - centre, current - centre, following - centre, batch.permutation)
        terms.append(OBJECTIVES[config.objective].terms(config, seen))
    return ContrastiveTerms(*(torch.stack(each).mean() for each in zip(*terms, strict=True)))


def _align(
    pipeline: EncodeProcessDecode, data: NaturalData, latents: AbstractLatents | None, arm: str
) -> None:
    if latents is None:
        raise RMRError(
            f"the arm {arm!r} starts aligned and needs abstract latents: pretrain the game first"
        )
    match_moments(pipeline.encoder, data, latents)
    fit_decoder(pipeline.decoder, pipeline.processor, latents)


@torch.no_grad()
def count_dead_slots(encoder: nn.Module, data: NaturalData) -> int:
    """Count the slots that hardly move over frames spread evenly over the data.

    A slot is dead when its variance is below 1e-4 of the mean slot's, or vanishes altogether.
    """
    rows = np.linspace(0, len(data.frames) - 1, HEALTH_ROWS).astype(int)
    place = next(encoder.parameters()).device
    return dead_slots(encoder(data.frames[torch.from_numpy(rows)].to(place)))


def dead_slots(latents: Tensor) -> int:
    """Count dead slots of latents [rows slots dim]; see `count_dead_slots`."""
    variance = latents.double().var(dim=0, correction=0).sum(-1)
    return int((variance <= max(DEAD_SLOT_SHARE * float(variance.mean()), 1e-12)).sum())


def collapse_message(record: dict[str, object]) -> str | None:
    """Return the sentence for a collapsed run, or None for a healthy one."""
    if record["collapsed_at"] is None:
        return None
    return (
        f"the encoder of arm {record['arm']!r} collapsed: more than half of its {SLOTS} slots were "
        f"dead at step {record['collapsed_at']}; lower the learning rate or use "
        "--objective infonce"
    )
