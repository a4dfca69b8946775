"""The label probe itself: multinomial logistic read-outs of many labels, solved together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

COMPONENTS, SMALLEST = 1024, 1e-7
ROUNDS, ROUND_STEPS, PATIENCE = 40, 5, 3
"""L-BFGS iterations between two looks at the validating rows; how many looks, and how patient."""


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
