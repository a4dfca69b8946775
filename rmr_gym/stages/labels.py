"""The probe of Anand et al. 2019: named state variables as classes, read linearly off features."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from rmr_gym.core import metrics
from rmr_gym.core.errors import RMRError
from rmr_gym.data.ram import byte_entropy
from rmr_gym.domains.atari import AtariModel
from rmr_gym.domains.atari_labels import CATEGORIES, Label, label_values, labels_of
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.runs.store import Artifact, stage
from rmr_gym.stages.games import PROBE_SEED, GameData, probe_sets
from rmr_gym.stages.label_fit import predict_labels
from rmr_gym.stages.natural import kept_encoder, kept_steps
from rmr_gym.stages.presets import Probing
from rmr_gym.stages.probe import Reference, encode, fitting_rows

SCORES = ("macro_f1", "weighted_f1", "accuracy")
AVERAGE = "average"
ALL_LABELS, ALL_CATEGORIES = "all_labels", "all_categories"
"""Categories of the two averages over everything, which stand beside one a category."""


@stage(version=2)
def label_probe(
    data: GameData, model: AtariModel, config: Probing, encoder: Artifact, device: str = "cpu"
) -> Artifact:
    """Read named labels linearly off the encoders of all checkpoints of an artifact.

    Args:
        data: Its training and validation episodes.
        model: Sizes of the encoder.
        config: Rows.
        encoder: With tensors ``<step>.encoder.*``.
        device: Where to encode.

    Returns:
        The record holds ``rows``, see `label_rows`, one list a checkpoint.
    """
    sets, place = probe_sets(data, model, config), find_device(device)
    rows = []
    for step in kept_steps(encoder):
        network = kept_encoder(model, encoder, step).to(place)
        train, test = (encode(network, part).values for part in (sets.training, sets.test))
        rows += [{"step": step, **row} for row in label_rows(data, model, config, train, test)]
    return Artifact({"rows": rows})


@stage(version=2)
def label_reference(
    data: GameData, model: AtariModel, config: Probing, reference: Reference
) -> Artifact:
    """Read named labels linearly off features from elsewhere; see `label_probe`."""
    sets = probe_sets(data, model, config)
    train, test = reference.features(sets.training, sets.test)
    rows = label_rows(data, model, config, train.values, test.values)
    return Artifact({"rows": [{"step": 0, **row} for row in rows]})


class LabelSets(NamedTuple):
    """The labels of a game that vary enough, on the probe's training and test frames."""

    labels: tuple[Label, ...]
    training: UInt8[np.ndarray, "rows labels"]
    test: UInt8[np.ndarray, "others labels"]


@lru_cache(maxsize=1)
def label_sets(data: GameData, model: AtariModel, config: Probing) -> LabelSets:
    """Return the labels of a game on the frames that `rmr_gym.stages.games.probe_sets` holds.

    Source: Anand et al. 2019, section 5: only labels whose entropy exceeds 0.6 nats.
    Differs: entropy is taken over the training episodes alone, not over all.

    Raises:
        RMRError: No label of the game varies that much.
    """
    episodes, threshold = data.open(), data.entropy_threshold
    ram = episodes.dataset.load(columns=("ram",), episodes=episodes.training)["ram"]
    known = labels_of(data.label)
    entropy = byte_entropy(label_values(ram, known))
    labels = tuple(label for label, nats in zip(known, entropy, strict=True) if nats > threshold)
    if not labels:
        raise RMRError(
            f"expected a label of {data.label} of more than {threshold} nats of entropy, found at "
            f"most {entropy.max():.3f}: record longer or more varied episodes"
        )
    sets = probe_sets(data, model, config)
    values = (label_values(part.ram, labels) for part in (sets.training, sets.test))
    return LabelSets(labels, *values)


def label_rows(
    data: GameData,
    model: AtariModel,
    config: Probing,
    train: Float[Tensor, "rows width"],
    test: Float[Tensor, "others width"],
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
        data: The game.
        model: Sizes of the frames.
        config: Rows.
        train: Features of the probe's training frames.
        test: Features of its test frames.

    Returns:
        One record a label and average: label, category, macro_f1, weighted_f1, accuracy, classes.
    """
    labels = label_sets(data, model, config)
    episode = probe_sets(data, model, config).training.episode
    fit = fitting_rows(episode, PROBE_SEED)
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
