"""World models: the table of them, how they are trained on frames, what they are scored on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from math import log
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import Checked, RMRError, known_name
from rmr_gym.core.metrics import foreground_ari
from rmr_gym.core.options import has_option, overridden
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.sampling import batch_indices
from rmr_gym.domains import clips as domain
from rmr_gym.domains.clips import Clips
from rmr_gym.models.rmr import processors
from rmr_gym.models.rmr.pipeline import build_seeded, find_device
from rmr_gym.models.rmr.processors import ProcessorSizes, load_weights, parameter_hash
from rmr_gym.models.world import frames as world
from rmr_gym.models.world.crops import LocalWorld, present
from rmr_gym.models.world.frames import CUT, FrameSizes, frame_bce
from rmr_gym.models.world.nem import NEM_MODELS, NEMSizes
from rmr_gym.models.world.s2rm import S2RM, S2RM_MODELS, S2RMSizes
from rmr_gym.runs.store import NOWHERE, Artifact, Room, Task, key_of, one_thread, stage
from rmr_gym.runs.training import Checkpoint, Falling, Phase, Step, train_phase
from rmr_gym.stages.games import Recorded, split_by_share
from rmr_gym.stages.presets import ARMS, Arm, as_json, prepare_processor, read_presets

VALIDATION = 200
"""At most so many validation sequences decide when training ends and which weights are kept."""
SCORE_BATCH = 32
WRONG = -log(world.SURE)
"""What a pixel that is predicted with certainty and wrong costs, in nats."""


@dataclass(frozen=True)
class WorldTraining(Falling):
    """How a model is trained: a phase of at most so many steps.

    In ``unroll`` frames of a sequence it predicts the one after each.

    Attributes:
        check_every: Gradient steps between two validations.
        patience: Validations without improvement after which training ends.
    """

    check_every: int = 250
    patience: int = 10

    @property
    def phase(self) -> Falling:
        """The one phase of training."""
        return self

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Steps after which the validation loss is computed."""
        return (*range(self.check_every, self.steps, self.check_every), self.steps)


@dataclass(frozen=True)
class WorldScoring(Checked):
    """How a trained model is scored.

    Attributes:
        sequences: At most so many sequences.
        length: Predictions of a sequence whose frames are all shown but the last.
        last: Predictions at the end of a sequence that the scores are taken on.
        seen: Frames that are shown before a simulation.
        ahead: Frames that are simulated.
        cut: Of predictions that a model takes in, see
            `rmr_gym.models.world.frames.WorldModel`; gray frames are never cut.
    """

    ranges: ClassVar = {"cut": "[0, 1)"}

    sequences: int = 1000
    length: int = 20
    last: int = 10
    seen: int = 10
    ahead: int = 10
    cut: float = CUT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.last >= self.length:
            raise RMRError(
                "expected fewer last predictions than all of a sequence, got "
                f"{self.last} and {self.length}"
            )


@dataclass(frozen=True)
class WorldPreset(Checked):
    """Everything that fixes a run but data, model and seeds.

    Attributes:
        training: How the model is trained.
        scoring: How it is scored.
        sizes: Of the model, a frozen dataclass.
        validation_share: Share of the episodes that are not trained on.
    """

    ranges: ClassVar = {"validation_share": "(0, 1)"}

    training: WorldTraining
    scoring: WorldScoring
    sizes: Any = None
    validation_share: float = 0.1

    @property
    def horizon(self) -> int:
        """Frames of the longest sequence that is scored."""
        return max(self.scoring.length + 1, self.scoring.seen + self.scoring.ahead)


WORLD_PRESETS = read_presets("frames", WorldPreset)
CROPS_PRESETS = read_presets("crops", WorldPreset)
"""Presets of the models that see crops."""

_FAST_PRESETS = {
    name: replace(preset, training=replace(preset.training, learning_rate=1e-2))
    for name, preset in WORLD_PRESETS.items()
}


@dataclass(frozen=True)
class WorldEntry:
    """One world model.

    Attributes:
        make: Makes it from (height, width and channels of a frame, sizes, number of actions or 0).
        sizes: A frozen dataclass a preset, by the preset's name.
        grouped: Whether it has a number of groups that can be chosen, ``sizes.groups`` in training
            and ``model.groups`` at any time.
        presets: How it is trained and scored, by the preset's name.
        arm: Where the P inside comes from and whether it learns; None for models without.
    """

    make: Callable[[tuple[int, int, int], Any, int], nn.Module]
    sizes: Mapping[str, Any]
    grouped: bool = False
    presets: Mapping[str, WorldPreset] = field(default_factory=lambda: WORLD_PRESETS)
    arm: Arm | None = None


_INSIDE = {"rmr": "rmr", "fresh_p": "cswm", "random_p": "random_p", "shuffled_p": "shuffled_p"}

NEM_SIZES = read_presets("nem", NEMSizes)
RIMS_SIZES = read_presets("rims", FrameSizes)
S2RM_SIZES = read_presets("s2rm", S2RMSizes)
"""Sizes by the name of the preset."""

WORLD_MODELS: dict[str, WorldEntry] = {
    **{
        name: WorldEntry(make, NEM_SIZES, grouped=name not in ("rnn", "lstm"))
        for name, make in NEM_MODELS.items()
    },
    **{name: WorldEntry(make, RIMS_SIZES) for name, make in world.RIMS_MODELS.items()},
    **{
        name: WorldEntry(
            world.Memoryless,
            dict.fromkeys(WORLD_PRESETS, world.MemorylessSizes(noise=noise)),
            presets=_FAST_PRESETS,
        )
        for name, noise in (("memoryless", 0.0), ("memoryless_noisy", world.NOISE))
    },
}
WORLD_MODELS |= {
    f"{family}_{name}": replace(WORLD_MODELS[family], arm=ARMS[arm])
    for family in ("rnem", "rims")
    for name, arm in _INSIDE.items()
}
WORLD_MODELS |= {
    name: WorldEntry(make, S2RM_SIZES, presets=CROPS_PRESETS) for name, make in S2RM_MODELS.items()
}
"""World models by name. In ``rnem_*`` and ``rims_*`` groups or RIMs act on each other through a P:
pretrained and frozen (rmr), fresh and trained (fresh_p), fresh and frozen (random_p), pretrained,
shuffled and frozen (shuffled_p); all else in them starts from the same weights."""


def find_world_model(name: str) -> WorldEntry:
    """Return a model's entry by name.

    Raises:
        RMRError: With the choices and the nearest, if there is none of that name.
    """
    return WORLD_MODELS[known_name("world model", name, WORLD_MODELS)]


def find_world_preset(name: str, model: str) -> WorldPreset:
    """Return the preset of a model, with its sizes.

    Raises:
        RMRError: With the choices and the nearest, if there is no such model or preset.
    """
    entry = find_world_model(model)
    preset = entry.presets[known_name("preset", name, entry.presets)]
    return replace(preset, sizes=entry.sizes[name])


GROUPS = "sizes.groups"
"""The option that is K in training."""

Frames = tuple[tuple[int, int, int], int]
"""Height, width and channels of a frame, and the number of actions or 0."""


def chosen_preset(
    model: str, preset: str, overrides: Mapping[str, Any], frames: Frames | None = None
) -> WorldPreset:
    """Return the preset of a model with what is overridden of it.

    Args:
        model: A name in `WORLD_MODELS`.
        preset: Its name.
        overrides: New values by name, see `rmr_gym.core.options.overridden`; what the model has no
            option for is left out.
        frames: What sizes are fitted to where the model sees whole frames; None: to none.

    Raises:
        RMRError: No such model or preset, or the model cannot be so.
    """
    chosen = find_world_preset(preset, model)
    own = {path: value for path, value in overrides.items() if _overrides(model, chosen, path)}
    if frames and hasattr(chosen.sizes, "fitted"):
        chosen = replace(chosen, sizes=chosen.sizes.fitted(*frames))
    chosen = overridden(chosen, own)
    if GROUPS in own:
        check_groups(model, chosen.sizes.groups)
    return chosen


def _overrides(model: str, preset: WorldPreset, path: str) -> bool:
    return has_option(preset, path) and (path != GROUPS or find_world_model(model).grouped)


def refuse_unknown(models: Sequence[str], preset: str, overrides: Mapping[str, Any]) -> None:
    """Make sure that there is a model for everything that is overridden.

    Raises:
        RMRError: None of some models has such an option.
    """
    presets = {model: find_world_preset(preset, model) for model in models}
    for path, value in overrides.items():
        if not any(_overrides(model, own, path) for model, own in presets.items()):
            if path == GROUPS:
                check_groups(models[0], value)
            overridden(presets[models[0]], {path: value})


def check_groups(model: str, groups: int) -> None:
    """Make sure that a model can have so many groups.

    Raises:
        RMRError: It cannot.
    """
    if groups < 2 or not find_world_model(model).grouped:
        raise RMRError(
            f"expected 2 groups or more in a model that has groups, got {groups} and {model}: "
            "leave their number out, or for one group choose the model rnn"
        )


def donor_sizes(donor: Artifact) -> ProcessorSizes:
    """Return the sizes of a pretrained P of balls.

    Raises:
        RMRError: It is one of a fixed number of slots.
    """
    model = donor.record["model"]
    if model["core"] not in ("mpnn", "deep_sets", "none"):
        raise RMRError(
            f"expected a P of any number of slots that works inside latents, got the core "
            f"{model['core']!r}: pretrain one with --model.core mpnn"
        )
    return ProcessorSizes(**{size.name: model[size.name] for size in fields(ProcessorSizes)})


@dataclass(frozen=True)
class RecordedFrames(Recorded):
    """A data set of frames of one channel; it counts by its content, not by its folder.

    Attributes:
        path: Its folder.
        validation_share: Share of the episodes that are not trained on; 1 for a test set.
    """

    path: Path
    validation_share: float = 1.0

    @property
    def label(self) -> str:
        """What it is called in tables and titles."""
        return self.path.resolve().name

    def split(self, dataset: TransitionDataset) -> tuple[list[int], list[int]]:
        """Return the episodes to train on, and those that only scores are computed on."""
        if self.validation_share < 1:
            return split_by_share(dataset, self.validation_share)
        return [], list(range(len(dataset.episodes)))

    @property
    def frames(self) -> Frames:
        """The shape of its frames and the number of actions; no frame is read.

        Raises:
            RMRError: There are no frames of one channel.
        """
        return domain.frames_of(self.open().dataset.manifest, self.path)

    @property
    def balls(self) -> int | None:
        """How many balls or trains there are, or units in a team; None if it is not known."""
        columns = self.open().dataset.manifest.columns
        if "places" in columns:
            return columns["places"].shape[0]
        known = "presence" not in columns and "state" in columns
        return columns["state"].shape[0] if known else None

    @property
    def pace(self) -> float | None:
        """How many pixels balls move from a frame to the next; None without their positions."""
        return domain.pixels_a_frame(self.open().dataset)

    def longest(self, part: str) -> int:
        """Return how many frames the longest "training" or "validation" episode has."""
        episodes = self.open()
        lengths = (episodes.dataset.episodes[n].length + 1 for n in getattr(episodes, part))
        return max(lengths, default=0)

    def training(self, part: str, length: int) -> Clips:
        """Load all windows of the "training" episodes, or those side by side of "validation"."""
        return _clips(self, part, length, 1 if part == "training" else length)

    def scored(self, length: int, most: int) -> Clips:
        """Load sequences that are not trained on, side by side, with what is true of them.

        Args:
            length: Frames of a sequence.
            most: At most so many sequences, always the same.

        Raises:
            RMRError: No episode is long enough.
        """
        clips = _clips(self, "validation", length, length, truth=True)
        order = generator(0, "world model sequences").permutation(len(clips.rows))
        return replace(clips, rows=clips.rows[np.sort(order[:most])])

    def summary(self) -> dict[str, Any]:
        """Return what run.json says of the data; no frame is read."""
        return {"name": self.label} | super().summary() | {"balls": self.balls}


@lru_cache(maxsize=4)
def _clips(
    data: RecordedFrames, part: str, length: int, stride: int, *, truth: bool = False
) -> Clips:
    episodes = data.open()
    return domain.load_clips(episodes.dataset, getattr(episodes, part), length, stride, truth=truth)


class Batch(NamedTuple):
    """Some sequences, and the noise of a model's state.

    Attributes:
        rows: Their rows in the data.
        frames: In [0, 1]; the last is only ever predicted.
        actions: Taken at each frame, or None.
        noise: On the device of the frames.
    """

    rows: Int[np.ndarray, "batch time"]
    frames: Float[Tensor, "batch time height width channels"]
    actions: Int[Tensor, "batch time"] | None
    noise: torch.Generator


def batch_of(
    clips: Clips, index: Int[np.ndarray, " batch"], place: torch.device, noise: tuple[Any, ...]
) -> Batch:
    """Return some sequences, with noise of a stream: a seed and names."""
    source = torch.Generator(place).manual_seed(integer_seed(*noise))
    return Batch(clips.rows[index], *clips.shown(index, place), source)


def batches(model: nn.Module, clips: Clips, size: int, stream: str) -> Iterator[Batch]:
    """Give all sequences in their order, with noise that is the same for every model.

    Models see the same noise where they draw alike: those of N-EM's family at equal K, those of
    crops always; at another K the first shares come first from the stream and the rest is shifted.
    """
    place, count = next(model.parameters()).device, len(clips.rows)
    for start in range(0, count, size):
        index = np.arange(start, min(start + size, count))
        yield batch_of(clips, index, place, (0, stream, start))


def sequence_loss(model: Any, batch: Batch) -> Tensor:
    """Return the loss of the next frame, mean over frames and sequences, sum over pixels."""
    actions = None if batch.actions is None else batch.actions[:, :-1]
    return model.losses(batch.frames, actions, batch.noise).mean()


@torch.no_grad()
def validation_loss(model: nn.Module, clips: Clips, batch: int) -> float:
    """Return the training loss on validation sequences, with noise that is always the same."""
    count = min(len(clips.rows), VALIDATION)
    chosen = np.linspace(0, len(clips.rows) - 1, count).astype(np.int64)
    few = replace(clips, rows=clips.rows[chosen])
    model.eval()
    losses = [
        len(sequences.rows) * sequence_loss(model, sequences).item()
        for sequences in batches(model, few, batch, "world model validation")
    ]
    model.train()
    return sum(losses) / count


@dataclass(frozen=True)
class PlannedModel:
    """A world model under a preset, on a data set: its stages as tasks.

    Attributes:
        data: What it is trained on.
        label: A name in `WORLD_MODELS`.
        preset: Its preset, sizes fitted to the data.
        donor: The task of the P inside, for the models that need a pretrained one.
        device: Where to compute, for instance "cpu" or "cuda".
    """

    data: RecordedFrames
    label: str
    preset: WorldPreset
    donor: Task | None = None
    device: str = "cpu"

    def key(self) -> Any:
        """Return what decides its weights, beside seed and donor."""
        preset = self.preset
        return key_of([self.data, self.label, preset.training, preset.sizes, self.device])

    @property
    def entry(self) -> WorldEntry:
        """Its entry."""
        return find_world_model(self.label)

    def initial(self, seed: int, donor: Artifact | None = None) -> nn.Module:
        """Make the model; weights from (seed, "world model"), P as its arm says."""
        model = self._made(seed)
        if self.entry.arm is not None:
            given = donor.part("processor") if donor else None
            prepare_processor(self.label, self.entry.arm, inner_processor(model), given, seed)
        return model

    def trained(self, seed: int) -> Task:
        """Return the task of a training."""
        return world_model(self, seed, self.donor)

    def network(self, trained: Artifact, cut: float = CUT, groups: int | None = None) -> Any:
        """Make the trained model that an artifact holds, to be scored.

        Args:
            trained: See `world_model`.
            cut: Of predictions that it takes in.
            groups: K; None: as in training.
        """
        model = self._made(0)
        load_weights(model, trained.tensors, f"the world model {self.label}")
        model.cut = cut
        if groups is not None:
            model.groups = groups
        return model.to(find_device(self.device)).eval()

    @property
    def parts(self) -> int:
        """How many modules it has, of those that see crops; 0 for one without."""
        return self._made(0).parts

    def _made(self, seed: int) -> Any:
        shape, choices = self.data.frames
        make = partial(self.entry.make, shape, self.preset.sizes, choices)
        return build_seeded(make, seed, "world model")

    def scored(
        self, seed: int, test: RecordedFrames | None = None, groups: int | None = None
    ) -> Task:
        """Return the task of the scores of a training.

        Args:
            seed: Of the training.
            test: A test set; None: the validation episodes of the data.
            groups: K while scoring; models without groups have none.
        """
        own = groups if self.entry.grouped else None
        return world_scores(self, self.trained(seed), test or self.data, self.preset.scoring, own)

    def scored_crops(
        self, seed: int, test: RecordedFrames | None, views: int, dropped: int = 0
    ) -> Task:
        """Return the task of the scores of a training on crops, see `crop_scores`."""
        scoring = self.preset.scoring
        return crop_scores(self, self.trained(seed), test or self.data, scoring, views, dropped)


def inner_processor(model: nn.Module) -> processors.PassiveProcessor:
    """Return the P inside a world model."""
    return next(part for part in model.modules() if isinstance(part, processors.PassiveProcessor))


@stage(version=4)
def world_model(
    model: PlannedModel, seed: int, donor: Artifact | None = None, room: Room = NOWHERE
) -> Artifact:
    """Train a model to predict the next frame.

    Source: R-NEM, Appendix A: Adam, the loss of the next frame at every step, early stopping on the
    validation loss, the best weights kept.
    Differs: a validation every so many steps instead of every epoch; training sequences begin
    anywhere in an episode.

    Args:
        model: The model, its data and how it is trained.
        seed: Fixes initial weights, batches and noise.
        donor: Abstract pipeline whose P stands inside, for the models that need one.
        room: Room for unfinished state.

    Returns:
        The best weights; the record holds ``curve``, ``validations`` and the ``step`` of the best.

    Raises:
        RMRError: An unknown device, frames or groups that do not fit the model.
    """
    training, place = model.preset.training, find_device(model.device)
    clips, held_out = (
        model.data.training(part, training.unroll + 1) for part in ("training", "validation")
    )
    network = model.initial(seed, donor).to(place)

    def step_at(step: int, phase: Phase) -> Step:
        index = batch_indices(clips, phase.batch, seed, "world model", step)
        batch = batch_of(clips, index, place, (seed, "world model noise", step))
        return Step(sequence_loss(network, batch))

    def checkpoint_at(step: int) -> Checkpoint:
        loss = validation_loss(network, held_out, training.batch)
        return Checkpoint(network.state_dict(), {"step": step, "validation_loss": loss}, score=loss)

    options: Any = {"keep": "best", "patience": training.patience, "room": room}
    trained = train_phase(training, network, step_at, checkpoint_at, **options)
    record = {"model": model.label, "seed": seed, "sizes": as_json(model.preset.sizes)}
    record |= {"curve": trained.curve, "validations": trained.records, "step": trained.best["step"]}
    if model.entry.arm is not None:
        record["processor_hash"] = parameter_hash(inner_processor(network))
    return Artifact(record, trained.tensors)


Simulated = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""Fields of predictions, with an axis of instants after that of sequences."""


@torch.no_grad()
def simulate(model: Any, batch: Batch, seen: int | None = None) -> Simulated:
    """Show a model the first frames of sequences, or all, and let it go on by itself.

    Returns:
        As `Prediction`: of the second frame and all that follow, groups of each frame but the last.
    """
    actions = None if batch.actions is None else batch.actions[:, :-1]
    states = world.unroll(model, batch.frames[:, :-1], actions, batch.noise, seen)
    fields: Any = zip(*(model.decode(state) for state in states), strict=True)
    made: Any = [None if part[0] is None else torch.stack(part, dim=1) for part in fields]
    return tuple(made)


ByFrame = dict[str, Float[np.ndarray, "rows time"]]
"""Scores of single frames by name, see `score_frames`."""
ByAhead = dict[str, Float[np.ndarray, " ahead"]]
"""Scores by name, see `score_simulation`."""


SCORES = (
    "groups", "step", "bce", "relative_bce", "changed_bce", "relational_bce",
    "relative_relational_bce", "gain", "ari", "ari_last", "rollout_bce", "relative_rollout_bce",
    "rollout_f1", "rollout_f1_moving", "rollout_f1_copied", "rollout_f1_velocities",
)  # fmt: skip


@stage(version=3)
def world_scores(
    model: PlannedModel,
    trained: Artifact,
    test: RecordedFrames,
    scoring: WorldScoring,
    groups: int | None = None,
) -> Artifact:
    """Score a trained model on sequences that it was not trained on.

    Source: R-NEM, section 4: BCE and relational BCE of max_k psi in nats a frame, relative to the
    BCE of copying the frame before; ARI of the groups' hard shares on the pixels that balls own;
    BCE of simulations.
    Differs: BCE is the mean of the last predictions of a sequence (10, as in the code) where the
    text says the last one; ``ari`` is that of all frames after the first, ``ari_last`` of the last.
    ``changed_bce`` is BCE in nats a pixel, of those that differ from the frame before;
    ``gain`` the slope of how far balls that are alone are predicted to move on how far they do (0:
    they stand still, 1: they move right), see `rmr_gym.domains.clips.lone_shifts`. A simulation is
    also given relative to the last frame that was shown, and as F1 of the pixels that it predicts
    to be lit, which a gray cloud has none of: of all, of those that are not lit throughout
    (``moving``), of the last frame shown (``copied``), and of balls that go on with their true
    velocities without collisions (``velocities``).

    Args:
        model: The model.
        trained: Its training.
        test: Data whose episodes that are not trained on are scored.
        scoring: How it is scored.
        groups: K while scoring, for models that have groups; None: as in training.

    Returns:
        The record's ``rows`` holds one row of `SCORES`, its ``simulation`` a row a simulated frame,
        see `score_simulation`; NaN where there is no truth in the data or no group in the model.
    """
    shown = test.scored(scoring.length + 1, scoring.sequences)
    longer = test.scored(scoring.seen + scoring.ahead, scoring.sequences)
    network = model.network(trained, scoring.cut if shown.binary else 0.0, groups)
    simulation = score_simulation(network, longer, scoring.seen)
    row = {"groups": getattr(network, "groups", None), "step": trained.record["step"]}
    row |= _row(score_frames(network, shown), simulation, (shown, longer), scoring.last)
    frames = enumerate(zip(*(part.tolist() for part in simulation.values()), strict=True), 1)
    named = [{"frame": n, **dict(zip(simulation, scores, strict=True))} for n, scores in frames]
    return Artifact({"rows": [row], "simulation": named})


def _row(
    sums: ByFrame, simulation: ByAhead, clips: tuple[Clips, Clips], last: int
) -> dict[str, float]:
    shown, longer = clips
    ends = {name: part[:, -last:] for name, part in sums.items()}
    return {
        "bce": _mean(ends["bce"]),
        "relative_bce": _ratio(ends["bce"], ends["copied"], shown),
        "changed_bce": _over(ends["changed"], ends["changes"]),
        "relational_bce": _mean(ends["relational"]),
        "relative_relational_bce": _ratio(ends["relational"], ends["relational_copied"], shown),
        "gain": _over(ends["along"], ends["moved"]),
        "ari": _mean(sums["ari"]),
        "ari_last": _mean(ends["ari"]),
        "rollout_bce": _mean(simulation["bce"]),
        "relative_rollout_bce": _ratio(simulation["bce"], simulation["copied"], longer),
    } | {
        f"rollout_{name}": _mean(simulation[name])
        for name in ("f1", "f1_moving", "f1_copied", "f1_velocities")
    }


def score_frames(model: Any, clips: Clips) -> ByFrame:
    """Return the scores of single frames, a row a sequence, every frame of which is shown.

    Returns:
        ``bce`` of each predicted frame and, as ``copied``, of the frame before it, taken for a
        prediction; ``changed``, the ``bce`` of pixels that differ from the frame before, and their
        number, ``changes``; ``relational`` and ``relational_copied``, both on the pixels of
        colliding balls; ``along`` and ``moved``, numerator and denominator of the gain; ``ari`` of
        the groups of each frame but the first. NaN without truth or groups.
    """
    parts = [
        _frame_scores(simulate(model, batch), batch, clips)
        for batch in batches(model, clips, SCORE_BATCH, "world model scores")
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _frame_scores(made: Simulated, batch: Batch, clips: Clips) -> ByFrame:
    before, after = batch.frames[:, :-1], batch.frames[:, 1:]
    changes, (frames, groups, *_) = (before != after).float(), made
    scores = {
        "bce": _array(frame_bce(frames, after)),
        "copied": _array(frame_bce(before, after)),
        "changed": _array(frame_bce(frames, after, changes)),
        "changes": _array(changes.sum(dim=(2, 3, 4))),
    }
    names = ("relational", "relational_copied", "along", "moved", "ari")
    scores |= {name: np.full(scores["bce"].shape, np.nan) for name in names}
    if clips.truth is not None:
        instants = batch.rows[:, :-1].T
        weights = np.stack([domain.relational_weight(clips, rows) for rows in instants], axis=1)
        weight = torch.from_numpy(weights).to(after)[..., None].expand_as(after)
        scores["relational"] = _array(frame_bce(frames, after, weight))
        scores["relational_copied"] = _array(frame_bce(before, after, weight))
        hard = None if groups is None else _array(groups.argmax(dim=2))
        for t, rows in enumerate(instants):
            shift, true = domain.lone_shifts(clips, rows, _array(frames[:, t, ..., 0]))
            scores["along"][:, t] = (shift * true).sum(axis=(1, 2))
            scores["moved"][:, t] = (true * true).sum(axis=(1, 2))
            if t and hard is not None:
                scores["ari"][:, t] = foreground_ari(domain.true_groups(clips, rows), hard[:, t])
    return scores


def score_simulation(model: Any, clips: Clips, seen: int) -> ByAhead:
    """Show a model the first frames of all sequences, and score what it makes of the others.

    Returns:
        By how far ahead a frame is, of all sequences together: ``bce``, and ``copied``, that of the
        last frame shown; ``f1`` of lit pixels and ``f1_moving`` of those that are not lit
        throughout a sequence, both also of the last frame shown (``_copied``) and of balls that go
        on with their true velocities (``_velocities``; NaN without truth). F1 is NaN where nothing
        is lit nor said to be.
    """
    parts: list[dict[str, Tensor]] = []
    for batch in batches(model, clips, SCORE_BATCH, "world model scores"):
        made, truth = simulate(model, batch, seen)[0][:, seen - 1 :], batch.frames[:, seen:]
        last = batch.frames[:, seen - 1 : seen].expand_as(truth)
        part = {"bce": frame_bce(made, truth).sum(0), "copied": frame_bce(last, truth).sum(0)}
        said = {"": made, "_copied": last}
        if clips.truth is not None:
            gone = domain.gone_on(clips, batch.rows[:, seen - 1], truth.shape[1])
            said["_velocities"] = torch.from_numpy(gone[..., None]).to(truth)
        moving = ~(batch.frames > CUT).all(dim=1, keepdim=True)
        for side, frames in said.items():
            part[f"f1{side}"] = _lit(frames, truth)
            part[f"f1_moving{side}"] = _lit(frames * moving, truth * moving)
        parts.append(part)
    sums = {name: _array(torch.stack([p[name] for p in parts]).sum(0)) for name in parts[0]}
    with np.errstate(invalid="ignore"):
        count = len(clips.rows)
        means = {name: n / count if n.ndim == 1 else n[0] / n[1] for name, n in sums.items()}
    unknown = np.full_like(means["f1"], np.nan)
    return {"f1_velocities": unknown, "f1_moving_velocities": unknown} | means


def _lit(frames: Tensor, truth: Tensor) -> Int[Tensor, "2 time"]:
    """Return numerator and denominator of F1 by instant: 2 TP, and 2 TP + FP + FN."""
    said, lit = frames > CUT, truth > CUT
    pixels = (0, 2, 3, 4)
    return torch.stack([2 * (said & lit).sum(pixels), said.sum(pixels) + lit.sum(pixels)])


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _over(part: np.ndarray, whole: np.ndarray) -> float:
    total = whole.sum()
    return float(part.sum() / total) if total > 0 else float("nan")


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _ratio(values: np.ndarray, baseline: np.ndarray, clips: Clips) -> float:
    """Return the ratio of means; NaN where the baseline has no pixel wrong in all scored frames.

    A frame without any costs a little all the same, because probabilities are cut off; one wrong
    pixel costs `WRONG` more.
    """
    nothing, frames = torch.zeros(clips.shape), len(clips.rows) * baseline.shape[-1]
    below, never = _mean(baseline), frame_bce(nothing, nothing).item()
    return _mean(values) / below if below > never + WRONG / 2 / frames else float("nan")


PixelCounts = Int[np.ndarray, " 4"]
"""How many pixels were rightly dark, wrongly lit, wrongly dark and rightly lit."""


def pixel_scores(counts: PixelCounts) -> tuple[float, float]:
    """Return balanced accuracy and F1; NaN where a class does not occur, or nothing is lit.

    The one is the arithmetic mean of recall and specificity, the other the harmonic mean of
    precision and recall.
    """
    dark, alarms, misses, hits = counts
    with np.errstate(invalid="ignore"):
        balanced = (hits / (hits + misses) + dark / (dark + alarms)) / 2
        return float(balanced), float(2 * hits / (2 * hits + alarms + misses))


@stage(version=3)
def crop_scores(
    model: PlannedModel,
    trained: Artifact,
    test: RecordedFrames,
    scoring: WorldScoring,
    views: int,
    dropped: int = 0,
) -> Artifact:
    """Score a trained model of crops where it sees less.

    Source: S2RM, section 6: balanced accuracy and F1 of the pixels of queried crops, one step
    ahead, over all frames but the first, with fractions of views (Figures 6, 20, 21), with modules
    taken out (Figure 7), with other numbers of balls (Figure 4).
    Differs: sequences are as long as the preset's; a pixel of a crop beyond the edge counts as
    dark; in ``f1_moving`` so does what is lit throughout a sequence, as a fixed ball is. Which
    modules go is drawn once: those that go first are gone too when more go. Of battles, see
    `battle_scores`.

    Args:
        model: The model.
        trained: Its training.
        test: Data whose episodes that are not trained on are scored.
        scoring: How many sequences are scored, and how long.
        views: Crops that it sees of each frame.
        dropped: Number of modules that are taken out.

    Raises:
        RMRError: The model cannot have so few views or modules.
    """
    network = model.network(trained)
    if dropped:
        gone = dropped_parts(network, dropped)
        network.drop(gone)
    network.views = views
    clips = test.scored(scoring.length + 1, scoring.sequences)
    row = {"step": trained.record["step"], "views": views, "dropped": dropped}
    if network.geometry.of_agents:
        return Artifact({"rows": [row | battle_scores(network, clips)]})
    (balanced, f1), (_, moving) = map(pixel_scores, count_pixels(network, clips))
    row |= {"balanced_accuracy": balanced, "f1": f1, "f1_moving": moving}
    return Artifact({"rows": [row]})


def dropped_parts(model: LocalWorld, count: int) -> list[int]:
    """Return which modules of a model go if so many do.

    Raises:
        RMRError: The model has no modules, or not so many.
    """
    if not 0 <= count < model.parts:
        raise RMRError(
            f"expected to drop fewer than all {model.parts} modules, got {count}: models without "
            "modules have none to drop"
        )
    order = generator(0, "dropped modules").permutation(model.parts)
    return [int(part) for part in order[:count]]


@torch.no_grad()
def count_pixels(model: Any, clips: Clips) -> Int[np.ndarray, "2 4"]:
    """Count the pixels of the crops that a model is asked about, all frames being shown.

    Returns:
        `PixelCounts` of all; and of all when those that are lit throughout a sequence count as
        rightly dark.
    """
    total = np.zeros((2, 4), np.int64)
    for batch in batches(model, clips, SCORE_BATCH, "world model scores"):
        logits, truth, queries, _ = model.asked(batch.frames, batch.noise)
        moving = 1.0 - (batch.frames > CUT).all(dim=1, keepdim=True).float()
        here = model.geometry.look(moving.expand_as(batch.frames[:, 1:]), queries) > CUT
        kinds = 2 * (truth > CUT) + (logits > 0)
        for row, part in enumerate((kinds, kinds * here)):
            total[row] += _array(torch.bincount(part.flatten(), minlength=4))
    return total


@torch.no_grad()
def battle_scores(model: Any, clips: Clips) -> dict[str, float]:
    """Return the scores of what a model says of battles, all frames being shown.

    Source: S2RM, section 6, Table 1: F1 of the friendly marker and of unit types, negative mean
    squared error of health (NMSE), log likelihood.
    Differs: the only unit type is that of enemies; the cell in the middle of a query does not
    count, where a friend always is; references are ours. Of trains, friends are trains, enemies
    their targets, and health is rails.

    Returns:
        Of the cells of all queries: ``f1_friends``, ``f1_enemies``; ``f1`` and
        ``balanced_accuracy`` of both markers together; ``f1_moving``, of cells where none of that
        team was the instant before; ``f1_copied``, of what the model saw that instant, dark where
        it saw nothing; ``nmse`` and ``nmse_copied`` of health in [0, 1]; ``log_likelihood``, of
        markers and health, in nats a cell. Of the oracle, "copied" is what it saw of the future.
    """
    counts, sums = np.zeros((2, 2, 2, 4), np.int64), np.zeros(4)
    for batch in batches(model, clips, SCORE_BATCH, "world model scores"):
        logits, truth, queries, seen = model.asked(batch.frames, batch.noise)
        geometry, time = model.geometry, logits.shape[:2]
        there = present(queries)[..., None, None, None].repeat(1, 1, 1, *truth.shape[3:5], 1)
        there[..., geometry.size // 2, geometry.size // 2, :] = False
        fresh = there & (geometry.look(batch.frames[:, :-1], queries) <= CUT)
        last = geometry.stitch(*(part.flatten(0, 1) for part in seen)).unflatten(0, time)
        copied = geometry.look(last, queries)
        for model_or_copy, said in enumerate((logits > 0, copied > CUT)):
            kinds = 2 * (truth > CUT) + said
            for all_or_fresh, here in enumerate((there.expand_as(fresh), fresh)):
                for team in range(2):
                    chosen = kinds[..., team][here[..., team]]
                    found = torch.bincount(chosen, minlength=4)
                    counts[model_or_copy, all_or_fresh, team] += _array(found)
        cost = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        wrong = [(guess - truth)[..., 2:3] ** 2 for guess in (logits.sigmoid(), copied)]
        parts = (*wrong, cost[..., :3].sum(dim=-1, keepdim=True), torch.ones_like(wrong[0]))
        sums += [(part * there).sum().item() for part in parts]
    friends, enemies = (pixel_scores(team)[1] for team in counts[0, 0])
    (balanced, f1), (_, moving) = map(pixel_scores, counts[0].sum(axis=1))
    error, error_copied, cost = sums[:3] / sums[3]
    row = {"balanced_accuracy": balanced, "f1": f1, "f1_moving": moving}
    row |= {"f1_friends": friends, "f1_enemies": enemies, "log_likelihood": -cost}
    row |= {"f1_copied": pixel_scores(counts[1, 0].sum(axis=0))[1]}
    return row | {"nmse": -error, "nmse_copied": -error_copied}


@torch.no_grad()
def enclaves(model: PlannedModel, trained: Artifact) -> dict[str, Any]:
    """Return what to draw as Figures 5 and 9 of S2RM; nothing for a model without places.

    Returns:
        ``attended``, how much each module attends to each pixel, and ``heard``, how much each can
        hear of each; from 0 to 1.
    """
    network = model.network(trained)
    if not isinstance(network, S2RM):
        return {}
    spatial = network.spatial
    return {"attended": _array(spatial.enclaves()), "heard": _array(spatial.interactions())}


class Drawn(NamedTuple):
    """One sequence to look at: its frames but the first and the last, what was made of them.

    Attributes:
        truth: Frames, in [0, 1].
        predicted: Predictions of them.
        seen: How many of them the model was shown.
        shares: Of the groups in them; None for models without.
        pictures: What each group predicted; None for models without.
        attention: What group k took of group i to predict them; None for models without.
    """

    truth: Float[np.ndarray, "time height width"]
    predicted: Float[np.ndarray, "time height width"]
    seen: int
    shares: Float[np.ndarray, "time slots height width"] | None
    pictures: Float[np.ndarray, "time slots height width"] | None
    attention: Float[np.ndarray, "time slots slots"] | None


@one_thread()
def drawn(model: Any, clips: Clips, count: int, seen: int) -> list[Drawn]:
    """Run a trained model over the first of some sequences, to be drawn.

    Args:
        model: See `PlannedModel.network`.
        clips: See `to_draw`.
        count: Number of sequences.
        seen: Frames that are shown; the model goes on by itself.
    """
    place = next(model.parameters()).device
    batch = batch_of(clips, np.arange(count), place, (0, "world model scores", 0))
    frames, groups, pictures, attention = simulate(model, batch, seen)
    parts = (
        batch.frames[:, 1:-1, ..., 0],
        frames[:, :-1, ..., 0],
        None if groups is None else groups[:, 1:],
        None if pictures is None else pictures[:, :-1, ..., 0],
        None if attention is None else attention[:, :-1],
    )
    columns = ([None] * count if part is None else map(_array, part) for part in parts)
    rows: Any = zip(*columns, strict=True)
    return [Drawn(truth, predicted, seen - 1, *rest) for truth, predicted, *rest in rows]


def to_draw(data: RecordedFrames, most: int, count: int, seen: int, ahead: int) -> Clips:
    """Return sequences to be drawn.

    Args:
        data: Their validation episodes, or a test set.
        most: At most so many are chosen from.
        count: Number of sequences.
        seen: Frames that are shown, 2 or more.
        ahead: Frames that follow, 2 or more.

    Raises:
        RMRError: Too few frames, no sequence that is long enough, or too few sequences.
    """
    if min(seen, ahead) < 2:
        raise RMRError(f"expected to show and to predict 2 frames or more, got {seen} and {ahead}")
    clips = data.scored(seen + ahead, most)
    if not 1 <= count <= len(clips.rows):
        raise RMRError(f"expected 1 to {len(clips.rows)} sequences to draw, got {count}")
    return clips
