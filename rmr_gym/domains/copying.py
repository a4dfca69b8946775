"""The copying task: remember digits over a stretch of blanks, then say them again."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError

TOKENS, BLANK, MARKER = 10, 0, 9
"""Digits are 1 to 8."""

SCORE_BATCH = 128


class CopyingBatch(NamedTuple):
    """Sequences to be copied.

    Attributes:
        inputs: Digits, blanks, the marker, blanks.
        targets: Blanks, then the digits.
    """

    inputs: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]


def copying_batch(
    rng: np.random.Generator, batch: int, span: int, digits: int = 10
) -> CopyingBatch:
    """Draw sequences of 2 digits + span + 1 instants.

    Source: RIMs, section 4.1.1 and Appendix C.5.
    Differs: digits are 1 to 8, as in the authors' code, since 0 stands for the blank; the code has
    one blank fewer between the digits and the marker.

    Args:
        rng: Source of the digits.
        batch: Number of sequences.
        span: Blanks between the digits and the marker, 0 or more.
        digits: Number of digits to copy, 1 or more.

    Raises:
        RMRError: A number out of its range.
    """
    if min(batch, digits) < 1 or span < 0:
        raise RMRError(
            f"the copying task needs a batch and digits of 1 or more and a span of 0 or more, got "
            f"{batch}, {digits} and {span}"
        )
    drawn = torch.from_numpy(rng.integers(BLANK + 1, MARKER, (batch, digits)))
    blanks = drawn.new_full((batch, digits + span + 1), BLANK)
    marked = blanks.clone()
    marked[:, span] = MARKER
    return CopyingBatch(torch.cat([drawn, marked], dim=1), torch.cat([blanks, drawn], dim=1))


def copying_loss(
    logits: Float[Tensor, "batch time tokens"], targets: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of all instants, blanks included, in nats."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class CopyingScores(NamedTuple):
    """How well sequences are said again.

    Attributes:
        cross_entropy: Mean over the digits asked for, in nats; log 8 for a guess among digits.
        accuracy: Share of digits that are right.
    """

    cross_entropy: float
    accuracy: float


@torch.no_grad()
def score_copying(
    model: nn.Module, data: CopyingBatch, digits: int, generator: torch.Generator
) -> tuple[CopyingScores, Bool[Tensor, "batch time slots"]]:
    """Score a model of tokens in evaluation mode, and return which RIMs were active.

    Source: RIMs, Table 1 (cross-entropy of the last 10 instants). Differs: none.

    Args:
        model: From tokens and a generator to a `TokenOutput`.
        data: Sequences.
        digits: So many instants at the end are scored.
        generator: On the device of the model.
    """
    was_training = model.training
    model.eval()
    losses, hits, active = [], [], []
    for inputs, targets in zip(*(part.split(SCORE_BATCH) for part in data), strict=True):
        out = model(inputs, generator)
        logits, asked = out.logits[:, -digits:].flatten(0, 1), targets[:, -digits:].flatten()
        losses.append(F.cross_entropy(logits, asked, reduction="none"))
        hits.append(logits.argmax(dim=-1) == asked)
        active.append(out.active.cpu())
    model.train(was_training)
    scores = CopyingScores(torch.cat(losses).mean().item(), torch.cat(hits).float().mean().item())
    return scores, torch.cat(active)
