"""Local views of frames: where they are, what is seen there, and frames stitched from them."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
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
