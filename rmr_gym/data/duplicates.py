"""Observations that are byte-equal to others: how much a data set repeats itself."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped

from rmr_gym.core.errors import RMRError


@dataclass(frozen=True)
class DuplicateReport:
    """How many rows are byte-equal to an earlier row.

    Attributes:
        rows: Rows that were looked at.
        within: Of these, equal to an earlier row of the same episode.
        across: Of these, equal to a row of an earlier episode.
        repeated: Of these, equal to an earlier row of any episode.
    """

    rows: int
    within: int
    across: int
    repeated: int


def duplicate_report(episodes: Iterable[Shaped[np.ndarray, "rows ..."]]) -> DuplicateReport:
    """Count the repeated rows of episodes, which are looked at one after another."""
    rows = within = across = repeated = 0
    known: set[bytes] = set()
    for episode in episodes:
        own: set[bytes] = set()
        for digest in digests(episode):
            rows += 1
            within += digest in own
            across += digest in known
            repeated += digest in own or digest in known
            own.add(digest)
        known |= own
    return DuplicateReport(rows, within, across, repeated)


def duplicate_rows(
    reference_frames: Shaped[np.ndarray, "reference ..."], frames: Shaped[np.ndarray, "rows ..."]
) -> Bool[np.ndarray, " rows"]:
    """Return which of ``frames`` are byte-equal to any of ``reference_frames``.

    Source: Anand et al. (2019), their code: test frames that occur in training are dropped.
    Differs: none.

    Raises:
        RMRError: The frames differ in type or size, so that none could be equal.
    """
    if (reference_frames.dtype, reference_frames.shape[1:]) != (frames.dtype, frames.shape[1:]):
        raise RMRError(
            f"expected frames of one type and size, found {reference_frames.dtype}"
            f"{list(reference_frames.shape[1:])} and {frames.dtype}{list(frames.shape[1:])}"
        )
    known = set(digests(reference_frames))
    return np.fromiter((row in known for row in digests(frames)), dtype=bool, count=len(frames))


def digests(rows: Shaped[np.ndarray, "rows ..."]) -> Iterator[bytes]:
    """Yield the sha256 of each row's bytes."""
    return (hashlib.sha256(row.tobytes()).digest() for row in rows)
