"""From pixels to one vector an object and back: Slot Attention and spatial broadcast decoders."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import Latents, draw_uniformly

Clip = Float[Tensor, "batch time height width 3"]
"""Successive frames; colours are in [0, 1]."""

LAYERS, KERNEL = 5, 3
_ZOOM, _EVEN = 4.0, 0.25
MOMENTS = 5
"""Numbers of a slot that say where it looks, x and y, and what colour is there."""


def cell_centres(size: int) -> Float[Tensor, "cells 2"]:
    """Return (x, y) of the cells of a square grid, row by row from the top, in [-1, 1], y upwards.

    They are the coordinates that the balls' positions are in.
    """
    along = (torch.arange(size, dtype=torch.float32) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-along, along, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


class SlotAttention(nn.Module):
    r"""Slots that compete for the cells of a feature map.

    .. math:: A = \mathrm{softmax}_{slots}(q(s)\, k(x)^T / \sqrt{D}), \quad
              u = \bar A\, v(x), \quad s \leftarrow \mathrm{GRU}(s, u) + \mathrm{MLP}(\cdot)

    with :math:`\bar A` the attention normalised over the cells.

    Source: Locatello et al. 2020, Algorithm 1.
    Differs: none; the slots that it starts from are given by the caller.

    Args:
        dim: Width of features and of slots.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.scale = dim**-0.5
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.norm_slots, self.norm_update = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.gru = nn.GRUCell(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the GRU's weights and biases uniformly in +-1/sqrt(width)."""
        draw_uniformly(self.gru.parameters(), self.gru.hidden_size, generator)

    def forward(
        self, features: Float[Tensor, "batch cells dim"], slots: Latents, iterations: int
    ) -> tuple[Latents, Float[Tensor, "batch slots cells"]]:
        """Return the slots after one or more rounds, and the shares of the last round.

        The shares of a slot add up to 1 over the cells.
        """
        keys, values = self.key(features), self.value(features)
        shares = torch.empty(0)
        for _ in range(iterations):
            queries = self.query(self.norm_slots(slots))
            won = (queries @ keys.transpose(1, 2) * self.scale).softmax(dim=1) + 1e-8
            shares = won / won.sum(dim=-1, keepdim=True)
            update = shares @ values
            slots = self.gru(update.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            slots = slots + self.mlp(self.norm_update(slots))
        return slots, shares


class CellFeatures(nn.Module):
    """Convolutions over a frame, with the mean colour of each cell added.

    Source: Locatello et al. 2020, Appendix E (convolutions, then an MLP).
    Differs: three layers, the first of which takes steps of a cell; colours are added through a
    linear map, so that they need not survive the convolutions; places are not embedded, so that
    slots compete for what objects look like and not for regions: where a slot looks is told by the
    moments of its attention instead, see `SlotEncoder`.

    Args:
        resolution: Height and width of a frame in pixels, a multiple of ``cell``.
        channels: Of the convolutions.
        dim: Width of the features.
        cell: Height and width of a cell in pixels, an even number.

    Raises:
        RMRError: The frame cannot be divided into such cells.
    """

    places: Tensor

    def __init__(self, resolution: int, channels: int, dim: int, cell: int = 4):
        super().__init__()
        if cell < 2 or cell % 2 or resolution % cell:
            raise RMRError(
                f"expected cells of an even number of pixels that divide the resolution, got "
                f"{cell} and {resolution}"
            )
        self.cell = cell
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(3, channels, 2 * cell, cell, cell // 2), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
        )
        self.colour = nn.Linear(3, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, dim), nn.ReLU(), nn.Linear(dim, dim)
        )
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("places", cell_centres(resolution // cell), persistent=False)

    def forward(
        self, frames: Float[Tensor, "batch height width 3"]
    ) -> tuple[Float[Tensor, "batch cells dim"], Float[Tensor, "batch cells 5"]]:
        """Return the features of every cell, and its place and mean colour.

        Colours are in [0, 1].
        """
        pictures = rearrange(frames, "batch height width rgb -> batch rgb height width")
        maps = self.convolutions(pictures)
        colours = nn.functional.avg_pool2d(pictures, self.cell)
        cells, shades = (rearrange(x, "batch c h w -> batch (h w) c") for x in (maps, colours))
        features = self.norm(self.mlp(cells + self.colour(shades)))
        places = self.places.expand(len(frames), -1, -1)
        return features, torch.cat([places, shades], dim=-1)


class SlotEncoder(nn.Module):
    r"""Slots of every frame of a clip, handed on from frame to frame.

    The first frame starts from one learned vector a slot, every other frame from the slots of the
    frame before, so that slot k means the same object throughout a clip.

    Source: RMR, section 4 (Slot Attention on each input image).
    Differs: learned starts and slots that are handed on (Kipf et al. 2022, SAVi, without a
    predictor), since the paper does not say how slots of different frames are brought in line; to
    every slot the mean place and colour of the cells that it won are joined, `MOMENTS` numbers
    (Biza et al. 2023 take the place from there too).

    Args:
        cells: Maps frames to features [batch cells dim], places and colours [batch cells 5].
        dim: Width of the features.
        slots: Number of slots, one of which the background will need.
        iterations: Rounds of attention on the first frame and on every other, 1 or more.
    """

    def __init__(self, cells: nn.Module, dim: int, slots: int, iterations: Sequence[int] = (3, 1)):
        super().__init__()
        self.cells, self.iterations = cells, tuple(iterations)
        self.attention = SlotAttention(dim)
        self.start = nn.Parameter(torch.empty(slots, dim))
        self.width = dim + MOMENTS

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first slots from a standard normal."""
        self.start.normal_(generator=generator)

    def forward(self, clip: Clip) -> Float[Tensor, "batch time slots dim"]:
        """Return the slots of every frame, place and colour last; colours are in [0, 1]."""
        shape = clip.shape[:2]
        features, looks = (part.unflatten(0, shape) for part in self.cells(clip.flatten(0, 1)))
        slots = self.start.expand(len(clip), -1, -1)
        found = []
        for instant in range(shape[1]):
            rounds = self.iterations[min(instant, 1)]
            slots, shares = self.attention(features[:, instant], slots, rounds)
            moments = shares.float() @ looks[:, instant].float()
            found.append(torch.cat([slots.float(), moments], dim=-1))
        return torch.stack(found, dim=1)


class ClipEncoder(nn.Module):
    """From some successive frames to one latent vector an object.

    The slots of an object in all frames are joined linearly.

    Source: RMR, section 4 (slots of an object concatenated and projected).
    Differs: none.

    Args:
        encoder: Clips to slots.
        join: From the slots of an object in all frames to its latent vector.
        precision: "fp32", or "bf16" to compute in bfloat16; latents are fp32 either way.
    """

    def __init__(self, encoder: SlotEncoder, join: nn.Linear, precision: str = "fp32"):
        super().__init__()
        self.encoder, self.join, self.precision = encoder, join, precision

    def forward(self, frames: Clip) -> Latents:
        """Encode clips; colours are in [0, 1]."""
        with _arithmetic(self.precision, frames):
            slots = self.encoder(frames)
            return self.join(torch.cat(slots.unbind(1), dim=-1)).float()

    def still(self, clip: Clip) -> Float[Tensor, "frames slots dim"]:
        """Encode every frame of a clip from its own slots, as if nothing moved.

        The slots are handed on from frame to frame as in `forward`; frames of all clips come one
        after another.
        """
        with _arithmetic(self.precision, clip):
            slots = self.encoder(clip).flatten(0, 1)
            instants = self.join.in_features // self.encoder.width
            return self.join(torch.cat([slots] * instants, dim=-1))


class FrameStackEncoder(ClipEncoder):
    """A `ClipEncoder` of frames as wrappers stack them."""

    def forward(self, frames: UInt8[Tensor, "batch channels height width"]) -> Latents:
        """Encode RGB frames (0 to 255), oldest first; their colours follow each other."""
        clip = rearrange(frames, "batch (time rgb) h w -> batch time h w rgb", rgb=3)
        return super().forward(clip.float() / 255)


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
        precision: "fp32", or "bf16" to compute in bfloat16; frames are fp32 either way.

    Raises:
        RMRError: The frame is no multiple of the grid.
    """

    cells: Tensor
    coordinates = 2

    def __init__(
        self, dim: int, resolution: int, channels: int = 32, grid: int = 8, precision: str = "fp32"
    ):
        super().__init__()
        if grid < 1 or resolution % grid:
            raise RMRError(f"expected a grid that divides {resolution} pixels, got {grid}")
        self.grid, self.precision = grid, precision
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

    def forward(self, slots: Latents) -> Decoded:
        """Decode all slots and lay their pictures over each other."""
        with _arithmetic(self.precision, slots):
            laid_out = self.content(slots)[:, :, None] + self.place(self._coordinates(slots))
            maps = laid_out.flatten(0, 1).unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
            maps = self.deconvolutions(maps).permute(0, 2, 3, 1)
            decoded = self.output(maps).float().unflatten(0, slots.shape[:2])
            pictures = self._coloured(decoded[..., :3], slots)
            masks = decoded[..., 3].softmax(dim=1)
            return Decoded((pictures * masks[..., None]).sum(dim=1), masks, pictures)

    def _coordinates(self, slots: Tensor) -> Tensor:
        """Return the coordinates of the cells, as each slot sees them if they differ."""
        return self.cells

    def _coloured(self, pictures: Tensor, slots: Tensor) -> Tensor:
        """Return the pictures in the colours of their slots, where slots have one."""
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

    def __init__(self, dim: int, *sizes: Any, **named: Any):
        super().__init__(dim, *sizes, **named)
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


DECODERS = {"object": ObjectDecoder, "broadcast": BroadcastDecoder}
"""Makers of decoders by name."""


def _arithmetic(precision: str, like: Tensor) -> torch.autocast:
    """Let convolutions and linear layers compute in bfloat16, if that is the precision."""
    return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _deconvolutions(channels: int, last: int, zoom: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(LAYERS - 1):
        parts += [nn.ConvTranspose2d(channels, channels, KERNEL, padding=1), nn.ReLU()]
    final = (KERNEL, 1, 1) if zoom == 1 else (zoom, zoom, 0)
    return nn.Sequential(*parts, nn.ConvTranspose2d(channels, last, *final), nn.ReLU())
