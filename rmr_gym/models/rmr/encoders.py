"""Encoders: from console memory (abstract) or from frames (natural) to one latent vector a slot."""

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, unknown_name

TRUNKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "anand2019": ((32, 8, 4), (64, 4, 2), (128, 4, 2), (64, 3, 1)),
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
}
"""Convolutions of each trunk as (channels, kernel, stride).

``anand2019`` is the trunk that the paper uses on 210 x 160 frames; it leaves a 9 x 6 map there but
a single cell of an 84 x 84 frame. ``nature`` (Mnih et al. 2015) leaves 7 x 7 of an 84 x 84 frame.
"""


class RamEncoder(nn.Module):
    r"""Linear encoder of RAM bits with a one-hot name of each slot.

    .. math:: z = W^f \bar{x} + U^f o + b^f, \quad o = I

    Source: RMR, Appendix F, eq. 1.
    Differs: none; since ``o`` is the identity, ``U^f o`` is stored as one vector a slot.
    """

    def __init__(self, slots: int = 128, bits: int = 8, dim: int = 64):
        super().__init__()
        self.content = nn.Linear(bits, dim)
        self.slot = nn.Parameter(torch.empty(slots, dim))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the slot vectors as a linear layer over [x, o] would."""
        bound = (self.content.in_features + self.slot.shape[0]) ** -0.5
        self.slot.uniform_(-bound, bound, generator=generator)

    def forward(self, bits: Float[Tensor, "batch slots bits"]) -> Float[Tensor, "batch slots dim"]:
        """Encode bits in {0, 1}."""
        return self.content(bits) + self.slot


class SlotAffine(nn.Module):
    """An affine map of its own for every slot; the identity until it is set or trained."""

    def __init__(self, slots: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(slots, dim, dim))
        self.bias = nn.Parameter(torch.empty(slots, dim))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Become the identity."""
        self.weight.copy_(torch.eye(self.weight.shape[-1]))
        self.bias.zero_()

    def forward(self, z: Float[Tensor, "batch slots dim"]) -> Float[Tensor, "batch slots dim"]:
        """Map the latents of every slot."""
        return torch.einsum("bsi,sij->bsj", z, self.weight) + self.bias


class SlotCNN(nn.Module):
    """Convolutional encoder that gives every slot its own feature maps.

    Trunk, 1x1 convolution to ``slots * maps`` maps, flatten each slot's maps, one linear projection
    to ``dim`` shared by the slots.

    Source: RMR, section 5, natural pipeline; trunk of Anand et al. 2019.
    Differs: the mean training frame is removed and the result divided by the global deviation
    (decisions page, 11a); both are buffers, so they travel with the weights.

    Args:
        height: Rows of a frame, pixels.
        width: Columns of a frame, pixels.
        slots: Number of slots.
        maps: Feature maps a slot (the paper's m).
        dim: Width of a slot's latent vector.
        trunk: A name in `TRUNKS`.
        affine: Whether an affine map of its own for every slot follows (not in the paper).

    Raises:
        RMRError: If the trunk is unknown or the frame is too small for it.
    """

    mean_frame: Tensor
    deviation: Tensor

    def __init__(
        self,
        height: int = 210,
        width: int = 160,
        *,
        slots: int = 128,
        maps: int = 1,
        dim: int = 64,
        trunk: str = "anand2019",
        affine: bool = False,
    ):
        super().__init__()
        if trunk not in TRUNKS:
            raise unknown_name("trunk", trunk, TRUNKS)
        rows, columns = _map_size(height, width, trunk)
        self.slots = slots
        self.trunk = _convolutions(TRUNKS[trunk])
        self.slot_maps = nn.Conv2d(TRUNKS[trunk][-1][0], slots * maps, 1)
        self.project = nn.Linear(maps * rows * columns, dim)
        self.affine = SlotAffine(slots, dim) if affine else None
        self.register_buffer("mean_frame", torch.zeros(height, width))
        self.register_buffer("deviation", torch.ones(()))

    def standardise_by(self, mean_frame: Float[Tensor, "height width"], deviation: float) -> None:
        """Set the statistics that `forward` removes; both in gray levels, 0 to 255."""
        self.mean_frame.copy_(mean_frame)
        self.deviation.fill_(max(deviation, 1e-6))

    def forward(
        self, frames: UInt8[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch slots dim"]:
        """Encode gray frames (0 to 255)."""
        inputs = frames.to(self.mean_frame.dtype).sub_(self.mean_frame).div_(self.deviation)
        maps = self.slot_maps(self.trunk(inputs[:, None]))
        slots = rearrange(
            maps, "batch (slots maps) h w -> batch slots (maps h w)", slots=self.slots
        )
        latents = self.project(slots)
        return latents if self.affine is None else self.affine(latents)


def _convolutions(layers: tuple[tuple[int, int, int], ...]) -> nn.Sequential:
    parts: list[nn.Module] = []
    channels = 1
    for out, kernel, stride in layers:
        parts += [nn.Conv2d(channels, out, kernel, stride), nn.ReLU(inplace=True)]
        channels = out
    return nn.Sequential(*parts)


def _map_size(height: int, width: int, trunk: str) -> tuple[int, int]:
    rows, columns = height, width
    for _, kernel, stride in TRUNKS[trunk]:
        rows, columns = (rows - kernel) // stride + 1, (columns - kernel) // stride + 1
        if min(rows, columns) < 1:
            raise RMRError(
                f"a {height} x {width} frame is too small for the trunk {trunk!r}: use larger "
                "frames or another trunk"
            )
    return rows, columns
