"""Sequence tasks: train RIMs or an LSTM on a span, and test them on other ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from numpy.random import Generator

from rmr_gym.core.errors import Checked, RMRError, known_name
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains import sequences as domain
from rmr_gym.models.rmr.pipeline import build_seeded, find_device
from rmr_gym.models.world.rims import SEQUENCE_MODELS, LSTMSizes, RIMSizes, SequenceRIMs
from rmr_gym.runs.store import NOWHERE, Artifact, Room, stage
from rmr_gym.runs.training import Checkpoint, Phase, Step, check_checkpoints, train_phase
from rmr_gym.stages.presets import find_preset, read_presets

TEST_SEED = 0
"""One set of test sequences a span for all models and seeds."""

INSTANTS = 1000
"""Of an expert's episode."""


@dataclass(frozen=True)
class SequenceTask(Checked):
    """The task and how a model is trained on it.

    Attributes:
        kind: copying, digits, adding or imitation.
        checkpoints: Steps at which the model is scored; training ends at the last.
        digits: Number of digits to copy.
        span: In training: blanks between the digits to copy and the marker, pixels across an image
            of a digit, numbers of which two are to be added, instants of an expert's episode.
        test_spans: The same in tests.
        batch: Sequences a step.
        learning_rate: Of Adam.
        clip: Largest norm of the gradient.
        sequences: Number of test sequences of each span; of the images of digits at most all that
            are kept for tests.
        embedding: Width of a token's embedding.
    """

    ranges: ClassVar = {
        "learning_rate": "(0, inf)",
        "clip": "(0, inf)",
        "span": "[0, inf)",
        "test_spans": "[0, inf)",
    }
    choices: ClassVar = {"kind": ("sequence task", domain.KINDS)}

    kind: str = "copying"
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
        super().__post_init__()
        spans, least = (self.span, *self.test_spans), domain.KINDS[self.kind].least
        if min(spans) < least:
            raise RMRError(f"spans of {self.kind} must be {least} or more, got {spans}")
        if self.kind == "imitation" and max(spans) > INSTANTS:
            raise RMRError(f"an expert's episode has {INSTANTS} instants, got spans of {spans}")

    @property
    def phase(self) -> Phase:
        """The one phase of training."""
        return Phase(self.checkpoints[-1], self.learning_rate, self.batch)


@dataclass(frozen=True)
class Imitation(Checked):
    """An expert, and how those that imitate it are tested by playing.

    Attributes:
        steps: Steps over all copies in which the expert learns.
        episodes: That it shows, of 1,000 instants each; four are kept for tests and validation.
        strengths: Deviations, in radians, of what is added to each joint's angle at every instant.
        plays: Episodes of each strength.
    """

    ranges: ClassVar = {"strengths": "[0, inf)", "episodes": "[5, inf)"}

    steps: int = 300_000
    episodes: int = 24
    strengths: tuple[float, ...] = (0.0, 0.0125, 0.025, 0.05)
    plays: int = 10


Sizes = RIMSizes | LSTMSizes


@dataclass(frozen=True)
class SequencePreset:
    """Everything that fixes a run of a sequence task but the seeds.

    Attributes:
        preset: smoke, laptop and paper copy; digits, adding and imitation are as large as laptop.
        task: The task and how models are trained on it.
        rims: Sizes of the RIMs.
        lstm: Sizes of the LSTM.
        memoryless: Sizes of the LSTM whose state is 0 at every instant.
        imitation: Who is imitated, and how that is tested.
        models: rims, lstm, memoryless.
    """

    preset: str = "laptop"
    task: SequenceTask = field(default_factory=SequenceTask)
    rims: RIMSizes = field(default_factory=RIMSizes)
    lstm: LSTMSizes = field(default_factory=LSTMSizes)
    memoryless: LSTMSizes = field(default_factory=LSTMSizes)
    imitation: Imitation = field(default_factory=Imitation)
    models: tuple[str, ...] = ("rims", "lstm")

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes.

        Raises:
            RMRError: There is no such preset.
        """
        return vars(find_preset(SEQUENCE_PRESETS, name))


SEQUENCE_PRESETS = read_presets("sequences", SequencePreset)


def fresh_model(task: SequenceTask, model: str, sizes: Sizes, seed: int) -> torch.nn.Module:
    """Return a model as it begins to learn a task.

    Raises:
        RMRError: There is no such model.
    """
    kind = domain.KINDS[task.kind]
    make = SEQUENCE_MODELS[known_name("model", model, SEQUENCE_MODELS)]
    made = partial(make, kind.inputs, kind.outputs, task.embedding, sizes)
    return build_seeded(made, seed, f"{task.kind} model")


@stage(version=1, later=("shown",))
def sequences(
    task: SequenceTask,
    model: str,
    sizes: Sizes,
    seed: int,
    device: str = "cpu",
    shown: Artifact | None = None,
    room: Room = NOWHERE,
) -> Artifact:
    """Train a model on a sequence task and test it on several spans.

    Source: RIMs, section 4.1 and Appendix C.5, C.6: Adam 1e-3, gradient clipped to 1, batch 64.
    Differs: every batch is drawn anew and every sequence starts from a state of 0; the authors'
    code draws again and again from 200 batches an epoch and starts from the state in which the
    batch before ended. The loss is that of all instants in copying, as in the code, and in
    imitation, and of the last one in the other tasks.

    Args:
        task: What is trained and tested.
        model: A name in `SEQUENCE_MODELS`.
        sizes: Of the model.
        seed: Fixes initial weights, batches and dropout.
        device: Where to compute.
        shown: What an expert did, see `rmr_gym.domains.sequences.imitation_batch`.
        room: Room for unfinished state.

    Returns:
        Tensors ``model.*`` of the checkpoint that counts, see `rmr_gym.domains.sequences.Kind`;
        and, for RIMs and each test span, ``activity.SPAN``: the share of the test sequences in
        which each RIM is active, by instant, and ``pattern.SPAN``: whether it is in the first of
        them. The record holds ``curve`` and ``rows``, those without each of the RIMs in turn too
        (``dropped``; -1: none is), where a task has them with the loss ``held_out``.

    Raises:
        RMRError: There is no such model or device, scikit-learn is missing, or the loss is not a
            number.
    """
    place, learner = find_device(device), fresh_model(task, model, sizes, seed)
    learner.to(place).train()
    tests = _Tests(learner, task, place, shown.tensors if shown else {})

    def step_at(step: int, phase: Phase) -> Step:
        noise = torch.Generator(place)
        noise.manual_seed(integer_seed(seed, f"{task.kind} dropout", step))
        rng = generator(seed, task.kind, step)
        inputs, targets = tests.draw(rng, phase.batch, task.span, "training")
        return Step(domain.losses(learner(inputs, noise).outputs, targets))

    def checkpoint_at(step: int) -> Checkpoint:
        score, tensors = float(-step), {f"model.{n}": t for n, t in learner.state_dict().items()}
        rows = tests.rows(step)
        if domain.KINDS[task.kind].held_out:
            score = next(iter(tests.scored(task.span, "validation")[0].values()))
            rows = [row | {"held_out": score} for row in rows]
        return Checkpoint(tensors, {"rows": rows}, score=score)

    options: Any = {"keep": "best", "clip": task.clip, "room": room}
    trained = train_phase(task, learner, step_at, checkpoint_at, **options)
    rows, tensors = [row for record in trained.records for row in record["rows"]], trained.tensors
    if isinstance(learner, SequenceRIMs):
        learner.load_state_dict(Artifact({}, tensors).part("model"))
        rows += tests.rows_without(learner, trained.best["rows"][0]["step"])
        tensors |= tests.activity()
    return Artifact({"rows": rows, "curve": trained.curve}, tensors)


class _Tests(NamedTuple):
    """A model, its task, and what it learns from and is tested on."""

    learner: torch.nn.Module
    task: SequenceTask
    place: torch.device
    shown: Mapping[str, torch.Tensor]

    def draw(self, rng: Generator, batch: int, span: int, part: str) -> domain.SequenceBatch:
        """Draw sequences of a part of the data."""
        kind = domain.KINDS[self.task.kind]
        options = {"digits": self.task.digits, "part": part, "shown": self.shown}
        drawn = kind.draw(rng, batch, span, **{name: options[name] for name in kind.takes})
        return domain.SequenceBatch(*(tensor.to(self.place) for tensor in drawn))

    def rows(self, step: int, dropped: int = -1) -> list[dict[str, Any]]:
        """Score the model on every test span."""
        return [
            {"step": step, "span": span, "dropped": dropped} | self.scored(span)[0]
            for span in self.task.test_spans
        ]

    def rows_without(self, learner: SequenceRIMs, step: int) -> list[dict[str, Any]]:
        """Score the trained model without each of its RIMs in turn."""
        rims, rows = learner.cell.sizes.rims, []
        for rim in range(rims if rims > 1 else 0):
            learner.cell.drop([rim])
            rows += self.rows(step, rim)
        learner.cell.drop()
        return rows

    def activity(self) -> dict[str, Any]:
        """Return which RIMs are active, by test span."""
        tensors = {}
        for span in self.task.test_spans:
            _, active = self.scored(span)
            tensors[f"activity.{span}"] = active.float().mean(dim=0)
            tensors[f"pattern.{span}"] = active[0].to(torch.uint8)
        return tensors

    def scored(self, span: int, part: str = "test") -> Any:
        """Score the model, and return which RIMs were active."""
        rng = generator(TEST_SEED, f"{self.task.kind} {part}", span)
        data = self.draw(rng, self.task.sequences, span, part)
        asked = self.task.digits if self.task.kind == "copying" else data.targets.shape[1]
        return domain.score(self.learner, data, asked, torch.Generator(self.place))
