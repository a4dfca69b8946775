"""Tasks on sequences: copying after a pause, digits read pixel by pixel, adding, imitation."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rmr_gym.core.errors import optional
from rmr_gym.core.seeding import generator

TOKENS, BLANK, MARKER = 10, 0, 9
"""Of copying; its digits are 1 to 8."""

SCORE_BATCH = 128

PARTS = {"test": slice(500), "validation": slice(500, 750), "training": slice(750, None)}
"""Parts of the 1,797 images of digits, in an order that is drawn once."""

EPISODES = {"test": slice(2), "validation": slice(2, 4), "training": slice(4, None)}
"""Parts of an expert's episodes."""

HIT = 0.04
"""A sum is right that is off by less, as in Hochreiter and Schmidhuber 1997; a torque too."""

PLACES, TORQUES = 8, 6
"""Of the half-cheetah: height, pitch and six angles of joints; its actions."""


class SequenceBatch(NamedTuple):
    """Sequences, and what is asked for at their last instants.

    Attributes:
        inputs: Tokens, or features of every instant.
        targets: Classes, or real numbers, one or more an instant.
    """

    inputs: Int[Tensor, "batch time"] | Float[Tensor, "batch time features"]
    targets: Int[Tensor, "batch asked"] | Float[Tensor, "batch asked *outputs"]


def copying_batch(rng: np.random.Generator, batch: int, span: int, digits: int) -> SequenceBatch:
    """Draw digits, blanks, the marker, blanks, and ask for blanks, then for the digits.

    Source: RIMs, section 4.1.1 and Appendix C.5.
    Differs: digits are 1 to 8, as in the authors' code, since 0 stands for the blank; the code has
    one blank fewer between the digits and the marker.

    Args:
        rng: Source of the digits.
        batch: Number of sequences, of 2 digits + span + 1 instants.
        span: Blanks between the digits and the marker, 0 or more.
        digits: Number of digits to copy, 1 or more.
    """
    drawn = torch.from_numpy(rng.integers(BLANK + 1, MARKER, (batch, digits)))
    blanks = drawn.new_full((batch, digits + span + 1), BLANK)
    marked = blanks.clone()
    marked[:, span] = MARKER
    return SequenceBatch(torch.cat([drawn, marked], dim=1), torch.cat([blanks, drawn], dim=1))


@cache
def digit_images() -> tuple[Bool[np.ndarray, "images 8 8"], Int[np.ndarray, " images"]]:
    """Return scikit-learn's digits, black where the ink is half of the most or more, and classes.

    Raises:
        RMRError: scikit-learn is missing.
    """
    digits = optional("sklearn.datasets", "digits")
    images, classes = map(np.asarray, digits.load_digits(return_X_y=True))
    order = generator(0, "parts of the digits").permutation(len(images))
    return images.reshape(-1, 8, 8)[order] >= images.max() / 2, classes[order]


def digits_batch(rng: np.random.Generator, batch: int, side: int, part: str) -> SequenceBatch:
    """Draw different images of digits, read pixel by pixel in rows, and ask which they are.

    Source: RIMs, section 4.1.2 and Appendix C.6 (nearest neighbour, black and white).
    Differs: scikit-learn's 8 x 8 digits in place of MNIST's 28 x 28.

    Args:
        rng: Source of the choice.
        batch: Number of sequences, of side^2 instants; at most as many as there are in the part.
        side: Pixels across and down that images are scaled to, 1 or more.
        part: A name in `PARTS`.

    Raises:
        RMRError: scikit-learn is missing.
    """
    images, classes = (own[PARTS[part]] for own in digit_images())
    chosen, kept = rng.permutation(len(images))[:batch], np.arange(side) * 8 // side
    pixels = images[chosen][:, kept[:, None], kept].reshape(len(chosen), -1)
    inputs, targets = pixels.astype(np.int64), classes[chosen, None].astype(np.int64)
    return SequenceBatch(torch.from_numpy(inputs), torch.from_numpy(targets))


def adding_batch(rng: np.random.Generator, batch: int, length: int) -> SequenceBatch:
    """Draw numbers in [0, 1), one of each half marked, and ask for the sum of these two.

    Features are the number, a mark in the first half, a mark in the second, and 1.

    Source: the authors' code (Hochreiter and Schmidhuber 1997); the paper's text has no such task.
    Differs: every batch is new, where the code has 30,000 sequences; 1 is in place of a bias.

    Args:
        rng: Source of the numbers.
        batch: Number of sequences.
        length: Instants of each, 2 or more.
    """
    half, rows = length // 2, np.arange(batch)
    marked = rng.integers(half, size=batch), half + rng.integers(length - half, size=batch)
    inputs = np.zeros((batch, length, 4), np.float32)
    inputs[..., 0], inputs[..., 3] = rng.random((batch, length)), 1
    for feature, places in enumerate(marked, start=1):
        inputs[rows, places, feature] = 1
    sums = sum(inputs[rows, places, 0] for places in marked)
    return SequenceBatch(torch.from_numpy(inputs), torch.from_numpy(sums)[:, None])


def imitation_batch(
    rng: np.random.Generator, batch: int, span: int, part: str, shown: Mapping[str, Tensor]
) -> SequenceBatch:
    """Draw stretches of an expert's episodes, and ask at every instant for its action.

    Source: RIMs, Appendix C.7. Differs: positions without velocities in place of images.

    Args:
        rng: Source of the choice.
        batch: Number of sequences.
        span: Instants of each, at most as many as an episode has.
        part: A name in `EPISODES`.
        shown: ``states`` [episodes time features], of which the first `PLACES` are seen, and
            ``actions`` [episodes time outputs].
    """
    states, actions = (shown[name][EPISODES[part]] for name in ("states", "actions"))
    rows = torch.from_numpy(rng.integers(len(states), size=(batch, 1)))
    starts = torch.from_numpy(rng.integers(states.shape[1] - span + 1, size=(batch, 1)))
    times = starts + torch.arange(span)
    return SequenceBatch(states[rows, times, :PLACES], actions[rows, times])


class Kind(NamedTuple):
    """A task on sequences.

    Attributes:
        inputs: Number of tokens or of features.
        outputs: Number of classes, or of real numbers.
        draw: Gives a batch from a generator, the number of sequences and their span.
        takes: What it takes beside: the digits to copy, the part of the data, what was shown.
        least: Smallest span.
        held_out: Whether the checkpoint of the least loss on validation sequences of the training
            span counts; otherwise the last does.
    """

    inputs: int
    outputs: int
    draw: Callable[..., SequenceBatch]
    takes: tuple[str, ...]
    least: int
    held_out: bool = True


KINDS = {
    "copying": Kind(TOKENS, TOKENS, copying_batch, ("digits",), least=0, held_out=False),
    "digits": Kind(2, 10, digits_batch, ("part",), least=1),
    "adding": Kind(4, 1, adding_batch, (), least=2),
    "imitation": Kind(PLACES, TORQUES, imitation_batch, ("part", "shown"), least=1),
}
"""Tasks by name."""


def losses(
    outputs: Float[Tensor, "batch time outputs"],
    targets: Int[Tensor, "batch asked"] | Float[Tensor, "batch asked *outputs"],
    reduction: str = "mean",
) -> Float[Tensor, "*asked"]:
    """Return the cross-entropy in nats, or the squared error, at the instants that are asked for.

    Args:
        outputs: At every instant.
        targets: At the last ones.
        reduction: "mean", or "none" for one loss a target.
    """
    asked, wanted = outputs[:, outputs.shape[1] - targets.shape[1] :], targets.flatten()
    if targets.is_floating_point():
        return torch.nn.functional.mse_loss(asked.flatten(), wanted, reduction=reduction)
    return torch.nn.functional.cross_entropy(asked.flatten(0, 1), wanted, reduction=reduction)


@torch.no_grad()
def score(
    model: nn.Module, data: SequenceBatch, asked: int, generator: torch.Generator
) -> tuple[dict[str, float], Bool[Tensor, "batch time slots"]]:
    """Score a model of sequences in evaluation mode, and return which RIMs were active.

    Source: RIMs, Table 1. Differs: none.

    Args:
        model: From inputs and a generator to a `SequenceOutput`.
        data: Sequences.
        asked: So many instants at the end are scored.
        generator: On the device of the model.

    Returns:
        Scores by name: cross_entropy (mean, in nats) or mse; accuracy (share of the classes that
        are right, or of the numbers that are off by less than `HIT`).
    """
    was_training = model.training
    model.eval()
    lost, hits, active = [], [], []
    for inputs, targets in zip(*(part.split(SCORE_BATCH) for part in data), strict=True):
        out, wanted = model(inputs, generator), targets[:, -asked:]
        lost.append(losses(out.outputs, wanted, "none"))
        hits.append(
            lost[-1] < HIT**2
            if wanted.is_floating_point()
            else out.outputs[:, -asked:].argmax(dim=-1).flatten() == wanted.flatten()
        )
        active.append(out.active.cpu())
    model.train(was_training)
    name = "mse" if data.targets.is_floating_point() else "cross_entropy"
    accuracy = torch.cat(hits).float().mean().item()
    return {name: torch.cat(lost).mean().item(), "accuracy": accuracy}, torch.cat(active)
