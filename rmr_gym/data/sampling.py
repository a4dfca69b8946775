"""Which episodes are for training, which transitions make a batch, which RAM bytes are scored.

Draws are functions of a seed, a batch of (seed, stream, step). Both arms of a pair therefore see
the same batches, and a run that goes on after a crash sees those that it would have seen.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from rmr_gym.core.errors import RMRError, known_name, whole_number
from rmr_gym.core.seeding import generator
from rmr_gym.data.dataset import TransitionDataset

WINDOW = 400
"""Length of the stretch of an episode that a batch of kind ``"window"`` is drawn from."""

KINDS = ("uniform", "window")


def split_episodes(
    dataset: TransitionDataset | int, train: int, validation: int, seed: int
) -> tuple[list[int], list[int]]:
    """Draw disjoint training and validation episodes.

    The same count, sizes and seed give the same split; what is left over belongs to neither part.

    Source: RMR, section 5 (48 training and 48 validation episodes).
    Differs: which episodes go where is drawn; the paper does not say how it split.

    Args:
        dataset: A data set, or its number of episodes.
        train: Training episodes, 1 or more.
        validation: Validation episodes, 0 or more.
        seed: Seed of the draw.

    Returns:
        The positions of the training and of the validation episodes, each in ascending order.

    Raises:
        RMRError: There are not enough episodes, or a size is out of range.
    """
    count = dataset if isinstance(dataset, int) else len(dataset.episodes)
    whole_number("training episodes", train, 1)
    whole_number("validation episodes", validation, 0)
    if train + validation > count:
        raise RMRError(
            f"expected at least {train + validation} episodes to split into {train} for training "
            f"and {validation} for validation, found {count}: record more, or split into fewer "
            "(recording.train_episodes, recording.validation_episodes, or the preset smoke)"
        )
    order = generator(seed, "split").permutation(count).tolist()
    return sorted(order[:train]), sorted(order[train : train + validation])


def batch_indices(
    transitions: Any,
    batch: int,
    seed: int,
    stream: str,
    step: int,
    kind: str = "uniform",
    frames: UInt8[np.ndarray, "rows ..."] | None = None,
) -> Int64[np.ndarray, " batch"]:
    """Return the positions of ``batch`` distinct transitions.

    ``"uniform"`` draws them from all transitions. ``"window"`` draws them from 400 successive
    transitions of one episode, which is itself drawn in proportion to its transitions among the
    episodes of at least ``batch`` transitions; shorter episodes are left out.

    Source: none in the paper; ``"window"`` serves the in-episode contrast of the objective
    ``"infonce"``, whose negatives are other instants of the same episode.

    Args:
        transitions: What to draw from: ``current`` says the row of the observation before each, and
            for ``"window"`` ``episode`` its episode, in ascending order.
        batch: Number of transitions.
        seed: Experiment seed.
        stream: Name of what the batch is for, so that two stages draw independently.
        step: Training step.
        kind: ``"uniform"`` or ``"window"``.
        frames: For ``"window"``: the frames that ``current`` points into. With them, a transition
            whose first frame is byte-equal to that of one already drawn is drawn only where the
            window holds too few different frames.

    Raises:
        RMRError: There are too few transitions, no episode is long enough, or there is no such
            kind.
    """
    known_name("kind of batch", kind, KINDS)
    rng = generator(seed, stream, "batch", kind, step)
    if kind == "window":
        return _window(transitions, batch, rng, frames)
    count = len(transitions.current)
    if not 1 <= batch <= count:
        raise RMRError(f"expected a batch of 1 to {count} transitions (all there are), got {batch}")
    return rng.choice(count, size=batch, replace=False).astype(np.int64)


def shifted_inside(
    current: Int64[np.ndarray, " transitions"], index: Int64[np.ndarray, " batch"], horizon: int
) -> Int64[np.ndarray, " batch"]:
    """Move transitions near an episode's end back, so that ``horizon`` of them follow on.

    Args:
        current: Row of the observation before each transition; rows of an episode are successive.
        index: Positions of the drawn transitions.
        horizon: Successive transitions that are needed from each on.

    Raises:
        RMRError: An episode is shorter than that.
    """
    if horizon == 1:
        return index
    bounds = np.flatnonzero(np.diff(current, prepend=-2, append=-2) != 1)
    episode = np.searchsorted(bounds, index, side="right")
    first, end = bounds[episode - 1], bounds[episode]
    if (end - first < horizon).any():
        raise RMRError(
            f"predicting {horizon} steps needs episodes of so many, found one of "
            f"{int((end - first).min())}: record longer episodes"
        )
    return np.minimum(index, end - horizon)


def derangement(n: int, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """Return a permutation of 0..n-1 without fixed points, each with the same probability.

    Source: C-SWM's negatives (RMR, section 5), a permuted batch.
    Differs: C-SWM's code permits fixed points, where a state is its own negative.

    Args:
        n: Length, 2 or more.
        rng: Source of the draw.

    Raises:
        RMRError: ``n`` is below 2: one element has no other to stand for it.
    """
    if n < 2:
        raise RMRError(f"expected a batch of at least 2 to permute without fixed points, got {n}")
    identity = np.arange(n)
    while True:
        permutation = rng.permutation(n)
        if (permutation != identity).all():
            return permutation.astype(np.int64)


def _window(
    transitions: Any, batch: int, rng: np.random.Generator, frames: np.ndarray | None
) -> Int64[np.ndarray, " batch"]:
    if not 1 <= batch <= WINDOW:
        raise RMRError(f"expected a batch of 1 to {WINDOW} transitions (the window), got {batch}")
    first, last = _drawn_episode(transitions, batch, rng)
    start = int(rng.integers(first, max(first, last - WINDOW), endpoint=True))
    candidates = rng.permutation(np.arange(start, min(start + WINDOW, last)))
    if frames is not None:
        candidates = _different_first(candidates, transitions.current, frames, batch)
    return candidates[:batch].astype(np.int64)


def _drawn_episode(transitions: Any, batch: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return the first transition of the drawn episode and the first one after it."""
    _, firsts, lengths = np.unique(transitions.episode, return_index=True, return_counts=True)
    weights = np.where(lengths >= batch, lengths, 0)
    if not weights.any():
        raise RMRError(
            f"expected an episode of at least {batch} transitions to draw a batch from, found at "
            f"most {max(lengths, default=0)}: record longer episodes or lower the batch"
        )
    chosen = int(np.searchsorted(weights.cumsum(), rng.integers(weights.sum()), side="right"))
    return int(firsts[chosen]), int(firsts[chosen] + lengths[chosen])


def _different_first(
    candidates: np.ndarray, current: np.ndarray, frames: np.ndarray, batch: int
) -> np.ndarray:
    """Return the candidates in order, repeated frames behind; stop when a batch is full."""
    seen: set[bytes] = set()
    different: list[int] = []
    repeated: list[int] = []
    for candidate in candidates:
        frame = frames[current[candidate]].tobytes()
        (repeated if frame in seen else different).append(int(candidate))
        seen.add(frame)
        if len(different) == batch:
            break
    return np.array(different + repeated)


def ram_to_bits(ram: UInt8[np.ndarray, "*rows bytes"]) -> UInt8[np.ndarray, "*rows bytes 8"]:
    """Return each byte as its 8 bits, zeros and ones, most significant bit first.

    Source: RMR, Appendix B (RAM as 128 slots of 8 bits).
    Differs: none; the paper does not say which bit comes first.
    """
    return np.unpackbits(ram[..., None], axis=-1)


def bits_to_ram(bits: UInt8[np.ndarray, "*rows bytes 8"]) -> UInt8[np.ndarray, "*rows bytes"]:
    """Return the bytes of which `ram_to_bits` gives ``bits``; anything but 0 counts as 1."""
    return np.packbits(bits, axis=-1)[..., 0]


def byte_entropy(ram: UInt8[np.ndarray, "rows bytes"]) -> Float64[np.ndarray, " bytes"]:
    """Return the entropy of each RAM byte over the rows, in nats.

    H(byte) = - sum over values v of p(v) ln p(v), p being the share of rows that hold v:
    0 for a byte that never changes, at most ln 256 = 5.55.

    Source: Anand et al. (2019), section 5 (labels of low entropy are left out; natural logarithm).
    Differs: none.

    Raises:
        RMRError: There is no row.
    """
    if len(ram) == 0:
        raise RMRError("expected at least one row of RAM to take the entropy of, found none")
    counts = np.stack([np.bincount(column, minlength=256) for column in ram.T])
    shares = counts / len(ram)
    surprise = -np.log(np.where(shares > 0, shares, 1.0))
    return (shares * surprise).sum(axis=1)


def high_entropy_bytes(
    ram: UInt8[np.ndarray, "rows bytes"], threshold: float = 0.6
) -> Int64[np.ndarray, " chosen"]:
    """Return the positions of the RAM bytes whose entropy exceeds the threshold, in order.

    Source: RMR, section 5 (entropy above 0.6, after Anand et al., 2019).
    Differs: the rows are the caller's; decisions page, 6: training episodes of the recipient game.

    Args:
        ram: RAM of the episodes that decide.
        threshold: In nats, 0 or larger.

    Raises:
        RMRError: No byte varies that much, or there is no row.
    """
    entropy = byte_entropy(ram)
    chosen = np.flatnonzero(entropy > threshold)
    if len(chosen) == 0:
        raise RMRError(
            f"expected a RAM byte of more than {threshold} nats of entropy over {len(ram)} rows, "
            f"found at most {entropy.max():.3f}: record longer or more varied episodes, or lower "
            "the threshold"
        )
    return chosen.astype(np.int64)
