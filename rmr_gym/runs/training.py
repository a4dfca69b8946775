"""The one training loop: phases, clipping, checkpoints, early stop, curves, resume, NaN guard."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import cos, inf, pi
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rmr_gym.core.errors import Checked, RMRError
from rmr_gym.runs.store import NOWHERE, Artifact, Room

SAVE_EVERY_SECONDS = 60.0
CURVE_POINTS = 100


class DivergedError(RMRError):
    """The loss stopped being a number."""


@dataclass(frozen=True)
class Phase(Checked):
    """A stretch of training; Adam starts anew with each.

    Attributes:
        steps: Gradient steps.
        learning_rate: Of Adam.
        batch: Rows a step.
        unroll: Instants that are predicted, each from those before, and compared with the truth.
    """

    ranges: ClassVar = {"learning_rate": "(0, inf)"}

    steps: int
    learning_rate: float = 1e-3
    batch: int = 128
    unroll: int = 1

    def rate(self, step: int) -> float:
        """Return the rate at a step of the phase, from 1."""
        return self.learning_rate


@dataclass(frozen=True)
class Falling(Phase):
    """A stretch of training whose rate rises, and then falls along a cosine.

    Attributes:
        warmup: Steps over which the rate rises to ``learning_rate``.
        end: Share of it that is left at the last step, down to which it follows a cosine.
    """

    ranges: ClassVar = {**Phase.ranges, "warmup": "[0, inf)", "end": "[0, 1]"}

    warmup: int = 0
    end: float = 1.0

    def rate(self, step: int) -> float:
        """Return the rate at a step of the phase, from 1."""
        fall = (1 - self.end) * (1 - cos(pi * step / self.steps)) / 2
        return self.learning_rate * min(1.0, step / max(1, self.warmup)) * (1 - fall)


def check_checkpoints(checkpoints: Sequence[int], steps: int | None = None) -> None:
    """Make sure that checkpoints rise from 1 or more and, if it is given, end at a step.

    Raises:
        RMRError: They do not.
    """
    rising = list(checkpoints) == sorted({0, *checkpoints})[1:]
    if not checkpoints or not rising or checkpoints[-1] != (steps or checkpoints[-1]):
        end = "" if steps is None else f" that end at {steps}"
        raise RMRError(f"checkpoints must be rising steps from 1{end}, got {tuple(checkpoints)}")


class Step(NamedTuple):
    """The loss of one gradient step and the figures to log beside it."""

    loss: Tensor
    logs: Mapping[str, Tensor] = {}


class Checkpoint(NamedTuple):
    """What a checkpoint leaves.

    Attributes:
        tensors: By name; where all checkpoints are kept, the names tell the step.
        record: Figures of this checkpoint.
        stop: Whether training should end here.
        score: What decides which checkpoint is the best, the lower the better.
    """

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    stop: bool = False
    score: float = 0.0


@dataclass
class Trained:
    """What training leaves: the curve, records of every checkpoint, tensors of those kept.

    Attributes:
        curve: Loss and logged figures, about `CURVE_POINTS` of them.
        records: One a checkpoint.
        tensors: Of all checkpoints, of the last or of the best one, as was asked for.
        scores: One a checkpoint.
        stopped: Whether it ended before its last step.
    """

    curve: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    stopped: bool = False

    @property
    def best(self) -> dict[str, Any]:
        """Record of the checkpoint of the lowest score, the first of equals."""
        return self.records[self.scores.index(min(self.scores))]

    def add(self, checkpoint: Checkpoint, keep: str, patience: int | None = None) -> None:
        """Take in what a checkpoint leaves."""
        best = not self.scores or checkpoint.score < min(self.scores)
        self.records.append(checkpoint.record)
        self.scores.append(checkpoint.score)
        if keep != "best" or best:
            self.tensors = (self.tensors if keep == "all" else {}) | {
                name: tensor.detach().cpu().clone() for name, tensor in checkpoint.tensors.items()
            }
        waited = len(self.scores) - 1 - self.scores.index(min(self.scores))
        self.stopped = checkpoint.stop or (patience is not None and waited >= patience)


StepAt = Callable[[int, Phase], Step]
CheckpointAt = Callable[[int], Checkpoint]


def train_phase(
    config: Any, model: nn.Module, step_at: StepAt, checkpoint_at: CheckpointAt, **options: Any
) -> Trained:
    """Train in the one ``phase`` of a configuration, up to the last of its ``checkpoints``.

    Args:
        config: Has both.
        model: As for `train`, like all that follow.
        step_at: Gives the loss of a gradient step.
        checkpoint_at: Called after each checkpoint's step.
        **options: Further arguments of `train`.
    """
    phases, checkpoints = [config.phase], config.checkpoints
    return train(model, step_at, checkpoint_at, phases=phases, checkpoints=checkpoints, **options)


def train(
    model: nn.Module,
    step_at: StepAt,
    checkpoint_at: CheckpointAt = lambda step: Checkpoint({}, {"step": step}),
    *,
    phases: Sequence[Phase],
    checkpoints: Sequence[int] = (),
    keep: Literal["all", "last", "best"] = "all",
    patience: int | None = None,
    clip: float | None = None,
    begin: Callable[[int], object] = lambda phase: None,
    room: Room = NOWHERE,
) -> Trained:
    """Train the parameters of ``model`` that require gradients, with Adam.

    ``step_at(step, phase)`` must be a function of the step and the weights alone; then a run that
    was killed and resumed from ``room`` ends with the same bytes as an unbroken one.

    Args:
        model: Its frozen parameters stay out of the optimizer.
        step_at: Gives the loss of gradient step 1, 2, ..., counted over all phases.
        checkpoint_at: Called after each checkpoint's step; default: records the step alone.
        phases: One after another; Adam starts anew with each.
        checkpoints: Rising steps; the last is that of the last phase; none: the ends of phases.
        keep: Tensors of which checkpoints are kept: all, the last or the one of the lowest score.
        patience: Training ends after so many checkpoints without a lower score; None: never.
        clip: Largest norm of the gradient; None: any.
        begin: Called with the number of a phase, from 0, before its optimizer is made; what it
            changes in the model (which parts learn) must hang on that number alone.
        room: Where unfinished state is kept (about once a minute, and at checkpoints), and who is
            told of each step.

    Raises:
        DivergedError: If the loss is not finite; what was kept before stays in ``room``.
    """
    steps, checkpoints = sum(phase.steps for phase in phases), checkpoints or ends(phases)
    check_checkpoints(checkpoints, steps)
    log_every = max(1, steps // CURVE_POINTS)
    training = _Training(model, begin, phases, room)
    trained, saved = training.resume(), time.monotonic()
    while training.step < steps and not trained.stopped:
        phase = training.next_step()
        values = training.update(step_at(training.step, phase), clip)
        step = training.step
        if step % log_every == 0 or step == 1:
            trained.curve.append({"step": step, **values})
        if step in checkpoints:
            trained.add(checkpoint_at(step), keep, patience)
        if step in checkpoints or time.monotonic() - saved > SAVE_EVERY_SECONDS:
            training.save(trained)
            saved = time.monotonic()
        if room.progress:
            room.progress(step, steps)
    return trained


def ends(phases: Sequence[Phase]) -> tuple[int, ...]:
    """Return the last step of each phase, counted over all."""
    return tuple(accumulate(phase.steps for phase in phases))


class _Training:
    """Model, optimizer of the present phase, and the step that was reached."""

    def __init__(
        self, model: nn.Module, begin: Callable[[int], object], phases: Sequence[Phase], room: Room
    ):
        self.model, self.begin, self.phases, self.room = model, begin, phases, room
        self.ends = ends(phases)
        self.step, self.phase = 0, -1

    def next_step(self) -> Phase:
        """Go one step on, into the next phase where the present one has ended."""
        self.step += 1
        if self.phase < 0 or self.step > self.ends[self.phase]:
            self._enter(self.phase + 1)
        return self.phases[self.phase]

    def _enter(self, phase: int) -> None:
        self.phase = phase
        self.begin(phase)
        self.trainable = [p for p in self.model.parameters() if p.requires_grad]
        rate = self.phases[phase].learning_rate
        self.optimizer = torch.optim.Adam(self.trainable, lr=rate, fused=True)

    def update(self, current: Step, clip: float | None) -> dict[str, float]:
        """Make a gradient step; return its loss and the figures to log."""
        loss = current.loss.item()
        if error := diverged(loss, self.step):
            raise error
        phase = self.phases[self.phase]
        rate = phase.rate(self.step - self.ends[self.phase] + phase.steps)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        current.loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(self.trainable, clip)
        self.optimizer.step()
        return {"loss": loss, **{name: value.item() for name, value in current.logs.items()}}

    def save(self, trained: Trained) -> None:
        """Keep the state, so that a run that is killed now goes on from here."""
        if self.room.folder is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"kept.{name}": tensor for name, tensor in trained.tensors.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
        names = ("curve", "records", "scores", "stopped")
        record = {name: getattr(trained, name) for name in names}
        self.room.save(Artifact(record | {"step": self.step, "phase": self.phase}, tensors))

    def resume(self) -> Trained:
        """Take up the state that was kept; return what training had left by then."""
        state = self.room.load()
        if state is None:
            return Trained()
        record = dict(state.record)
        self.step, phase = int(record.pop("step")), int(record.pop("phase"))
        self._enter(phase)
        self.model.load_state_dict(state.part("model"))
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.part("optimizer").items():
            index, key = name.split(".", 1)
            states.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})
        return Trained(tensors=state.part("kept"), **record)


def diverged(
    loss: float, step: int, beside: str = "earlier checkpoints are kept"
) -> DivergedError | None:
    """Return the error of a loss that is no number, or None."""
    if abs(loss) < inf:
        return None
    return DivergedError(
        f"the loss became {loss} at step {step}, expected a number: try another seed or a lower "
        f"learning rate; {beside}"
    )
