"""The back end of the message passing for NVIDIA GPUs, in Triton.

A program owns a tile of slots and goes through all their partners one by one: the tile plus one
partner's row is a tile of pairs, so sums and maxima over the partners are kept in registers and no
pair is ever written to memory. The backward pass computes the pairs again, twice: with tiles of
receivers, which also gives the gradients of the weights, and with tiles of senders. No result
depends on the order in which programs run.

Triton is imported here and nowhere else. Its interpreter runs these kernels on tensors of the CPU
if ``TRITON_INTERPRET=1`` stands in the environment before the import.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from rmr_gym.models.rmr.kernels import Gradients, Inputs, KernelError

PROGRAMS = 1024
"""Programs that share the gradients of the weights; each has one partial sum in memory."""

CAPABILITY = (8, 0)
"""The oldest GPU (compute capability) whose matrix units take TF32 and bfloat16."""

INTERPRETED = knobs.runtime.interpret

OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}
"""How every kernel is compiled, whatever the defaults of a version of Triton."""

PRODUCTS = {"fp32": "tf32x3", "tf32": "tf32", "bf16": "bf16"}
"""How matrices are multiplied; tf32x3 is float32 in three products of TF32."""


@triton.jit
@no_type_check
def _relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
@no_type_check
def _is_nan(x):
    return x != x  # noqa: PLR0124


@triton.jit
@no_type_check
def _masked(gradient, result):
    """The gradient below a ReLU: zero where its result was, but not where that is NaN."""
    return tl.where(result <= 0.0, 0.0, gradient)


@triton.jit
@no_type_check
def _product(a, b, PRODUCT: tl.constexpr):
    if PRODUCT == "bf16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    elif PRODUCT == "bf16 interpreted":  # the interpreter cannot multiply bfloat16
        a, b = a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32)
        return tl.dot(a, b, input_precision="ieee")
    else:
        return tl.dot(a, b, input_precision=PRODUCT)


@triton.jit
@no_type_check
def _tile(source, first, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Pointers to rows of WIDTH numbers, and which of them exist."""
    row, column = first + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    return source + row[:, None] * WIDTH + column[None, :], inside


@triton.jit
@no_type_check
def _load(source, first, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    pointers, inside = _tile(source, first, rows, WIDTH, ROWS, BLOCK)
    return tl.load(pointers, mask=inside, other=0)


@triton.jit
@no_type_check
def _store(
    target, values, first, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    pointers, inside = _tile(target, first, rows, WIDTH, ROWS, BLOCK)
    tl.store(pointers, values, mask=inside)


@triton.jit
@no_type_check
def _row(source, number, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    return tl.load(source + number * WIDTH + column, mask=column < WIDTH, other=0)


@triton.jit
@no_type_check
def _forward(
    receivers, senders, w2, b2, w3, b3, out, indices,
    slots, tiles,
    HIDDEN: tl.constexpr, OUTPUTS: tl.constexpr,
    HIDDEN_BLOCK: tl.constexpr, OUTPUT_BLOCK: tl.constexpr, ROWS: tl.constexpr,
    MAX: tl.constexpr, PRODUCT: tl.constexpr,
):  # fmt: skip
    """Write the sums of the second layer, or the maximal messages and their first senders."""
    start = (tl.program_id(0) // tiles).to(tl.int64) * slots
    first_row = tl.program_id(0) % tiles * ROWS
    senders += start * HIDDEN
    own = _load(receivers + start * HIDDEN, first_row, slots, HIDDEN, ROWS, HIDDEN_BLOCK)
    weight2 = tl.trans(_load(w2, 0, HIDDEN, HIDDEN, HIDDEN_BLOCK, HIDDEN_BLOCK))
    bias2 = _row(b2, 0, HIDDEN, HIDDEN_BLOCK)[None, :]
    if MAX:
        weight3 = tl.trans(_load(w3, 0, OUTPUTS, HIDDEN, OUTPUT_BLOCK, HIDDEN_BLOCK))
        bias3 = _row(b3, 0, OUTPUTS, OUTPUT_BLOCK)[None, :]
        best = tl.full((ROWS, OUTPUT_BLOCK), float("-inf"), tl.float32)
        winner = tl.zeros((ROWS, OUTPUT_BLOCK), tl.int32)
    else:
        best = tl.zeros((ROWS, OUTPUT_BLOCK), tl.float32)
    for sender in range(slots):
        first = _relu(own + _row(senders, sender, HIDDEN, HIDDEN_BLOCK)[None, :])
        second = _relu(_product(first, weight2, PRODUCT) + bias2)
        if MAX:
            message = _product(second, weight3, PRODUCT) + bias3
            better = (message > best) | (_is_nan(message) & ~_is_nan(best))
            best = tl.where(better, message, best)
            winner = tl.where(better, sender, winner)
        else:
            best += second
    _store(out + start * OUTPUTS, best, first_row, slots, OUTPUTS, ROWS, OUTPUT_BLOCK)
    if MAX:
        _store(indices + start * OUTPUTS, winner, first_row, slots, OUTPUTS, ROWS, OUTPUT_BLOCK)


@triton.jit
@no_type_check
def _backward(  # noqa: C901, PLR0912 - branches on constants are gone once it is compiled
    own, partners, w2, b2, w3, gradient, indices, g_own, g_w2, g_b2, g_w3,
    slots, tiles, all_tiles,
    HIDDEN: tl.constexpr, OUTPUTS: tl.constexpr,
    HIDDEN_BLOCK: tl.constexpr, OUTPUT_BLOCK: tl.constexpr, ROWS: tl.constexpr,
    MAX: tl.constexpr, OWN_RECEIVE: tl.constexpr, WEIGHTS: tl.constexpr, PRODUCT: tl.constexpr,
):  # fmt: skip
    """Write the gradients of one side, and with the receivers' those of the weights."""
    weight2 = _load(w2, 0, HIDDEN, HIDDEN, HIDDEN_BLOCK, HIDDEN_BLOCK)
    bias2 = _row(b2, 0, HIDDEN, HIDDEN_BLOCK)[None, :]
    if MAX:
        weight3 = _load(w3, 0, OUTPUTS, HIDDEN, OUTPUT_BLOCK, HIDDEN_BLOCK)
    if WEIGHTS:
        sum_w2 = tl.zeros((HIDDEN_BLOCK, HIDDEN_BLOCK), tl.float32)
        sum_b2 = tl.zeros((ROWS, HIDDEN_BLOCK), tl.float32)
        if MAX:
            sum_w3 = tl.zeros((OUTPUT_BLOCK, HIDDEN_BLOCK), tl.float32)
    for tile in range(tl.program_id(0), all_tiles, tl.num_programs(0)):
        start = (tile // tiles).to(tl.int64) * slots
        first_row = tile % tiles * ROWS
        number = (first_row + tl.arange(0, ROWS))[:, None]
        rows = _load(own + start * HIDDEN, first_row, slots, HIDDEN, ROWS, HIDDEN_BLOCK)
        above = gradient + start * OUTPUTS
        if MAX:
            chosen = indices + start * OUTPUTS
        if OWN_RECEIVE:
            received = _load(above, first_row, slots, OUTPUTS, ROWS, OUTPUT_BLOCK)
            if MAX:
                winner = _load(chosen, first_row, slots, OUTPUTS, ROWS, OUTPUT_BLOCK)
        total = tl.zeros((ROWS, HIDDEN_BLOCK), tl.float32)
        for partner in range(slots):
            other = _row(partners + start * HIDDEN, partner, HIDDEN, HIDDEN_BLOCK)[None, :]
            first = _relu(rows + other)
            second = _relu(_product(first, tl.trans(weight2), PRODUCT) + bias2)
            if not OWN_RECEIVE:
                received = _row(above, partner, OUTPUTS, OUTPUT_BLOCK)[None, :]
                if MAX:
                    winner = _row(chosen, partner, OUTPUTS, OUTPUT_BLOCK)[None, :]
            if MAX:
                message = tl.where(winner == (partner if OWN_RECEIVE else number), received, 0.0)
                upper = _masked(_product(message, weight3, PRODUCT), second)
            else:
                upper = _masked(received, second)
            lower = _masked(_product(upper, weight2, PRODUCT), first)
            total += lower
            if WEIGHTS:
                sum_b2 += upper
                sum_w2 += _product(tl.trans(upper), first, PRODUCT)
                if MAX:
                    sum_w3 += _product(tl.trans(message), second, PRODUCT)
        _store(g_own + start * HIDDEN, total, first_row, slots, HIDDEN, ROWS, HIDDEN_BLOCK)
    if WEIGHTS:
        part = tl.program_id(0)
        column = tl.arange(0, HIDDEN_BLOCK)
        _store(g_w2 + part * HIDDEN * HIDDEN, sum_w2, 0, HIDDEN, HIDDEN, HIDDEN_BLOCK, HIDDEN_BLOCK)
        tl.store(g_b2 + part * HIDDEN + column, tl.sum(sum_b2, axis=0), mask=column < HIDDEN)
        if MAX:
            g_w3 += part * OUTPUTS * HIDDEN
            _store(g_w3, sum_w3, 0, OUTPUTS, HIDDEN, OUTPUT_BLOCK, HIDDEN_BLOCK)


class TritonEngine:
    """The kernels of this file, for float32 tensors on an NVIDIA GPU.

    Args:
        precision: ``"fp32"``, ``"tf32"`` or ``"bf16"``: what operands of products are rounded to.
    """

    def __init__(self, precision: str):
        rounded = precision == "bf16" and INTERPRETED
        self.precision, self.product = precision, PRODUCTS[precision] + " interpreted" * rounded
        self.description = f"Triton, {precision}"

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the sum of the second hidden layer, or the maximal messages and their senders."""
        receivers, senders, *layers = (x.contiguous() for x in inputs)
        largest = len(layers) == 4
        out = receivers.new_empty(*receivers.shape[:2], len(layers[-2]))
        indices = torch.empty_like(out, dtype=torch.int32) if largest else None
        sizes = self._sizes(receivers, out, largest)
        tiles = _tiles(receivers, sizes)
        given = (receivers, senders, *layers, *[None] * (4 - len(layers)), out, indices)
        _launch(_forward, (len(receivers) * tiles,), *given, receivers.shape[1], tiles, **sizes)
        return out, indices

    def backward(
        self, gradient: Tensor, indices: Tensor | None, inputs: Inputs, weights: bool
    ) -> Gradients:
        """Return the gradients of the inputs (of the weights if ``weights``)."""
        receivers, senders, w2, b2, *last = (x.contiguous() for x in inputs)
        layers = (w2, b2, last[0] if last else None)
        gradient = gradient.contiguous()
        sizes = self._sizes(receivers, gradient, indices is not None)
        slots = receivers.shape[1]
        tiles = _tiles(receivers, sizes)
        grid = len(receivers) * tiles
        parts = min(grid, PROGRAMS) if weights else 0
        sums = [None if x is None or not weights else x.new_zeros(parts, *x.shape) for x in layers]
        grads = torch.empty_like(receivers), torch.empty_like(senders)
        given = (*layers, gradient, indices)
        count = (slots, tiles, grid)
        for own, other, target, receive in (
            (receivers, senders, grads[0], True),
            (senders, receivers, grads[1], False),
        ):
            wanted = weights and receive
            _launch(
                _backward,
                (parts if wanted else grid,),
                *(own, other, *given, target, *(sums if wanted else [None] * 3), *count),
                OWN_RECEIVE=receive,
                WEIGHTS=wanted,
                **sizes,
            )
        summed = [None if x is None else x.sum(dim=0) for x in sums]
        if not last:
            return *grads, *summed[:2]
        return *grads, *summed, gradient.sum(dim=(0, 1)) if weights else None

    def _sizes(self, receivers: Tensor, out: Tensor, largest: bool) -> dict[str, Any]:
        """Return what a kernel is compiled for: by the sizes alone, never by timing."""
        slots, hidden = receivers.shape[1:]
        outputs = out.shape[2]
        narrow = max(hidden, outputs) <= 64
        most = 64 if narrow and self.precision != "fp32" else 32  # what registers hold
        return {
            "HIDDEN": hidden,
            "OUTPUTS": outputs,
            "HIDDEN_BLOCK": _block(hidden),
            "OUTPUT_BLOCK": _block(outputs),
            "ROWS": min(most, _block(slots)),
            "MAX": largest,
            "PRODUCT": self.product,
        }


def check_device(device: torch.device) -> None:
    """Raise a `KernelError` that says why the kernels cannot run on a device, if they cannot."""
    if INTERPRETED:
        return
    if device.type != "cuda" or torch.version.hip:
        raise KernelError("they are for NVIDIA GPUs")
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        raise KernelError("it is older than compute capability {}.{}".format(*CAPABILITY))


def try_out(engine: TritonEngine, device: torch.device, hidden: int, outputs: int) -> None:
    """Compile and run all kernels on one item of as many slots as the largest tile has."""
    if INTERPRETED:
        return
    slots = torch.zeros(2, 1, 64, hidden, device=device).unbind()
    layers = [
        torch.zeros(shape, device=device)
        for shape in ((hidden, hidden), hidden, (outputs, hidden), outputs)
    ]
    inputs = (*slots, *layers)
    for given in (inputs[:4], inputs):
        out, indices = engine.forward(*given)
        for weights in (False, True):
            engine.backward(out, indices, given, weights)
    torch.cuda.synchronize(device)


def _block(size: int) -> int:
    """Return the size of a tile: a power of two, as the matrix units take it."""
    return max(16, 1 << (size - 1).bit_length())


def _tiles(receivers: Tensor, sizes: dict[str, Any]) -> int:
    """Return how many tiles cover the slots of one item."""
    return -(-receivers.shape[1] // sizes["ROWS"])


def _launch(kernel: Any, grid: tuple[int], *arguments: Any, **options: Any) -> None:
    if grid[0]:
        with torch.cuda.device_of(arguments[0]):
            kernel[grid](*arguments, **options, **OPTIONS)
