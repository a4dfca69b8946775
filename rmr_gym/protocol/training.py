"""The training loop that every stage shares: checkpoints, curves, resume, NaN guard."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.store import Artifact, Scratch

Progress = Callable[[int, int], None]
"""Called as progress(done, total)."""

SAVE_EVERY_SECONDS = 60.0
CURVE_POINTS = 100


class DivergedError(RMRError):
    """The loss stopped being a number."""


class Step(NamedTuple):
    """The loss of one gradient step and the figures to log beside it."""

    loss: Tensor
    logs: Mapping[str, Tensor]


class Kept(NamedTuple):
    """What a checkpoint leaves: tensors, one record, and whether training should end here."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    stop: bool = False


@dataclass
class Trained:
    """What training leaves: the curve, and tensors and records of every checkpoint."""

    curve: list[dict[str, float]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    stopped: bool = False


def train(
    model: nn.Module,
    step_at: Callable[[int], Step],
    checkpoint_at: Callable[[int], Kept],
    *,
    checkpoints: tuple[int, ...],
    learning_rate: float,
    scratch: Scratch | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the parameters of ``model`` that require gradients, with Adam.

    ``step_at(step)`` must be a function of the step and the weights alone; then a run that was
    killed and resumed from ``scratch`` ends with the same bytes as an unbroken one.

    Args:
        model: Its frozen parameters stay out of the optimizer.
        step_at: Gives the loss of gradient step 1, 2, ...
        checkpoint_at: Called after each checkpoint's step; names its tensors by itself.
        checkpoints: Rising steps; training ends at the last.
        learning_rate: Of Adam.
        scratch: Where unfinished state is kept (about once a minute, and at checkpoints).
        progress: Called after every step.

    Raises:
        DivergedError: If the loss is not finite; what was kept before stays in ``scratch``.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=learning_rate, fused=True)
    done, trained = _resume(scratch, model, optimizer)
    steps, saved = checkpoints[-1], time.monotonic()
    log_every = max(1, steps // CURVE_POINTS)
    for step in range(done + 1, steps + 1):
        if trained.stopped:
            break
        values = _update(step_at(step), optimizer, step)
        if step % log_every == 0 or step == 1:
            trained.curve.append({"step": step, **values})
        if step in checkpoints:
            keep(checkpoint_at(step), trained)
        if scratch and (step in checkpoints or time.monotonic() - saved > SAVE_EVERY_SECONDS):
            scratch.save(_state(step, model, optimizer, trained))
            saved = time.monotonic()
        if progress:
            progress(step, steps)
    return trained


def _update(current: Step, optimizer: torch.optim.Optimizer, step: int) -> dict[str, float]:
    if not torch.isfinite(current.loss):
        raise DivergedError(
            f"the loss became {current.loss.item()} at step {step}, expected a number: try another "
            "seed or, from Python, a preset with a lower learning rate; checkpoints kept before "
            "that step are still there"
        )
    optimizer.zero_grad(set_to_none=True)
    current.loss.backward()
    optimizer.step()
    logs = {name: float(value) for name, value in current.logs.items()}
    return {"loss": current.loss.item(), **logs}


def keep(kept: Kept, trained: Trained) -> None:
    """Add what a checkpoint leaves to what training leaves."""
    trained.tensors.update(
        {name: tensor.detach().cpu().clone() for name, tensor in kept.tensors.items()}
    )
    trained.records.append(kept.record)
    trained.stopped = kept.stop


def _state(
    step: int, model: nn.Module, optimizer: torch.optim.Optimizer, trained: Trained
) -> Artifact:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"kept.{name}": tensor for name, tensor in trained.tensors.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in slots.items()}
    record = {
        "step": step,
        "curve": trained.curve,
        "records": trained.records,
        "stopped": trained.stopped,
    }
    return Artifact(record, tensors)


def _resume(
    scratch: Scratch | None, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, Trained]:
    state = scratch.load() if scratch else None
    if state is None:
        return 0, Trained()
    model.load_state_dict(state.part("model"))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.part("optimizer").items():
        index, key = name.split(".", 1)
        slots.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    record = state.record
    trained = Trained(record["curve"], record["records"], state.part("kept"), record["stopped"])
    return int(record["step"]), trained
