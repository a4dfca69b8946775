"""A ceiling, not a competitor: the same encoder trained on RAM bits directly."""

import torch
import torch.nn.functional as F
from torch import nn

from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains.atari import AtariModel, pixel_encoder
from rmr_gym.models.rmr.pipeline import build, find_device, torch_generator
from rmr_gym.runs.store import NOWHERE, Artifact, Room, stage
from rmr_gym.runs.training import Checkpoint, Phase, Step, train
from rmr_gym.stages.games import GameData, natural_data, probe_sets
from rmr_gym.stages.presets import Natural, Probing


@stage(version=3)
def supervised(
    data: GameData,
    model: AtariModel,
    config: Natural,
    probing: Probing,
    seed: int,
    device: str = "cpu",
    room: Room = NOWHERE,
) -> Artifact:
    """Train encoder and a linear read-out on paired frames and RAM bits.

    Args:
        data: Frames and RAM of the training episodes.
        model: Sizes.
        config: Batch, rate and checkpoints; the objective is ignored.
        probing: Which rows are paired: those that the probe is fitted on.
        seed: Gives the same initial encoder as the arms of that seed.
        device: Where to train.
        room: Room for unfinished state.

    Returns:
        As `rmr_gym.stages.natural.natural`, encoders alone.
    """
    place, loaded = find_device(device), natural_data(data, model, config)
    paired = probe_sets(data, model, probing).training
    encoder = pixel_encoder(model, seed)
    encoder.standardise_by(loaded.mean_frame, loaded.deviation)
    bits = torch.from_numpy(paired.bits).flatten(1)
    read_out = build(
        lambda: nn.Linear(encoder.slots * model.dim, bits.shape[1]),
        torch_generator(integer_seed(seed, "supervised read-out")),
    ).to(place)
    encoder.to(place)

    def step_at(step: int, phase: Phase) -> Step:
        rng = generator(seed, "supervised", step)
        size = min(phase.batch, len(bits))
        rows = torch.from_numpy(rng.choice(len(bits), size=size, replace=False))
        logits = read_out(encoder(paired.frames[rows].to(place)).flatten(1))
        return Step(F.binary_cross_entropy_with_logits(logits, bits[rows].float().to(place)))

    def checkpoint_at(step: int) -> Checkpoint:
        state = encoder.state_dict().items()
        return Checkpoint({f"{step}.encoder.{name}": part for name, part in state}, {"step": step})

    trained = train(
        nn.ModuleList([encoder, read_out]),
        step_at,
        checkpoint_at,
        phases=[Phase(config.steps, config.learning_rate, config.batch)],
        checkpoints=config.checkpoints,
        room=room,
    )
    record = {"arm": "supervised", "curve": trained.curve, "note": None}
    return Artifact(record, trained.tensors)
