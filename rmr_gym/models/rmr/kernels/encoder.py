"""The compiled pixel encoder: frames in, latents out, and gradients back; see encoder.cpp."""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rmr_gym.models.rmr.kernels import HERE, UNITS, call, cpu_engine, library_of, structure

COUNTS = ("frames", "height", "width", "layers", "slots", "maps", "dim", "threads", "unit")
TENSORS = ("trunk", "pixels", "mean", "deviation", "weights", "kept")


_Problem = structure(COUNTS, (*TENSORS, "out", "gradient", "g_weights"))
"""The argument of every function in encoder.cpp."""


@cache
def encoder_engine() -> "EncoderEngine | None":
    """Return the compiled engine; None, and once a line in the log, where it cannot be had."""
    messages = cpu_engine("bf16")
    library = library_of(HERE / "encoder.cpp", "PyTorch runs instead") if messages else None
    return EncoderEngine(library, messages.unit) if messages and library else None


class EncoderEngine:
    """The kernels of encoder.cpp, for bytes and float32 on the CPU.

    They run in as many threads as PyTorch does; the result does not depend on the number.

    Args:
        library: The loaded library.
        unit: What multiplies, an entry of `UNITS`; the latter two round operands to bfloat16.
    """

    def __init__(self, library: ctypes.CDLL, unit: str):
        self.library, self.unit = library, unit
        library.kept_bytes.restype = ctypes.c_int64

    def encode(
        self,
        frames: UInt8[Tensor, "batch height width"],
        statistics: tuple[Float[Tensor, "height width"], Float[Tensor, ""]],
        weights: Sequence[Tensor],
        strides: Sequence[int],
        slots: int,
    ) -> Float[Tensor, "batch slots dim"]:
        """Encode frames as `rmr_gym.models.rmr.pipeline.SlotCNN` does, sums in float32.

        Args:
            frames: Gray, 0 to 255.
            statistics: Mean frame and deviation.
            weights: Weight and bias of each convolution of the trunk, of that to the maps of the
                slots, and of the projection. Channels are multiples of 32.
            strides: Of the trunk's convolutions.
            slots: How many slots share the maps.
        """
        layers = zip(weights[:-4:2], strides, strict=True)
        trunk = torch.tensor([(len(weight), weight.shape[-1], stride) for weight, stride in layers])
        sizes = len(trunk), slots, len(weights[-4]) // slots, len(weights[-1])
        flat = torch.cat([weight.flatten() for weight in weights])
        return _Encode.apply(
            self, (*frames.shape, *sizes), trunk, frames.contiguous(), *statistics, flat
        )

    def problem(self, sizes: Sequence[int], **tensors: Tensor) -> ctypes.Structure:
        """Return the arguments of a function."""
        pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        return _Problem(*sizes, torch.get_num_threads(), UNITS.index(self.unit), **pointers)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, engine: EncoderEngine, sizes: tuple[int, ...], *tensors: Tensor
    ) -> Tensor:
        named = dict(zip(TENSORS, tensors, strict=False))
        size = engine.library.kept_bytes(ctypes.byref(engine.problem(sizes, **named)))
        named |= {"kept": torch.empty(size, dtype=torch.uint8)}
        out = tensors[-1].new_empty(sizes[0], sizes[4], sizes[6])
        call(engine.library, "encode", engine.problem(sizes, **named, out=out))
        ctx.engine, ctx.sizes = engine, sizes
        ctx.save_for_backward(*named.values())
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        named = dict(zip(TENSORS, ctx.saved_tensors, strict=True))
        weights = torch.zeros_like(named["weights"])
        named |= {"gradient": gradient.contiguous(), "g_weights": weights}
        call(ctx.engine.library, "encode_backward", ctx.engine.problem(ctx.sizes, **named))
        return *[None] * 6, weights
