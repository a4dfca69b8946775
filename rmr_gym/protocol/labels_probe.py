"""The probe of Anand et al. 2019: named state variables as classes, read linearly off features."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rmr_gym.core import metrics
from rmr_gym.core.errors import RMRError
from rmr_gym.data.ram import slot_entropy
from rmr_gym.domains import atari
from rmr_gym.domains.atari_labels import CATEGORIES, Label, label_values, labels_of
from rmr_gym.models.rmr.encoders import SlotCNN
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol import stages
from rmr_gym.protocol.label_fit import predict_labels
from rmr_gym.protocol.probe import encode, fitting_rows, pixel_features
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import Artifact, Scratch, Store

SCORES = ("macro_f1", "weighted_f1", "accuracy")
AVERAGE = "average"
ALL_LABELS, ALL_CATEGORIES = "all_labels", "all_categories"
"""Categories of the two averages over everything, which stand beside one a category."""


class LabelSets(NamedTuple):
    """The labels of a game that vary enough, on the probe's training and test frames."""

    labels: tuple[Label, ...]
    training: UInt8[np.ndarray, "rows labels"]
    test: UInt8[np.ndarray, "others labels"]


@lru_cache(maxsize=1)
def label_sets(task: GameTask) -> LabelSets:
    """Return the labels of a game on the frames that `rmr_gym.protocol.stages.probe_sets` holds.

    Source: Anand et al. 2019, section 5: only labels whose entropy exceeds 0.6 nats.
    Differs: entropy is taken over the training episodes alone, not over all.

    Raises:
        RMRError: No label of the game varies that much.
    """
    episodes, threshold = stages.open_episodes(task), task.preset.probing.entropy_threshold
    ram = episodes.dataset.load(columns=("ram",), episodes=episodes.training)["ram"]
    known = labels_of(task.game)
    entropy = slot_entropy(label_values(ram, known))
    varied = zip(known, entropy, strict=True)
    labels = tuple(label for label, nats in varied if nats > threshold)
    if not labels:
        raise RMRError(
            f"expected a label of {task.game} of more than {threshold} nats of entropy, found at "
            f"most {entropy.max():.3f}: record longer or more varied episodes"
        )
    sets = stages.probe_sets(task)
    values = (label_values(data.ram, labels) for data in (sets.training, sets.test))
    return LabelSets(labels, *values)


def label_rows(
    task: GameTask, train: Float[Tensor, "rows width"], test: Float[Tensor, "others width"]
) -> list[dict[str, Any]]:
    """Probe features of the probe's frames for every label; averages come last.

    Source: Anand et al. 2019, section 5 and Table 2; the probe of their code (linear, 256-way a
    label, stopped on validation episodes).
    Differs: classes are those of the training frames (the others' optimum is never to be
    predicted); L-BFGS over all rows instead of Adam; each label keeps the weights of its own best
    round, and they are used for the test (there the best are saved and the last are tested);
    F1 is the mean over classes (macro, the headline), with the weighted F1 beside it (there the
    weights are those of the predicted classes, because the arguments are swapped).

    Args:
        task: The game.
        train: Features of its probe's training frames.
        test: Features of its probe's test frames.

    Returns:
        One record a label and average: label, category, macro_f1, weighted_f1, accuracy, classes.
    """
    labels = label_sets(task)
    fit = fitting_rows(stages.probe_sets(task).training.episode, stages.PROBE_SEED)
    predicted = predict_labels(train, labels.training, fit, test)
    rows = []
    for column, label in enumerate(labels.labels):
        scores = metrics.class_scores(predicted[:, column], labels.test[:, column])
        classes = len(np.unique(labels.training[:, column]))
        named = {"label": label.name, "category": label.category}
        rows.append(named | vars(scores) | {"classes": classes})
    return [*rows, *averages(rows)]


def averages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean scores of each category, of all labels, and of the categories' means."""
    groups = {
        category: [row for row in rows if row["category"] == category] for category in CATEGORIES
    }
    means = [_mean(category, group) for category, group in groups.items() if group]
    return [*means, _mean(ALL_LABELS, rows), _mean(ALL_CATEGORIES, means)]


def _mean(category: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    means = {name: float(np.mean([row[name] for row in rows])) for name in SCORES}
    return {"label": AVERAGE, "category": category} | means | {"classes": None}


def labelled(task: GameTask, encoder: SlotCNN) -> Artifact:
    """Return the label probe's rows for an encoder; found again by the encoder's weights."""

    def run(scratch: Scratch) -> Artifact:
        del scratch
        sets = stages.probe_sets(task)
        encoder.to(find_device(task.device))
        train, test = (encode(encoder, data).values for data in (sets.training, sets.test))
        return Artifact({"rows": label_rows(task, train, test)})

    return _kept(task, {"encoder": parameter_hash(encoder)}, run)


def labelled_pixels(task: GameTask) -> Artifact:
    """Return the label probe's rows for the principal components of the pixels."""
    width = atari.SLOTS * task.preset.model.dim

    def run(scratch: Scratch) -> Artifact:
        del scratch
        sets = stages.probe_sets(task)
        train, test = pixel_features(sets.training, sets.test, width)
        return Artifact({"rows": label_rows(task, train.values, test.values)})

    return _kept(task, {"pca": width}, run)


def labelled_features(
    task: GameTask,
    train: Float[np.ndarray, "rows width"],
    test: Float[np.ndarray, "others width"],
) -> Artifact:
    """Return the label probe's rows for features from elsewhere; found again by their bytes.

    Args:
        task: The game.
        train: A row for each of the probe's training frames.
        test: A row for each of its test frames.
    """

    def run(scratch: Scratch) -> Artifact:
        del scratch
        tensors = (torch.from_numpy(part).float() for part in (train, test))
        return Artifact({"rows": label_rows(task, *tensors)})

    return _kept(task, {"features": features_hash(train, test)}, run)


def features_hash(*parts: np.ndarray) -> str:
    """Return the SHA-256 of arrays, shapes included."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str((part.shape, part.dtype.str)).encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _kept(task: GameTask, what: dict[str, Any], run: Callable[[Scratch], Artifact]) -> Artifact:
    table = [[label.name, label.ram, label.mask] for label in labels_of(task.game)]
    key = stages.probe_key(task) | what | {"labels": table}
    return Store(task.store).get_or_run("label_probe", key, run)
