"""From frames to vectors and back, as neural expectation maximisation does it."""

from collections.abc import Sequence
from itertools import pairwise
from math import gcd

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError

KERNEL = 4
_TAPS = (
    ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
    ((0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.0)),
)


class FrameEncoder(nn.Module):
    """Convolutions of stride 2, then one fully connected layer: each with layer norm, then ELU.

    Source: R-NEM, Appendix A.1, layers 1 to 4 (channels 16, 32, 64, width 512, frames of 64 x 64).
    Differs: layer norm is over all of a frame with a weight a channel, before the activation, as in
    the code; it adds 1e-5 to the variance, the code 1e-12.

    Args:
        shape: Height, width and channels of a frame.
        channels: Of each convolution.
        width: Of the vector.

    Raises:
        RMRError: The frame cannot be halved so often.
    """

    def __init__(self, shape: tuple[int, int, int], channels: Sequence[int], width: int):
        super().__init__()
        grid = grid_of(shape, len(channels))
        layers: list[nn.Module] = []
        for before, after in pairwise((shape[2], *channels)):
            layers += [nn.Conv2d(before, after, KERNEL, stride=2, padding=1)]
            layers += [nn.GroupNorm(1, after), nn.ELU()]
        cells = grid[0] * grid[1] * channels[-1]
        layers += [nn.Flatten(), nn.Linear(cells, width), nn.LayerNorm(width), nn.ELU()]
        self.layers = nn.Sequential(*layers)

    def forward(
        self, frames: Float[Tensor, "*batch height width channels"]
    ) -> Float[Tensor, "*batch dim"]:
        """Return a vector a frame."""
        flat = frames.flatten(0, -4)
        vectors = self.layers(rearrange(flat, "batch h w c -> batch c h w"))
        return vectors.unflatten(0, frames.shape[:-3])


class FrameDecoder(nn.Module):
    """Two fully connected layers, then convolutions, each after doubling height and width.

    Source: R-NEM, Appendix A.1, layers 6 to 10 (widths 512 and 8 x 8 x 64, channels 32, 16, 1).
    Differs: as `FrameEncoder`.

    Args:
        dim: Width of the vector.
        shape: Height, width and channels of a frame.
        channels: Those of the encoder.
        width: Of the hidden layer.

    Raises:
        RMRError: The frame cannot be halved so often.
    """

    def __init__(self, dim: int, shape: tuple[int, int, int], channels: Sequence[int], width: int):
        super().__init__()
        grid = grid_of(shape, len(channels))
        cells = channels[-1] * grid[0] * grid[1]
        layers: list[nn.Module] = [nn.Linear(dim, width), nn.LayerNorm(width), nn.ReLU()]
        layers += [nn.Linear(width, cells), nn.LayerNorm(cells), nn.ReLU()]
        layers += [nn.Unflatten(1, (channels[-1], *grid))]
        for before, after in pairwise((*reversed(channels), shape[2])):
            layers += [DoublingConv(before, after), nn.GroupNorm(1, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-2], nn.Sigmoid())

    def forward(
        self, vectors: Float[Tensor, "*batch dim"]
    ) -> Float[Tensor, "*batch height width channels"]:
        """Return a frame a vector, in (0, 1)."""
        frames = self.layers(vectors.flatten(0, -2))
        frames = rearrange(frames, "batch c h w -> batch h w c")
        return frames.unflatten(0, vectors.shape[:-1])


class DoublingConv(nn.Conv2d):
    """Twice the height and width by repeated pixels, then a 4 x 4 convolution of the same size.

    The repeated pixels are never made: an even and an odd output pixel see 3 and 2 neighbouring
    input pixels along an axis, so that the four output pixels of an input pixel are channels of one
    3 x 3 convolution of the input, whose weights are sums of those of the 4 x 4 one. That is the
    same, with about half of the multiplications.

    Source: R-NEM, Appendix A.1 (Odena et al. 2016); 1 pixel of zeros before, 2 after, as TensorFlow
    pads.

    Args:
        before: Channels of the input.
        after: Channels of the output.
    """

    taps: Tensor

    def __init__(self, before: int, after: int):
        super().__init__(before, after, KERNEL)
        self.register_buffer("taps", torch.tensor(_TAPS), persistent=False)

    def forward(
        self,
        input: Float[Tensor, "batch before height width"],
    ) -> Float[Tensor, "batch after height2 width2"]:
        """Return a picture of twice the height and width."""
        weight = torch.einsum("pya,qxb,ocab->opqcyx", self.taps, self.taps, self.weight)
        assert self.bias is not None
        bias = self.bias.repeat_interleave(4)
        pixels = F.conv2d(input, weight.flatten(0, 2), bias, padding=1)
        return F.pixel_shuffle(pixels, 2)


def halving(channels: tuple[int, ...], shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return the channels of as many of the first convolutions as can halve a frame, one at least.

    Source: R-NEM, Appendix A.2 (Space Invaders, 84 x 84).
    Differs: of the three of Appendix A.1 two are left there; A.2 has four and a decoder that does
    not fit the frame.
    """
    side, count = gcd(*shape[:2]), len(channels)
    while count > 1 and side % 2**count:
        count -= 1
    return channels[:count]


def grid_of(shape: tuple[int, int, int], halvings: int) -> tuple[int, int]:
    """Return height and width of a frame that is halved some times.

    Raises:
        RMRError: It cannot be halved so often, or there is no halving.
    """
    height, width, _ = shape
    part = 2**halvings
    if not halvings or height % part or width % part:
        raise RMRError(
            f"expected frames whose height and width can be halved {halvings} times (one or more), "
            f"a convolution each, found {height} x {width}: record with resolution=32, or choose a "
            "preset of fewer convolutions"
        )
    return height // part, width // part
