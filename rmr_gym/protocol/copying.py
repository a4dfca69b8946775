"""The copying task: train RIMs or an LSTM on short spans, and test on longer ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from rmr_gym.core.errors import unknown_name
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains.copying import (
    TOKENS,
    CopyingBatch,
    CopyingScores,
    copying_batch,
    copying_loss,
    score_copying,
)
from rmr_gym.models.rmr.pipeline import build, find_device, torch_generator
from rmr_gym.models.world.rims import TokenLSTM, TokenRIMs
from rmr_gym.protocol.copying_presets import CopyingPreset
from rmr_gym.protocol.store import Artifact, Scratch, Store
from rmr_gym.protocol.training import Kept, Progress, Step, train
from rmr_gym.stages.presets import as_json

TEST_SEED = 0
"""One set of test sequences a span for all models and seeds."""

ROW = ("model", "active", "seed", "step", "span", "dropped", "cross_entropy", "accuracy")
"""Columns of the results; ``active`` is 0 for the LSTM, ``dropped`` is -1 where no RIM is."""

Maker = Callable[[CopyingPreset], nn.Module]
COPYING_MODELS: dict[str, Maker] = {
    "rims": lambda preset: TokenRIMs(TOKENS, preset.embedding, preset.sizes),
    "lstm": lambda preset: TokenLSTM(TOKENS, preset.embedding, preset.lstm_units),
}
"""Makers of models of tokens by name."""


@dataclass(frozen=True)
class CopyingTask:
    """What a run must know beside model and seed.

    Attributes:
        store: Folder of finished stages.
        preset: Task, sizes, training.
        device: Where to compute, for instance "cpu" or "cuda".
    """

    store: Path
    preset: CopyingPreset
    device: str = "cpu"


def trained(
    task: CopyingTask, model: str, seed: int = 0, progress: Progress | None = None
) -> Artifact:
    """Return a model after training, trained now or found in the store.

    The record holds ``curve`` and ``rows``; the tensors are ``model.*`` and, for RIMs and each test
    span, ``activity.SPAN``: the share of the test sequences in which each RIM is active, by
    instant, and ``pattern.SPAN``: whether it is in the first of them.

    Raises:
        RMRError: There is no such model or device, or the loss is not a number.
    """
    make = find_model(model)

    def run(scratch: Scratch) -> Artifact:
        return train_copying(task, make, model, seed, scratch, progress)

    preset = as_json(task.preset)
    del preset["name"], preset["lstm_units" if model == "rims" else "sizes"]
    key = {"preset": preset, "model": model, "seed": seed, "device": task.device}
    return Store(task.store).get_or_run("copying_task", key, run)


def train_copying(
    task: CopyingTask,
    make: Maker,
    name: str,
    seed: int,
    scratch: Scratch | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Train a model on the copying task and test it on several spans.

    Source: RIMs, section 4.1.1 and Appendix C.5: Adam 1e-3, gradient clipped to 1, batch 64.
    Differs: every batch is drawn anew and every sequence starts from a state of 0; the authors'
    code draws again and again from 200 batches an epoch and starts from the state in which the
    batch before ended. The loss is that of all instants, as in the code.

    Args:
        task: Preset and device.
        make: Makes the model.
        name: Of the model, for the rows.
        seed: Fixes initial weights, batches and dropout.
        scratch: Room for unfinished state.
        progress: Called after every step.
    """
    trial = _Trial(task, make, name, seed)
    with clipped_gradients(task.preset.clip):
        done = train(
            trial.model,
            trial.step_at,
            trial.checkpoint_at,
            checkpoints=task.preset.checkpoints,
            learning_rate=task.preset.learning_rate,
            scratch=scratch,
            progress=progress,
        )
    rows = [row for record in done.records for row in record["rows"]]
    tensors = {f"model.{key}": tensor.cpu() for key, tensor in trial.model.state_dict().items()}
    record = {"rows": rows + trial.rows_without(), "curve": done.curve}
    return Artifact(record | {"preset": as_json(task.preset)}, tensors | trial.activity())


class _Trial:
    """One model with what it is trained and tested on."""

    def __init__(self, task: CopyingTask, make: Maker, name: str, seed: int):
        self.preset, self.place = task.preset, find_device(task.device)
        self.name, self.seed = name, seed
        initial = torch_generator(integer_seed(seed, "copying model"))
        self.model = build(lambda: make(task.preset), initial).to(self.place).train()

    def step_at(self, step: int) -> Step:
        noise = torch.Generator(self.place)
        noise.manual_seed(integer_seed(self.seed, "copying dropout", step))
        rng = generator(self.seed, "copying", step)
        inputs, targets = self._batch(rng, self.preset.batch, self.preset.span)
        return Step(copying_loss(self.model(inputs, noise).logits, targets), {})

    def checkpoint_at(self, step: int) -> Kept:
        return Kept({}, {"rows": [self._row(step, span) for span in self.preset.test_spans]})

    def rows_without(self) -> list[dict[str, Any]]:
        """Return the scores of the trained model without each of its RIMs in turn."""
        rims = self.preset.sizes.rims
        if not isinstance(self.model, TokenRIMs) or rims == 1:
            return []
        rows = []
        for rim in range(rims):
            self.model.cell.drop([rim])
            last = self.preset.checkpoints[-1]
            rows += [self._row(last, span, rim) for span in self.preset.test_spans]
        self.model.cell.drop()
        return rows

    def activity(self) -> dict[str, Tensor]:
        """Return which RIMs are active, by test span."""
        if not isinstance(self.model, TokenRIMs):
            return {}
        tensors = {}
        for span in self.preset.test_spans:
            _, active = self._scored(span)
            tensors[f"activity.{span}"] = active.float().mean(dim=0)
            tensors[f"pattern.{span}"] = active[0].to(torch.uint8)
        return tensors

    def _row(self, step: int, span: int, dropped: int = -1) -> dict[str, Any]:
        active = self.preset.sizes.active if isinstance(self.model, TokenRIMs) else 0
        scores, _ = self._scored(span)
        facts = (self.name, active, self.seed, step, span, dropped, *scores)
        return dict(zip(ROW, facts, strict=True))

    def _scored(self, span: int) -> tuple[CopyingScores, Tensor]:
        rng = generator(TEST_SEED, "copying test", span)
        data = self._batch(rng, self.preset.sequences, span)
        return score_copying(self.model, data, self.preset.digits, torch.Generator(self.place))

    def _batch(self, rng: np.random.Generator, batch: int, span: int) -> CopyingBatch:
        data = copying_batch(rng, batch, span, self.preset.digits)
        return CopyingBatch(*(part.to(self.place) for part in data))


@contextmanager
def clipped_gradients(norm: float) -> Iterator[None]:
    """Inside the ``with`` block, shorten gradients to ``norm`` before any optimizer's step."""

    def clip(optimizer: Optimizer, arguments: Any, options: Any) -> None:
        del arguments, options
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        clip_grad_norm_(parameters, norm)

    handle = register_optimizer_step_pre_hook(clip)
    try:
        yield
    finally:
        handle.remove()


def find_model(name: str) -> Maker:
    """Return the maker of a model of tokens.

    Raises:
        RMRError: There is no such model.
    """
    if name not in COPYING_MODELS:
        raise unknown_name("model", name, COPYING_MODELS)
    return COPYING_MODELS[name]
