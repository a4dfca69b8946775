"""Stages 1 and 2: train the RAM pipeline; then a pixel encoder through its P, and references."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import batch_indices, derangement, shifted_inside
from rmr_gym.domains import atari
from rmr_gym.domains.atari import SLOTS, AbstractData, AtariModel, NaturalData
from rmr_gym.models.rmr import pipeline as models
from rmr_gym.models.rmr.pipeline import ContrastiveTerms, EncodeProcessDecode, SlotCNN, find_device
from rmr_gym.models.rmr.processors import Processor, load_weights, parameter_hash
from rmr_gym.runs.store import NOWHERE, Artifact, Room, stage
from rmr_gym.runs.training import Checkpoint, Phase, Step, Trained, train_phase
from rmr_gym.stages import presets
from rmr_gym.stages.games import PRETRAIN_SEED, GameData, natural_data, probe_sets
from rmr_gym.stages.presets import OBJECTIVES, Natural, Pretraining, Probing

DEAD_SLOT_SHARE = 1e-4
HEALTH_ROWS = 256
COLLAPSE = (
    f"the encoder of arm {{!r}} collapsed: more than half of its {SLOTS} slots were dead at step "
    "{}; lower the learning rate or use the objective infonce"
)


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
    pipeline = atari.abstract_pipeline(model, seed).to(place)
    held_out = rows_to_score(validation, config.validation_rows, seed)

    def step_at(step: int, phase: Phase) -> Step:
        index = batch_indices(training, phase.batch, seed, "pretrain", step)
        index = shifted_inside(training.current, index, config.rollout)
        noise = generator(seed, "pretrain noise", step)
        bits = with_flips(training.bits[training.current[index]], config.noise, noise)
        steps = [index + ahead for ahead in range(config.rollout)]
        return Step(rollout_loss(pipeline, training, bits, steps))

    scored = data.scored_bytes
    checkpoint_at = partial(pretrain_checkpoint, pipeline, held_out, scored, model.core)
    trained = train_phase(config, pipeline, step_at, checkpoint_at, room=room)
    return pretrain_artifact(pipeline, trained, copy_scores(held_out, scored))


def rollout_loss(
    pipeline: EncodeProcessDecode, data: AbstractData, bits: np.ndarray, steps: Sequence[np.ndarray]
) -> Tensor:
    """Return the mean loss of successive steps, each after the first from P's own prediction.

    Args:
        pipeline: Predicts the bits.
        data: Transitions.
        bits: Before the first step, of every element of the batch.
        steps: The batch's transitions at each step.
    """
    losses, place = [], next(pipeline.parameters()).device
    for index in steps:
        now = torch.from_numpy(bits).float().to(place)
        following = torch.from_numpy(data.bits[data.current[index] + 1]).float().to(place)
        logits = pipeline(now, torch.from_numpy(data.action[index]).to(place))
        losses.append(models.ram_loss(logits, now, following))
        bits = models.predicted_bits(logits, now).cpu().numpy()
    return torch.stack(losses).mean()


def with_flips(bits: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """Return bits of which some are flipped: in each row a share drawn up to ``most``."""
    if not most:
        return bits
    shares = rng.uniform(0, most, (len(bits), 1, 1))
    return bits ^ (rng.random(bits.shape) < shares).astype(bits.dtype)


def pretrain_checkpoint(
    pipeline: EncodeProcessDecode, data: AbstractData, scored: np.ndarray, core: str, step: int
) -> Checkpoint:
    """Score the pipeline's predictions on the chosen RAM bytes."""
    predicted = atari.predict_ram(pipeline, data)
    bits, following = data.bits[data.current], data.bits[data.current + 1]
    scores = atari.ram_scores(predicted, bits, following, scored)
    return Checkpoint({}, {"model": core, "step": step, **scores._asdict()})


def pretrain_artifact(
    pipeline: EncodeProcessDecode, trained: Trained, copied: atari.RamScores
) -> Artifact:
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


def copy_scores(data: AbstractData, scored: np.ndarray) -> atari.RamScores:
    """Score the baseline that says that nothing changes."""
    bits = data.bits[data.current]
    return atari.ram_scores(bits.astype(bool), bits, data.bits[data.current + 1], scored)


def rows_to_score(data: AbstractData, rows: int, seed: int) -> AbstractData:
    """Return at most so many transitions to score on, drawn by the seed."""
    if rows >= len(data.current):
        return data
    picked = np.sort(generator(seed, "validation rows").permutation(len(data.current))[:rows])
    return data._replace(action=data.action[picked], current=data.current[picked])


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
    index, partners = drawn_transitions(config, data, seed, step)
    index = shifted_inside(data.current, index, OBJECTIVES[config.objective].horizon) + ahead
    rows = torch.from_numpy(data.current[index])
    return Batch(
        data.frames[rows], data.frames[rows + 1], data.action[index], torch.from_numpy(partners)
    )


def drawn_transitions(
    config: Natural, data: NaturalData, seed: int, step: int, names: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the transitions of a step, and each one's negative partner.

    Args:
        config: Objective and batch size.
        data: Frames and actions.
        seed: Of the run.
        step: Training step.
        names: What tells frames apart; None: their pixels.
    """
    kind = OBJECTIVES[config.objective].sampling
    frames = data.frames.numpy() if names is None else names
    index = batch_indices(data, config.batch, seed, "natural", step, kind=kind, frames=frames)
    return index, derangement(config.batch, generator(seed, "negatives", step))


class NaturalRun(NamedTuple):
    """Which run of some settings it is.

    Attributes:
        arm: A name in `rmr_gym.stages.presets.ARMS`.
        seed: Shared by paired arms.
        donor: Pretrained pipeline, for the arms that need one.
    """

    arm: str
    seed: int
    donor: Artifact | None = None


@stage(version=5)
def natural(
    data: GameData,
    model: AtariModel,
    config: Natural,
    arm: str,
    seed: int,
    donor: Artifact | None = None,
    device: str = "cpu",
    room: Room = NOWHERE,
) -> Artifact:
    """Train the pixel pipeline of one arm and keep it at the checkpoints.

    Source: RMR, section 5, natural pipeline: g(P(f(x), a)) is drawn to f(y).
    Differs: encoder initialisation and input scaling (decisions page, 11a). Training ends early at
    a checkpoint where most slots are dead (11b); the record's ``note`` says so.

    Args:
        data: Frames and actions.
        model: Sizes.
        config: Objective, checkpoints, batch, rate.
        arm: A name in `rmr_gym.stages.presets.ARMS`.
        seed: Shared by paired arms: equal initial encoders and decoders, equal batches.
        donor: Pretrained pipeline, for the arms that need one.
        device: Where to train, for instance "cpu" or "cuda".
        room: Room for unfinished state.

    Returns:
        Tensors ``<step>.encoder.*``, ``<step>.processor.*`` and ``<step>.decoder.*`` of every
        checkpoint; the record holds ``curve``, ``health``, ``note`` and the hashes of P before
        and after.

    Raises:
        RMRError: Unknown arm, missing or misfitting donor, loss that is not a number.
    """
    loaded, place = natural_data(data, model, config), find_device(device)
    pipeline = initial_pipeline(loaded, model, config, NaturalRun(arm, seed, donor))
    pipeline.to(place)
    before = parameter_hash(pipeline.processor)

    def step_at(step: int, _: Phase) -> Step:
        batches = [
            Batch(*(part.to(place) for part in natural_batch(config, loaded, seed, step, ahead)))
            for ahead in range(OBJECTIVES[config.objective].horizon)
        ]
        logs = _mean_terms(config, pipeline, batches)._asdict()
        return Step(logs.pop("loss"), logs)

    checkpoint_at = partial(natural_checkpoint, pipeline, loaded)
    trained = train_phase(config, pipeline, step_at, checkpoint_at, room=room)
    return natural_artifact(arm, pipeline, before, trained)


def initial_pipeline(
    loaded: NaturalData, model: AtariModel, config: Natural, run: NaturalRun
) -> EncodeProcessDecode[SlotCNN, Processor, models.LatentDecoder]:
    """Make an arm's pipeline as it is before training, input statistics included."""
    pretrained = run.donor.part("processor") if run.donor else None
    processor = presets.arm_processor(run.arm, model, run.seed, pretrained)
    pipeline = atari.natural_pipeline(model, processor, run.seed)
    pipeline.encoder.standardise_by(loaded.mean_frame, loaded.deviation)
    pipeline.encoder.precision = config.cnn
    return pipeline


def natural_checkpoint(pipeline: EncodeProcessDecode, data: NaturalData, step: int) -> Checkpoint:
    """Keep the whole pipeline; say stop where most slots are dead."""
    dead = count_dead_slots(pipeline.encoder, data)
    tensors = {f"{step}.{name}": tensor for name, tensor in pipeline.state_dict().items()}
    return Checkpoint(tensors, {"step": step, "dead_slots": dead}, stop=dead > SLOTS // 2)


def natural_artifact(
    arm: str, pipeline: EncodeProcessDecode, before: str, trained: Trained
) -> Artifact:
    """Return what training leaves, after a look at whether a frozen P is what it was."""
    after = parameter_hash(pipeline.processor)
    if presets.find_arm(arm).frozen and after != before:
        raise RuntimeError(f"the frozen P of arm {arm!r} changed in training; this is a bug")
    record = {
        "arm": arm,
        "curve": trained.curve,
        "health": trained.records,
        "note": COLLAPSE.format(arm, trained.records[-1]["step"]) if trained.stopped else None,
        "processor_hash": {"before": before, "after": after},
    }
    return Artifact(record, trained.tensors)


def _mean_terms(
    config: Natural, pipeline: EncodeProcessDecode, batches: list[Batch]
) -> ContrastiveTerms:
    """Predict step after step from the first frames; return the terms' mean over the steps."""
    frames = [batches[0].frames, *(batch.following for batch in batches)]
    states = list(pipeline.encoder(torch.cat(frames)).chunk(len(frames)))
    predicted, terms = states[0], []
    for batch, current, following in zip(batches, states, states[1:], strict=False):
        predicted = pipeline.decoder(pipeline.processor(predicted, batch.action))
        latents = presets.PredictedStep(predicted, current, following, batch.permutation)
        terms.append(OBJECTIVES[config.objective].terms(config, latents))
    return ContrastiveTerms(*(torch.stack(parts).mean() for parts in zip(*terms, strict=True)))


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


@stage(version=4)
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
    place, encoder = find_device(device), _initial_encoder(data, model, config, seed)
    paired = probe_sets(data, model, probing).training
    bits = torch.from_numpy(paired.bits).flatten(1)
    heads = partial(nn.Linear, encoder.slots * model.dim, bits.shape[1])
    read_out = models.build_seeded(heads, seed, "supervised read-out").to(place)
    encoder.to(place)

    def step_at(step: int, phase: Phase) -> Step:
        rng = generator(seed, "supervised", step)
        size = min(phase.batch, len(bits))
        rows = torch.from_numpy(rng.choice(len(bits), size=size, replace=False))
        logits = read_out(encoder(paired.frames[rows].to(place)).flatten(1))
        return Step(F.binary_cross_entropy_with_logits(logits, bits[rows].float().to(place)))

    def checkpoint_at(step: int) -> Checkpoint:
        return Checkpoint(_encoder_tensors(encoder, step), {"step": step})

    both = nn.ModuleList([encoder, read_out])
    trained = train_phase(config, both, step_at, checkpoint_at, room=room)
    record = {"arm": "supervised", "curve": trained.curve, "note": None}
    return Artifact(record, trained.tensors)


@stage(version=1)
def untrained(data: GameData, model: AtariModel, config: Natural, seed: int) -> Artifact:
    """Keep the encoder that the arms of a seed start from, input statistics included, as step 0."""
    encoder = _initial_encoder(data, model, config, seed)
    record = {"arm": "untrained", "curve": [], "note": None}
    return Artifact(record, _encoder_tensors(encoder, 0))


def _initial_encoder(data: GameData, model: AtariModel, config: Natural, seed: int) -> SlotCNN:
    encoder, loaded = atari.pixel_encoder(model, seed), natural_data(data, model, config)
    encoder.standardise_by(loaded.mean_frame, loaded.deviation)
    encoder.precision = config.cnn
    return encoder


def _encoder_tensors(encoder: nn.Module, step: int) -> dict[str, Tensor]:
    return {f"{step}.encoder.{name}": part for name, part in encoder.state_dict().items()}


def kept_steps(artifact: Artifact) -> list[int]:
    """Return the checkpoints that an artifact holds."""
    return sorted({int(name.split(".", 1)[0]) for name in artifact.tensors})


def kept_step(artifact: Artifact, step: int | None) -> int:
    """Return a checkpoint that an artifact holds; None stands for the last.

    Raises:
        RMRError: It does not hold that one.
    """
    return chosen_step(kept_steps(artifact), step)


def chosen_step(kept: list[int], step: int | None) -> int:
    """Return one of the checkpoints that are kept; None stands for the last.

    Raises:
        RMRError: There is no such checkpoint.
    """
    step = kept[-1] if step is None else step
    if step not in kept:
        raise RMRError(f"expected one of the checkpoints {kept} as step, got {step}")
    return step


def kept_encoder(model: AtariModel, artifact: Artifact, step: int) -> SlotCNN:
    """Rebuild the encoder that was kept at a checkpoint."""
    weights = artifact.part(f"{kept_step(artifact, step)}.encoder")
    encoder = atari.pixel_encoder(model, 0)
    load_weights(encoder, weights, f"the encoder at step {step}")
    return encoder


def kept_pipeline(model: AtariModel, artifact: Artifact, step: int) -> EncodeProcessDecode:
    """Rebuild the pipeline that was kept at a checkpoint."""
    weights = artifact.part(str(kept_step(artifact, step)))
    processor = presets.fresh_processor(artifact.record["arm"], model, 0)
    pipeline = atari.natural_pipeline(model, processor, 0)
    load_weights(pipeline, weights, f"the pipeline at step {step}")
    return pipeline
