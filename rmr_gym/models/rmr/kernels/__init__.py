"""The compiled back ends of the message passing: tensors in, tensors out.

`CpuEngine` calls the C++ library through ctypes, which releases the interpreter's lock during the
call; widths are padded with zeros to what the kernel takes. The Triton kernels for GPUs are in a
module of their own, which is imported when a GPU asks for it.
"""

import ctypes
import logging
import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from rmr_gym.models.rmr.kernels.build import KernelError, load_library

if TYPE_CHECKING:
    from rmr_gym.models.rmr.kernels.triton_messages import TritonEngine

PAD = 32
"""Widths are padded to a multiple of this; the same as in messages.cpp."""

UNITS = ("float32", "avx512_bf16", "amx")
"""What can multiply, by its number in messages.cpp; the latter two round operands to bfloat16."""

TRITON_WIDEST = 128
"""Hidden and output widths that the Triton kernels take, if the GPU's shared memory does."""

Inputs = tuple[Tensor, ...]
"""Receivers, senders, w2, b2 for the sum; w3 and b3 too for the largest message."""

Gradients = tuple[Tensor | None, ...]
"""Those of the inputs, in their order; None where they are not wanted."""

_log = logging.getLogger(__name__)


NAMES = ("receivers", "senders", "w2", "b2", "w3", "b3")
"""Inputs of the message passing, as messages.cpp calls them."""


class _Problem(ctypes.Structure):
    """The arguments of every function in messages.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("batch", "slots", "width", "outputs")),
        *((name, ctypes.c_int64) for name in ("threads", "unit")),
        *((name, ctypes.c_void_p) for name in (*NAMES, "out", "indices", "gradient")),
        *((f"g_{name}", ctypes.c_void_p) for name in NAMES[:5]),
    )


@cache
def cpu_engine(precision: str) -> "CpuEngine | None":
    """Return the compiled engine; None, and once a line in the log, where it cannot be had."""
    try:
        library = load_library(Path(__file__).with_name("messages.cpp"))
    except KernelError as reason:
        _log.warning("no compiled message passing, PyTorch runs instead: %s", reason)
        return None
    unit = UNITS[library.bfloat16_unit()] if precision == "bf16" else "float32"
    if precision == "bf16" and unit == "float32":
        _log.warning("this processor has no fast bfloat16 products: float32 runs instead")
    return CpuEngine(library, unit)


@cache
def triton_engine(
    precision: str, device: torch.device, hidden: int, outputs: int
) -> "TritonEngine | None":
    """Return the engine for a GPU; None, and once a line in the log, where it cannot be had.

    Its kernels are tried out on a few slots of these widths, so that what a GPU lacks (age, shared
    memory, a C compiler for Triton's launcher) is known before anything depends on it.
    """
    try:
        from rmr_gym.models.rmr.kernels import triton_messages  # noqa: PLC0415

        triton_messages.check_device(device)
        engine = triton_messages.TritonEngine(precision)
        triton_messages.try_out(engine, device, hidden, outputs)
    except Exception as reason:  # a compiler, a driver and an import can fail in any way
        _log.warning(
            "no Triton message passing of widths %d, %d in %s on %s, PyTorch runs instead: %s",
            *(hidden, outputs, precision, device, str(reason).strip().splitlines()[0]),
        )
        return None
    return engine


class CpuEngine:
    """The kernels of messages.cpp, for float32 tensors on the CPU.

    They run in as many threads as PyTorch does; the result does not depend on the number.

    Args:
        library: The loaded library.
        unit: What multiplies, an entry of `UNITS`.
    """

    def __init__(self, library: ctypes.CDLL, unit: str):
        self.library, self.unit = library, unit
        self.description = f"compiled, {unit}"

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the sum of the second hidden layer, or the maximal messages and their senders."""
        tensors = _padded(dict(zip(NAMES, inputs, strict=False)))
        outputs = tensors["w3" if len(inputs) == len(NAMES) else "w2"].shape[0]
        out = inputs[0].new_zeros(*inputs[0].shape[:2], outputs)
        real = inputs[-2].shape[0]
        if len(inputs) < len(NAMES):
            self._call("hidden_sum", out=out, **tensors)
            return out[..., :real], None
        indices = torch.zeros_like(out, dtype=torch.int32)
        self._call("max_message", out=out, indices=indices, **tensors)
        return out[..., :real], indices[..., :real]

    def backward(
        self, gradient: Tensor, indices: Tensor | None, inputs: Inputs, weights: bool
    ) -> Gradients:
        """Return the gradients of the inputs (of the weights if ``weights``)."""
        if indices is None:
            return self._backward("hidden_sum_backward", inputs, weights, gradient=gradient)
        above = {"gradient": gradient, "indices": indices}
        grads = self._backward("max_message_backward", inputs[:5], weights, **above)
        return *grads, gradient.sum(dim=(0, 1)) if weights else None

    def _backward(self, function: str, inputs: Inputs, weights: bool, **above: Tensor) -> Gradients:
        names = NAMES[: len(inputs)]
        tensors = _padded(dict(zip(names, inputs, strict=True)) | above)
        wanted = names if weights else names[:2]
        grads = {f"g_{name}": torch.zeros_like(tensors[name]) for name in wanted}
        self._call(function, **tensors, **grads)
        cut = [
            grads[f"g_{name}"][tuple(slice(size) for size in tensor.shape)]
            for name, tensor in zip(wanted, inputs, strict=False)
        ]
        return *cut, *[None] * (len(names) - len(wanted))

    def _call(self, function: str, **tensors: Tensor) -> None:
        batch, slots, width = tensors["receivers"].shape
        problem = _Problem(
            batch=batch,
            slots=slots,
            width=width,
            outputs=tensors["w3"].shape[0] if "w3" in tensors else 0,
            threads=torch.get_num_threads(),
            unit=UNITS.index(self.unit),
            **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        )
        outcome = getattr(self.library, function)(ctypes.byref(problem))
        if outcome == 1:
            raise MemoryError(f"{function}: out of memory")
        assert outcome == 0, f"{function}: this processor has no {self.unit}"


def _padded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors whose widths (all axes of weights, else the last) are padded."""
    padded = {}
    for name, tensor in tensors.items():
        axes = tensor.shape[-2:] if name in ("w2", "w3") else tensor.shape[-1:]
        missing = [math.ceil(size / PAD) * PAD - size for size in axes]
        sides = [side for size in reversed(missing) for side in (0, size)]
        padded[name] = (F.pad(tensor, sides) if any(missing) else tensor).contiguous()
    return padded
