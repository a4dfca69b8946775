"""Unpaired alignment: a pixel pipeline that starts out speaking the latents P was pretrained on.

Frozen weights are worth something only on inputs like those they were trained on. Here the pixel
encoder starts with each slot's latents as the abstract encoder has them, in mean and covariance,
and the decoder starts as the linear map that serves P best on RAM. No frame is ever shown with its
RAM: of the RAM, moments of single slots and one regression between abstract latents are used.
"""

from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from rmr_gym.core.seeding import generator
from rmr_gym.domains.atari import AbstractData, NaturalData
from rmr_gym.models.rmr.encoders import SlotCNN

ROWS = 2000
FLOOR = 0.01
"""Share of the mean variance below which no direction of a slot falls; else most slots are dead."""


class AbstractLatents(NamedTuple):
    """Abstract latents before and after the action, of transitions drawn at random."""

    current: Float[Tensor, "rows slots dim"]
    action: Int[Tensor, " rows"]
    following: Float[Tensor, "rows slots dim"]


@torch.no_grad()
def abstract_latents(encoder: nn.Module, data: AbstractData, rows: int = ROWS) -> AbstractLatents:
    """Encode ``rows`` transitions of RAM, drawn without replacement, in random order."""
    count = len(data.current)
    index = generator(0, "abstract latents").permutation(count)[:rows]
    before, after = (
        encoder(torch.from_numpy(data.bits[data.current[index] + ahead]).float())
        for ahead in (0, 1)
    )
    return AbstractLatents(before, torch.from_numpy(data.action[index]), after)


@torch.no_grad()
def match_moments(encoder: SlotCNN, data: NaturalData, latents: AbstractLatents) -> None:
    r"""Set the encoder's affine map so that each slot has the abstract mean and covariance.

    .. math:: A_i = N_i^{-1/2} (N_i^{1/2} C_i N_i^{1/2})^{1/2} N_i^{-1/2}

    the optimal transport between Gaussians, N the natural and C the abstract covariance; both are
    raised to a floor, so that cells of RAM that never change leave their slots alive.

    Source: none in the paper; Peyré and Cuturi 2019, Computational Optimal Transport, remark 2.31.

    Args:
        encoder: With an affine map a slot (``affine=True``) and its input statistics set.
        data: Frames, spread evenly over which the natural moments are taken.
        latents: Of the abstract encoder.
    """
    assert encoder.affine is not None
    encoder.affine.reset()
    rows = np.linspace(0, len(data.frames) - 1, min(ROWS, len(data.frames))).astype(int)
    natural = torch.cat([encoder(part) for part in data.frames[torch.from_numpy(rows)].split(250)])
    mean, covariance = _moments(natural)
    target_mean, target = _moments(latents.current)
    root, inverse = _roots(covariance)
    middle, _ = _roots(root @ target @ root)
    weight = inverse @ middle @ inverse
    encoder.affine.weight.copy_(weight)
    offset = target_mean - torch.einsum("si,sij->sj", mean, weight)
    encoder.affine.bias.copy_(offset)


@torch.no_grad()
def fit_decoder(decoder: nn.Linear, processor: nn.Module, latents: AbstractLatents) -> None:
    """Set the decoder to the least squares map from P's output to the abstract latents that follow.

    Every arm gets the best decoder for its own P, so that none starts behind for lack of one.
    """
    parts = zip(latents.current.split(250), latents.action.split(250), strict=True)
    outputs = torch.cat([processor(current, action) for current, action in parts])
    x = rearrange(outputs, "rows slots dim -> (rows slots) dim").double()
    y = rearrange(latents.following, "rows slots dim -> (rows slots) dim").double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    gram = (x - x_mean).T @ (x - x_mean)
    gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, (x - x_mean).T @ (y - y_mean)).T
    decoder.weight.copy_(weight)
    decoder.bias.copy_(y_mean - weight @ x_mean)


def _moments(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return means [slots dim] and floored covariances [slots dim dim], in double precision."""
    slots = rearrange(latents.double(), "rows slots dim -> slots rows dim")
    mean = slots.mean(1)
    centred = slots - mean[:, None]
    covariance = centred.transpose(1, 2) @ centred / slots.shape[1]
    floor = FLOOR * covariance.diagonal(dim1=1, dim2=2).mean()
    return mean, covariance + floor * torch.eye(slots.shape[2], dtype=slots.dtype)


def _roots(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square roots of symmetric positive matrices, and their inverses."""
    values, vectors = torch.linalg.eigh(matrices)
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(root > 0, 1 / root, 0)
    return (
        vectors * root[:, None] @ vectors.transpose(1, 2),
        vectors * inverse[:, None] @ vectors.transpose(1, 2),
    )
