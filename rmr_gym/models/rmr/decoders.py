"""Decoders: from processed latents to RAM (abstract) or to the next latents (natural)."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class RamLogits(NamedTuple):
    """What the RAM decoder says of the next state, as logits."""

    mask: Float[Tensor, "batch slots"]
    """Is the byte overwritten?"""
    bits: Float[Tensor, "batch slots bits"]
    """The bits that are written, where it is."""


class RamDecoder(nn.Module):
    r"""Linear heads for the mask of changed bytes and for their bits.

    .. math:: \mu = \sigma(W^\mu z' + b^\mu), \qquad \bar{y} = W^g z' + b^g

    Source: RMR, Appendix F, eq. 4 and 5.
    Differs: none here; `rmr_gym.models.rmr.losses.predicted_bits` joins mask and bits.
    """

    def __init__(self, dim: int = 64, bits: int = 8):
        super().__init__()
        self.mask = nn.Linear(dim, 1)
        self.bits = nn.Linear(dim, bits)

    def forward(self, z: Float[Tensor, "batch slots dim"]) -> RamLogits:
        """Decode the processed latents."""
        return RamLogits(self.mask(z)[..., 0], self.bits(z))


class LatentDecoder(nn.Linear):
    """One linear projection a slot onto the latents of the next frame.

    Source: RMR, section 5, natural pipeline. Differs: none.
    """

    def __init__(self, dim: int = 64):
        super().__init__(dim, dim)
