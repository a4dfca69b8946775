"""Bouncing balls, natural: a warm start of the perception, then the arms around P."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.data.sampling import batch_indices
from rmr_gym.domains.balls import (
    HISTORY,
    BallsData,
    BallsModel,
    FramePipeline,
    align,
    load_balls,
    make_balls_processor,
    pixel_pipeline,
    still,
    windows,
)
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.processors import PassiveProcessor, load_weights, parameter_hash
from rmr_gym.protocol import balls as abstract_stage
from rmr_gym.protocol.balls import (
    BALLS_PRESETS,
    SPLIT_SEED,
    BallsPreset,
    BallsTask,
    Phase,
    open_balls,
)
from rmr_gym.protocol.balls_natural_presets import PixelPreset
from rmr_gym.protocol.store import Artifact, Scratch, Store, read_artifact
from rmr_gym.protocol.training import Kept, Progress, Step, train
from rmr_gym.stages.arms import ARMS, Arm, prepare
from rmr_gym.stages.presets import as_json

_PROCESSORS: dict[str, Arm] = {
    "rmr": ARMS["rmr"],
    "baseline": ARMS["cswm"],
    "random_p": ARMS["random_p"],
    "shuffled_p": ARMS["shuffled_p"],
    "no_p": ARMS["no_p"],
    "tuned_p": Arm(pretrained=True),
}
ALIGNED = "_aligned"
BALLS_ARMS: dict[str, Arm] = {
    name + start: arm for start in ("", ALIGNED) for name, arm in _PROCESSORS.items()
}
"""Arms by name. ``baseline`` and ``random_p`` start from the same P, only one of them moves;
``tuned_p`` starts from the pretrained P and moves. What ends in ``_aligned`` starts as
`rmr_gym.domains.balls.align` says, all else from the warm start alone."""

DONOR_SEED = 0


@dataclass(frozen=True)
class PixelTask:
    """What a stage must know: the data, the world's balls, how to treat them.

    Attributes:
        data: Folder of a recorded data set with the columns "pixels" and, to score masks, "state".
        store: Folder of finished stages.
        preset: Model, phases.
        balls: Number of balls; slots are as many and the model's spare ones.
        radii: Radius of every ball, or one for all; only used to score masks.
        abstract: How the P that is handed over is trained, on the positions of the same data set;
            its sizes are those of the natural pipeline's P.
        processor: Artifact folder of `rmr-gym balls pretrain` to take P from instead; its world
            should be this one.
        device: Where to train, for instance "cpu" or "cuda".
    """

    data: Path
    store: Path
    preset: PixelPreset
    balls: int
    radii: tuple[float, ...] = (0.15,)
    abstract: BallsPreset = BALLS_PRESETS["laptop"]
    processor: Path | None = None
    device: str = "cpu"


@lru_cache(maxsize=2)
def load_pixels(data: Path, validation_share: float, part: str) -> BallsData:
    """Load the frames of the episodes for "training" or for "validation"."""
    episodes = open_balls(data, validation_share)
    return load_balls(episodes.dataset, getattr(episodes, part), "pixels")


def find_arm(name: str) -> Arm:
    """Return an arm by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    if name not in BALLS_ARMS:
        raise unknown_name("arm", name, BALLS_ARMS)
    return BALLS_ARMS[name]


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
    arm = find_arm(name)
    core = model if arm.core == "configured" else replace(model, core=arm.core)
    processor = make_balls_processor(core, seed, balls)
    prepare(name, arm, processor, pretrained, seed)
    return processor


def train_frames(
    phase: Phase,
    pipeline: FramePipeline,
    data: BallsData,
    *,
    shown_again: int = 0,
    held: bool = False,
    done: int = 0,
    seed: int = 0,
    scratch: Scratch | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Train a pixel pipeline for one phase, on the device that it is on.

    Source: RMR, section 4 and Appendix A (mean squared error of the next frame's pixels, Adam).
    Differs: phases of falling rates, and the warm start.

    Args:
        phase: Steps, rate, batch.
        pipeline: Trained in place; a frozen P stays as it is.
        data: Frames to learn from.
        shown_again: Show so many frames of a clip again, without P (the warm start); 0: predict the
            next.
        held: Leave the slot encoder as it is.
        done: Steps of the phases before, so that no batch comes twice.
        seed: Fixes the batches; shared by paired arms.
        scratch: Room for unfinished state.
        progress: Called after every step.

    Returns:
        The pipeline's tensors; the record holds ``step`` and ``curve``.
    """
    place = next(pipeline.parameters()).device
    before = parameter_hash(pipeline.processor)
    pipeline.encoder.encoder.requires_grad_(not held)
    stream = "still" if shown_again else "pixels"

    def step_at(step: int) -> Step:
        index = batch_indices(data, phase.batch, seed, stream, done + step)
        clip = windows(data, index).to(place)
        past, target = clip[:, :HISTORY], clip[:, HISTORY]
        if shown_again:
            last = past[:, -shown_again:]
            return Step((still(pipeline, last).frame - last.flatten(0, 1)).square().mean(), {})
        return Step((pipeline(past).frame - target).square().mean(), {})

    trained = train(
        pipeline,
        step_at,
        lambda step: Kept({}, {"step": done + step}),
        checkpoints=(phase.steps,),
        learning_rate=phase.learning_rate,
        scratch=scratch,
        progress=progress,
    )
    frozen = not any(parameter.requires_grad for parameter in pipeline.processor.parameters())
    if frozen and parameter_hash(pipeline.processor) != before:
        raise RuntimeError("a frozen P changed in training; this is a bug")
    curve = [{**point, "step": done + point["step"]} for point in trained.curve]
    tensors = {name: tensor.detach().cpu() for name, tensor in pipeline.state_dict().items()}
    return Artifact({"step": done + phase.steps, "curve": curve}, tensors)


def warm_started(task: PixelTask, seed: int, progress: Progress | None = None) -> Artifact:
    """Return encoder and decoder after the warm start, trained now or found in the store."""
    return _after(task, None, seed, task.preset.warm_start, progress)


def trained(task: PixelTask, arm: str, seed: int, progress: Progress | None = None) -> Artifact:
    """Return the pipeline of an arm after all phases, trained now or found in the store.

    Args:
        task: Data, preset.
        arm: A name in `BALLS_ARMS`.
        seed: Shared by paired arms: equal warm starts, equal batches.
        progress: Called after every step of a phase.
    """
    return _after(task, arm, seed, task.preset.phases, progress)


def restored(
    task: PixelTask, arm: str | None, seed: int, before: Artifact | None = None
) -> FramePipeline:
    """Make an arm's pipeline (None: without P) with initial weights or those of an artifact."""
    model, resolution = task.preset.model, pixels_of(task, "training").resolution
    processor = PassiveProcessor(())
    if arm is not None:
        given = donor(task).part("processor") if find_arm(arm).pretrained else None
        processor = arm_processor(arm, model.processor, task.balls, seed, given)
    pipeline = pixel_pipeline(model, processor, seed, resolution=resolution, balls=task.balls)
    if before is not None:
        own = {f"processor.{name}": tensor for name, tensor in processor.state_dict().items()}
        load_weights(pipeline, own | before.tensors, "the pixel pipeline")
    return pipeline.to(find_device(task.device))


def _after(
    task: PixelTask,
    arm: str | None,
    seed: int,
    phases: tuple[Phase, ...],
    progress: Progress | None,
) -> Artifact:
    if not phases:
        return _start(task, arm, seed, progress)
    *earlier, phase = phases

    def run(scratch: Scratch) -> Artifact:
        before = _after(task, arm, seed, tuple(earlier), progress)
        artifact = train_frames(
            phase,
            restored(task, arm, seed, before),
            pixels_of(task, "training"),
            shown_again=_still_frames(task, phases) if arm is None else 0,
            held=arm is not None and len(phases) <= task.preset.held,
            done=before.record["step"],
            seed=seed,
            scratch=scratch,
            progress=progress,
        )
        artifact.record["curve"] = [*before.record["curve"], *artifact.record["curve"]]
        return artifact

    return Store(task.store).get_or_run("balls_natural", stage_key(task, arm, seed, phases), run)


def _still_frames(task: PixelTask, phases: tuple[Phase, ...]) -> int:
    """Return how long the clips of the warm start are in the last of these phases."""
    preset = task.preset
    return HISTORY if len(phases) > len(preset.warm_start) - preset.handed_on else 1


def _start(task: PixelTask, arm: str | None, seed: int, progress: Progress | None) -> Artifact:
    """Return what the first phase starts from: the warm start, or initial weights before that."""
    if arm is not None:
        warm = warm_started(task, seed, progress)
        pipeline = restored(task, arm, seed, warm)
        if arm.endswith(ALIGNED):
            align(pipeline, _position_tensors(task), seed)
        return Artifact({"step": 0, "curve": []}, pipeline.cpu().state_dict())
    return Artifact({"step": 0, "curve": []}, restored(task, None, seed).cpu().state_dict())


def _position_tensors(task: PixelTask) -> dict[str, Tensor]:
    """Return the tensors of the abstract pipeline, if it predicts positions."""
    artifact = donor(task)
    if (predict := artifact.record["model"]["predict"]) != "position":
        raise RMRError(
            f"an aligned start needs an abstract pipeline that predicts the position, found one "
            f"that predicts the {predict}: pretrain it with --predict position"
        )
    return artifact.tensors


def donor(task: PixelTask, progress: Progress | None = None) -> Artifact:
    """Return the abstract pipeline whose P the arms share: read, trained now or found again."""
    if task.processor is not None:
        return read_artifact(task.processor)
    preset = replace(task.abstract, model=task.preset.model.processor)
    world = BallsTask(task.data, task.store, preset, task.radii, task.device)
    return abstract_stage.pretrained(world, DONOR_SEED, progress)


def pixels_of(task: PixelTask, part: str) -> BallsData:
    """Return the frames of the "training" or of the "validation" episodes."""
    return load_pixels(task.data, task.preset.validation_share, part)


def stage_key(
    task: PixelTask, arm: str | None, seed: int, phases: tuple[Phase, ...]
) -> dict[str, Any]:
    """Return everything that an arm's weights after some phases hang on."""
    episodes = open_balls(task.data, task.preset.validation_share)
    pretrained = arm is not None and (find_arm(arm).pretrained or arm.endswith(ALIGNED))
    return {
        "data": episodes.dataset.fingerprint,
        "split": [len(episodes.training), len(episodes.validation), SPLIT_SEED],
        "device": task.device,
        "model": as_json(task.preset.model),
        "balls": task.balls,
        "arm": arm,
        "donor": donor(task).record["processor_hash"] if pretrained else None,
        "warm_start": [as_json(each) for each in task.preset.warm_start] if arm else None,
        "phases": [as_json(each) for each in phases],
        "held": min(task.preset.held, len(phases)) if arm else 0,
        "still": 0 if arm else _still_frames(task, phases),
        "seed": seed,
    }
