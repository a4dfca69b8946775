"""Bouncing balls: P is pretrained on positions, then stands inside a model of frames."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import Checked, RMRError
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.sampling import batch_indices
from rmr_gym.domains import balls as domain
from rmr_gym.domains.balls import HISTORY, BallsData, BallsModel, FramePipeline, PixelModel
from rmr_gym.models.objects import Clip
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.processors import PassiveProcessor, load_weights, parameter_hash
from rmr_gym.runs.store import NOWHERE, Artifact, Room, Task, one_thread, read_artifact, stage
from rmr_gym.runs.training import Checkpoint, Falling, Phase, Step, Trained, ends, train
from rmr_gym.stages import presets
from rmr_gym.stages.games import PRETRAIN_SEED, Recorded, split_by_share

EVALUATION_SEED = 0
"""One set of validation windows for all models and seeds."""

KIND = "balls processor"
"""What the record of a P that was pretrained on positions calls it."""

PARTS = ("training", "validation")
AHEAD, SHOWN = 8, 256
"""Frames of a scored rollout, and training windows that tell whether slots are bound."""

WARM_START, ALIGNED = "warm_start", "_aligned"
BOUND = 0.1
"""Slots that show pixels alone with less of the error of copying are bound to objects."""

BALLS_ARMS: dict[str, presets.Arm] = {
    name + start: arm
    for start in ("", ALIGNED)
    for name, arm in (presets.ARMS | {"tuned_p": presets.Arm(pretrained=True)}).items()
}
"""Arms by name. ``tuned_p`` starts from the pretrained P and moves. What ends in ``_aligned``
starts as `rmr_gym.domains.balls.align` says, all else from the warm start alone."""


@dataclass(frozen=True)
class Evaluation(Checked):
    """How predictions are scored.

    Attributes:
        windows: At most so many validation windows of positions.
        horizon: Instants of a rollout of positions, at least 10.
        frames: At most so many validation windows of frames.
    """

    ranges: ClassVar = {"horizon": f"[{domain.TENTH}, inf)"}

    windows: int = 2000
    horizon: int = 50
    frames: int = 1000


@dataclass(frozen=True)
class WarmStart:
    """How encoder and decoder learn to show a frame again, without P; the arms of a seed share it.

    Attributes:
        phases: One after another.
        handed_on: Number of phases, the last, that show clips of three frames, so that slots learn
            to stay with their object, and in which the error of a pixel is that of every slot's
            picture, weighted by the shares, so that one slot shows it and not a sum of all; the
            others show single frames.
        attempts: At most so many, with other initial weights and batches, until slots are bound:
            until frames in which the slot of the largest share alone shows a pixel have less than
            `BOUND` of the error of copying the frame before.
    """

    phases: tuple[Phase, ...] = ()
    handed_on: int = 0
    attempts: int = 1


@dataclass(frozen=True)
class Prediction:
    """How an arm learns to predict the next frame.

    Attributes:
        phases: One after another.
        held: Number of phases, from the first, in which the slot encoder stays as it is: until the
            rest has found its way around P, its errors would unlearn the slots.
    """

    phases: tuple[Phase, ...]
    held: int = 1


_OF_CHANGES = BallsModel(predict="change", precision="bf16")
_OF_PIXELS = PixelModel(BallsModel(precision="bf16"), precision="bf16")
_LONG_PRETRAINING = (Phase(2500), Phase(1000, 3e-4), Phase(500, 1e-4))
_LONG_WARM_START = WarmStart(
    (Falling(500, 2e-3, 32, warmup=100), Falling(400, 1e-3, 12, warmup=100, end=0.1)), 1, attempts=5
)
_LONG_PREDICTION = Prediction(
    (Phase(100, 1e-4, 32), Phase(300, 5e-4, 32), Phase(500, 5e-4, 32), Phase(200, 1e-4, 32)),
    held=2,
)


@dataclass(frozen=True)
class BallsPreset:
    """Everything that fixes a run on bouncing balls but data and seeds.

    Attributes:
        preset: smoke, quick, laptop or paper.
        model: Sizes of the abstract pipeline.
        phases: How it is trained.
        pixels: Sizes of the natural pipeline; its P, and the abstract pipeline that this P comes
            from, have those of ``pixels.processor``.
        warm_start: How the natural pipeline learns to show frames.
        prediction: How it then learns to predict them.
        evaluation: How both are scored.
        validation_share: Share of the episodes that only scores are computed on.
    """

    preset: str = "laptop"
    model: BallsModel = _OF_CHANGES
    phases: tuple[Phase, ...] = _LONG_PRETRAINING
    pixels: PixelModel = _OF_PIXELS
    warm_start: WarmStart = _LONG_WARM_START
    prediction: Prediction = _LONG_PREDICTION
    evaluation: Evaluation = field(default_factory=Evaluation)
    validation_share: float = 0.1

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes.

        Raises:
            RMRError: There is no such preset.
        """
        return vars(presets.find_preset(BALLS_PRESETS, name))


BALLS_PRESETS = presets.read_presets("balls", BallsPreset)


@dataclass(frozen=True)
class RecordedBalls(Recorded):
    """A data set of balls and how it is split; it counts by its content, not by its folder.

    Attributes:
        label: Name of the world.
        path: Folder of the data set.
        validation_share: Share of the episodes that only scores are computed on.
        radii: Radius of every ball, or one for all; walls stop centres at 1 minus it.
    """

    label: str
    path: Path
    validation_share: float = 0.1
    radii: tuple[float, ...] = (0.15,)

    def split(self, dataset: TransitionDataset) -> tuple[list[int], list[int]]:
        """Return the episodes to train on, and those that only scores are computed on."""
        return split_by_share(dataset, self.validation_share)

    def key(self) -> dict[str, Any]:
        """Return what decides results: the content, the split and the radii."""
        return super().key() | {"radii": list(self.radii)}

    @property
    def balls(self) -> int:
        """Number of balls."""
        return self.open().dataset.manifest.columns["state"].shape[0]

    @property
    def walls(self) -> domain.Walls:
        """Largest coordinate that each ball's centre can have.

        Raises:
            RMRError: Neither one radius nor one a ball.
        """
        if len(self.radii) not in (1, self.balls):
            raise RMRError(
                f"expected one radius or {self.balls}, one a ball, found {len(self.radii)}"
            )
        return 1 - torch.tensor(self.radii, dtype=torch.float32).expand(self.balls)[:, None]

    def positions(self, part: str, ahead: int = 1) -> BallsData:
        """Load the positions of the "training" or the "validation" episodes."""
        return _loaded(self, part, "state", ahead)

    def frames(self, part: str) -> BallsData:
        """Load the frames of the "training" or the "validation" episodes."""
        return _loaded(self, part, "pixels", 1)

    def summary(self) -> dict[str, Any]:
        """Return what run.json and cards say of the data."""
        manifest = self.open().dataset.manifest
        return super().summary() | {"env_id": manifest.env_id, "options": manifest.env_kwargs}


@lru_cache(maxsize=4)
def _loaded(data: RecordedBalls, part: str, column: str, ahead: int) -> BallsData:
    episodes = data.open()
    return domain.load_balls(episodes.dataset, getattr(episodes, part), column, ahead)


@stage(version=3)
def pretrain_balls(
    data: RecordedBalls,
    model: BallsModel,
    phases: tuple[Phase, ...],
    seed: int = PRETRAIN_SEED,
    device: str = "cpu",
    room: Room = NOWHERE,
) -> Artifact:
    """Train the abstract pipeline to predict positions.

    Source: RMR, section 4 and Appendix A (mean squared error of the next positions, Adam).
    Differs: phases of falling rates, and rollouts of several instants where a phase has them.

    Args:
        data: Positions to learn from and to score on.
        model: Sizes.
        phases: One after another.
        seed: Fixes initial weights and batches.
        device: Where to train, for instance "cpu" or "cuda".
        room: Room for unfinished state.

    Returns:
        Tensors ``encoder.*``, ``processor.*``, ``decoder.*``; the record holds ``curve``,
        ``processor_hash`` and, by phase, ``rows`` with the errors on training and validation
        windows.
    """
    place = find_device(device)
    parts = {
        ahead: [_on(place, data.positions(part, ahead)) for part in PARTS]
        for ahead in {phase.unroll for phase in phases}
    }
    ahead_at = dict(zip(ends(phases), (phase.unroll for phase in phases), strict=True))
    slots = parts[phases[0].unroll][0].slots
    pipeline = domain.abstract_pipeline(model, seed, slots).to(place)
    predict = partial(domain.next_positions, pipeline)

    def step_at(step: int, phase: Phase) -> Step:
        training, _ = parts[phase.unroll]
        index = batch_indices(training, phase.batch, seed, "balls", step)
        return Step(domain.rollout_loss(predict, domain.windows(training, index, phase.unroll)))

    def checkpoint_at(step: int) -> Checkpoint:
        errors = [one_step_error(predict, part) for part in parts[ahead_at[step]]]
        named = {f"{name}_mse": error for name, error in zip(PARTS, errors, strict=True)}
        return Checkpoint({}, {"step": step, **named})

    trained = train(pipeline, step_at, checkpoint_at, phases=phases, room=room)
    record = {
        "kind": KIND,
        "step": ends(phases)[-1],
        "seed": seed,
        "slots": slots,
        "model": presets.as_json(model),
        "rows": trained.records,
        "curve": trained.curve,
        "processor_hash": parameter_hash(pipeline.processor),
    }
    return Artifact(record, _tensors(pipeline))


def _on(place: torch.device, data: BallsData) -> BallsData:
    return data._replace(seen=data.seen.to(place))


def _tensors(pipeline: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in pipeline.state_dict().items()}


@torch.no_grad()
def one_step_error(predict: domain.Predictor, data: BallsData, count: int = 10_000) -> float:
    """Return the mean squared error of the next positions over windows drawn once for all."""
    errors = [
        (domain.rollout_loss(predict, window) * len(window)).item()
        for window in domain.drawn_windows(data, count, 1, EVALUATION_SEED)
    ]
    return sum(errors) / min(count, len(data.current))


def kept_positions(artifact: Artifact) -> domain.PositionPipeline:
    """Rebuild the abstract pipeline that an artifact holds."""
    record = artifact.record
    pipeline = domain.abstract_pipeline(BallsModel(**record["model"]), 0, record["slots"])
    load_weights(pipeline, artifact.tensors, "the pretrained pipeline")
    return pipeline


class BallsFolder(NamedTuple):
    """A folder with an abstract pipeline, which counts by its weights and not by its path.

    Attributes:
        path: Folder of `rmr-gym pretrain` on a data set of balls.
    """

    path: Path

    @property
    def label(self) -> str:
        """Its name in titles."""
        return self.path.name

    def read(self) -> Artifact:
        """Return what it holds.

        Raises:
            RMRError: It is missing or holds something else.
        """
        artifact = read_artifact(self.path)
        if artifact.record.get("kind") != KIND:
            raise RMRError(
                f"{self.path} holds no {KIND}: expected a folder from `rmr-gym pretrain` on a data "
                "set of balls"
            )
        return artifact

    def key(self) -> list[Any]:
        """Return the sizes and the hash of the weights."""
        artifact = self.read()
        return [artifact.record["model"], parameter_hash(kept_positions(artifact))]


@stage(version=1)
def given_balls(folder: BallsFolder) -> Artifact:
    """Read an abstract pipeline from a folder, to be scored or used as a donor."""
    return folder.read()


REFERENCE = "reflected"
"""The baseline that errors are divided by."""

_DESCRIBED = ("predict", "aggregation", "dim", "seed", "step", "training_mse", "validation_mse")


@stage(version=2)
def rollout_scores(
    data: RecordedBalls, evaluation: Evaluation, pipeline: Artifact | None = None
) -> Artifact:
    """Roll a pretrained pipeline out on validation windows and score it.

    Args:
        data: Validation episodes.
        evaluation: How many windows and instants.
        pipeline: What is scored; None for what it stands beside: the simulator's own trajectories,
            whose energy drift, taken from displacements too, is what the others' must be read
            against, and the baselines.

    Returns:
        The record's ``rows``: model, scores, and ``ratio_1`` and ``ratio_10``, the errors over
        those of linear extrapolation with reflection at the walls.
    """
    rollers = domain.baselines(data.walls)
    rows: dict[str, dict[str, Any]] = {
        name: dict.fromkeys(_DESCRIBED, "") for name in ("simulator", *rollers)
    }
    if pipeline is not None:
        predict = partial(domain.next_positions, kept_positions(pipeline).eval())
        record = pipeline.record
        known = record["model"] | record | record["rows"][-1]
        rows = {known["core"]: {name: known[name] for name in _DESCRIBED}}
        rollers |= {name: partial(domain.rollout, predict) for name in rows}
    scores = score_rollers(rollers, data, evaluation)
    reference = scores[REFERENCE]
    for name, row in rows.items():
        row.update(scores[name])
        row.update({f"ratio_{n}": row[f"mse_{n}"] / reference[f"mse_{n}"] for n in (1, 10)})
    return Artifact({"rows": [{"model": name} | row for name, row in rows.items()]})


def score_rollers(
    rollers: Mapping[str, domain.Roller], data: RecordedBalls, evaluation: Evaluation
) -> dict[str, dict[str, float]]:
    """Roll every model out from the same windows; return scores by its name, "simulator" first."""
    count, horizon = evaluation.windows, evaluation.horizon
    positions = data.positions("validation", horizon)
    batches = domain.drawn_windows(positions, count, horizon, EVALUATION_SEED)
    past, future = torch.cat(batches).split([HISTORY, horizon], dim=1)
    predicted = {"simulator": future}
    with torch.no_grad():
        for name, roll in rollers.items():
            predicted[name] = torch.cat([roll(few[:, :HISTORY], horizon) for few in batches])
    return {
        name: domain.score_rollouts(past, frames, future, data.walls)._asdict()
        for name, frames in predicted.items()
    }


def arm_processor(
    name: str, model: BallsModel, balls: int, seed: int, pretrained: dict[str, Tensor] | None
) -> nn.Module:
    """Make P of an arm.

    Args:
        name: A name in `BALLS_ARMS`.
        model: Sizes and core.
        balls: Number of balls.
        seed: Fixes a fresh P and the permutation of a shuffled one.
        pretrained: State dict of an abstract P, for the arms that need one.

    Raises:
        RMRError: Unknown arm, missing P, or one of other sizes.
    """
    processor = _fresh_processor(name, model, balls, seed)
    arm = presets.find_arm(name, BALLS_ARMS)
    presets.prepare_processor(name, arm, processor, pretrained, seed)
    return processor


def _fresh_processor(name: str, model: BallsModel, balls: int, seed: int) -> PassiveProcessor:
    arm = presets.find_arm(name, BALLS_ARMS)
    core = model if arm.core == "configured" else replace(model, core=arm.core)
    return domain.make_balls_processor(core, seed, balls)


def frame_pipeline(
    data: RecordedBalls, model: PixelModel, seed: int, processor: nn.Module | None = None
) -> FramePipeline:
    """Make the pipeline on the frames of some data; None: without P."""
    processor = PassiveProcessor(()) if processor is None else processor
    sizes = {"resolution": data.frames("training").resolution, "balls": data.balls}
    return domain.pixel_pipeline(model, processor, seed, **sizes)


@stage(version=4)
def warm_start(
    data: RecordedBalls,
    model: PixelModel,
    config: WarmStart,
    seed: int,
    device: str = "cpu",
    room: Room = NOWHERE,
) -> Artifact:
    """Train encoder and decoder to show frames again, without P.

    Source: none; RMR trains everything at once.

    Args:
        data: Frames to learn from.
        model: Sizes.
        config: Phases and attempts.
        seed: Fixes initial weights and batches of all attempts.
        device: Where to train.
        room: Room for unfinished state.

    Returns:
        The tensors of the attempt whose slots show pixels best alone; the record holds ``step``,
        ``curve``, ``alone`` (their error over that of copying, on training frames) and
        ``attempts``.
    """
    made: list[Artifact] = []
    while not made or (len(made) < config.attempts and made[-1].record["alone"] >= BOUND):
        own = room.folder and room.folder / str(len(made))
        drawn = integer_seed(seed, f"attempt {len(made)}") if made else seed
        made.append(_attempt(data, model, config, drawn, device, replace(room, folder=own)))
    best = min(made, key=lambda artifact: artifact.record["alone"])
    return replace(best, record=best.record | {"seed": seed, "attempts": len(made)})


def _attempt(
    data: RecordedBalls, model: PixelModel, config: WarmStart, seed: int, device: str, room: Room
) -> Artifact:
    pipeline = frame_pipeline(data, model, seed).to(find_device(device))
    alone = sum(phase.steps for phase in config.phases[: len(config.phases) - config.handed_on])

    def loss_at(step: int, clip: Clip) -> Tensor:
        last = clip[:, HISTORY - (HISTORY if step > alone else 1) : HISTORY]
        decoded, frames = domain.still(pipeline, last), last.flatten(0, 1)
        if step <= alone:
            return (decoded.frame - frames).square().mean()
        errors = (decoded.pictures - frames[:, None]).square().mean(dim=-1)
        return (decoded.masks * errors).sum(dim=1).mean()

    facts, frames = {"arm": None, "seed": seed}, data.frames("training")
    artifact = _train_frames(pipeline, data, config.phases, facts, loss_at, room)
    error = domain.alone_error(pipeline.eval(), frames, scored_windows(frames, SHOWN))
    return replace(artifact, record=artifact.record | {"alone": error})


@stage(version=3)
def natural_balls(
    data: RecordedBalls,
    model: PixelModel,
    config: Prediction,
    arm: str,
    seed: int,
    start: Artifact,
    donor: Artifact | None = None,
    device: str = "cpu",
    room: Room = NOWHERE,
) -> Artifact:
    """Train the pixel pipeline of one arm to predict the next frame.

    Source: RMR, section 4 and Appendix A (mean squared error of the next frame's pixels, Adam).
    Differs: phases of falling rates, and the warm start.

    Args:
        data: Frames to learn from.
        model: Sizes.
        config: Phases.
        arm: A name in `BALLS_ARMS`.
        seed: Shared by paired arms: equal warm starts, equal batches.
        start: The warm start of the seed.
        donor: Abstract pipeline, for the arms that need one.
        device: Where to train.
        room: Room for unfinished state.

    Returns:
        The pipeline's tensors; the record holds ``arm``, ``seed``, ``step`` and ``curve``.

    Raises:
        RMRError: Unknown arm, missing or misfitting donor, loss that is not a number.
    """
    pretrained = donor.part("processor") if donor else None
    processor = arm_processor(arm, model.processor, data.balls, seed, pretrained)
    pipeline = frame_pipeline(data, model, seed, processor)
    own = {f"processor.{name}": tensor for name, tensor in processor.state_dict().items()}
    load_weights(pipeline, own | start.tensors, "the warm start")
    if arm.endswith(ALIGNED):
        domain.align(pipeline, _position_tensors(donor), seed)
    pipeline.to(find_device(device))
    before = parameter_hash(processor)

    def loss_at(_: int, clip: Clip) -> Tensor:
        return (pipeline(clip[:, :HISTORY]).frame - clip[:, HISTORY]).square().mean()

    def hold(phase: int) -> None:
        pipeline.encoder.encoder.requires_grad_(phase >= config.held)

    facts = {"arm": arm, "seed": seed}
    artifact = _train_frames(pipeline, data, config.phases, facts, loss_at, room, hold)
    if presets.find_arm(arm, BALLS_ARMS).frozen and parameter_hash(processor) != before:
        raise RuntimeError(f"the frozen P of arm {arm!r} changed in training; this is a bug")
    return artifact


def _train_frames(
    pipeline: FramePipeline,
    data: RecordedBalls,
    phases: Sequence[Phase],
    facts: dict[str, Any],
    loss_at: Callable[[int, Clip], Tensor],
    room: Room,
    begin: Callable[[int], object] = lambda phase: None,
) -> Artifact:
    """Train on windows of frames; the seed in the facts fixes them, equal for all arms."""
    frames, place = data.frames("training"), next(pipeline.parameters()).device
    stream = "pixels" if facts["arm"] else "still"

    def step_at(step: int, phase: Phase) -> Step:
        index = batch_indices(frames, phase.batch, facts["seed"], stream, step)
        return Step(loss_at(step, domain.windows(frames, index).to(place)))

    trained = Trained()
    if phases:
        trained = train(pipeline, step_at, phases=phases, begin=begin, room=room)
    record = facts | {"step": sum(phase.steps for phase in phases), "curve": trained.curve}
    return Artifact(record, _tensors(pipeline))


def _position_tensors(donor: Artifact | None) -> dict[str, Tensor]:
    """Return the tensors of the abstract pipeline, if it predicts positions."""
    if donor is None:
        raise RMRError("an aligned start needs an abstract pipeline: pretrain one first")
    if (predict := donor.record["model"]["predict"]) != "position":
        raise RMRError(
            f"an aligned start needs an abstract pipeline that predicts the position, found one "
            f"that predicts the {predict}: pretrain it with --model.predict position"
        )
    return donor.tensors


def kept_frames(data: RecordedBalls, model: PixelModel, artifact: Artifact) -> FramePipeline:
    """Rebuild the pixel pipeline that an artifact holds, with P where it has one."""
    arm = artifact.record["arm"]
    processor = arm and _fresh_processor(arm, model.processor, data.balls, 0)
    pipeline = frame_pipeline(data, model, 0, processor)
    load_weights(pipeline, artifact.tensors, "the pixel pipeline")
    return pipeline


@stage(version=3)
def frame_scores(
    data: RecordedBalls,
    model: PixelModel,
    evaluation: Evaluation,
    trained: Artifact,
    device: str = "cpu",
) -> Artifact:
    """Score a trained arm, or a warm start, on validation windows.

    A warm start shows the last frame again, so its ``mse`` is that of a frame it has seen.

    Returns:
        The record's ``rows`` holds one row.
    """
    frames, arm = data.frames("validation"), trained.record["arm"]
    index = scored_windows(frames, evaluation.frames)
    pipeline = kept_frames(data, model, trained).to(find_device(device)).eval()
    truth = true_masks(data, evaluation.frames)
    scores = domain.score_frames(pipeline, frames, index, truth, again=arm is None)
    row = {"arm": arm or WARM_START, "step": trained.record["step"], **scores._asdict()}
    row |= {name: trained.record.get(name, "") for name in ("alone", "attempts")}
    if arm is not None:
        longer = np.intersect1d(index, domain.windows_ahead(frames, AHEAD))
        errors = domain.score_imagined(pipeline, frames, longer, AHEAD)
        row |= dict(zip(("rollout_mse", "rollout_copy_mse"), errors, strict=True))
    return Artifact({"rows": [row]})


def scored_windows(data: BallsData, count: int) -> np.ndarray:
    """Return the windows that scores are taken on, drawn once for all models and seeds."""
    order = generator(EVALUATION_SEED, "pixel windows").permutation(len(data.current))
    return np.sort(order[:count])


def true_masks(data: RecordedBalls, count: int) -> UInt8[np.ndarray, "chosen height width"]:
    """Return the owners of the pixels that the scored windows predict, from the states."""
    frames = data.frames("validation")
    rows = frames.current[scored_windows(frames, count)] + 1
    positions = data.positions("validation").seen[rows].numpy()
    return domain.owners(positions, 1 - data.walls.numpy()[:, 0], frames.resolution)


class Imagined(NamedTuple):
    """Rollouts of one arm beside the truth, colours in [0, 1]."""

    past: Float[np.ndarray, "rows time height width 3"]
    predicted: Float[np.ndarray, "rows steps height width 3"]
    truth: Float[np.ndarray, "rows steps height width 3"]
    masks: Float[np.ndarray, "rows steps slots height width"]


@one_thread()
def imagined(
    data: RecordedBalls, model: PixelModel, trained: Artifact, count: int, steps: int
) -> Imagined:
    """Roll a trained arm out from the middle of validation episodes.

    Raises:
        RMRError: No validation episode is long enough.
    """
    frames = data.frames("validation")
    following = domain.windows_ahead(frames, steps)
    index = following[np.linspace(0, len(following) - 1, count + 2).astype(int)[1:-1]]
    clip = domain.windows(frames, index, steps)
    past, truth = clip[:, :HISTORY], clip[:, HISTORY:]
    predicted, masks = domain.imagine(kept_frames(data, model, trained).eval(), past, steps)
    return Imagined(*(part.numpy() for part in (past, predicted, truth, masks)))


@dataclass(frozen=True)
class BallsWorld:
    """A world of balls under a preset: its stages as tasks.

    Attributes:
        data: Its data set and split.
        preset: Configurations of the stages.
        device: Where to compute, for instance "cpu" or "cuda".
    """

    data: RecordedBalls
    preset: BallsPreset
    device: str = "cpu"

    def pretrained(self, seed: int = PRETRAIN_SEED, model: BallsModel | None = None) -> Task:
        """Return the task of the abstract pipeline; of the preset's sizes, or of others."""
        model = model or self.preset.model
        return pretrain_balls(self.data, model, self.preset.phases, seed, self.device)

    def rolled_out(self, pipeline: Task | None = None) -> Task:
        """Return the task of the scores of a pipeline's rollouts; None: of the baselines'."""
        return rollout_scores(self.data, self.preset.evaluation, pipeline)

    def started(self, seed: int) -> Task:
        """Return the task of a seed's warm start."""
        preset = self.preset
        return warm_start(self.data, preset.pixels, preset.warm_start, seed, self.device)

    def trained(self, arm: str, seed: int, donor: Task | None = None) -> Task:
        """Return the task of an arm's pixel pipeline.

        Args:
            arm: A name in `BALLS_ARMS`.
            seed: Shared by paired arms.
            donor: Whose P is used; None: one that is pretrained on the same data set.

        Raises:
            RMRError: Unknown arm.
        """
        preset = self.preset
        needed = presets.find_arm(arm, BALLS_ARMS).pretrained or arm.endswith(ALIGNED)
        own = self.pretrained(model=preset.pixels.processor) if donor is None else donor
        configs = (preset.pixels, preset.prediction, arm, seed)
        donors = (self.started(seed), own if needed else None)
        return natural_balls(self.data, *configs, *donors, self.device)

    def scored(self, trained: Task) -> Task:
        """Return the task of the scores of an arm or of a warm start."""
        preset = self.preset
        return frame_scores(self.data, preset.pixels, preset.evaluation, trained, self.device)
