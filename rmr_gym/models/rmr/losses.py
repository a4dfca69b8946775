"""Objectives: masked binary cross-entropy on RAM; contrastive losses on latents."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rmr_gym.models.rmr.decoders import RamLogits


def ram_loss(
    logits: RamLogits,
    bits: Float[Tensor, "batch slots bits"],
    next_bits: Float[Tensor, "batch slots bits"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the mask, plus that of the bits of the bytes that truly changed.

    Source: RMR, Appendix B and F (teacher forcing: the true mask stands for the indicator).
    Differs: the two means are added with equal weight (the paper does not state the weights).

    Args:
        logits: The decoder's output.
        bits: State before the action, 0 or 1.
        next_bits: State after the action, 0 or 1.
    """
    changed = (bits != next_bits).any(-1)
    written = changed.to(bits.dtype)
    mask_loss = F.binary_cross_entropy_with_logits(logits.mask, written)
    of_bytes = F.binary_cross_entropy_with_logits(logits.bits, next_bits, reduction="none").mean(-1)
    return mask_loss + (of_bytes * written).sum() / written.sum().clamp(min=1)


def predicted_bits(
    logits: RamLogits, bits: Float[Tensor, "batch slots bits"]
) -> Bool[Tensor, "batch slots bits"]:
    """Write the predicted bits where the mask says so, copy the input elsewhere.

    Source: RMR, Appendix F, eq. 5.
    Differs: read literally, eq. 5 zeroes the bytes outside the mask; here they keep their
    value, without which no copy would ever be predicted (decisions page, 8).
    """
    overwrite = (logits.mask > 0)[..., None]
    return torch.where(overwrite, logits.bits > 0, bits > 0.5)


class ContrastiveTerms(NamedTuple):
    """A contrastive loss and the energies that show collapse (means over the batch)."""

    loss: Float[Tensor, ""]
    positive_energy: Float[Tensor, ""]
    negative_energy: Float[Tensor, ""]


def energy(
    first: Float[Tensor, "batch slots dim"],
    second: Float[Tensor, "batch slots dim"],
    sigma: float = 0.5,
) -> Float[Tensor, " batch"]:
    """Squared distance of two states: 0.5 / sigma^2, summed over dim, mean over the slots.

    Source: C-SWM (Kipf et al. 2020), eq. 4, scaled as its code does.
    """
    return 0.5 / sigma**2 * (first - second).square().sum(-1).mean(-1)


def hinge_loss(
    predicted: Float[Tensor, "batch slots dim"],
    current: Float[Tensor, "batch slots dim"],
    following: Float[Tensor, "batch slots dim"],
    permutation: Int[Tensor, " batch"],
    *,
    sigma: float = 0.5,
    hinge: float = 1.0,
    negatives: str = "paper",
) -> ContrastiveTerms:
    """The contrastive hinge of C-SWM.

    Source: C-SWM, eq. 5; RMR, section 5 ("exactly the same ... loss").
    Differs: the permutation has no fixed points.

    Args:
        predicted: g(P(f(x), a)).
        current: f(x).
        following: f(y), the latents of the next frame.
        permutation: Negative partner of each element of the batch.
        sigma: Width of the energy.
        hinge: Margin of the negative term.
        negatives: ``"paper"`` (predicted against permuted next state) or ``"code"`` (current
            against permuted current state, as the published code has it).
    """
    positive = energy(predicted, following, sigma).mean()
    if negatives == "paper":
        negative = energy(predicted, following[permutation], sigma)
    else:
        negative = energy(current, current[permutation], sigma)
    loss = positive + torch.relu(hinge - negative).mean()
    return ContrastiveTerms(loss, positive.detach(), negative.mean().detach())


def info_nce_loss(
    predicted: Float[Tensor, "batch slots dim"],
    following: Float[Tensor, "batch slots dim"],
    *,
    temperature: float = 0.02,
    sigma: float = 0.5,
) -> ContrastiveTerms:
    """Cross-entropy over the cosine similarities of all flattened predictions and next states.

    Gradients flow through both sides. Meant for batches of distinct frames of one episode, where
    telling frames apart needs the moving parts and not the scene.

    Source: van den Oord et al. 2018, eq. 4, on the flattened latent.
    Differs: the similarity is a cosine with a temperature.

    Args:
        predicted: g(P(f(x), a)).
        following: f(y).
        temperature: Divides the similarities.
        sigma: Only for the reported energies.
    """
    left, right = (F.normalize(latents.flatten(1), dim=-1) for latents in (predicted, following))
    similarity = left @ right.T / temperature
    own = torch.arange(len(similarity), device=similarity.device)
    loss = F.cross_entropy(similarity, own)
    with torch.no_grad():
        positive = energy(predicted, following, sigma).mean()
        negative = energy(predicted, following.roll(1, 0), sigma).mean()
    return ContrastiveTerms(loss, positive, negative)
