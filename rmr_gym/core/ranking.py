"""Hits at rank 1 and mean reciprocal rank of predicted states. Needs numpy alone."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rmr_gym.core.errors import RMRError, unknown_name

SIMILARITIES = ("euclidean", "cosine")
CHUNK = 256
TIE = 1e-9


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


def ranks(
    true: Float[np.ndarray, "rows width"], predicted: Float[np.ndarray, "rows width"]
) -> Ranks:
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
        own = true[rows] - centre
        reference, slack = _reference(own, predicted[rows] - centre)
        for other in range(0, len(true), CHUNK):
            columns = slice(other, other + CHUNK)
            gap = _distances(own, predicted[columns] - centre) - reference[:, None]
            closer[rows] += (gap < -slack[:, None]).sum(1)
            tied[rows] += (np.abs(gap) <= slack[:, None]).sum(1)
    return Ranks(closer, tied - 1)


def _reference(
    own: Float[np.ndarray, "rows width"], predicted: Float[np.ndarray, "rows width"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Return the distance of each row to its own prediction, and what counts as rounding."""
    sizes = (own**2).sum(1) + (predicted**2).sum(1)
    return np.diagonal(_distances(own, predicted)), TIE * sizes


def _distances(
    true: Float[np.ndarray, "rows width"], predicted: Float[np.ndarray, "others width"]
) -> Float[np.ndarray, "rows others"]:
    """Return squared distances of all pairs."""
    return (true**2).sum(1)[:, None] + (predicted**2).sum(1) - 2 * true @ predicted.T


def ranking_scores(
    true: Float[np.ndarray, "rows width"],
    predicted: Float[np.ndarray, "rows width"],
    similarity: str = "euclidean",
) -> RankingScores:
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
    if similarity not in SIMILARITIES:
        raise unknown_name("similarity", similarity, SIMILARITIES)
    if similarity == "cosine":
        true, predicted = _normalised(true), _normalised(predicted)
    order = ranks(true, predicted)
    return RankingScores(
        hits_at_1=float((order.closer == 0).mean()),
        mrr=float((1 / (1 + order.closer)).mean()),
        tied=float((order.tied > 0).mean()),
    )


def _normalised(states: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "rows width"]:
    """Return the states at length 1; one of length 0 stays."""
    length = np.linalg.norm(states.astype(np.float64), axis=1, keepdims=True)
    return states / np.where(length > 0, length, 1)
