"""Stage 3, probe: how much of the RAM can be read linearly off frozen features."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rmr_gym.core import metrics
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.domains.atari import SLOTS, AtariModel, ProbeData
from rmr_gym.models.rmr.pipeline import build_seeded, find_device
from rmr_gym.runs.store import Artifact, stage
from rmr_gym.stages.games import PROBE_SEED, GameData, ProbeSets, probe_sets
from rmr_gym.stages.natural import dead_slots, kept_encoder, kept_steps
from rmr_gym.stages.presets import Probing

METRICS = (
    "probe", "micro_f1", "macro_f1", "slot_accuracy", "effective_rank", "dead_slots",
)  # fmt: skip

PENALTIES = tuple(10.0**power for power in range(-7, 2))
ROUNDING, MARGIN = 2.0**-18, 0.001
"""Penalties below so much of the largest variance are lost in single precision; the F1 of the first
that is lost may be wrong by so much, and smaller penalties are worse where that one is."""

RANK_ROWS = 1000
EPOCHS, PROBE_BATCH, PROBE_RATE = 30, 100, 1e-3
PATIENCE = 5
"""Epochs of a stochastic probe without improvement after which it ends."""

Records = list[dict[str, Any]]
Values = Float[Tensor, "_ _"]
"""Features of some frames, rows by width; a probe computes on the device that they are on."""


@runtime_checkable
class Reference(Protocol):
    """Features of the probe's frames from elsewhere."""

    @property
    def slots(self) -> int:
        """How many parts a row has, whose death is counted; 0: none."""
        ...

    def key(self) -> Any:
        """Return what decides them, as JSON."""
        ...

    def features(self, train: ProbeData, test: ProbeData) -> tuple[Values, Values]:
        """Return those of the training and of the test rows."""
        ...


class Features(NamedTuple):
    """Features of the probe's training and test frames, and in how many parts they fall."""

    train: Values
    test: Values
    slots: int


@stage(version=4)
def probe(
    data: GameData,
    model: AtariModel,
    config: Probing,
    features: Artifact | Reference,
    device: str = "cpu",
) -> Artifact:
    """Read RAM bits linearly off frozen features.

    Args:
        data: Its training and validation episodes.
        model: Sizes of the encoder.
        config: Probes and rows.
        features: Encoders ``<step>.encoder.*`` of all checkpoints, or features from elsewhere.
        device: Where to compute.

    Returns:
        The record holds ``rows``, one a checkpoint and probe.
    """
    sets = probe_sets(data, model, config)
    parts = checkpoint_features(model, sets, features, device)
    return rows_by_step(parts, lambda part: bit_rows(part, sets, config.probes))


def checkpoint_features(
    model: AtariModel, sets: ProbeSets, given: Artifact | Reference, device: str, first: int = 0
) -> Iterator[tuple[int, Features]]:
    """Give the features of every checkpoint from the first on; those from elsewhere as step 0."""
    if not isinstance(given, Artifact):
        yield 0, Features(*given.features(sets.training, sets.test), given.slots)
        return
    for step in kept_steps(given)[first:]:
        network = kept_encoder(model, given, step).to(find_device(device))
        train, test = (encode(network, part.frames) for part in (sets.training, sets.test))
        yield step, Features(train, test, SLOTS)


def rows_by_step(
    parts: Iterator[tuple[int, Features]], rows_of: Callable[[Features], Records]
) -> Artifact:
    """Return the rows of every checkpoint, each with its step."""
    return Artifact({"rows": [{"step": step, **row} for step, f in parts for row in rows_of(f)]})


class PixelReference(NamedTuple):
    """Principal components of the pixels, at most so many."""

    width: int
    slots: int = 0

    def key(self) -> dict[str, int]:
        """Return what decides them."""
        return {"pca": self.width}

    def features(self, train: ProbeData, test: ProbeData) -> tuple[Values, Values]:
        """Project both sets onto the principal components of the training frames."""
        fitted, other = (data.frames.flatten(1).float() / 255 for data in (train, test))
        return principal_components(fitted, other, self.width, smallest=1e-9)


def principal_components(
    train: Values, test: Values, width: int, smallest: float, whitening: float = 0.0
) -> tuple[Values, Values]:
    """Turn features onto the principal directions of the training rows.

    Args:
        train: Rows that the directions are computed from.
        test: Rows to turn as well.
        width: At most so many directions; those that vary least are left out.
        smallest: Share of the largest variance that a direction must exceed.
        whitening: Each direction is divided by its deviation to this power: 0 leaves features as
            they are, 1 whitens them.
    """
    mean = train.mean(0)
    fitted, other = train - mean, test - mean
    variance, left = torch.linalg.eigh((fitted @ fitted.T).double())
    kept = variance > max(float(variance[-1]) * smallest, 1e-30)
    left, variance = left[:, kept][:, -width:], variance[kept][-width:]
    scale = variance.sqrt() * (variance / len(train)) ** (whitening / 2)
    components = fitted.T @ (left / scale).float()
    return fitted @ components, other @ components


@torch.no_grad()
def encode(encoder: nn.Module, frames: Tensor, batch: int = 250) -> Values:
    """Concatenate the latents of all slots of every frame."""
    place = next(encoder.parameters()).device
    return torch.cat([encoder(part.to(place)).flatten(1) for part in frames.split(batch)])


def bit_rows(features: Features, sets: ProbeSets, probes: tuple[str, ...]) -> Records:
    """Probe features for bits; return one record a probe, with rank and dead slots beside.

    Args:
        features: Of the frames of both sets.
        sets: Whose bits are read; a quarter of the training episodes validates the penalty (ridge)
            or stops the training (adam).
        probes: Keys of `PROBES`.

    Raises:
        RMRError: If there are fewer than two training episodes.
    """
    train, test, slots = features
    rank = metrics.effective_rank(test[:RANK_ROWS].cpu().numpy())
    dead = dead_slots(test.unflatten(1, (slots, -1))) if slots else 0
    bits = torch.from_numpy(sets.training.bits).flatten(1).float().to(train.device)
    fit, rows = fitting_rows(sets.training.episode, PROBE_SEED), []
    for name in probes:
        predicted = PROBES[name](train, bits, fit, test, PROBE_SEED).cpu().numpy()
        scores = metrics.bit_f1(_by_byte(predicted), sets.test.bits.astype(bool))
        values = (name, scores.micro_f1, scores.macro_f1, scores.slot_accuracy, rank, dead)
        rows.append(dict(zip(METRICS, values, strict=True)))
    return rows


def fitting_rows(episode: Int[np.ndarray, " rows"], seed: int) -> Bool[np.ndarray, " rows"]:
    """Return which rows to fit on: all but those of a quarter of the episodes (at least one)."""
    present = np.unique(episode)
    if len(present) < 2:
        raise RMRError(
            f"a probe needs frames of at least 2 training episodes to choose its penalty, got "
            f"{len(present)}: record more episodes"
        )
    order = generator(seed, "probe validation episodes").permutation(present)
    return ~np.isin(episode, order[: max(1, len(present) // 4)])


def split_rows(fit: np.ndarray, place: torch.device) -> tuple[Tensor, Tensor]:
    """Return the numbers of the rows to fit on and of those held out."""
    fitted, held = (torch.from_numpy(np.flatnonzero(mask)).to(place) for mask in (fit, ~fit))
    return fitted, held


def _by_byte(bits: np.ndarray) -> np.ndarray:
    return bits.reshape(len(bits), -1, 8)


def _micro_f1(predicted: Tensor, truth: Tensor) -> float:
    found, true = (_by_byte(bits.cpu().numpy() > 0.5) for bits in (predicted, truth))
    return metrics.bit_f1(found, true).micro_f1


def _ridge(train: Tensor, bits: Tensor, fit: np.ndarray, test: Tensor, seed: int) -> Tensor:
    """Ridge regression of the bits, the penalty chosen on held-out episodes.

    Single precision decides where its rounding cannot: see `_ridge_in`.
    """
    parts = (train, bits, *split_rows(fit, train.device), test)
    predicted = _ridge_in(torch.float32, *parts)
    if predicted is None:
        predicted = _ridge_in(torch.float64, *parts)
    assert predicted is not None
    return predicted


def _ridge_in(
    kind: torch.dtype, train: Tensor, bits: Tensor, rows: Tensor, held: Tensor, test: Tensor
) -> Tensor | None:
    """Fit in some precision; one eigendecomposition serves all penalties.

    With fewer rows than features all is done with products of rows (the dual form), else with
    products of features.

    Returns:
        The predicted bits; None where rounding, which is relative to the largest variance, reaches
        the penalty that is best or one that may be.
    """
    shift = train.to(kind).mean(0)
    values = train.to(kind) - shift
    dual = len(values) < values.shape[1]
    mean = bits[rows].mean(0)
    targets, reading = (bits[rows] - mean).to(kind), values[held]
    if dual:
        gram = _products(values)
        inside, reading = gram[rows][:, rows], gram[held][:, rows]
    else:
        gram = _products(values.T)
        inside, targets = _products(values[rows].T), values[rows].T @ targets
    scale = float(gram.diagonal().sum()) / len(values) or 1.0
    penalty = _best_penalty(inside, reading, targets, mean, bits[held], scale)
    if penalty is None:
        return None
    mean = bits.mean(0)
    targets = (bits - mean).to(kind)
    right, gram = targets if dual else values.T @ targets, gram.double()
    gram.diagonal().add_(penalty * scale)
    solution = torch.cholesky_solve(right.double(), torch.linalg.cholesky(gram)).to(kind)
    weights = values.T @ solution if dual else solution
    return (test.to(kind) - shift) @ weights + mean > 0.5


def _best_penalty(
    inside: Tensor, reading: Tensor, targets: Tensor, mean: Tensor, truth: Tensor, scale: float
) -> float | None:
    """Return the penalty whose F1 on held-out rows is highest; None where rounding may decide."""
    variance, directions = _eigh(inside)
    targets, reading = directions.T @ targets, reading @ directions
    shrunk = variance.clamp(min=0)[:, None]
    scores = [
        _micro_f1(reading @ (targets / (shrunk + penalty * scale)) + mean > 0.5, truth)
        for penalty in PENALTIES
    ]
    best = int(np.argmax(scores))
    lost = sum(penalty * scale < ROUNDING * float(variance[-1]) for penalty in PENALTIES)
    close = lost > 0 and scores[lost - 1] > scores[best] - MARGIN
    if inside.dtype != torch.float64 and (best < lost or close):
        return None
    return PENALTIES[best]


def _products(rows: Tensor) -> Tensor:
    """Return the products of all rows with each other; NumPy computes half of them."""
    if rows.device.type != "cpu":
        return rows @ rows.T
    values = rows.numpy()
    return torch.from_numpy(values @ values.T)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, the smallest first, and eigenvectors; SciPy is the fastest on CPUs."""
    if matrix.device.type != "cpu":
        return torch.linalg.eigh(matrix)
    options = {"driver": "evd", "overwrite_a": True, "check_finite": False}
    values, vectors = scipy.linalg.eigh(matrix.numpy(), **options)
    return torch.from_numpy(values), torch.from_numpy(vectors)


def _adam_std(train: Tensor, bits: Tensor, fit: np.ndarray, test: Tensor, seed: int) -> Tensor:
    mean, deviation = train.mean(0), train.std(0).clamp(min=1e-6)
    return _adam_raw((train - mean) / deviation, bits, fit, (test - mean) / deviation, seed)


def _adam_raw(train: Tensor, bits: Tensor, fit: np.ndarray, test: Tensor, seed: int) -> Tensor:
    """Logistic read-out by Adam, stopped early, best epoch kept: underfits low-rank features."""
    make = partial(nn.Linear, train.shape[1], bits.shape[1])
    layer = build_seeded(make, seed, "adam probe").to(train.device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=PROBE_RATE)
    rows, held = split_rows(fit, train.device)
    best, predicted, waited = -1.0, test.new_zeros(len(test), bits.shape[1], dtype=torch.bool), 0
    for epoch in range(EPOCHS):
        order = torch.from_numpy(generator(seed, "adam probe", epoch).permutation(len(rows)))
        for part in rows[order].split(PROBE_BATCH):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(layer(train[part]), bits[part]).backward()
            optimizer.step()
        with torch.no_grad():
            reached = _micro_f1(layer(train[held]) > 0, bits[held])
            waited = 0 if reached > best else waited + 1
            if waited == 0:
                best, predicted = reached, layer(test) > 0
        if waited >= PATIENCE:
            break
    return predicted


Probe = Callable[[Tensor, Tensor, np.ndarray, Tensor, int], Tensor]
PROBES: dict[str, Probe] = {"ridge": _ridge, "adam_raw": _adam_raw, "adam_std": _adam_std}
"""Probes by name: (training features, their bits, rows to fit on, test features, seed) -> predicted
bits of the test rows."""
