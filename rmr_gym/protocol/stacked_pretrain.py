"""Stage 1 for many runs at once: abstract pipelines of several games and seeds."""

import time
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rmr_gym.core.errors import RMRError
from rmr_gym.data.sampling import batch_indices
from rmr_gym.domains.atari import AbstractData, AtariModel, abstract_pipeline
from rmr_gym.models.rmr.decoders import RamLogits
from rmr_gym.models.rmr.losses import ram_loss
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.stacked import StackedPipeline
from rmr_gym.protocol.config import Pretraining
from rmr_gym.protocol.pretrain import copy_scores, finished, score, scored_part
from rmr_gym.protocol.stacked_training import in_halves, train_stack
from rmr_gym.protocol.store import Artifact
from rmr_gym.protocol.training import DivergedError, Kept, Progress


class AbstractRun(NamedTuple):
    """One run of a stack; see `rmr_gym.protocol.pretrain.pretrain`.

    Attributes:
        training: Transitions to learn from.
        validation: Transitions to score on.
        slots: RAM cells that count in the scores.
        seed: Fixes initial weights and batches.
    """

    training: AbstractData
    validation: AbstractData
    slots: np.ndarray
    seed: int


def pretrain_stack(
    config: Pretraining,
    model: AtariModel,
    runs: Sequence[AbstractRun],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[Artifact | DivergedError]:
    """Pretrain many runs as one and return of each what `pretrain` returns, within rounding.

    Args:
        config: Steps, batch, rate, checkpoints.
        model: Sizes.
        runs: Data and seeds; runs of one game should share the same data objects.
        device: Where to train.
        progress: Called after every step of a stack.

    Returns:
        One artifact a run, with ``stacked`` in its record as `train_natural_stack` has it; the
        error of a run whose loss was no number.

    Raises:
        RMRError: No run, a core that cannot be stacked, not even one run fits the device.
    """
    if not runs:
        raise RMRError("a stack needs one run or more, got none")
    train = partial(_train, config, model, find_device(device), progress)
    left = []
    for artifact, size in in_halves(train, runs):
        if isinstance(artifact, Artifact):
            artifact.record["stacked"] |= {"runs": size, "meant": len(runs)}
        left.append(artifact)
    return left


class _Feed:
    """All games on the device, one after another, and where each run's batches lie."""

    def __init__(self, config: Pretraining, runs: Sequence[AbstractRun], place: torch.device):
        self._config, self._runs = config, runs
        games = list({id(run.training): run.training for run in runs}.values())
        bits = [torch.from_numpy(game.bits) for game in games]
        self.bits = torch.cat(bits).to(place)
        self._starts = dict(
            zip(map(id, games), np.cumsum([0, *map(len, bits)][:-1]).tolist(), strict=True)
        )
        self.rows = lru_cache(maxsize=2)(self._rows)

    def _rows(self, step: int) -> tuple[Tensor, Tensor]:
        """Return rows [runs batch] of the states before, and the actions."""
        rows, actions = [], []
        for run in self._runs:
            data = run.training
            index = batch_indices(data, self._config.batch, run.seed, "pretrain", step)
            rows.append(data.current[index] + self._starts[id(data)])
            actions.append(data.action[index])
        return torch.from_numpy(np.stack(rows)), torch.from_numpy(np.stack(actions))


def _loss(mask: Tensor, written: Tensor, bits: Tensor, following: Tensor) -> Tensor:
    """Return the loss of one run."""
    return ram_loss(RamLogits(mask, written), bits, following)


def _train(
    config: Pretraining,
    model: AtariModel,
    place: torch.device,
    progress: Progress | None,
    runs: Sequence[AbstractRun],
) -> list[Artifact | DivergedError]:
    started = time.perf_counter()
    pipelines = [abstract_pipeline(model, run.seed).to(place) for run in runs]
    held_out = [scored_part(run.validation, config.validation_rows, run.seed) for run in runs]
    stack, feed = StackedPipeline(pipelines), _Feed(config, runs, place)

    def terms_at(step: int) -> dict[str, Tensor]:
        rows, action = (part[stack.runs].to(place) for part in feed.rows(step))
        bits, following = (feed.bits[at].float() for at in (rows, rows + 1))
        mask, written = stack.decoder(stack.process(stack.encoder(bits), action))
        return {"loss": torch.vmap(_loss)(mask, written, bits, following)}

    def checkpoint_at(step: int, run: int) -> Kept:
        scores = score(pipelines[run], held_out[run], runs[run].slots)
        return Kept({}, {"model": model.core, "step": step, **scores._asdict()})

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
    for run, pipeline, scored, trained in zip(runs, pipelines, held_out, results, strict=True):
        if isinstance(trained, DivergedError):
            artifacts.append(trained)
            continue
        artifact = finished(pipeline, trained, copy_scores(scored, run.slots))
        artifact.record.update(seconds=seconds / len(runs), stacked={"seconds": seconds})
        artifacts.append(artifact)
    return artifacts
