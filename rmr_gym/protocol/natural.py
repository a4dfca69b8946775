"""Stage 2, natural: train a pixel encoder through P, without ever reading RAM."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rmr_gym.data.sampling import batch_indices, derangement
from rmr_gym.domains.atari import SLOTS, AtariModel, NaturalData, natural_pipeline
from rmr_gym.models.encoders import SlotCNN
from rmr_gym.models.losses import ContrastiveTerms, hinge_loss, info_nce_loss
from rmr_gym.models.pipeline import find_device
from rmr_gym.models.processors import parameter_hash
from rmr_gym.protocol.arms import arm_processor, find_arm
from rmr_gym.protocol.config import Natural
from rmr_gym.protocol.store import Artifact, Scratch
from rmr_gym.protocol.training import Kept, Progress, Step, train
from rmr_gym.seeding import generator

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
    """A loss on latents and the kind of batch that it is defined on."""

    terms: Callable[[Natural, Latents], ContrastiveTerms]
    sampling: Literal["uniform", "window"]


OBJECTIVES: dict[str, Objective] = {
    "cswm": Objective(_cswm, "uniform"),
    "infonce": Objective(_infonce, "window"),
}


class Batch(NamedTuple):
    """One batch of pixel transitions."""

    frames: Tensor
    following: Tensor
    action: Tensor
    permutation: Tensor


def natural_batch(config: Natural, data: NaturalData, seed: int, step: int) -> Batch:
    """Return the batch of a step: a function of the seed and the step, the same for every arm."""
    index = batch_indices(
        data,
        config.batch,
        seed,
        "natural",
        step,
        kind=OBJECTIVES[config.objective].sampling,
        frames=data.frames.numpy(),
    )
    rows = torch.from_numpy(data.current[index])
    partners = derangement(config.batch, generator(seed, "negatives", step))
    return Batch(
        data.frames[rows], data.frames[rows + 1], data.action[index], torch.from_numpy(partners)
    )


def train_natural(
    config: Natural,
    model: AtariModel,
    data: NaturalData,
    arm: str,
    *,
    pretrained: dict[str, Tensor] | None = None,
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
    pipeline = natural_pipeline(model, arm_processor(arm, model, seed, pretrained), seed)
    encoder = pipeline.encoder
    assert isinstance(encoder, SlotCNN)
    encoder.standardise_by(data.mean_frame, data.deviation)
    place = find_device(device)
    pipeline.to(place)
    before = parameter_hash(pipeline.processor)

    def step_at(step: int) -> Step:
        batch = Batch(*(part.to(place) for part in natural_batch(config, data, seed, step)))
        current, following = encoder(torch.cat([batch.frames, batch.following])).chunk(2)
        predicted = pipeline.decoder(pipeline.processor(current, batch.action))
        terms = OBJECTIVES[config.objective].terms(
            config, Latents(predicted, current, following, batch.permutation)
        )
        logs = terms._asdict()
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
