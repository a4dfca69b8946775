"""The training loop of a stack: as `rmr_gym.protocol.training.train`, for many runs at once."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.stacked import StackedPipeline
from rmr_gym.protocol.training import CURVE_POINTS, DivergedError, Kept, Progress, Trained, keep

Run = TypeVar("Run")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def train_stack(
    stack: StackedPipeline,
    terms_at: Callable[[int], Mapping[str, Tensor]],
    checkpoint_at: Callable[[int, int], Kept],
    *,
    checkpoints: tuple[int, ...],
    learning_rate: float,
    prepare: Callable[[int], object] = lambda step: None,
    progress: Progress | None = None,
) -> list[Trained | DivergedError]:
    """Train every run of a stack with its own batches, its own Adam state and its own end.

    A run whose checkpoint says stop, or whose loss is no number, leaves the stack; the others do
    not notice. What a run leaves equals what it leaves alone, within rounding.

    Args:
        stack: Its frozen weights stay out of the optimizer.
        terms_at: Gives the "loss" of each run that is still there and the figures to log, [runs].
        checkpoint_at: Called with step and run after the run's weights were written back.
        checkpoints: Rising steps; training ends at the last.
        learning_rate: Of Adam.
        prepare: Called with the next step while the device is busy with this one.
        progress: Called after every step.

    Returns:
        What each run leaves, or the error that ended it.
    """
    optimizer = torch.optim.Adam(stack.trainable(), lr=learning_rate, fused=True)
    left: list[Trained | DivergedError] = [Trained() for _ in stack.runs]
    steps = checkpoints[-1]
    log_every = max(1, steps // CURVE_POINTS)
    for step in range(1, steps + 1):
        terms, broken = _gradients(stack, optimizer, terms_at, step, prepare)
        left = [broken.get(run, each) for run, each in enumerate(left)]
        if not stack.runs:
            break
        optimizer.step()
        if step % log_every == 0 or step == 1:
            _log_curves(stack.runs, left, terms, step)
        if step in checkpoints:
            _checkpoint(stack, optimizer, left, checkpoint_at, step)
        if progress:
            progress(step, steps)
        if not stack.runs:
            break
    return left


def _gradients(
    stack: StackedPipeline,
    optimizer: torch.optim.Optimizer,
    terms_at: Callable[[int], Mapping[str, Tensor]],
    step: int,
    prepare: Callable[[int], object],
) -> tuple[Mapping[str, Tensor], dict[int, DivergedError]]:
    """Leave the gradients of a step; runs whose loss is no number fall out, and it is repeated."""
    broken: dict[int, DivergedError] = {}
    terms: Mapping[str, Tensor] = {}
    while stack.runs:
        terms = terms_at(step)
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].sum().backward()
        prepare(step + 1)
        losses = terms["loss"].tolist()
        sound = torch.isfinite(torch.tensor(losses)).tolist()
        if all(sound):
            break
        for run, loss, fine in zip(stack.runs, losses, sound, strict=True):
            if not fine:
                broken[run] = DivergedError(
                    f"the loss became {loss} at step {step}, expected a number: try another seed "
                    "or, from Python, a preset with a lower learning rate; the other runs of its "
                    "stack went on without it"
                )
        stack.keep([row for row, fine in enumerate(sound) if fine], optimizer)
    return terms, broken


def _log_curves(
    runs: Sequence[int],
    left: Sequence[Trained | DivergedError],
    terms: Mapping[str, Tensor],
    step: int,
) -> None:
    values = {name: term.tolist() for name, term in terms.items()}
    for row, run in enumerate(runs):
        trained = left[run]
        assert isinstance(trained, Trained)
        point = {name: column[row] for name, column in values.items()}
        trained.curve.append({"step": step, **point})


def _checkpoint(
    stack: StackedPipeline,
    optimizer: torch.optim.Optimizer,
    left: Sequence[Trained | DivergedError],
    checkpoint_at: Callable[[int, int], Kept],
    step: int,
) -> None:
    stack.write_back()
    going = []
    for row, run in enumerate(stack.runs):
        trained = left[run]
        assert isinstance(trained, Trained)
        keep(checkpoint_at(step, run), trained)
        going += [] if trained.stopped else [row]
    if len(going) < len(stack.runs):
        stack.keep(going, optimizer)


def in_halves(
    train: Callable[[Sequence[Run]], list[Result]], runs: Sequence[Run]
) -> list[tuple[Result, int]]:
    """Train runs as one stack, or as two halves where the device's memory does not hold it.

    Args:
        train: Trains a stack from its beginning; may run out of GPU memory.
        runs: What the stack consists of.

    Returns:
        Result of each run with the size of the stack that it was trained in.

    Raises:
        RMRError: Not even one run fits.
    """
    try:
        return [(result, len(runs)) for result in train(runs)]
    except torch.OutOfMemoryError as error:
        if len(runs) == 1:
            raise RMRError(
                f"the device's memory does not hold a single run ({error}): choose a smaller "
                "batch, smaller frames or another device"
            ) from error
    torch.cuda.empty_cache()
    half = (len(runs) + 1) // 2
    _log.warning(
        "a stack of %d runs does not fit the device's memory: they train in stacks of %d and %d",
        *(len(runs), half, len(runs) - half),
    )
    return in_halves(train, runs[:half]) + in_halves(train, runs[half:])
