"""A ceiling, not a competitor: the same encoder trained on RAM bits directly."""

import torch
import torch.nn.functional as F
from torch import nn

from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains.atari import AtariModel, NaturalData, ProbeData, pixel_encoder
from rmr_gym.models.rmr.pipeline import build, find_device, torch_generator
from rmr_gym.protocol.config import Natural
from rmr_gym.protocol.store import Artifact, Scratch
from rmr_gym.protocol.training import Kept, Progress, Step, train


def train_supervised(
    config: Natural,
    model: AtariModel,
    data: NaturalData,
    paired: ProbeData,
    *,
    seed: int = 0,
    device: str = "cpu",
    scratch: Scratch | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Train encoder and a linear read-out on paired frames and RAM bits.

    Args:
        config: Batch, rate and checkpoints; the objective is ignored.
        model: Sizes.
        data: Only its frame statistics are used.
        paired: Frames and bits of the training episodes.
        seed: Gives the same initial encoder as the arms of that seed.
        device: Where to train.
        scratch: Room for unfinished state.
        progress: Called after every step.

    Returns:
        As `rmr_gym.protocol.natural.train_natural`.
    """
    place = find_device(device)
    encoder = pixel_encoder(model, seed)
    encoder.standardise_by(data.mean_frame, data.deviation)
    bits = torch.from_numpy(paired.bits).flatten(1)
    width = encoder.slots * model.dim
    read_out = build(
        lambda: nn.Linear(width, bits.shape[1]),
        torch_generator(integer_seed(seed, "supervised read-out")),
    ).to(place)
    encoder.to(place)

    def step_at(step: int) -> Step:
        rng = generator(seed, "supervised", step)
        size = min(config.batch, len(bits))
        rows = torch.from_numpy(rng.choice(len(bits), size=size, replace=False))
        logits = read_out(encoder(paired.frames[rows].to(place)).flatten(1))
        return Step(F.binary_cross_entropy_with_logits(logits, bits[rows].float().to(place)), {})

    def checkpoint_at(step: int) -> Kept:
        tensors = {f"{step}.{name}": value for name, value in encoder.state_dict().items()}
        return Kept(tensors, {"step": step})

    trained = train(
        nn.ModuleList([encoder, read_out]),
        step_at,
        checkpoint_at,
        checkpoints=config.checkpoints,
        learning_rate=config.learning_rate,
        scratch=scratch,
        progress=progress,
    )
    record = {"arm": "supervised", "curve": trained.curve, "collapsed_at": None}
    return Artifact(record, trained.tensors)
