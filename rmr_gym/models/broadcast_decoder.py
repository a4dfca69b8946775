"""The spatial broadcast decoder: one picture and one mask a slot, laid over each other."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.models.objects import cell_centres

LAYERS, KERNEL = 5, 3
_ZOOM, _EVEN = 4.0, 0.25


class Decoded(NamedTuple):
    """A frame and what it is made of.

    Attributes:
        frame: The pictures, weighted by their masks, colours in about [0, 1].
        masks: Share of each slot in each pixel; they add up to 1.
        pictures: Each slot's own picture.
    """

    frame: Float[Tensor, "batch height width 3"]
    masks: Float[Tensor, "batch slots height width"]
    pictures: Float[Tensor, "batch slots height width 3"]


class BroadcastDecoder(nn.Module):
    """Every slot is laid out over a grid, joined by coordinates, and decoded on its own.

    Five transposed convolutions, the last one from the grid to the frame, and a linear layer to
    colours and a mask; the masks of all slots go through a softmax.

    Source: RMR, Appendix A; Watters et al. 2019.
    Differs: slot and coordinates are added after a linear map each.

    Args:
        dim: Width of a slot.
        resolution: Height and width of a frame, a multiple of ``grid``.
        channels: Of the transposed convolutions; the last one has a quarter of them.
        grid: Height and width of the grid that slots are laid out on.

    Raises:
        RMRError: The frame is no multiple of the grid.
    """

    cells: Tensor
    coordinates = 2

    def __init__(self, dim: int, resolution: int, channels: int = 32, grid: int = 8):
        super().__init__()
        if grid < 1 or resolution % grid:
            raise RMRError(f"expected a grid that divides {resolution} pixels, got {grid}")
        self.grid = grid
        self.content = nn.Linear(dim, channels)
        self.place = nn.Linear(self.coordinates, channels)
        last = max(4, channels // 4)
        self.deconvolutions = _deconvolutions(channels, last, resolution // grid)
        self.output = nn.Linear(last, 4)
        self.register_buffer("cells", cell_centres(grid), persistent=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw transposed convolutions that keep the size of their input (He et al. 2015)."""
        for layer in self.deconvolutions:
            if isinstance(layer, nn.ConvTranspose2d):
                fan = layer.in_channels * (layer.kernel_size[0] / layer.stride[0]) ** 2
                layer.weight.normal_(std=(2 / fan) ** 0.5, generator=generator)
                assert layer.bias is not None
                layer.bias.zero_()

    def forward(self, slots: Float[Tensor, "batch slots dim"]) -> Decoded:
        """Decode all slots and lay their pictures over each other."""
        laid_out = self.content(slots)[:, :, None] + self.place(self._coordinates(slots))
        maps = laid_out.flatten(0, 1).unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        maps = self.deconvolutions(maps).permute(0, 2, 3, 1)
        decoded = self.output(maps).float().unflatten(0, slots.shape[:2])
        pictures = self._coloured(decoded[..., :3], slots)
        masks = decoded[..., 3].softmax(dim=1)
        return Decoded((pictures * masks[..., None]).sum(dim=1), masks, pictures)

    def _coordinates(self, slots: Tensor) -> Tensor:
        """Return the coordinates of the cells, as each slot sees them if they differ."""
        del slots
        return self.cells

    def _coloured(self, pictures: Tensor, slots: Tensor) -> Tensor:
        """Return the pictures in the colours of their slots, where slots have one."""
        del slots
        return pictures


class ObjectDecoder(BroadcastDecoder):
    r"""A broadcast decoder that reads place and colour of an object linearly from its slot.

    The coordinates are :math:`(x, y, x^2 + y^2 - 1)` of the grid as seen from the object's place,
    so that a moved object is a moved picture; the picture is multiplied by the object's colour.
    Place and colour are read from the first numbers of the slot to begin with, see `aim`.

    Source: places relative to the object are those of Biza et al. 2023, "Invariant slot attention".
    Differs: the object's place is a linear map of the slot, since P stands between encoder and
    decoder; size is not read.
    """

    coordinates = 3

    def __init__(self, dim: int, resolution: int, channels: int = 32, grid: int = 8):
        super().__init__(dim, resolution, channels, grid)
        self.position, self.colour = nn.Linear(dim, 2), nn.Linear(dim, 3)

    @torch.no_grad()
    def aim(self) -> None:
        """Let numbers 0 and 1 of a slot be its place, 2 to 4 its colour, and pictures be even."""
        self.output.weight.mul_(_EVEN)
        self.output.bias.fill_(0.5)
        for layer, first in ((self.position, 0), (self.colour, 2)):
            layer.bias.zero_()
            layer.weight.zero_()
            layer.weight[:, first : first + layer.out_features].fill_diagonal_(1.0)

    def _coordinates(self, slots: Tensor) -> Tensor:
        seen = _ZOOM * (self.cells - self.position(slots)[:, :, None])
        return torch.cat([seen, seen.square().sum(dim=-1, keepdim=True) - 1], dim=-1)

    def _coloured(self, pictures: Tensor, slots: Tensor) -> Tensor:
        return pictures * self.colour(slots).float()[:, :, None, None]


DECODERS: dict[str, Callable[..., BroadcastDecoder]] = {
    "object": ObjectDecoder,
    "broadcast": BroadcastDecoder,
}
"""Makers of decoders by name."""


def _deconvolutions(channels: int, last: int, zoom: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(LAYERS - 1):
        parts += [nn.ConvTranspose2d(channels, channels, KERNEL, padding=1), nn.ReLU()]
    final = (KERNEL, 1, 1) if zoom == 1 else (zoom, zoom, 0)
    return nn.Sequential(*parts, nn.ConvTranspose2d(channels, last, *final), nn.ReLU())
