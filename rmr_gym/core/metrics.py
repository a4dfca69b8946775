"""Scores of predicted RAM bits, and the effective rank of features. Needs numpy alone."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8

from rmr_gym.core.errors import RMRError, known_name

States = Float[np.ndarray, "rows width"]
"""Features or latents, one row a frame."""

RamBits = Bool[np.ndarray, "rows bytes bits"] | UInt8[np.ndarray, "rows bytes bits"]


@dataclass(frozen=True)
class BitScores:
    """Scores of predicted bits, each in [0, 1].

    Attributes:
        micro_f1: F1 over all bits of all bytes together; NaN where no bit was 1 or predicted 1.
        macro_f1: Mean of the F1 of each bit; see `bit_f1`.
        slot_accuracy: Share of RAM bytes (the paper's slots) of which every bit is right.
        bit_accuracy: Share of bits that are right.
    """

    micro_f1: float
    macro_f1: float
    slot_accuracy: float
    bit_accuracy: float


def bit_f1(predicted: RamBits, target: RamBits) -> BitScores:
    """Score predicted bits.

    F1 = 2 TP / (2 TP + FP + FN). A bit that is never 1 and never predicted 1 has no F1 (0 / 0) and
    is left out of the macro mean: it is neither rewarded nor punished. This is scikit-learn's
    ``f1_score(..., average="macro", zero_division=nan)``.

    Source: RMR, section 5 and Table 1 (bit-level F1 over RAM bytes of high entropy). Differs: the
    paper does not say how bits are averaged; micro (the headline) and macro are both given.

    Args:
        predicted: Predicted bits, 0 or 1 (or bool), of the bytes that are scored.
        target: True bits, of the same shape.

    Raises:
        RMRError: If the shapes differ, or there is no row or no byte to score.
    """
    if predicted.shape != target.shape:
        raise RMRError(
            f"predicted and target bits must have one shape, got {predicted.shape} and "
            f"{target.shape}"
        )
    if target.size == 0:
        raise RMRError(
            f"bit scores need at least one row and one byte, got {target.shape[0]} rows and "
            f"{target.shape[1]} bytes: score more transitions or lower the entropy threshold"
        )
    guess, truth = predicted.astype(bool), target.astype(bool)
    wrong = guess != truth
    hits, errors = 2.0 * (guess & truth).sum(0), wrong.sum(0)
    defined = hits + errors > 0
    by_bit = hits[defined] / (hits + errors)[defined]
    return BitScores(
        micro_f1=float(hits.sum() / (hits + errors).sum()) if defined.any() else float("nan"),
        macro_f1=float(by_bit.mean()) if defined.any() else float("nan"),
        slot_accuracy=float((~wrong.any(2)).sum(0).mean() / len(truth)),
        bit_accuracy=float(1 - errors.mean() / len(truth)),
    )


@dataclass(frozen=True)
class ClassScores:
    """Scores of predicted classes, each in [0, 1].

    Attributes:
        macro_f1: Mean of the F1 of the classes that occur or are predicted.
        weighted_f1: Mean of the same, weighted by how often each class truly occurs.
        accuracy: Share of rows whose class is right.
    """

    macro_f1: float
    weighted_f1: float
    accuracy: float


def class_scores(
    predicted: UInt8[np.ndarray, " rows"], target: UInt8[np.ndarray, " rows"]
) -> ClassScores:
    """Score predicted classes; a class that is never right has an F1 of 0.

    These are scikit-learn's ``f1_score(target, predicted, average="macro")`` and "weighted".

    Args:
        predicted: Predicted classes, 0 to 255.
        target: True classes.

    Raises:
        RMRError: The lengths differ, or there is no row.
    """
    if len(predicted) != len(target) or len(target) == 0:
        raise RMRError(
            f"class scores need as many predicted as true classes and at least one, got "
            f"{len(predicted)} and {len(target)}"
        )
    right = predicted == target
    hits, guessed, true = (
        np.bincount(classes, minlength=256) for classes in (target[right], predicted, target)
    )
    present = guessed + true > 0
    f1 = 2 * hits[present] / (guessed + true)[present]
    return ClassScores(
        macro_f1=float(f1.mean()),
        weighted_f1=float((f1 * true[present]).sum() / len(target)),
        accuracy=float(right.mean()),
    )


def effective_rank(features: States) -> float:
    """Return how many directions the features use: exp of the entropy of their spectrum.

    With s the singular values of the features after their mean is removed and p = s / sum(s), the
    effective rank is exp(-sum p log p), between 1 (one direction) and min(rows - 1, width).

    Source: Roy and Vetterli 2007, "The effective rank". Differs: the mean is removed first, so
    that a constant offset counts for nothing, and singular values below about 1e-6 of the largest,
    which the Gram matrix cannot resolve, count as 0.

    Args:
        features: One row a frame.

    Returns:
        The effective rank; 0.0 where nothing varies (constant features, or fewer than two rows),
        NaN where a feature is not finite.
    """
    if not np.isfinite(features).all():
        return float("nan")
    if not features.any():
        return 0.0
    values = features.astype(np.float64)
    values = values / np.abs(values).max()
    centred = values - values.mean(0)
    rows, width = centred.shape
    gram = centred @ centred.T if rows < width else centred.T @ centred
    squares = np.linalg.eigvalsh(gram)
    epsilon = np.finfo(np.float64).eps
    rounding = centred.size * (8 * epsilon) ** 2
    kept = squares[squares > max(squares[-1] * epsilon * len(gram), rounding)]
    if kept.size == 0:
        return 0.0
    share = np.sqrt(kept) / np.sqrt(kept).sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def foreground_ari(
    truth: Integer[np.ndarray, "rows height width"], predicted: Integer[np.ndarray, "..."]
) -> Float[np.ndarray, " rows"]:
    """Return the adjusted Rand index of two segmentations over the pixels that objects own.

    With a, b, c, d the ordered pairs of pixels that are together in both, in the truth alone, in
    the prediction alone, in neither, it is 2 (ad - bc) / ((a + b)(b + d) + (a + c)(c + d)): 1 for
    equal segmentations whatever their labels, 0 on average for random ones.

    Source: Hubert and Arabie 1985; scikit-learn's ``adjusted_rand_score``. Differs: none.

    Args:
        truth: Owner of each pixel; 0 is the background, which does not count.
        predicted: Label of each pixel, 0 or more.

    Returns:
        One index a row; NaN where nothing is in the foreground.

    Raises:
        RMRError: If the shapes differ.
    """
    if truth.shape != predicted.shape:
        raise RMRError(
            f"true and predicted segmentations must have one shape, got {truth.shape} and "
            f"{predicted.shape}"
        )
    scores = np.full(len(truth), np.nan)
    for row, (owners, labels) in enumerate(zip(truth, predicted, strict=True)):
        objects = owners > 0
        if objects.any():
            table = np.zeros((int(owners.max()) + 1, int(labels.max()) + 1))
            np.add.at(table, (owners[objects], labels[objects]), 1)
            scores[row] = _adjusted_rand_index(table)
    return scores


def _adjusted_rand_index(table: Float[np.ndarray, "objects labels"]) -> float:
    """Return the adjusted Rand index of a contingency table, 1 where both parts are trivial."""
    pixels = table.sum()
    both = (table**2).sum() - pixels
    in_truth, in_prediction = ((table.sum(axis) ** 2).sum() - pixels for axis in (1, 0))
    only_truth, only_prediction = in_truth - both, in_prediction - both
    neither = pixels**2 - pixels - both - only_truth - only_prediction
    if only_truth == only_prediction == 0:
        return 1.0
    pairs = in_truth * (only_truth + neither) + in_prediction * (only_prediction + neither)
    return float(2 * (both * neither - only_truth * only_prediction) / pairs)


CHUNK = 256
"""Rows of which all pairs are compared at a time."""

TIE = 1e-9
"""Distances that differ by less than this share of the states' own size are equal."""


class Ranks(NamedTuple):
    """For each true state, how its own prediction stands among all predictions."""

    closer: Int[np.ndarray, " rows"]
    """Other predictions that are closer to it: the rank, counted from 0."""
    tied: Int[np.ndarray, " rows"]
    """Other predictions that are as close."""


class RankingScores(NamedTuple):
    """Scores of predicted states, each in [0, 1]."""

    hits_at_1: float
    """Share of true states to which no other prediction is closer."""
    mrr: float
    """Mean of 1 / rank, the best rank being 1."""
    tied: float
    """Share of true states whose own prediction shares its place: near 1, all is one state."""


def ranks(true: States, predicted: States) -> Ranks:
    """Rank each row's prediction among all predictions by Euclidean distance to the true state.

    Distances are computed in double precision, `CHUNK` x `CHUNK` pairs at a time, so that memory
    grows with the rows and not with their square. Two that differ by less than 1e-9 of the states'
    own size are equal.

    Args:
        true: Encoded states that came.
        predicted: Their predictions, in the same order.

    Raises:
        RMRError: The shapes differ, there is no row, or a number is not finite.
    """
    if true.shape != predicted.shape or len(true) == 0:
        raise RMRError(
            "expected true and predicted states of one shape and at least one row, got "
            f"{true.shape} and {predicted.shape}"
        )
    if not (np.isfinite(true).all() and np.isfinite(predicted).all()):
        raise RMRError("expected finite states to rank, found NaN or infinity: training diverged")
    centre = true.mean(0, dtype=np.float64)
    closer, tied = np.zeros(len(true), np.int64), np.zeros(len(true), np.int64)
    for start in range(0, len(true), CHUNK):
        rows = slice(start, start + CHUNK)
        own, answers = true[rows] - centre, predicted[rows] - centre
        reference = np.diagonal(_distances(own, answers))
        slack = TIE * ((own**2).sum(1) + (answers**2).sum(1))
        for other in range(0, len(true), CHUNK):
            columns = slice(other, other + CHUNK)
            gap = _distances(own, predicted[columns] - centre) - reference[:, None]
            closer[rows] += (gap < -slack[:, None]).sum(1)
            tied[rows] += (np.abs(gap) <= slack[:, None]).sum(1)
    return Ranks(closer, tied - 1)


def _distances(
    true: States, predicted: Float[np.ndarray, "others width"]
) -> Float[np.ndarray, "rows others"]:
    """Return squared distances of all pairs."""
    return (true**2).sum(1)[:, None] + (predicted**2).sum(1) - 2 * true @ predicted.T


def ranking_scores(true: States, predicted: States, similarity: str = "euclidean") -> RankingScores:
    """Score predictions by rank; see `ranks`.

    Of states of length 1 the nearest is the one of the largest cosine, so that "cosine" is the
    Euclidean rank of normalised states.

    Source: C-SWM (Kipf et al. 2020), appendix, and its evaluation code: for each true state, the
    rank of its own prediction among the predictions of the whole reference set; a tie counts for
    the own prediction.
    Differs: none in the scores; ``tied`` is added, because a collapsed encoder ties everywhere and
    would score 1; and the similarity may be a cosine.

    Args:
        true: Encoded states that came.
        predicted: Their predictions, in the same order.
        similarity: By which states are near: "euclidean" or "cosine".

    Raises:
        RMRError: As `ranks`, or an unknown similarity.
    """
    known_name("similarity", similarity, ("euclidean", "cosine"))
    if similarity == "cosine":
        true, predicted = _normalised(true), _normalised(predicted)
    order = ranks(true, predicted)
    return RankingScores(
        hits_at_1=float((order.closer == 0).mean()),
        mrr=float((1 / (1 + order.closer)).mean()),
        tied=float((order.tied > 0).mean()),
    )


def _normalised(states: States) -> States:
    """Return the states at length 1; one of length 0 stays."""
    length = np.linalg.norm(states.astype(np.float64), axis=1, keepdims=True)
    return states / np.where(length > 0, length, 1)
