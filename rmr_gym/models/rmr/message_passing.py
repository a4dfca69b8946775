"""Messages between all pairs of slots, aggregated: one operation, several back ends.

The pairs are never concatenated: the first layer of the message is a sum of a receiver's part and a
sender's part, which the caller computes once a slot. What remains is the middle layer on every
pair, and for ``max`` the last layer too. For ``sum`` and ``mean`` the last layer is linear in the
aggregate and comes after it. The fast back ends compute the pairs in blocks that stay in cache and
compute them again in the backward pass, so that memory grows with the slots, not with their square.
"""

import logging
import os
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.models.rmr import kernels

AGGREGATIONS = ("max", "sum", "mean")
PRECISIONS = ("fp32", "tf32", "bf16")
BACKENDS = ("auto", "reference", "chunked", "cpu", "triton")
ENVIRONMENT_VARIABLE = "RMR_GYM_MESSAGES"

SLOTS_WORTH_CHUNKING, PAIRS_WORTH_CHUNKING = 32, 2**22
"""Slots, and numbers in a hidden layer of all pairs, from which blocks beat one large tensor."""

_log = logging.getLogger(__name__)


Engine = Any
"""What a fast back end computes with, for instance `rmr_gym.models.rmr.kernels.Chunked`."""


def fully_connected_messages(
    receivers: Float[Tensor, "*batch slots hidden"],
    senders: Float[Tensor, "*batch slots hidden"],
    w2: Float[Tensor, "hidden hidden"],
    b2: Float[Tensor, " hidden"],
    w3: Float[Tensor, "dim_out hidden"],
    b3: Float[Tensor, " dim_out"],
    aggregation: str = "max",
    backend: str = "auto",
    precision: str = "fp32",
) -> Float[Tensor, "*batch slots dim_out"]:
    r"""Return the aggregated messages that every slot receives from all slots, itself included.

    .. math:: m_{ij} = W_3\,\sigma(W_2\,\sigma(W_r z_i + W_s z_j + b_1) + b_2) + b_3, \qquad
              out_i = \mathrm{agg}_j\, m_{ij}, \qquad \sigma = \mathrm{ReLU}

    Source: RMR, Appendix B (fully connected, three-layer messages).
    Differs: none; the order of the linear operations is changed, not their result.

    Where several senders are maximal in a channel, the first of them gets its gradient; NaN counts
    as maximal. Only ``"reference"`` can be differentiated twice and under torch.func's own
    derivatives; torch.vmap may go over all of them, run by run.

    Args:
        receivers: :math:`W_r z + b_1`.
        senders: :math:`W_s z`.
        w2: Weight of the second layer.
        b2: Bias of the second layer.
        w3: Weight of the last layer.
        b3: Bias of the last layer.
        aggregation: ``"max"``, ``"sum"`` or ``"mean"``.
        backend: ``"reference"`` (plain PyTorch, every dtype and device), ``"chunked"`` (PyTorch in
            blocks), ``"cpu"`` (compiled kernel, float32), ``"triton"`` (NVIDIA GPUs, float32), or
            ``"auto"``: what the environment variable ``RMR_GYM_MESSAGES`` names, or else the
            fastest of them that can take the input. A back end that cannot take the input falls
            back to the next slower one and says so once in the log.
        precision: ``"fp32"``; ``"bf16"``: the fast back ends may round the operands of the products
            to bfloat16; ``"tf32"``: ``"triton"`` may round them to TF32. Sums stay in float32.

    Raises:
        RMRError: An unknown name, no slot, or shapes that do not belong together.
    """
    known_name("aggregation", aggregation, AGGREGATIONS)
    inputs = (receivers, senders, w2, b2, w3, b3)
    _check_shapes(inputs)
    engine = _engine(_wanted(backend, precision), inputs, precision)
    if engine is None:
        return reference(*inputs, aggregation=aggregation)
    return _fast(engine, inputs, aggregation)


def describe_backend(device: str, precision: str) -> str:
    """Return what ``"auto"`` runs on a device for 128 slots of 64 numbers, in words."""
    sizes = ((8, 128, 64), (8, 128, 64), (64, 64), (64,), (64, 64), (64,))
    inputs = tuple(torch.empty(size, dtype=torch.float32, device=device) for size in sizes)
    engine = _engine(_wanted("auto", precision), inputs, precision)
    return engine.description if engine else "PyTorch, all pairs at once, fp32"


def reference(*inputs: Tensor, aggregation: str = "max") -> Tensor:
    """Return what `fully_connected_messages` returns, in plain differentiable PyTorch."""
    receivers, senders, w2, b2, w3, b3 = inputs
    hidden = torch.relu(receivers.unsqueeze(-2) + senders.unsqueeze(-3))
    hidden = torch.relu(F.linear(hidden, w2, b2))
    if aggregation == "max":
        return F.linear(hidden, w3, b3).max(dim=-2).values
    if aggregation == "mean":
        return F.linear(hidden.mean(dim=-2), w3, b3)
    return F.linear(hidden.sum(dim=-2), w3, senders.shape[-2] * b3)


def _wanted(backend: str, precision: str) -> str:
    known_name("precision", precision, PRECISIONS)
    wanted = os.environ.get(ENVIRONMENT_VARIABLE, "auto") if backend == "auto" else backend
    return known_name("backend", wanted, BACKENDS)


def _fast(engine: Engine, inputs: kernels.Inputs, aggregation: str) -> Tensor:
    receivers, senders, w2, b2, w3, b3 = inputs
    shape = (*receivers.shape[:-1], w3.shape[0])
    slots, hidden = receivers.shape[-2:]
    receivers, senders = (x.reshape(-1, slots, hidden).contiguous() for x in (receivers, senders))
    with torch.autocast(receivers.device.type, enabled=False):
        if aggregation == "max":
            out, _ = _Messages.apply(engine, receivers, senders, w2, b2, w3, b3)
        else:
            total, _ = _Messages.apply(engine, receivers, senders, w2, b2)
            mean = aggregation == "mean"
            out = F.linear(total / slots if mean else total, w3, b3 if mean else slots * b3)
    return out.reshape(shape)


class _Messages(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        engine: Engine, *inputs: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        return engine.forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.engine, *tensors = inputs
        if output[1] is not None:
            ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], *tensors)

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[Any, ...], engine: Engine, *inputs: Tensor
    ) -> Any:
        """Compute run by run: every run may have weights of its own."""
        runs = (
            [x] * info.batch_size if axis is None else x.unbind(axis)
            for x, axis in zip(inputs, in_dims[1:], strict=True)
        )
        outputs = [_Messages.apply(engine, *run)[0] for run in zip(*runs, strict=True)]
        return (torch.stack(outputs), None), (0, None)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor, _: Any
    ) -> kernels.Gradients:
        weights = any(ctx.needs_input_grad[3:])
        indices, *inputs = ctx.saved_tensors
        return None, *ctx.engine.backward(gradient, indices, tuple(inputs), weights)


def _engine(wanted: str, inputs: kernels.Inputs, precision: str) -> Engine | None:
    """Return the back end that was asked for, or the next slower one; None is the reference."""
    if wanted == "reference":
        return None
    if not _plain(inputs):
        if wanted != "auto":
            _say_once(
                f"back end {wanted!r} takes float32 or float64 tensors of one dtype and device, "
                "outside of torch.func's derivatives and torch.compile: 'reference' runs instead"
            )
        return None
    if wanted in ("auto", "cpu") and (engine := _cpu_engine(inputs[0], wanted, precision)):
        return engine
    slots = inputs[0].shape[-2]
    small = slots < SLOTS_WORTH_CHUNKING or inputs[0].numel() * slots < PAIRS_WORTH_CHUNKING
    if wanted == "auto" and small:
        return None
    if wanted in ("auto", "triton") and (engine := _triton_engine(inputs, wanted, precision)):
        return engine
    return kernels.Chunked(precision)


def _cpu_engine(receivers: Tensor, wanted: str, precision: str) -> Engine | None:
    if receivers.device.type == "cpu" and receivers.dtype == torch.float32:
        return kernels.cpu_engine(precision)
    if wanted == "cpu":
        _say_once("back end 'cpu' takes float32 tensors on the CPU: 'chunked' runs instead")
    return None


def _triton_engine(inputs: kernels.Inputs, wanted: str, precision: str) -> Engine | None:
    receivers, hidden, outputs = inputs[0], inputs[0].shape[-1], inputs[4].shape[0]
    if wanted == "auto" and (receivers.device.type != "cuda" or receivers.dtype != torch.float32):
        return None
    if receivers.dtype != torch.float32 or max(hidden, outputs) > kernels.TRITON_WIDEST:
        _say_once(
            "back end 'triton' takes float32 tensors and widths up to "
            f"{kernels.TRITON_WIDEST}: 'chunked' runs instead"
        )
        return None
    return kernels.triton_engine(precision, receivers.device, hidden, outputs)


def _plain(inputs: kernels.Inputs) -> bool:
    levels = retrieve_all_functorch_interpreters()
    derived = any(level.key() != TransformType.Vmap for level in levels)
    if derived or torch.compiler.is_compiling():
        return False
    kinds = {(x.dtype, x.device) for x in inputs}
    return len(kinds) == 1 and inputs[0].dtype in (torch.float32, torch.float64)


@cache
def _say_once(message: str) -> None:
    _log.warning("%s", message)


def _check_shapes(inputs: kernels.Inputs) -> None:
    shapes = [tuple(x.shape) for x in inputs]
    receivers, *_, w3, _ = inputs
    hidden, dim_out = receivers.shape[-1], w3.shape[0]
    wanted = [shapes[0], shapes[0], (hidden, hidden), (hidden,), (dim_out, hidden), (dim_out,)]
    if receivers.dim() < 2 or 0 in (*receivers.shape[-2:], dim_out) or shapes != wanted:
        raise RMRError(
            "expected receivers and senders of one shape [... slots hidden], at least one slot, "
            "w2 [hidden hidden], b2 [hidden], w3 [dim_out hidden], b3 [dim_out]; "
            f"found {', '.join(str(list(shape)) for shape in shapes)}"
        )
