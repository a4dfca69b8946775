"""Training a world model on sequences of frames."""

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import integer_seed
from rmr_gym.data.sampling import batch_indices
from rmr_gym.data.schema import read_manifest
from rmr_gym.domains.clips import Clips, frames_of, load_clips
from rmr_gym.models.rmr.pipeline import build, find_device, torch_generator
from rmr_gym.models.rmr.processors import (
    PassiveProcessor,
    ProcessorSizes,
    load_weights,
    parameter_hash,
)
from rmr_gym.models.world.base import unroll
from rmr_gym.models.world.frames import FrameSizes
from rmr_gym.models.world.nem import NEMSizes
from rmr_gym.protocol.settings import altered
from rmr_gym.protocol.store import Artifact, Scratch, Store, read_artifact
from rmr_gym.protocol.training import DivergedError, Kept, Progress, Step, train
from rmr_gym.protocol.world_model_presets import WorldPreset, find_world_model
from rmr_gym.stages.arms import prepare
from rmr_gym.stages.balls import open_balls
from rmr_gym.stages.games import SPLIT_SEED
from rmr_gym.stages.presets import as_json

SIZES = "sizes."
"""Names of settings begin so that are of a model's sizes, not of its training."""
VALIDATION = 200
"""At most so many validation sequences decide when training ends and which weights are kept."""


@dataclass(frozen=True)
class WorldTask:
    """What a stage must know: the data, the model, how to treat them.

    Attributes:
        data: Folder of a recorded data set with frames of one channel.
        store: Folder of finished stages.
        model: A name in `WORLD_MODELS`.
        preset: Sizes, training, scores.
        groups: K in training, for models that have groups; None: the preset's.
        device: Where to train, for instance "cpu" or "cuda".
        processor: Artifact folder of `rmr-gym pretrain`, for the models that have a P inside:
            its sizes are those of every P, its weights those of the pretrained ones.
        resized: Sizes of the model that are not the preset's, by name, see
            `rmr_gym.protocol.settings.altered`.

    Raises:
        RMRError: There is no such model, it cannot have so many groups or such sizes, its P is
            missing, or it has none.
    """

    data: Path
    store: Path
    model: str
    preset: WorldPreset
    groups: int | None = None
    device: str = "cpu"
    processor: Path | None = None
    resized: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        entry = find_world_model(self.model)
        elsewhere = {path.split(".")[0] for path, _ in self.resized} & {"groups", "processor"}
        if elsewhere:
            raise RMRError(
                f"expected no {' and no '.join(sorted(elsewhere))} among sizes that are changed: "
                "the task has a field for it"
            )
        altered(entry.sizes[self.preset.name], dict(self.resized), SIZES)
        if (entry.arm is None) != (self.processor is None):
            raise RMRError(
                f"the model {self.model} takes its P from a processor: give the folder that "
                "`rmr-gym pretrain` wrote"
                if entry.arm
                else f"the model {self.model} has no P inside: leave the processor out"
            )
        if self.groups is not None and (not entry.grouped or self.groups < 2):
            raise RMRError(
                f"expected 2 groups or more in a model that has groups, got {self.groups} and "
                f"{self.model}: leave their number out, or for one group choose the model rnn"
            )

    @property
    def sizes(self) -> Any:
        """Sizes of the model; where it sees whole frames, fitted to those of the data.

        Raises:
            RMRError: The data are missing, or hold no frames of one channel.
        """
        sizes = find_world_model(self.model).sizes[self.preset.name]
        if self.groups is not None:
            sizes = replace(sizes, groups=self.groups)
        if isinstance(sizes, NEMSizes | FrameSizes):
            sizes = sizes.fitted(*frames_of(read_manifest(self.data), self.data))
        sizes = altered(sizes, dict(self.resized))
        return sizes if self.processor is None else sizes.with_processor(donor_sizes(self.donor))

    @property
    def donor(self) -> Artifact:
        """The pretrained P.

        Raises:
            RMRError: The folder is missing or holds something else.
        """
        if self.processor is None:
            raise RMRError(f"the model {self.model} has no P inside")
        return read_artifact(self.processor)


def donor_sizes(donor: Artifact) -> ProcessorSizes:
    """Return the sizes of a pretrained P.

    Raises:
        RMRError: The artifact holds no P of balls, or one of a fixed number of slots.
    """
    model, wanted = donor.record.get("model"), [field.name for field in fields(ProcessorSizes)]
    if not isinstance(model, dict) or not {*wanted} <= {*model} or not donor.part("processor"):
        raise RMRError("expected a processor that `rmr-gym pretrain` wrote, found another")
    if model["core"] not in ("mpnn", "deep_sets", "none"):
        raise RMRError(
            f"expected a P of any number of slots that works inside latents, got the core "
            f"{model['core']!r}: pretrain one with --model.core mpnn"
        )
    return ProcessorSizes(**{name: model[name] for name in wanted})


@lru_cache(maxsize=2)
def load_part(data: Path, validation_share: float, part: str, length: int) -> Clips:
    """Load all windows of the episodes for "training", those side by side for "validation"."""
    episodes = open_balls(data, validation_share)
    stride = 1 if part == "training" else length
    return load_clips(episodes.dataset, getattr(episodes, part), length, stride)


def initial(task: WorldTask, clips: Clips, seed: int) -> nn.Module:
    """Make the model of a task for the frames of some clips; weights from (seed, "world model")."""
    entry, sizes = find_world_model(task.model), task.sizes
    generator = torch_generator(integer_seed(seed, "world model"))
    model = build(lambda: entry.make(clips.shape, sizes, clips.choices), generator)
    if entry.arm is not None:
        given = task.donor.part("processor") if entry.arm.pretrained else None
        prepare(task.model, entry.arm, inner_processor(model), given, seed)
    return model


def inner_processor(model: nn.Module) -> PassiveProcessor:
    """Return the P inside a world model."""
    return next(part for part in model.modules() if isinstance(part, PassiveProcessor))


def restored(task: WorldTask, clips: Clips, seed: int, artifact: Artifact) -> nn.Module:
    """Make the trained model that an artifact holds."""
    model = initial(task, clips, seed)
    load_weights(model, artifact.part("best"), f"the world model {task.model}")
    return model.to(find_device(task.device)).eval()


def sequence_loss(
    model: Any, frames: Tensor, actions: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Return the loss of the next frame, mean over frames and sequences, sum over pixels."""
    told = None if actions is None else actions[:, :-1]
    states = unroll(model, frames[:, :-1], told, generator)
    losses = [model.loss(state, frames[:, t + 1]) for t, state in enumerate(states)]
    return torch.stack(losses).mean()


def trained(task: WorldTask, seed: int, progress: Progress | None = None) -> Artifact:
    """Return the trained model, trained now or found in the store.

    Source: R-NEM, Appendix A: Adam, the loss of the next frame at every step, early stopping on the
    validation loss, the weights of the best look kept.
    Differs: a look every so many steps instead of every epoch; training sequences begin anywhere in
    an episode.

    Args:
        task: Data, model, preset.
        seed: Fixes initial weights, batches and noise.
        progress: Called after every gradient step.

    Returns:
        Tensors ``best.*``; the record holds ``curve``, ``looks`` and the ``step`` of the best.
    """
    key = training_key(task, seed)
    return Store(task.store).get_or_run(
        "world_model", key, lambda scratch: train_model(task, seed, scratch, progress)
    )


def train_model(
    task: WorldTask, seed: int, scratch: Scratch | None = None, progress: Progress | None = None
) -> Artifact:
    """Train a model; see `trained`.

    Raises:
        RMRError: An unknown model or device, frames or groups that do not fit it.
    """
    preset, place = task.preset, find_device(task.device)
    clips, held_out = (
        load_part(task.data, preset.validation_share, part, preset.length + 1)
        for part in ("training", "validation")
    )
    model = initial(task, clips, seed).to(place)
    looks = _looks_before(scratch)

    def step_at(step: int) -> Step:
        index = batch_indices(clips, preset.batch, seed, "world model", step)
        noise = _generator(place, seed, "world model noise", step)
        try:
            return Step(sequence_loss(model, *clips.shown(index, place), noise), {})
        except RuntimeError as problem:
            if "between 0 and 1" not in str(problem):
                raise
            raise DivergedError(
                f"expected a prediction in [0, 1], got NaN at step {step}: try another seed "
                "or a lower learning rate"
            ) from problem

    def checkpoint_at(step: int) -> Kept:
        looks.append(
            {"step": step, "validation_loss": validation_loss(model, held_out, preset.batch)}
        )
        best = min(looks, key=lambda look: look["validation_loss"])
        since = sum(look["step"] > best["step"] for look in looks)
        tensors = {f"best.{name}": tensor for name, tensor in model.state_dict().items()}
        return Kept(tensors if best is looks[-1] else {}, looks[-1], since >= preset.patience)

    run = train(
        model,
        step_at,
        checkpoint_at,
        checkpoints=preset.checkpoints,
        learning_rate=preset.learning_rate,
        scratch=scratch,
        progress=progress,
    )
    best = min(run.records, key=lambda look: look["validation_loss"])
    record = {"step": best["step"], "seed": seed, "curve": run.curve, "looks": run.records}
    if task.processor is not None:
        record["processor_hash"] = parameter_hash(inner_processor(model))
    return Artifact(record | {"model": task.model, "sizes": as_json(task.sizes)}, run.tensors)


@torch.no_grad()
def validation_loss(model: nn.Module, clips: Clips, batch: int) -> float:
    """Return the training loss on validation sequences, with noise that is always the same."""
    place = next(model.parameters()).device
    count = min(len(clips.rows), VALIDATION)
    chosen = np.linspace(0, len(clips.rows) - 1, count).astype(np.int64)
    total = 0.0
    model.eval()
    for start in range(0, count, batch):
        few = chosen[start : start + batch]
        noise = _generator(place, 0, "world model validation", start)
        total += len(few) * sequence_loss(model, *clips.shown(few, place), noise).item()
    model.train()
    return total / count


def training_key(task: WorldTask, seed: int) -> dict[str, Any]:
    """Return everything that the weights hang on."""
    preset, arm = task.preset, find_world_model(task.model).arm
    episodes = open_balls(task.data, preset.validation_share)
    donor = {"donor": task.donor.record["processor_hash"]} if arm and arm.pretrained else {}
    return donor | {
        "data": episodes.dataset.fingerprint,
        "split": [len(episodes.training), len(episodes.validation), SPLIT_SEED],
        "device": task.device,
        "model": task.model,
        "sizes": as_json(task.sizes),
        "training": [
            *(preset.steps, preset.batch, preset.length, preset.check_every),
            *(preset.patience, preset.learning_rate, VALIDATION),
        ],
        "seed": seed,
    }


def _looks_before(scratch: Scratch | None) -> list[dict[str, Any]]:
    """Return the looks that a run took before it was stopped."""
    state = scratch.load() if scratch else None
    return list(state.record["records"]) if state else []


def _generator(place: torch.device, seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator(place).manual_seed(integer_seed(seed, *names))
