"""The copying task: train RIMs or an LSTM on short spans, and test them on longer ones."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from rmr_gym.core.errors import RMRError, check_counts, known_name
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains import copying as domain
from rmr_gym.models.rmr.pipeline import build_seeded, find_device
from rmr_gym.models.world.rims import RIMSizes, TokenLSTM, TokenRIMs
from rmr_gym.runs.store import NOWHERE, Artifact, Room, stage
from rmr_gym.runs.training import Checkpoint, Phase, Step, check_checkpoints, train
from rmr_gym.stages.presets import find_preset, read_presets

TEST_SEED = 0
"""One set of test sequences a span for all models and seeds."""


@dataclass(frozen=True)
class Copying:
    """The task and how a model is trained on it.

    Attributes:
        checkpoints: Steps at which the model is scored; training ends at the last.
        digits: Number of digits to copy.
        span: Blanks between the digits and the marker in training.
        test_spans: The same in tests.
        batch: Sequences a step.
        learning_rate: Of Adam.
        clip: Largest norm of the gradient.
        sequences: Number of test sequences of each span.
        embedding: Width of a token's embedding.
    """

    checkpoints: tuple[int, ...] = tuple(range(2000, 30001, 2000))
    digits: int = 10
    span: int = 50
    test_spans: tuple[int, ...] = (50, 200)
    batch: int = 64
    learning_rate: float = 1e-3
    clip: float = 1.0
    sequences: int = 1024
    embedding: int = 600

    def __post_init__(self) -> None:
        check_checkpoints(self.checkpoints)
        if not self.test_spans or min(self.span, *self.test_spans) < 0:
            raise RMRError(
                f"spans must be 0 or more, and there must be one to test, got {self.span} and "
                f"{self.test_spans}"
            )
        least = min(self.digits, self.batch, self.sequences, self.embedding)
        if least < 1 or min(self.learning_rate, self.clip) <= 0:
            raise RMRError(
                "digits, batch, sequences and widths must be 1 or more, rate and clip above 0, got "
                f"{self}"
            )


@dataclass(frozen=True)
class LSTMSizes:
    """Sizes of the baseline.

    Attributes:
        units: Width of its state.
    """

    units: int = 600

    def __post_init__(self) -> None:
        check_counts(self)


Sizes = RIMSizes | LSTMSizes


@dataclass(frozen=True)
class CopyingPreset:
    """Everything that fixes a run of the copying task but the seeds.

    Attributes:
        preset: smoke, laptop or paper.
        task: The task and how models are trained on it.
        rims: Sizes of the RIMs.
        lstm: Sizes of the LSTM.
    """

    preset: str = "laptop"
    task: Copying = field(default_factory=Copying)
    rims: RIMSizes = field(default_factory=RIMSizes)
    lstm: LSTMSizes = field(default_factory=LSTMSizes)

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes.

        Raises:
            RMRError: There is no such preset.
        """
        return vars(find_preset(COPYING_PRESETS, name))


COPYING_PRESETS = read_presets("copying", CopyingPreset)

Maker = Callable[[int, Any], nn.Module]
COPYING_MODELS: dict[str, Maker] = {
    "rims": partial(TokenRIMs, domain.TOKENS),
    "lstm": lambda embedding, sizes: TokenLSTM(domain.TOKENS, embedding, sizes.units),
}
"""Makers of models of tokens by name, from the width of an embedding and their own sizes; the
sizes are those of the preset's field of the same name."""


@stage(version=3)
def copying(
    task: Copying,
    model: str,
    sizes: Sizes,
    seed: int,
    device: str = "cpu",
    room: Room = NOWHERE,
) -> Artifact:
    """Train a model on the copying task and test it on several spans.

    Source: RIMs, section 4.1.1 and Appendix C.5: Adam 1e-3, gradient clipped to 1, batch 64.
    Differs: every batch is drawn anew and every sequence starts from a state of 0; the authors'
    code draws again and again from 200 batches an epoch and starts from the state in which the
    batch before ended. The loss is that of all instants, as in the code.

    Args:
        task: What is trained and tested.
        model: A name in `COPYING_MODELS`.
        sizes: Of the model.
        seed: Fixes initial weights, batches and dropout.
        device: Where to compute.
        room: Room for unfinished state.

    Returns:
        Tensors ``model.*`` and, for RIMs and each test span, ``activity.SPAN``: the share of the
        test sequences in which each RIM is active, by instant, and ``pattern.SPAN``: whether it is
        in the first of them. The record holds ``curve`` and ``rows``, those without each of the
        RIMs in turn too (``dropped``; -1: none is).

    Raises:
        RMRError: There is no such model or device, or the loss is not a number.
    """
    place, make = find_device(device), COPYING_MODELS[known_name("model", model, COPYING_MODELS)]
    learner = build_seeded(lambda: make(task.embedding, sizes), seed, "copying model")
    learner.to(place).train()

    def step_at(step: int, phase: Phase) -> Step:
        noise = torch.Generator(place).manual_seed(integer_seed(seed, "copying dropout", step))
        rng = generator(seed, "copying", step)
        inputs, targets = _batch(rng, phase.batch, task.span, task.digits, place)
        return Step(domain.copying_loss(learner(inputs, noise).logits, targets))

    trained = train(
        learner,
        step_at,
        lambda step: Checkpoint({}, {"rows": _rows(learner, task, step)}),
        phases=[Phase(task.checkpoints[-1], task.learning_rate, task.batch)],
        checkpoints=task.checkpoints,
        clip=task.clip,
        room=room,
    )
    rows = [row for record in trained.records for row in record["rows"]]
    tensors = {f"model.{name}": tensor.cpu() for name, tensor in learner.state_dict().items()}
    if isinstance(learner, TokenRIMs):
        rows += _rows_without(learner, task)
        tensors |= _activity(learner, task)
    return Artifact({"rows": rows, "curve": trained.curve}, tensors)


def _batch(
    rng: np.random.Generator, batch: int, span: int, digits: int, place: torch.device
) -> domain.CopyingBatch:
    return domain.CopyingBatch(
        *(part.to(place) for part in domain.copying_batch(rng, batch, span, digits))
    )


def _rows(learner: nn.Module, task: Copying, step: int, dropped: int = -1) -> list[dict[str, Any]]:
    """Score a model on every test span."""
    return [
        {"step": step, "span": span, "dropped": dropped} | _scored(learner, task, span)[0]._asdict()
        for span in task.test_spans
    ]


def _rows_without(learner: TokenRIMs, task: Copying) -> list[dict[str, Any]]:
    """Score the trained model without each of its RIMs in turn."""
    rims, rows = learner.cell.sizes.rims, []
    for rim in range(rims if rims > 1 else 0):
        learner.cell.drop([rim])
        rows += _rows(learner, task, task.checkpoints[-1], rim)
    learner.cell.drop()
    return rows


def _activity(learner: nn.Module, task: Copying) -> dict[str, Any]:
    """Return which RIMs are active, by test span."""
    tensors = {}
    for span in task.test_spans:
        _, active = _scored(learner, task, span)
        tensors[f"activity.{span}"] = active.float().mean(dim=0)
        tensors[f"pattern.{span}"] = active[0].to(torch.uint8)
    return tensors


def _scored(learner: nn.Module, task: Copying, span: int) -> Any:
    place = next(learner.parameters()).device
    rng = generator(TEST_SEED, "copying test", span)
    data = _batch(rng, task.sequences, span, task.digits, place)
    return domain.score_copying(learner, data, task.digits, torch.Generator(place))
