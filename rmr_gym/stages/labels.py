"""The probe of Anand et al. 2019: named state variables as classes, read linearly off features."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rmr_gym.core import metrics
from rmr_gym.core.errors import RMRError
from rmr_gym.data.ram import byte_entropy
from rmr_gym.domains.atari import AtariModel
from rmr_gym.domains.atari_labels import CATEGORIES, Label, label_values, labels_of
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.runs.store import Artifact, stage
from rmr_gym.stages.games import PROBE_SEED, GameData, probe_sets
from rmr_gym.stages.natural import kept_encoder, kept_steps
from rmr_gym.stages.presets import Probing
from rmr_gym.stages.probe import Reference, encode, fitting_rows

COMPONENTS, SMALLEST = 1024, 1e-7
ROUNDS, ROUND_STEPS, PATIENCE = 40, 5, 3
"""L-BFGS iterations between two looks at the validating rows; how many looks, and how patient."""

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


class Projected(NamedTuple):
    """Features of both sets on the principal components of the training set."""

    train: Float[Tensor, "rows width"]
    test: Float[Tensor, "others width"]


def project(train: Float[Tensor, "rows width"], test: Float[Tensor, "others width"]) -> Projected:
    """Turn the features onto at most `COMPONENTS` principal directions of the training rows.

    Each direction is divided by the square root of its deviation, halfway between the features as
    they are and whitened ones: the read-out is as linear as before, and L-BFGS needs far fewer
    iterations. Directions beyond `COMPONENTS`, which vary least, are left out.
    """
    mean = train.mean(0)
    fitted, other = train - mean, test - mean
    variance, left = torch.linalg.eigh((fitted @ fitted.T).double())
    kept = variance > max(float(variance[-1]) * SMALLEST, 1e-30)
    left, variance = left[:, kept][:, -COMPONENTS:], variance[kept][-COMPONENTS:]
    if len(variance) == 0:
        return Projected(0 * fitted[:, :1], 0 * other[:, :1])
    deviation = (variance / len(train)).sqrt()
    components = fitted.T @ (left / (variance * deviation).sqrt()).float()
    return Projected(fitted @ components, other @ components)


def predict_labels(
    train: Float[Tensor, "rows width"],
    labels: UInt8[np.ndarray, "rows labels"],
    fit: Bool[np.ndarray, " rows"],
    test: Float[Tensor, "others width"],
) -> UInt8[np.ndarray, "others labels"]:
    """Fit one multinomial logistic read-out a label and predict the labels of the test rows.

    All labels of a game are one linear layer, whose cross-entropies are summed and minimised by
    L-BFGS over all rows at once. After every `ROUND_STEPS` iterations each label is scored on the
    rows that are held back, and keeps the weights of its best round; fitting ends when no label
    has become better for `PATIENCE` rounds.

    Args:
        train: Features of the training episodes.
        labels: Their labels.
        fit: Rows to fit on; the others stop the fitting.
        test: Features to predict labels for.
    """
    features = project(train, test)
    classes = [np.unique(column) for column in labels.T]
    targets = torch.from_numpy(
        np.stack([np.searchsorted(c, column) for c, column in zip(classes, labels.T, strict=True)])
    )
    rows, held = (torch.from_numpy(np.flatnonzero(mask)) for mask in (fit, ~fit))
    sizes = [len(each) for each in classes]
    fitted = features.train[rows], targets[:, rows]
    weights = _fit(*fitted, features.train[held], targets[:, held], sizes)
    chosen = [scores.argmax(1).numpy() for scores in _scores(features.test, weights, sizes)]
    return np.stack([c[index] for c, index in zip(classes, chosen, strict=True)], axis=1)


def _fit(
    values: Float[Tensor, "rows width"],
    targets: Int[Tensor, "labels rows"],
    held: Float[Tensor, "held width"],
    held_targets: Int[Tensor, "labels held"],
    sizes: list[int],
) -> Float[Tensor, "weights outputs"]:
    """Return the weights, with the biases as last row, of each label's best round."""
    weights = torch.zeros(values.shape[1] + 1, sum(sizes), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=ROUND_STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = _scores(values, weights, sizes)
        total = sum(F.cross_entropy(s, t) for s, t in zip(scores, targets, strict=True))
        assert isinstance(total, Tensor)
        total.backward()
        return total

    best, reached, waited = weights.detach().clone(), torch.full((len(sizes),), -1.0), 0
    for _ in range(ROUNDS):
        with _without_denormals():
            optimizer.step(loss)
        with torch.no_grad():
            scores = _scores(held, weights, sizes)
            right = [(s.argmax(1) == t) for s, t in zip(scores, held_targets, strict=True)]
        now = torch.stack([each.float().mean() for each in right])
        better = now > reached
        outputs = better.repeat_interleave(torch.tensor(sizes))
        best[:, outputs] = weights.detach()[:, outputs]
        reached = torch.where(better, now, reached)
        waited = 0 if better.any() else waited + 1
        if waited >= PATIENCE:
            break
    return best


def _scores(
    values: Float[Tensor, "rows width"], weights: Float[Tensor, "weights outputs"], sizes: list[int]
) -> tuple[Float[Tensor, "rows _"], ...]:
    return torch.addmm(weights[-1], values, weights[:-1]).split(sizes, dim=1)


@contextmanager
def _without_denormals() -> Iterator[None]:
    """Let numbers below 1e-38 count as 0: tiny probabilities would slow the fit tenfold."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
