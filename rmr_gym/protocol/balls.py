"""Bouncing balls, abstract: pretrain P on the positions of the balls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.sampling import batch_indices, split_episodes
from rmr_gym.domains import balls
from rmr_gym.domains.balls import BallsData, BallsModel, PositionPipeline, Predictor
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.processors import load_weights, parameter_hash
from rmr_gym.protocol.store import Artifact, Scratch, Store
from rmr_gym.protocol.training import Kept, Progress, Step, train
from rmr_gym.stages.presets import as_json

SPLIT_SEED = EVALUATION_SEED = 0
"""One split and one set of validation windows for all models and seeds."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one rate; Adam starts anew with each.

    Attributes:
        steps: Gradient steps.
        learning_rate: Of Adam.
        batch: Windows a step.
        unroll: Instants that are predicted, each from those before, and compared with the truth.
    """

    steps: int
    learning_rate: float = 1e-3
    batch: int = 128
    unroll: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.unroll) < 1 or self.learning_rate <= 0:
            raise RMRError(
                f"a phase needs steps, batch and unroll of 1 or more and a rate above 0, got {self}"
            )


@dataclass(frozen=True)
class Evaluation:
    """How rollouts are scored.

    Attributes:
        windows: At most so many validation windows.
        horizon: Instants of a rollout, at least 10.
    """

    windows: int = 2000
    horizon: int = 50

    def __post_init__(self) -> None:
        if self.windows < 1 or self.horizon < balls.TENTH:
            raise RMRError(
                f"windows must be 1 or more and horizon {balls.TENTH} or more, got {self}"
            )


@dataclass(frozen=True)
class BallsPreset:
    """Everything that fixes a run on bouncing balls but data and seeds.

    Attributes:
        name: In `BALLS_PRESETS`.
        phases: How the abstract pipeline is trained.
        model: Sizes.
        evaluation: How it is scored.
        validation_share: Share of the episodes that only scores are computed on.
    """

    name: str
    phases: tuple[Phase, ...]
    model: BallsModel = field(default_factory=BallsModel)
    evaluation: Evaluation = field(default_factory=Evaluation)
    validation_share: float = 0.1


BALLS_PRESETS: dict[str, BallsPreset] = {
    "smoke": BallsPreset(
        name="smoke",
        phases=(Phase(60, batch=32), Phase(20, learning_rate=2e-4, batch=32)),
        model=BallsModel(dim=32, predict="change"),
        evaluation=Evaluation(windows=100, horizon=20),
    ),
    "quick": BallsPreset(
        name="quick",
        phases=(Phase(800), Phase(200, 3e-4)),
        model=BallsModel(predict="change", precision="bf16"),
    ),
    "laptop": BallsPreset(
        name="laptop",
        phases=(Phase(2500), Phase(1000, 3e-4), Phase(500, 1e-4)),
        model=BallsModel(predict="change", precision="bf16"),
    ),
    "paper": BallsPreset(name="paper", phases=(Phase(200_000, learning_rate=1e-4, batch=512),)),
}
"""Presets by name. "paper" follows RMR, Appendix A, whose 10,000 epochs are of unknown length."""


def find_balls_preset(name: str) -> BallsPreset:
    """Return a preset by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    if name not in BALLS_PRESETS:
        raise unknown_name("preset", name, BALLS_PRESETS)
    return BALLS_PRESETS[name]


@dataclass(frozen=True)
class BallsTask:
    """What a stage must know: where the data are, how large the balls, how to treat them.

    Attributes:
        data: Folder of a recorded data set with a column "state".
        store: Folder of finished stages.
        preset: Model, phases, evaluation.
        radii: Radius of every ball, or one for all; walls stop centres at 1 minus it.
        device: Where to train, for instance "cpu" or "cuda".
    """

    data: Path
    store: Path
    preset: BallsPreset
    radii: tuple[float, ...] = (0.15,)
    device: str = "cpu"

    def part(self, part: str, ahead: int) -> BallsData:
        """Return the positions of the episodes for "training" or for "validation"."""
        return load_part(self.data, self.preset.validation_share, part, ahead)

    def data_key(self) -> dict[str, Any]:
        """Return what of the data decides a result, for the store."""
        episodes = open_balls(self.data, self.preset.validation_share)
        return {
            "data": episodes.dataset.fingerprint,
            "split": [len(episodes.training), len(episodes.validation), SPLIT_SEED],
            "device": self.device,
        }


class BallsEpisodes(NamedTuple):
    """A data set split by episode."""

    dataset: TransitionDataset
    training: list[int]
    validation: list[int]


@lru_cache(maxsize=2)
def open_balls(data: Path, validation_share: float) -> BallsEpisodes:
    """Open and split a data set.

    Raises:
        RMRError: Fewer than two episodes.
    """
    dataset = TransitionDataset(data)
    count = len(dataset.episodes)
    if count < 2:
        raise RMRError(
            f"expected 2 episodes or more in {data}, to train on one and hold out another, found "
            f"{count}: record more"
        )
    validation = max(1, round(count * validation_share))
    training, held_out = split_episodes(dataset, count - validation, validation, SPLIT_SEED)
    return BallsEpisodes(dataset, training, held_out)


@lru_cache(maxsize=4)
def load_part(data: Path, validation_share: float, part: str, ahead: int) -> BallsData:
    """Load the positions of the episodes for "training" or for "validation"."""
    episodes = open_balls(data, validation_share)
    return balls.load_balls(episodes.dataset, getattr(episodes, part), ahead=ahead)


def pretrained(task: BallsTask, seed: int = 0, progress: Progress | None = None) -> Artifact:
    """Return the abstract pipeline after all phases, trained now or found in the store.

    A phase that is finished is never repeated, whatever phases follow it.
    """
    return _after(task, seed, task.preset.phases, progress)


def _after(
    task: BallsTask, seed: int, phases: tuple[Phase, ...], progress: Progress | None
) -> Artifact:
    *earlier, phase = phases

    def run(scratch: Scratch) -> Artifact:
        return train_phase(
            phase,
            task.preset.model,
            *(task.part(part, phase.unroll) for part in ("training", "validation")),
            seed=seed,
            before=_after(task, seed, tuple(earlier), progress) if earlier else None,
            device=task.device,
            scratch=scratch,
            progress=progress and partial(_report, progress, task.preset.phases, len(earlier)),
        )

    key = task.data_key() | {
        "model": as_json(task.preset.model),
        "phases": [as_json(each) for each in phases],
        "seed": seed,
    }
    return Store(task.store).get_or_run("balls_pretrain", key, run)


def _report(
    progress: Progress, phases: tuple[Phase, ...], current: int, done: int, total: int
) -> None:
    """Tell the progress of phase ``current`` as that of all phases."""
    del total
    steps = [phase.steps for phase in phases]
    progress(sum(steps[:current]) + done, sum(steps))


def train_phase(
    phase: Phase,
    model: BallsModel,
    training: BallsData,
    validation: BallsData,
    *,
    seed: int = 0,
    before: Artifact | None = None,
    device: str = "cpu",
    scratch: Scratch | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Train the abstract pipeline for one phase.

    Source: RMR, section 4 and Appendix A (mean squared error of the next positions, Adam).
    Differs: phases of falling rates, and rollouts of several instants where a phase has them.

    Args:
        phase: Steps, rate, batch, unroll.
        model: Sizes.
        training: Windows to learn from, with ``phase.unroll`` instants ahead.
        validation: Windows to score on, likewise.
        seed: Fixes initial weights and batches.
        before: What the phase before left; None for initial weights.
        device: Where to train.
        scratch: Room for unfinished state.
        progress: Called after every step.

    Returns:
        Tensors ``encoder.*``, ``processor.*``, ``decoder.*``; the record holds ``curve`` and, by
        phase, ``rows`` with the errors on training and validation windows.
    """
    place = find_device(device)
    pipeline = restored(model, before, training.slots, seed).to(place)
    predict, done = partial(balls.next_positions, pipeline), before.record["step"] if before else 0
    training, validation = (
        data._replace(seen=data.seen.to(place)) for data in (training, validation)
    )

    def step_at(step: int) -> Step:
        index = batch_indices(training, phase.batch, seed, "balls", done + step)
        window = balls.windows(training, index, phase.unroll)
        return Step(balls.rollout_loss(predict, window), {})

    def checkpoint_at(step: int) -> Kept:
        errors = {
            f"{name}_mse": one_step_error(predict, data)
            for name, data in (("training", training), ("validation", validation))
        }
        return Kept({}, {"step": done + step, **errors})

    trained = train(
        pipeline,
        step_at,
        checkpoint_at,
        checkpoints=(phase.steps,),
        learning_rate=phase.learning_rate,
        scratch=scratch,
        progress=progress,
    )
    curve = [{**point, "step": done + point["step"]} for point in trained.curve]
    earlier = before.record if before else {"rows": [], "curve": []}
    record = {
        "step": done + phase.steps,
        "seed": seed,
        "slots": training.slots,
        "model": as_json(model),
        "rows": [*earlier["rows"], *trained.records],
        "curve": [*earlier["curve"], *curve],
        "processor_hash": parameter_hash(pipeline.processor),
    }
    tensors = {name: tensor.detach().cpu() for name, tensor in pipeline.state_dict().items()}
    return Artifact(record, tensors)


def restored(
    model: BallsModel, artifact: Artifact | None, slots: int, seed: int = 0
) -> PositionPipeline:
    """Rebuild the pipeline that an artifact holds, or make one with initial weights."""
    pipeline = balls.abstract_pipeline(model, seed, slots)
    if artifact is not None:
        load_weights(pipeline, artifact.tensors, "the pretrained pipeline")
    return pipeline


@torch.no_grad()
def one_step_error(predict: Predictor, data: BallsData, count: int = 10_000) -> float:
    """Return the mean squared error of the next positions over windows drawn once for all."""
    errors = [
        (balls.rollout_loss(predict, window) * len(window)).item()
        for window in balls.drawn_windows(data, count, 1, EVALUATION_SEED)
    ]
    return sum(errors) / min(count, len(data.current))


def wall_positions(radii: Sequence[float], slots: int) -> Float[Tensor, "slots 1"]:
    """Return the largest coordinate that each ball's centre can have.

    Raises:
        RMRError: Neither one radius nor one a ball.
    """
    if len(radii) not in (1, slots):
        raise RMRError(f"expected one radius or {slots}, one a ball, found {len(radii)}")
    return 1 - torch.tensor(radii, dtype=torch.float32).expand(slots)[:, None]
