"""Encoders and beliefs as folders that wrappers read, made from what the stages leave."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rmr_gym.core import Progress
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.domains.atari import SLOTS, AtariModel, ProbeData, make_core
from rmr_gym.domains.balls import HISTORY
from rmr_gym.domains.dynamics import Dynamics
from rmr_gym.models import pretrained
from rmr_gym.models.objects import FrameStackEncoder
from rmr_gym.models.pretrained import BallsEncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.belief import CompactReader, PixelReader
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.processors import Processor, load_weights, parameter_hash
from rmr_gym.runs.store import Artifact, Store, Task, read_artifact, stage
from rmr_gym.stages import balls
from rmr_gym.stages.belief import labelled_rows, recorded_episodes
from rmr_gym.stages.chain import ENCODERS, UNTRAINED, GameTasks
from rmr_gym.stages.games import PRETRAIN_SEED, GameData
from rmr_gym.stages.natural import kept_encoder, kept_step, pretrain
from rmr_gym.stages.presets import ARMS, Preset, arm_core, find_arm, fresh_processor
from rmr_gym.stages.probe import METRICS, Records, Values, encode

_log = logging.getLogger(__name__)


def pretrained_encoder(
    game: GameTasks,
    arm: str,
    seed: int,
    store: Store,
    *,
    donor: Task | None = None,
    step: int | None = None,
    progress: Progress | None = None,
) -> PretrainedEncoder:
    """Return an encoder with the P that it was trained through, facts for its card, and scores.

    What is in the store is found, the rest is trained and probed now.

    Args:
        game: Under a preset.
        arm: A name in `rmr_gym.stages.chain.ENCODERS`.
        seed: Of the run.
        store: Of finished stages.
        donor: Whose P is used; None: the game's own.
        step: Checkpoint; None for the last.
        progress: Called after every step of training.

    Raises:
        RMRError: Unknown arm, a checkpoint that is not kept, or an encoder that collapsed.
    """
    known_name("arm", arm, ENCODERS)
    store.compute(game.probed(game.pixels))  # refuses data that cannot be probed, before training
    task = game.trained(arm, seed, donor)
    artifact = store.compute(task, progress)
    if artifact.record["note"]:
        raise RMRError(artifact.record["note"])
    step = kept_step(artifact, step)
    encoder = kept_encoder(game.preset.model, artifact, step)
    processor = _processor(game, arm, artifact, step)
    objective = game.preset.natural.objective
    training = {"objective": objective, "arm": arm, "seed": seed, "step": step}
    provenance = _provenance(game, training) | {"metrics": _scores(game, task, seed, step, store)}
    core = arm_core(arm, game.preset.model) if processor else None
    config = pretrained.EncoderConfig(**_sizes(game, "maps", "trunk"), core=core)
    return PretrainedEncoder(config, encoder.cpu(), processor, provenance)


def _processor(game: GameTasks, arm: str, artifact: Artifact, step: int) -> Any:
    weights = artifact.part(f"{step}.processor")
    if arm not in ARMS or not weights:
        return None
    processor = fresh_processor(arm, game.preset.model, 0)
    load_weights(processor, weights, f"the P at step {step}")
    return processor.cpu()


def _scores(game: GameTasks, task: Task, seed: int, step: int, store: Store) -> Records:
    """Return the probe's scores of the encoder and of what it must beat."""
    beside = {"untrained encoder": game.scored(UNTRAINED, seed)}
    beside["pixels through PCA"] = game.probed(game.pixels)
    probed = {"this encoder": game.probed(task), **beside}
    rows = [
        {"features": name} | row
        for name, scores in probed.items()
        for row in store.compute(scores).record["rows"]
        if name != "this encoder" or row["step"] == step
    ]
    return [{name: row[name] for name in ("features", *METRICS)} for row in rows]


def _sizes(game: GameTasks, *further: str) -> dict[str, Any]:
    names = ("height", "width", "dim", "aggregation", "precision", *further)
    return {"game": game.name} | {name: getattr(game.preset.model, name) for name in names}


def _provenance(game: GameTasks, training: dict[str, Any]) -> dict[str, Any]:
    recording, summary = game.preset.recording, game.data.summary()
    played = {name: getattr(recording, name) for name in ("frameskip", "repeat_action_probability")}
    played |= {"players": len(game.data.open().dataset.manifest.heads)}
    played["scored_ram_bytes"] = summary.pop("slots")
    return {"data": summary | played, "training": training}


LOST = 0.02
"""Root of the share of the evidence's squares that an exported reader may lose to its low rank."""


@stage(version=3)
def reader(
    data: GameData, model: AtariModel, labels: int, seed: int, read: Artifact, count: int
) -> Artifact:
    """Fit the reader of `rmr_gym.stages.belief.evidence` to the same labels again, and compact it.

    What it reads of the labelled frames is kept, and of how episodes begin, which looks like
    nothing else and is rare among them.

    Args:
        data: Its training and validation episodes.
        model: Size of the frames.
        labels: Labelled frames of the training episodes.
        seed: Which frames are labelled.
        read: What `evidence` left, of the same labels and seed.
        count: Frames that are read together.

    Returns:
        Tensors of a `rmr_gym.models.rmr.belief.CompactReader`; the record holds its rank.
    """
    training = recorded_episodes(data, "training", model)
    rows = labelled_rows(training, labels, seed)
    frames, bits = training.clips(rows, count), torch.from_numpy(training.bits[rows]).float()
    fitted = PixelReader(count * model.height, model.width)
    fitted.fit(frames, bits, read.record["penalty"])
    begun = (training.first[:, None] + np.arange(count)).ravel()
    seen = training.clips(np.union1d(rows, begun), count)
    compact = CompactReader.of(fitted, seen, LOST)
    return Artifact({"rank": len(compact.along)}, compact.state_dict())


def pretrained_belief(
    game: GameTasks, fitted: Task, store: Store, progress: Progress | None = None
) -> PretrainedEncoder:
    """Return the belief of a game with all that it needs, facts for its card, and scores.

    What is in the store is found, the rest is computed now.

    Args:
        game: Under a preset.
        fitted: The task of `rmr_gym.stages.belief.belief` with the game's own P.
        store: Of finished stages.
        progress: Called after every step of training.
    """
    model, given = game.preset.model, fitted.arguments
    facts = {name: given[name] for name in ("labels", "seed")}
    belief, donor = (store.compute(task, progress) for task in (fitted, given["donor"]))
    count = given["read"].arguments.get("count", 1)
    read = store.compute(
        reader(game.data, model, **facts, read=given["read"], count=count), progress
    )
    played = {"instants": count, "frameskip": game.preset.recording.frameskip}
    config = pretrained.BeliefConfig(**_sizes(game, "core"), rank=read.record["rank"], **played)
    encoder, processor = config.encoder(), config.processor()
    load_weights(encoder, read.tensors, "the reader")
    load_weights(processor.pipeline, donor.tensors, "the game's abstract pipeline")
    load_weights(processor.fusion, belief.tensors, "the fusion")
    provenance = _provenance(game, {"arm": "belief", **facts, "rank": config.rank})
    provenance["data"]["scored"] = game.data.scored_bytes.tolist()
    provenance["metrics"] = [row for row in belief.record["rows"] if row["bytes"] == "all"]
    return PretrainedEncoder(config, encoder, processor, provenance)


class EncoderReference(NamedTuple):
    """The features of an encoder from a folder; they count by its weights and not by its path."""

    path: Path
    device: str = "cpu"
    slots: int = SLOTS

    def key(self) -> list[str]:
        """Return the hash of the weights, and where they compute."""
        encoder = PretrainedEncoder.from_pretrained(self.path).encoder
        return [parameter_hash(encoder), self.device]

    def features(self, train: ProbeData, test: ProbeData) -> tuple[Values, Values]:
        """Encode both sets of frames."""
        encoder = PretrainedEncoder.from_pretrained(self.path).encoder.to(find_device(self.device))
        return encode(encoder, train.frames), encode(encoder, test.frames)


def encoder_features(path: Path, game: GameTasks, *, strict: bool = False) -> EncoderReference:
    """Return the features of an encoder from a folder, to be probed on a game's frames.

    One of another game is warned of.

    Raises:
        RMRError: It is one of another game and ``strict``.
    """
    trained_on = PretrainedEncoder.from_pretrained(path).config.game
    if trained_on != game.name:
        text = f"this encoder was trained on {trained_on}, the data are of {game.name}"
        if strict:
            raise RMRError(f"{text}: choose an encoder of {game.name}, or leave strict out")
        _log.warning(text)
    return EncoderReference(path, game.device)


_SCORES = ("arm", "step", "mse", "copy_mse", "ratio_to_copy", "ari")


def pretrained_balls_encoder(
    world: balls.BallsWorld,
    arm: str,
    seed: int,
    store: Store,
    *,
    donor: Task | None = None,
    progress: Progress | None = None,
) -> PretrainedEncoder:
    """Return the encoder of an arm of balls with the P behind it, trained now or found.

    Args:
        world: Under a preset.
        arm: A name in `rmr_gym.stages.balls.BALLS_ARMS`, or "untrained", the encoder with its
            initial weights and without P.
        seed: Of the run.
        store: Of finished stages.
        donor: Whose P is used; None: one that is pretrained on the same data set.
        progress: Called after every step of training.

    Raises:
        RMRError: Unknown arm.
    """
    known_name("arm", arm, (*balls.BALLS_ARMS, UNTRAINED))
    data, model = world.data, world.preset.pixels
    pipeline, step, scores, core = balls.frame_pipeline(data, model, seed), 0, [], None
    if arm != UNTRAINED:
        task = world.trained(arm, seed, donor)
        artifact = store.compute(task, progress)
        pipeline, step = balls.kept_frames(data, model, artifact), artifact.record["step"]
        tasks = (world.started(seed), task)
        scores = [store.compute(world.scored(scored)).record["rows"][0] for scored in tasks]
        core = find_arm(arm, balls.BALLS_ARMS).core
    training = {"preset": world.preset.preset, "arm": arm, "seed": seed, "step": step}
    metrics = [{name: _readable(row[name]) for name in _SCORES} for row in scores]
    encoder = pipeline.eval().encoder
    return PretrainedEncoder(
        _balls_config(world, len(encoder.encoder.start), core),
        FrameStackEncoder(encoder.encoder, encoder.join),
        pipeline.processor if core else None,
        {"data": data.summary(), "training": training, "metrics": metrics},
    )


def _balls_config(world: balls.BallsWorld, slots: int, core: str | None) -> BallsEncoderConfig:
    model = world.preset.pixels
    first, later = model.iterations
    sizes = {name: getattr(model, name) for name in ("slot_dim", "channels", "cell")}
    shared = ("dim", "aggregation", "passes", "precision")
    sizes |= {name: getattr(model.processor, name) for name in shared}
    return BallsEncoderConfig(
        game=world.data.label,
        resolution=world.data.frames("training").resolution,
        instants=HISTORY,
        slots=slots,
        first_rounds=first,
        later_rounds=later,
        core=model.processor.core if core == "configured" else core,
        **sizes,
    )


def _readable(value: Any) -> Any:
    """Return a score of a card; JSON knows no NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value


AMPLIFIED_RANDOM = "amplified_random"


def dynamics_donor(name: str, preset: Preset, device: str = "cpu") -> Task:
    """Return the task of a P pretrained on dynamics without a game, as long as on a game.

    Args:
        name: In `rmr_gym.domains.dynamics.DYNAMICS`.
        preset: Sizes; how many transitions, how long.
        device: Where to train.
    """
    recording = preset.recording
    episodes = recording.train_episodes, recording.validation_episodes
    world = Dynamics(*episodes, recording.max_steps, recording.entropy_threshold, name)
    return pretrain(world, preset.model, preset.pretraining, device=device)


AMPLIFICATION = 8.0
"""How much more of a difference between two states a trained P's core passes on than a random one:
3.3 over .41, means over six games' P and the frames of three games (``results/processor_gain.csv``,
fixed before the first run with it)."""


@stage(version=2)
def amplified_random(model: AtariModel, seed: int = PRETRAIN_SEED) -> Artifact:
    """Make a P that has learnt nothing, but whose core has the gain of a trained one.

    It is the P that pretraining starts from, with the output layer of its core multiplied by
    `AMPLIFICATION`. This control separates what P learnt from how large its output became.

    Raises:
        RMRError: The model's core has no layers.
    """
    processor = make_core(model, model.core, seed)
    layers = [module for module in processor.core.modules() if isinstance(module, torch.nn.Linear)]
    if not layers:
        raise RMRError("expected a core with layers to amplify, found the core 'none'")
    with torch.no_grad():
        for parameter in layers[-1].parameters():
            parameter.mul_(AMPLIFICATION)
    return processor_artifact(processor)


def processor_artifact(processor: torch.nn.Module) -> Artifact:
    """Return an artifact that holds a P alone, to be used as a donor."""
    tensors = {f"processor.{name}": tensor for name, tensor in processor.state_dict().items()}
    return Artifact({"processor_hash": parameter_hash(processor)}, tensors)


@dataclass(frozen=True)
class ProcessorFolder:
    """A folder with a pretrained P, which counts by its weights and not by its path.

    Attributes:
        label: What the donor is called.
        path: Folder of `rmr-gym pretrain`, of a game or of balls.
    """

    label: str
    path: Path

    def key(self) -> str:
        """Return the hash of the weights."""
        return str(read_artifact(self.path).record.get("processor_hash"))

    def processor(self, model: AtariModel) -> Processor:
        """Return P with these weights.

        Those of balls, which know no actions and may make several passes, give the core of their
        first pass; the action encoder is a fresh one.

        Raises:
            RMRError: The folder is missing, holds something else, or does not fit the model.
        """
        processor, artifact = make_core(model, model.core, PRETRAIN_SEED), read_artifact(self.path)
        tensors = artifact.part("processor")
        if first := artifact.part("processor.cores.0"):
            fresh = processor.action_encoder.state_dict()
            tensors = {f"action_encoder.{name}": tensor for name, tensor in fresh.items()}
            tensors |= {f"core.{name}": tensor for name, tensor in first.items()}
        load_weights(processor, tensors, f"the donor {self.label!r}")
        return processor


def folder_donor(name: str, folder: Path, model: AtariModel) -> Task:
    """Return the task of the P that an artifact folder holds.

    Raises:
        RMRError: The folder is missing, holds something else, or does not fit the model.
    """
    given = ProcessorFolder(name, folder)
    given.processor(model)
    return given_processor(given, model)


@stage(version=1)
def given_processor(folder: ProcessorFolder, model: AtariModel) -> Artifact:
    """Read a P from a folder, to be used as a donor; see `ProcessorFolder`."""
    artifact = processor_artifact(folder.processor(model))
    encoder = read_artifact(folder.path).part("encoder")
    artifact.tensors.update({f"encoder.{name}": tensor for name, tensor in encoder.items()})
    return artifact
