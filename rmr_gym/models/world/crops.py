"""Frames that are seen as a few crops: where they are, what is made of them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError

Centres = Int[Tensor, "batch views 2"]


class Views(NamedTuple):
    """What is seen of each world at one instant.

    Attributes:
        crops: Squares around the centres, in [0, 1].
        centres: (row, column) of the middle pixel of each.
    """

    crops: Float[Tensor, "batch views size size channels"]
    centres: Centres


@dataclass(frozen=True)
class ViewGeometry:
    """How frames are seen: so many crops at a time, each of so many pixels.

    Source: S2RM, section 6 and Appendix B.2: 10 crops of 11 x 11 in frames of 48 x 48.
    Differs: crops reach over the edge and are padded with zeros there; the paper does not say.

    Attributes:
        height: Of a frame.
        width: Of a frame.
        channels: Of a frame.
        views: Crops at an instant.
        size: Height and width of a crop, odd.

    Raises:
        RMRError: No crop, an even size, or crops larger than the frame.
    """

    height: int
    width: int
    channels: int
    views: int
    size: int

    def __post_init__(self) -> None:
        side = min(self.height, self.width)
        if self.views < 1 or self.size < 1 or self.size % 2 == 0 or self.size > side:
            raise RMRError(
                f"expected 1 crop or more of an odd size from 1 to {side}, the side of a frame, "
                f"got {self.views} of {self.size} x {self.size} in frames of {self.height} x "
                f"{self.width}: record larger frames or take smaller crops"
            )

    def draw(self, batch: int, generator: torch.Generator) -> Centres:
        """Draw centres uniformly among the pixels, on the device of the generator."""
        chosen = torch.randint(
            self.height * self.width,
            (batch, self.views),
            generator=generator,
            device=generator.device,
        )
        return torch.stack([chosen // self.width, chosen % self.width], dim=-1)

    def look(
        self, frames: Float[Tensor, "batch height width channels"], centres: Centres
    ) -> Float[Tensor, "batch views size size channels"]:
        """Return the crops around centres, 0 beyond the edge."""
        reach = self.size // 2
        padded = F.pad(frames, (0, 0, reach, reach, reach, reach))
        steps = torch.arange(self.size, device=frames.device)
        world = torch.arange(len(frames), device=frames.device)[:, None, None, None]
        rows = centres[:, :, 0, None, None] + steps[:, None]
        columns = centres[:, :, 1, None, None] + steps
        return padded[world, rows, columns]

    def grid(self) -> Int[Tensor, "views 2"]:
        """Return centres of the fewest crops whose union is the whole frame."""
        axes = [
            torch.linspace(self.size // 2, side - 1 - self.size // 2, -(-side // self.size)).long()
            if side > self.size
            else torch.tensor([self.size // 2])
            for side in (self.height, self.width)
        ]
        return torch.cartesian_prod(*axes)

    def stitch(
        self, crops: Float[Tensor, "batch views size size channels"], centres: Centres
    ) -> Float[Tensor, "batch height width channels"]:
        """Return frames made of crops: their mean where they overlap, 0 where there is none."""
        reach = self.size // 2
        height, width = self.height + 2 * reach, self.width + 2 * reach
        steps = torch.arange(self.size, device=crops.device)
        rows = centres[:, :, 0, None, None] + steps[:, None]
        columns = centres[:, :, 1, None, None] + steps
        place = (rows * width + columns).flatten(1)[..., None].expand(-1, -1, self.channels)
        pixels = crops.flatten(1, 3)
        empty = pixels.new_zeros(len(crops), height * width, self.channels)
        total = empty.scatter_add(1, place, pixels)
        count = empty.scatter_add(1, place, torch.ones_like(pixels))
        whole = (total / count.clamp(min=1)).unflatten(1, (height, width))
        return whole[:, reach : reach + self.height, reach : reach + self.width]

    def centres(self, positions: Float[Tensor, "batch views 2"]) -> Centres:
        """Return the pixels at positions (x, y) in [-1, 1], as `RandomCrops` gives them.

        Raises:
            RMRError: A position is outside the frame.
        """
        if bool((positions.abs() > 1).any()):
            raise RMRError(
                "expected positions in [-1, 1], x to the right and y upwards, found one at "
                f"{positions.abs().max().item():g}, outside the frame"
            )
        column = ((positions[..., 0] + 1) / 2 * self.width).long().clamp(max=self.width - 1)
        row = ((1 - positions[..., 1]) / 2 * self.height).long().clamp(max=self.height - 1)
        return torch.stack([row, column], dim=-1)

    def check(self, centres: Centres) -> None:
        """Check that centres are pixels of the frame.

        Raises:
            RMRError: One is outside it.
        """
        limits = torch.tensor([self.height, self.width], device=centres.device)
        outside = (centres < 0) | (centres >= limits)
        if bool(outside.any()):
            wrong = centres[outside.any(dim=-1)][0].tolist()
            raise RMRError(
                f"expected queries at pixels (row, column) of a frame of {self.height} x "
                f"{self.width}, found one at {wrong}, outside it"
            )


Crops = Float[Tensor, "*batch size size channels"]


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(ReLU(x)))), both convolutions 3 x 3.

    Args:
        channels: Of x.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the sum."""
        return x + self.second(F.relu(self.first(F.relu(x))))


class UpConvolution(nn.ConvTranspose2d):
    """A transposed 3 x 3 convolution of stride 2 to exactly the size that is wanted.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        small: Height and width of the input.
        large: Of the output, 2 small or one less.
    """

    def __init__(self, before: int, after: int, small: int, large: int):
        spare = large - 2 * small + 1
        super().__init__(before, after, 3, stride=2, padding=1, output_padding=spare)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw orthogonal weights, as convolutions have them; the bias is 0."""
        nn.init.orthogonal_(self.weight, gain=2**0.5, generator=generator)
        assert self.bias is not None
        self.bias.zero_()


class CropEncoder(nn.Module):
    """Seven convolutions, four of them in two residual blocks, then a linear map.

    The crop is halved twice. With a place there is an eighth convolution, 1 x 1, that lets it in.

    Source: S2RM, Appendix D, E.1: seven-layer CNN with residual layers; that of the baselines takes
    in the place after the second convolution, that of S2RMs does not take it in.
    Differs: channels, strides, order and how the place comes in are drawn in figures that are lost;
    these are ours.

    Args:
        size: Height and width of a crop.
        channels: Of a crop.
        width: Channels of the first layers; twice as many later.
        dim: Width of the encoding.
        place: Width of the place that is let in; 0 for none.
    """

    def __init__(self, size: int, channels: int, width: int, dim: int, place: int = 0):
        super().__init__()
        quarter = halves(size)[1]
        self.before = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
        )
        self.place = nn.Conv2d(width + place, width, 1) if place else None
        self.after = nn.Sequential(
            ResidualBlock(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            ResidualBlock(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * quarter**2, dim),
        )

    def forward(
        self, crops: Crops, places: Float[Tensor, "*batch place"] | None = None
    ) -> Float[Tensor, "*batch dim"]:
        """Return an encoding a crop."""
        shape = crops.shape[:-3]
        x = self.before(rearrange(crops.flatten(0, -4), "b h w c -> b c h w"))
        if self.place is not None and places is not None:
            x = self.place(with_place(x, places.flatten(0, -2)))
        return self.after(x).unflatten(0, shape)


class CropDecoder(nn.Module):
    """A linear map, a convolution, two residual blocks and upward convolutions in turn, another.

    What comes out are logits. With a place, a 1 x 1 convolution after the first lets it in.

    Source: S2RM, Appendix D, E.1: deconvolutions with residual layers; that of the baselines takes
    in the place of the query after a single convolution.
    Differs: as `CropEncoder`.

    Args:
        dim: Width of what is decoded.
        size: Height and width of a crop.
        channels: Of a crop.
        width: Channels of the last layers; twice as many before.
        place: Width of the place that is let in; 0 for none.
    """

    def __init__(self, dim: int, size: int, channels: int, width: int, place: int = 0):
        super().__init__()
        half, quarter = halves(size)
        self.before = nn.Sequential(
            nn.Linear(dim, 2 * width * quarter**2),
            nn.Unflatten(1, (2 * width, quarter, quarter)),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        )
        self.place = nn.Conv2d(2 * width + place, 2 * width, 1) if place else None
        self.after = nn.Sequential(
            ResidualBlock(2 * width),
            nn.ReLU(),
            UpConvolution(2 * width, width, quarter, half),
            ResidualBlock(width),
            nn.ReLU(),
            UpConvolution(width, width, half, size),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(
        self, vectors: Float[Tensor, "*batch dim"], places: Float[Tensor, "*batch place"] | None
    ) -> Crops:
        """Return the logits of a crop a vector."""
        x = self.before(vectors.flatten(0, -2))
        if self.place is not None and places is not None:
            x = self.place(with_place(x, places.flatten(0, -2)))
        crops = rearrange(self.after(x), "b c h w -> b h w c")
        return crops.unflatten(0, vectors.shape[:-1])


def halves(size: int) -> tuple[int, int]:
    """Return the size of a crop after one and after two convolutions of stride 2."""
    half = (size + 1) // 2
    return half, (half + 1) // 2


def with_place(
    x: Float[Tensor, "batch channels height width"], places: Float[Tensor, "batch place"]
) -> Float[Tensor, "batch both height width"]:
    """Return a feature map with the place beside each pixel's channels."""
    return torch.cat([x, places[..., None, None].expand(-1, -1, *x.shape[2:])], dim=1)
