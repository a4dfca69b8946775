"""A world model without memory: what the surroundings of a pixel tell of it in the next frame."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.models.world.base import CUT, Prediction, frame_bce, taken_in

Frame = Float[Tensor, "batch height width channels"]


@dataclass(frozen=True)
class MemorylessSizes:
    """Sizes of the model without memory.

    Attributes:
        channels: Of the hidden layer.
        kernel: Height and width of what a predicted pixel sees of the frame, odd.

    Raises:
        RMRError: No channel, or another kernel.
    """

    channels: int = 16
    kernel: int = 7

    def __post_init__(self) -> None:
        if self.channels < 1 or self.kernel < 1 or self.kernel % 2 == 0:
            raise RMRError(f"expected a channel or more and an odd kernel, got {self}")


class MemorylessState(NamedTuple):
    """The last frame and nothing else."""

    frame: Frame


class Memoryless(nn.Module):
    """Predicts each pixel from what surrounds it in the last frame: a learned blur.

    It cannot tell where anything moves: a world model that predicts no better has learnt nothing of
    motion, though it may well beat copying, of which a wrong pixel costs 13.8 nats. It sees frames
    without noise, and no actions. It is a `rmr_gym.models.world.base.WorldModel`.

    Source: ours; a control.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of its two layers.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: MemorylessSizes):
        super().__init__()
        self.shape, self.cut = shape, CUT
        self.around = nn.Conv2d(shape[2], sizes.channels, sizes.kernel, padding=sizes.kernel // 2)
        self.pixel = nn.Conv2d(sizes.channels, shape[2], 1)

    def init_state(self, batch: int, generator: torch.Generator) -> MemorylessState:
        """Return a dark frame; nothing is drawn."""
        del generator
        return MemorylessState(self.pixel.weight.new_zeros(batch, *self.shape))

    def step(
        self, state: MemorylessState, observation: Frame | None, action: Int[Tensor, " b"] | None
    ) -> MemorylessState:
        """Keep the frame, or what was predicted; see `WorldModel.step`."""
        del action
        if observation is None:
            observation = taken_in(self.decode(state).frame, self.cut)
        return MemorylessState(observation)

    def decode(self, state: MemorylessState) -> Prediction:
        """Return the predicted frame; pixels are not grouped."""
        pixels = rearrange(state.frame, "b h w c -> b c h w")
        logits = self.pixel(torch.relu(self.around(pixels)))
        return Prediction(rearrange(logits.sigmoid(), "b c h w -> b h w c"))

    def loss(self, state: MemorylessState, following: Frame) -> Float[Tensor, " batch"]:
        """Return the binary cross-entropy of the predicted frame, summed over pixels."""
        return frame_bce(self.decode(state).frame, following)
