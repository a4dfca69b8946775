"""Stage 3, probe: how much of the RAM can be read linearly off frozen features."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rmr_gym.core import metrics
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains.atari import SLOTS, AtariModel, ProbeData
from rmr_gym.models.rmr.pipeline import build, find_device, torch_generator
from rmr_gym.runs.store import Artifact, stage
from rmr_gym.stages.games import PROBE_SEED, GameData, probe_sets
from rmr_gym.stages.natural import dead_slots, kept_encoder, kept_steps
from rmr_gym.stages.presets import Probing

METRICS = (
    "probe", "micro_f1", "macro_f1", "slot_accuracy", "effective_rank", "dead_slots",
)  # fmt: skip

PENALTIES = tuple(10.0**power for power in range(-7, 2))
RANK_ROWS = 1000
EPOCHS, PATIENCE, PROBE_BATCH, PROBE_RATE = 30, 5, 100, 1e-3


class Features(NamedTuple):
    """Features with their targets and the episode of each row.

    A probe computes on the device that they are on.
    """

    values: Float[Tensor, "rows width"]
    bits: Float[Tensor, "rows targets"]
    episode: Int[np.ndarray, " rows"]

    def to(self, device: torch.device) -> "Features":
        """Return the features on a device."""
        return self._replace(values=self.values.to(device), bits=self.bits.to(device))


@stage(version=2)
def probe(
    data: GameData, model: AtariModel, config: Probing, encoder: Artifact, device: str = "cpu"
) -> Artifact:
    """Read RAM bits linearly off the encoders of all checkpoints of an artifact.

    Args:
        data: Its training and validation episodes.
        model: Sizes of the encoder.
        config: Probes and rows.
        encoder: With tensors ``<step>.encoder.*``.
        device: Where to compute.

    Returns:
        The record holds ``rows``, one a checkpoint and probe.
    """
    sets, place = probe_sets(data, model, config), find_device(device)

    def rows_at(step: int) -> list[dict[str, Any]]:
        network = kept_encoder(model, encoder, step).to(place)
        train, test = (encode(network, part).to(place) for part in (sets.training, sets.test))
        return score_features(train, test, config.probes, slots=SLOTS)

    steps = kept_steps(encoder)
    return Artifact({"rows": [{"step": step, **row} for step in steps for row in rows_at(step)]})


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

    def features(self, train: ProbeData, test: ProbeData) -> tuple["Features", "Features"]:
        """Return those of the training and of the test rows."""
        ...


@stage(version=2)
def probe_reference(
    data: GameData, model: AtariModel, config: Probing, reference: Reference
) -> Artifact:
    """Read RAM bits linearly off features from elsewhere; see `probe`."""
    sets = probe_sets(data, model, config)
    train, test = reference.features(sets.training, sets.test)
    rows = score_features(train, test, config.probes, slots=reference.slots)
    return Artifact({"rows": [{"step": 0, **row} for row in rows]})


class PixelReference(NamedTuple):
    """Principal components of the pixels, at most so many."""

    width: int
    slots: int = 0

    def key(self) -> dict[str, int]:
        """Return what decides them."""
        return {"pca": self.width}

    def features(self, train: ProbeData, test: ProbeData) -> tuple["Features", "Features"]:
        """Project both sets of frames; see `pixel_features`."""
        return pixel_features(train, test, self.width)


@torch.no_grad()
def encode(encoder: nn.Module, data: ProbeData, batch: int = 250) -> Features:
    """Concatenate the latents of all slots of every frame."""
    place = next(encoder.parameters()).device
    parts = data.frames.split(batch)
    values = torch.cat([encoder(part.to(place)).flatten(1).cpu() for part in parts])
    return Features(values, targets(data), data.episode)


def pixel_features(train: ProbeData, test: ProbeData, width: int) -> tuple[Features, Features]:
    """Project both sets of frames onto the principal components of the training frames.

    Args:
        train: Frames that the components are computed from.
        test: Frames to project as well.
        width: At most so many components (the encoder's width).
    """
    flat = [data.frames.flatten(1).float() / 255 for data in (train, test)]
    fitted, other = (values - flat[0].mean(0) for values in flat)
    count = min(width, *fitted.shape)
    if count < fitted.shape[1]:
        variance, left = torch.linalg.eigh((fitted @ fitted.T).double())
        keep = variance > variance[-1] * 1e-9
        left, variance = left[:, keep][:, -count:], variance[keep][-count:]
        components = fitted.T @ (left / variance.sqrt()).float()
        fitted, other = fitted @ components, other @ components
    return (
        Features(fitted, targets(train), train.episode),
        Features(other, targets(test), test.episode),
    )


def predict_bits(
    name: str, train: Features, test: Features, *, seed: int = 0
) -> Bool[np.ndarray, "rows targets"]:
    """Fit the probe ``name`` on ``train`` and predict the bits of ``test``.

    Args:
        name: A key of `PROBES`.
        train: Rows of the training episodes; a quarter of the episodes validates the penalty
            (ridge) or stops the training (adam).
        test: Rows of the validation episodes.
        seed: For the stochastic probes and the choice of the validating episodes.

    Raises:
        RMRError: If there are fewer than two training episodes.
    """
    fit = fitting_rows(train.episode, seed)
    return PROBES[name](train, test, fit, seed).cpu().numpy()


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


def score_features(
    train: Features,
    test: Features,
    probes: tuple[str, ...],
    *,
    slots: int,
    seed: int = PROBE_SEED,
) -> list[dict[str, Any]]:
    """Probe features and return one record a probe, with rank and dead slots beside.

    Args:
        train: Rows of the training episodes.
        test: Rows of the validation episodes.
        probes: Keys of `PROBES`.
        slots: Number of slots of the encoder; 0 for features without slots.
        seed: See `probe`.
    """
    rank = metrics.effective_rank(test.values[:RANK_ROWS].cpu().numpy())
    dead = dead_slots(test.values.unflatten(1, (slots, -1))) if slots else 0
    truth = _by_byte(test.bits.cpu().numpy() > 0.5)
    rows = []
    for name in probes:
        scores = metrics.bit_f1(_by_byte(predict_bits(name, train, test, seed=seed)), truth)
        values = (name, scores.micro_f1, scores.macro_f1, scores.slot_accuracy, rank, dead)
        rows.append(dict(zip(METRICS, values, strict=True)))
    return rows


def _rows(train: Features, fit: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the numbers of the rows to fit on and of those held out."""
    numbers = (torch.from_numpy(np.flatnonzero(mask)) for mask in (fit, ~fit))
    fitted, held = (each.to(train.values.device) for each in numbers)
    return fitted, held


def _by_byte(bits: np.ndarray) -> np.ndarray:
    return bits.reshape(len(bits), -1, 8)


def targets(data: ProbeData) -> Tensor:
    """Return the bits to be read, one column a bit."""
    return torch.from_numpy(data.bits).flatten(1).float()


def _micro_f1(predicted: Tensor, truth: Tensor) -> float:
    found, true = predicted.cpu().numpy(), truth.cpu().numpy() > 0.5
    return metrics.bit_f1(_by_byte(found), _by_byte(true)).micro_f1


def _ridge(train: Features, test: Features, fit: np.ndarray, seed: int) -> Tensor:
    """Ridge regression of the bits, in its dual form, the penalty chosen on held-out episodes."""
    del seed
    mean = train.values.double().mean(0)
    centred = train.values.double() - mean
    gram = centred @ centred.T
    across = (test.values.double() - mean) @ centred.T
    rows, held = _rows(train, fit)
    inside, between = gram[rows][:, rows], gram[held][:, rows]
    scale = float(gram.diagonal().mean()) or 1.0
    scores = [
        _micro_f1(
            _kernel_ridge(inside, between, train.bits[rows], penalty * scale),
            train.bits[held],
        )
        for penalty in PENALTIES
    ]
    best = PENALTIES[int(np.argmax(scores))]
    return _kernel_ridge(gram, across, train.bits, best * scale)


def _kernel_ridge(gram: Tensor, across: Tensor, bits: Tensor, penalty: float) -> Tensor:
    mean = bits.mean(0).double()
    shifted = gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solution = torch.cholesky_solve(bits.double() - mean, torch.linalg.cholesky(shifted))
    return across @ solution + mean > 0.5


def _adam_raw(train: Features, test: Features, fit: np.ndarray, seed: int) -> Tensor:
    return _stochastic(train, test, fit, seed)


def _adam_std(train: Features, test: Features, fit: np.ndarray, seed: int) -> Tensor:
    mean, deviation = train.values.mean(0), train.values.std(0).clamp(min=1e-6)
    scaled = [part._replace(values=(part.values - mean) / deviation) for part in (train, test)]
    return _stochastic(scaled[0], scaled[1], fit, seed)


def _stochastic(train: Features, test: Features, fit: np.ndarray, seed: int) -> Tensor:
    """Logistic read-out by Adam, stopped early, best epoch kept: underfits low-rank features."""
    width, targets = train.values.shape[1], train.bits.shape[1]
    layer = build(
        lambda: nn.Linear(width, targets), torch_generator(integer_seed(seed, "adam probe"))
    ).to(train.values.device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=PROBE_RATE)
    rows, held = _rows(train, fit)
    best, state, waited = -1.0, layer.state_dict(), 0
    for epoch in range(EPOCHS):
        order = torch.from_numpy(generator(seed, "adam probe", epoch).permutation(len(rows)))
        for part in rows[order].split(PROBE_BATCH):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(
                layer(train.values[part]), train.bits[part]
            ).backward()
            optimizer.step()
        with torch.no_grad():
            reached = _micro_f1(layer(train.values[held]) > 0, train.bits[held])
        waited = 0 if reached > best else waited + 1
        if reached > best:
            best = reached
            state = {name: value.clone() for name, value in layer.state_dict().items()}
        if waited >= PATIENCE:
            break
    layer.load_state_dict(state)
    with torch.no_grad():
        return layer(test.values) > 0


PROBES: dict[str, Callable[[Features, Features, np.ndarray, int], Tensor]] = {
    "ridge": _ridge,
    "adam_raw": _adam_raw,
    "adam_std": _adam_std,
}
"""Probes by name: (training features, test features, rows to fit on, seed) -> predicted bits."""
