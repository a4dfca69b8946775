"""Sequence tasks: train RIMs or an LSTM on a span, and test them on other ones."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from numpy.random import Generator

from rmr_gym.core.errors import Checked, RMRError, known_name
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains import sequences as domain
from rmr_gym.models.rmr.pipeline import build_seeded, find_device
from rmr_gym.models.world.rims import LSTMSizes, RIMSizes, SequenceLSTM, SequenceRIMs
from rmr_gym.runs.store import NOWHERE, Artifact, Room, stage
from rmr_gym.runs.training import Checkpoint, Phase, Step, check_checkpoints, train_phase
from rmr_gym.stages.presets import find_preset, read_presets

TEST_SEED = 0
"""One set of test sequences a span for all models and seeds."""


@dataclass(frozen=True)
class SequenceTask(Checked):
    """The task and how a model is trained on it.

    Attributes:
        kind: copying, digits or adding.
        checkpoints: Steps at which the model is scored; training ends at the last.
        digits: Number of digits to copy.
        span: In training: blanks between the digits to copy and the marker, pixels across an image
            of a digit, numbers of which two are to be added.
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

    @property
    def phase(self) -> Phase:
        """The one phase of training."""
        return Phase(self.checkpoints[-1], self.learning_rate, self.batch)


Sizes = RIMSizes | LSTMSizes


@dataclass(frozen=True)
class SequencePreset:
    """Everything that fixes a run of a sequence task but the seeds.

    Attributes:
        preset: smoke, laptop and paper copy; digits and adding are of the size of laptop.
        task: The task and how models are trained on it.
        rims: Sizes of the RIMs.
        lstm: Sizes of the LSTM.
    """

    preset: str = "laptop"
    task: SequenceTask = field(default_factory=SequenceTask)
    rims: RIMSizes = field(default_factory=RIMSizes)
    lstm: LSTMSizes = field(default_factory=LSTMSizes)

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes.

        Raises:
            RMRError: There is no such preset.
        """
        return vars(find_preset(SEQUENCE_PRESETS, name))


SEQUENCE_PRESETS = read_presets("sequences", SequencePreset)

SEQUENCE_MODELS = {"rims": SequenceRIMs, "lstm": SequenceLSTM}
"""Makers of models of sequences by name, from the number of tokens or features, that of outputs,
the width of an embedding and their own sizes, those of the preset's field of the same name."""


@stage(version=1)
def sequences(
    task: SequenceTask,
    model: str,
    sizes: Sizes,
    seed: int,
    device: str = "cpu",
    room: Room = NOWHERE,
) -> Artifact:
    """Train a model on a sequence task and test it on several spans.

    Source: RIMs, section 4.1 and Appendix C.5, C.6: Adam 1e-3, gradient clipped to 1, batch 64.
    Differs: every batch is drawn anew and every sequence starts from a state of 0; the authors'
    code draws again and again from 200 batches an epoch and starts from the state in which the
    batch before ended. The loss is that of all instants in copying, as in the code, and of the last
    one in the other tasks.

    Args:
        task: What is trained and tested.
        model: A name in `SEQUENCE_MODELS`.
        sizes: Of the model.
        seed: Fixes initial weights, batches and dropout.
        device: Where to compute.
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
    place, make = find_device(device), SEQUENCE_MODELS[known_name("model", model, SEQUENCE_MODELS)]
    kind = domain.KINDS[task.kind]
    made = partial(make, kind.inputs, kind.outputs, task.embedding, sizes)
    learner = build_seeded(made, seed, f"{task.kind} model")
    learner.to(place).train()

    def step_at(step: int, phase: Phase) -> Step:
        noise = torch.Generator(place)
        noise.manual_seed(integer_seed(seed, f"{task.kind} dropout", step))
        rng = generator(seed, task.kind, step)
        inputs, targets = _batch(task, rng, phase.batch, task.span, "training", place)
        return Step(domain.losses(learner(inputs, noise).outputs, targets))

    def checkpoint_at(step: int) -> Checkpoint:
        score, tensors = float(-step), {f"model.{n}": t for n, t in learner.state_dict().items()}
        rows = _rows(learner, task, step)
        if kind.held_out:
            score = next(iter(_scored(learner, task, task.span, "validation")[0].values()))
            rows = [row | {"held_out": score} for row in rows]
        return Checkpoint(tensors, {"rows": rows}, score=score)

    options: Any = {"keep": "best", "clip": task.clip, "room": room}
    trained = train_phase(task, learner, step_at, checkpoint_at, **options)
    rows, tensors = [row for record in trained.records for row in record["rows"]], trained.tensors
    if isinstance(learner, SequenceRIMs):
        learner.load_state_dict(Artifact({}, tensors).part("model"))
        rows += _rows_without(learner, task, trained.best["rows"][0]["step"])
        tensors |= _activity(learner, task)
    return Artifact({"rows": rows, "curve": trained.curve}, tensors)


def _batch(
    task: SequenceTask, rng: Generator, batch: int, span: int, part: str, place: torch.device
) -> domain.SequenceBatch:
    kind, options = domain.KINDS[task.kind], {"digits": task.digits, "part": part}
    drawn = kind.draw(rng, batch, span, **{name: options[name] for name in kind.takes})
    return domain.SequenceBatch(*(tensor.to(place) for tensor in drawn))


def _rows(
    learner: torch.nn.Module, task: SequenceTask, step: int, dropped: int = -1
) -> list[dict[str, Any]]:
    """Score a model on every test span."""
    return [
        {"step": step, "span": span, "dropped": dropped} | _scored(learner, task, span)[0]
        for span in task.test_spans
    ]


def _rows_without(learner: SequenceRIMs, task: SequenceTask, step: int) -> list[dict[str, Any]]:
    """Score the trained model without each of its RIMs in turn."""
    rims, rows = learner.cell.sizes.rims, []
    for rim in range(rims if rims > 1 else 0):
        learner.cell.drop([rim])
        rows += _rows(learner, task, step, rim)
    learner.cell.drop()
    return rows


def _activity(learner: torch.nn.Module, task: SequenceTask) -> dict[str, Any]:
    """Return which RIMs are active, by test span."""
    tensors = {}
    for span in task.test_spans:
        _, active = _scored(learner, task, span)
        tensors[f"activity.{span}"] = active.float().mean(dim=0)
        tensors[f"pattern.{span}"] = active[0].to(torch.uint8)
    return tensors


def _scored(learner: torch.nn.Module, task: SequenceTask, span: int, part: str = "test") -> Any:
    place = next(learner.parameters()).device
    rng = generator(TEST_SEED, f"{task.kind} {part}", span)
    data = _batch(task, rng, task.sequences, span, part, place)
    asked = task.digits if task.kind == "copying" else 1
    return domain.score(learner, data, asked, torch.Generator(place))
