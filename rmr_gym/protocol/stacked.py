"""Stage 2 for many runs at once: one recipient, different seeds, donors and arms."""

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import SLOTS, AtariModel, NaturalData, natural_pipeline
from rmr_gym.models.rmr.encoders import SlotCNN
from rmr_gym.models.rmr.losses import ContrastiveTerms
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, find_device
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.models.rmr.stacked import StackedPipeline, kind
from rmr_gym.protocol.arms import arm_processor, find_arm
from rmr_gym.protocol.config import Natural
from rmr_gym.protocol.feeding import Feed, Frames
from rmr_gym.protocol.natural import OBJECTIVES, Latents, count_dead_slots
from rmr_gym.protocol.stacked_training import in_halves, train_stack
from rmr_gym.protocol.store import Artifact
from rmr_gym.protocol.training import DivergedError, Kept, Progress


class NaturalRun(NamedTuple):
    """One run of a stack.

    Attributes:
        arm: A name in `rmr_gym.protocol.arms.ARMS`.
        seed: Shared by paired arms.
        pretrained: State dict of the donor's processor, for the arms that need one.
    """

    arm: str
    seed: int
    pretrained: dict[str, Tensor] | None = None


def can_stack(config: Natural, model: AtariModel) -> bool:
    """Tell whether runs of these settings can train as one stack."""
    objective = OBJECTIVES[config.objective]
    return objective.horizon == 1 and not objective.aligned and model.core != "interaction"


def train_natural_stack(
    config: Natural,
    model: AtariModel,
    data: NaturalData,
    runs: Sequence[NaturalRun],
    *,
    frames: Frames | None = None,
    device: str = "cpu",
    cnn: str = "fp32",
    progress: Progress | None = None,
) -> list[Artifact | DivergedError]:
    """Train many runs as one and return of each what `train_natural` returns.

    Batches, initial weights, Adam and the ends of collapsed runs are those of the runs alone. Only
    the order of additions inside convolutions and products differs: in float64 gradients agree to
    1e-9 of their size, in float32 losses to about 1e-4 of theirs over the first steps; after that
    rounding grows with training, as it does between two machines.

    A stack that the device's memory does not hold trains in halves; `Artifact.record` says in
    ``stacked`` how many runs trained together, how many were meant to, and their seconds.

    Args:
        config: Objective, checkpoints, batch, rate.
        model: Sizes.
        data: Frames and actions of the recipient.
        runs: Arms, seeds and donors.
        frames: The same frames on the device already; by default those of ``data`` go there.
        device: Where to train.
        cnn: Convolutions in "fp32", or "bf16" with channels last.
        progress: Called after every step of a stack.

    Returns:
        One artifact a run, in the order of ``runs``; the error of a run whose loss was no number.

    Raises:
        RMRError: No run, unknown arm, missing or misfitting donor, settings that cannot be
            stacked, not even one run fits the device.
    """
    if not runs or not can_stack(config, model):
        raise RMRError(
            f"a stack needs one run or more of an objective that can be stacked, got {len(runs)} "
            f"of {config.objective!r} with core {model.core!r}: train such runs one by one"
        )
    place = find_device(device)
    frames = frames or Frames(data.frames.to(place))
    by_kind = sorted(range(len(runs)), key=lambda index: _neighbours(model, runs[index]))
    train = partial(_train, config, model, data, frames, place, cnn, progress)
    found = in_halves(train, [runs[index] for index in by_kind])
    artifacts: dict[int, Artifact | DivergedError] = {}
    for index, (artifact, size) in zip(by_kind, found, strict=True):
        artifacts[index] = artifact
        if isinstance(artifact, Artifact):
            artifact.record["stacked"] |= {"runs": size, "meant": len(runs)}
    return [artifacts[index] for index in range(len(runs))]


def _neighbours(model: AtariModel, run: NaturalRun) -> tuple[str, ...]:
    """Order runs so that those of one kind, and among them those of one P, are neighbours."""
    processor = arm_processor(run.arm, model, run.seed, run.pretrained)
    return (*map(str, kind(processor)), parameter_hash(processor))


def _pipeline(model: AtariModel, data: NaturalData, run: NaturalRun) -> EncodeProcessDecode:
    processor = arm_processor(run.arm, model, run.seed, run.pretrained)
    pipeline = natural_pipeline(model, processor, run.seed)
    assert isinstance(pipeline.encoder, SlotCNN)
    pipeline.encoder.standardise_by(data.mean_frame, data.deviation)
    return pipeline


def _train(
    config: Natural,
    model: AtariModel,
    data: NaturalData,
    frames: Frames,
    place: torch.device,
    cnn: str,
    progress: Progress | None,
    runs: Sequence[NaturalRun],
) -> list[Artifact | DivergedError]:
    started, objective = time.perf_counter(), OBJECTIVES[config.objective]
    pipelines = [_pipeline(model, data, run).to(place) for run in runs]
    before = [parameter_hash(pipeline.processor) for pipeline in pipelines]
    stack = StackedPipeline(pipelines, cnn)
    feed = Feed(config, data, [run.seed for run in runs])
    actions = data.action.to(place)

    def terms_of(*latents: Tensor) -> ContrastiveTerms:
        return objective.terms(config, Latents(*latents))

    def terms_at(step: int) -> dict[str, Tensor]:
        rows, action, permutation = (part[stack.runs].to(place) for part in feed.rows(step))
        both = torch.cat([rows, rows + 1], dim=1)
        latents = stack.encoder(frames.at(both.T).transpose(0, 1))
        current, following = latents.chunk(2, dim=1)
        predicted = stack.decoder(stack.process(current, actions[action]))
        terms = torch.vmap(terms_of)(predicted, current, following, permutation)
        return terms._asdict()

    def checkpoint_at(step: int, run: int) -> Kept:
        encoder = pipelines[run].encoder
        dead = count_dead_slots(encoder, data)
        tensors = {f"{step}.{name}": value for name, value in encoder.state_dict().items()}
        return Kept(tensors, {"step": step, "dead_slots": dead}, stop=dead > SLOTS // 2)

    results = train_stack(
        stack,
        terms_at,
        checkpoint_at,
        checkpoints=config.checkpoints,
        learning_rate=config.learning_rate,
        prepare=feed.rows,
        progress=progress,
    )
    seconds = time.perf_counter() - started
    artifacts: list[Artifact | DivergedError] = []
    for run, pipeline, first, trained in zip(runs, pipelines, before, results, strict=True):
        if isinstance(trained, DivergedError):
            artifacts.append(trained)
            continue
        after = parameter_hash(pipeline.processor)
        if find_arm(run.arm).frozen and after != first:
            raise RuntimeError(f"the frozen P of arm {run.arm!r} changed; this is a bug")
        record = {
            "arm": run.arm,
            "curve": trained.curve,
            "health": trained.records,
            "collapsed_at": trained.records[-1]["step"] if trained.stopped else None,
            "processor_hash": {"before": first, "after": after},
            "seconds": seconds / len(runs),
            "stacked": {"seconds": seconds},
        }
        artifacts.append(Artifact(record, trained.tensors))
    return artifacts
