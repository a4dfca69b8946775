"""The stages on a recorded game: loaded once, computed once, found again in the store."""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.sampling import split_episodes
from rmr_gym.domains import atari
from rmr_gym.domains.atari_alignment import AbstractLatents, abstract_latents
from rmr_gym.models.rmr.encoders import SlotCNN
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.processors import load_weights, parameter_hash
from rmr_gym.protocol import pretrain as abstract_stage
from rmr_gym.protocol.arms import find_arm
from rmr_gym.protocol.config import Preset, as_json
from rmr_gym.protocol.natural import OBJECTIVES, train_natural
from rmr_gym.protocol.probe import encode, pixel_features, score_features
from rmr_gym.protocol.stacked import NaturalRun, train_natural_stack
from rmr_gym.protocol.store import Artifact, Scratch, Store
from rmr_gym.protocol.supervised import train_supervised
from rmr_gym.protocol.training import DivergedError, Progress

SPLIT_SEED = PROBE_SEED = PRETRAIN_SEED = 0
"""One split, one set of probe rows and one P a game; the seeds of a comparison vary the rest."""


@dataclass(frozen=True)
class GameTask:
    """What a cell must know of one game: where its data are and how to treat them.

    Attributes:
        game: Its name.
        data: Folder of its data set.
        store: Folder of finished stages.
        preset: Settings of all stages.
        device: Where to compute, for instance "cpu" or "cuda".
        cnn: Convolutions of natural training in "fp32", or "bf16" with channels last.
    """

    game: str
    data: Path
    store: Path
    preset: Preset
    device: str = "cpu"
    cnn: str = "fp32"


class Episodes(NamedTuple):
    """A data set split by episode, and the RAM cells that are scored."""

    dataset: TransitionDataset
    training: list[int]
    validation: list[int]
    slots: np.ndarray


class ProbeSets(NamedTuple):
    """Frames and bits to fit probes on and to score them on."""

    training: atari.ProbeData
    test: atari.ProbeData
    dropped: int


@lru_cache(maxsize=2)
def open_episodes(task: GameTask) -> Episodes:
    """Open and split a game's data.

    Raises:
        RMRError: Another game, too few episodes, no RAM cell above the entropy threshold.
    """
    dataset = TransitionDataset(task.data)
    dataset.require_game(task.game)
    recording = task.preset.recording
    training, validation = split_episodes(
        dataset, recording.train_episodes, recording.validation_episodes, SPLIT_SEED
    )
    threshold = task.preset.probing.entropy_threshold
    return Episodes(dataset, training, validation, atari.target_slots(dataset, training, threshold))


@lru_cache(maxsize=1)
def natural_data(task: GameTask) -> atari.NaturalData:
    """Load the frames and actions of the training episodes that natural training may use."""
    episodes, allowed = open_episodes(task), task.preset.natural.episodes
    if allowed is not None and allowed > len(episodes.training):
        raise RMRError(
            f"natural training on {allowed} episodes of {task.game}: there are "
            f"{len(episodes.training)} for training"
        )
    return atari.load_natural(episodes.dataset, episodes.training[:allowed], task.preset.model)


@lru_cache(maxsize=1)
def probe_sets(task: GameTask) -> ProbeSets:
    """Load what probes are fitted and scored on; test frames seen in training are dropped."""
    episodes, probing = open_episodes(task), task.preset.probing
    training, test = (
        atari.load_probe(
            episodes.dataset, chosen, task.preset.model, episodes.slots, rows, PROBE_SEED
        )
        for chosen, rows in (
            (episodes.training, probing.train_rows),
            (episodes.validation, probing.test_rows),
        )
    )
    kept, dropped = atari.without_duplicates(training, test)
    return ProbeSets(training, kept, dropped)


def pretrained(
    task: GameTask, progress: Progress | None = None, seed: int = PRETRAIN_SEED
) -> Artifact:
    """Return the game's pretrained abstract pipeline, trained now or found in the store."""
    preset = task.preset
    episodes = open_episodes(task)

    def run(scratch: Scratch) -> Artifact:
        training, validation = (
            atari.load_abstract(episodes.dataset, chosen)
            for chosen in (episodes.training, episodes.validation)
        )
        return abstract_stage.pretrain(
            preset.pretraining,
            preset.model,
            training,
            validation,
            episodes.slots,
            seed=seed,
            device=task.device,
            scratch=scratch,
            progress=progress,
        )

    return Store(task.store).get_or_run("pretrain", pretrain_key(task, seed), run)


def pretrain_key(task: GameTask, seed: int) -> dict[str, Any]:
    """Return what decides a pretraining, whether it trains alone or in a stack."""
    return data_key(task) | {
        "config": as_json(task.preset.pretraining),
        "seed": seed,
        "threshold": task.preset.probing.entropy_threshold,
    }


def trained_encoders(
    task: GameTask,
    arm: str,
    seed: int,
    donor: Artifact | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Return an arm's encoders at the checkpoints, trained now or found in the store.

    Args:
        task: The recipient game.
        arm: A name in `rmr_gym.protocol.arms.ARMS`, or "supervised".
        seed: Shared by paired arms.
        donor: Pretrained pipeline whose P is used; by default the game's own.
        progress: Called after every step.
    """
    preset = task.preset
    key = data_key(task) | {"config": as_json(preset.natural), "seed": seed}
    if arm == "supervised":
        probing = {"rows": preset.probing.train_rows, "seed": PROBE_SEED}
        key |= {"probing": probing, "threshold": preset.probing.entropy_threshold}
        run = partial(_run_supervised, task, seed, progress)
        return Store(task.store).get_or_run("supervised", key, run)
    run = partial(run_natural, task, arm, seed, donor, progress)
    return Store(task.store).get_or_run("natural", natural_key(task, arm, seed, donor), run)


def natural_key(
    task: GameTask, arm: str, seed: int, donor: Artifact | None = None
) -> dict[str, Any]:
    """Return what decides a natural run, whether it trains alone or in a stack."""
    key = data_key(task) | {"config": as_json(task.preset.natural), "seed": seed}
    key |= donor_key(task, arm, donor)
    return key if task.cnn == "fp32" else key | {"cnn": task.cnn}


def donor_key(task: GameTask, arm: str, donor: Artifact | None) -> dict[str, Any]:
    """Return what a natural run depends on beside its task and seed: its arm and its donor."""
    donor = donor or pretrained(task) if _needs_donor(task, arm) else None
    return {"arm": arm, "donor": donor.record["processor_hash"] if donor else None}


def _needs_donor(task: GameTask, arm: str) -> bool:
    return find_arm(arm).pretrained or OBJECTIVES[task.preset.natural.objective].aligned


def run_natural(
    task: GameTask,
    arm: str,
    seed: int,
    donor: Artifact | None,
    progress: Progress | None,
    scratch: Scratch,
) -> Artifact:
    """Train an arm now, whatever the store holds; see `trained_encoders`."""
    donor = donor or pretrained(task) if _needs_donor(task, arm) else None
    latents = None
    if donor and OBJECTIVES[task.preset.natural.objective].aligned:
        latents = start_latents(task, donor)
    weights = donor.part("processor") if donor and find_arm(arm).pretrained else None
    if task.cnn != "fp32":
        return _run_alone_in_a_stack(task, NaturalRun(arm, seed, weights), progress)
    return train_natural(
        task.preset.natural,
        task.preset.model,
        natural_data(task),
        arm,
        pretrained=weights,
        latents=latents,
        seed=seed,
        device=task.device,
        scratch=scratch,
        progress=progress,
    )


def _run_alone_in_a_stack(task: GameTask, run: NaturalRun, progress: Progress | None) -> Artifact:
    (artifact,) = train_natural_stack(
        task.preset.natural,
        task.preset.model,
        natural_data(task),
        [run],
        device=task.device,
        cnn=task.cnn,
        progress=progress,
    )
    if isinstance(artifact, DivergedError):
        raise artifact
    return artifact


def start_latents(task: GameTask, donor: Artifact) -> AbstractLatents:
    """Encode the game's training RAM, in random order, with the donor's abstract encoder."""
    episodes = open_episodes(task)
    encoder = atari.abstract_pipeline(task.preset.model, PRETRAIN_SEED).encoder
    load_weights(encoder, donor.part("encoder"), "the donor's abstract encoder")
    return abstract_latents(encoder, atari.load_abstract(episodes.dataset, episodes.training))


def _run_supervised(
    task: GameTask, seed: int, progress: Progress | None, scratch: Scratch
) -> Artifact:
    return train_supervised(
        task.preset.natural,
        task.preset.model,
        natural_data(task),
        probe_sets(task).training,
        seed=seed,
        device=task.device,
        scratch=scratch,
        progress=progress,
    )


def kept_encoder(task: GameTask, seed: int, artifact: Artifact, step: int) -> SlotCNN:
    """Rebuild the encoder that was kept at a checkpoint."""
    weights = artifact.part(str(step))
    affine = "affine.weight" in weights
    encoder = atari.pixel_encoder(task.preset.model, seed, affine=affine)
    load_weights(encoder, weights, f"the encoder at step {step}")
    return encoder


def kept_steps(artifact: Artifact) -> list[int]:
    """Return the checkpoints whose encoders an artifact holds."""
    return sorted({int(name.split(".", 1)[0]) for name in artifact.tensors})


def untrained_encoder(task: GameTask, seed: int) -> SlotCNN:
    """Return the encoder that the arms of a seed start from, input statistics included."""
    encoder = atari.pixel_encoder(task.preset.model, seed)
    data = natural_data(task)
    encoder.standardise_by(data.mean_frame, data.deviation)
    return encoder


def probed(task: GameTask, encoder: SlotCNN) -> Artifact:
    """Return the probe's rows for an encoder; found again by the encoder's weights."""

    def run(scratch: Scratch) -> Artifact:
        del scratch
        sets = probe_sets(task)
        place = find_device(task.device)
        encoder.to(place)
        features = (
            encode(encoder, sets.training).to(place),
            encode(encoder, sets.test).to(place),
        )
        probes = task.preset.probing.probes
        return Artifact({"rows": score_features(*features, probes, slots=atari.SLOTS)})

    return Store(task.store).get_or_run(
        "probe", probe_key(task) | {"encoder": parameter_hash(encoder)}, run
    )


def probed_pixels(task: GameTask) -> Artifact:
    """Return the probe's rows for the principal components of the pixels."""
    width = atari.SLOTS * task.preset.model.dim

    def run(scratch: Scratch) -> Artifact:
        del scratch
        sets = probe_sets(task)
        features = pixel_features(sets.training, sets.test, width)
        return Artifact({"rows": score_features(*features, task.preset.probing.probes, slots=0)})

    return Store(task.store).get_or_run("probe", probe_key(task) | {"pca": width}, run)


def probe_key(task: GameTask) -> dict[str, Any]:
    """Return what every stage that probes depends on: `data_key`, the probes and their rows."""
    return data_key(task) | {"config": as_json(task.preset.probing), "seed": PROBE_SEED}


def data_key(task: GameTask) -> dict[str, Any]:
    """Return what every stage depends on: data, split, sizes of the model and device."""
    recording = task.preset.recording
    return {
        "data": open_episodes(task).dataset.fingerprint,
        "split": [recording.train_episodes, recording.validation_episodes, SPLIT_SEED],
        "model": as_json(task.preset.model),
        "device": task.device,
    }
