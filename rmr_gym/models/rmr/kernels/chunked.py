"""The back end in PyTorch that goes through the pairs in blocks: no compiler, any device."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from rmr_gym.models.rmr.kernels import Gradients, Inputs

CPU_BLOCK, DEVICE_BLOCK = 2**18, 2**25
"""Numbers of a block of pairs: within a core's cache; enough to fill a GPU."""


class Chunked:
    """Messages in blocks of pairs, which the backward pass computes again.

    Args:
        precision: ``"fp32"`` keeps the dtype of the input; ``"bf16"`` rounds the operands of the
            products, and their results, to bfloat16.
    """

    def __init__(self, precision: str = "fp32"):
        self.dtype = torch.bfloat16 if precision == "bf16" else None
        self.description = f"PyTorch in blocks, {'bf16' if self.dtype else 'fp32'}"

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the sum of the second hidden layer, or the maximal messages and their senders."""
        receivers, senders, w2, b2, *last = inputs
        out = receivers.new_empty(*receivers.shape[:2], len(inputs[-2]))
        indices = torch.empty_like(out, dtype=torch.int32) if last else None
        for items, rows in _blocks(receivers, senders.shape[1]):
            first = _first_layer(receivers[items, rows], senders[items])
            second = self._linear(first, w2, b2).relu_()
            if indices is None:
                out[items, rows] = second.sum(dim=2)
            else:
                best = self._linear(second, *last).max(dim=2)
                out[items, rows], indices[items, rows] = best.values, best.indices.int()
        return out, indices

    def backward(
        self, gradient: Tensor, indices: Tensor | None, inputs: Inputs, weights: bool
    ) -> Gradients:
        """Return the gradients of the inputs (of the weights if ``weights``)."""
        if indices is None:
            return self._sum_backward(gradient, inputs, weights)
        return self._max_backward(gradient, indices, inputs, weights)

    def _sum_backward(self, gradient: Tensor, inputs: Inputs, weights: bool) -> Gradients:
        receivers, senders, w2, b2 = inputs
        grads = [torch.zeros_like(x) for x in inputs]
        for items, rows in _blocks(receivers, senders.shape[1]):
            first = _first_layer(receivers[items, rows], senders[items])
            second = self._linear(first, w2, b2)
            upper = _masked(gradient[items, rows, None].expand_as(second), second)
            lower = _masked(self._linear(upper, w2.T), first)
            grads[0][items, rows] = lower.sum(dim=2)
            grads[1][items] += lower.sum(dim=1)
            if weights:
                self._add_weight_gradients(grads, upper, first)
        return tuple(grads) if weights else (*grads[:2], None, None)

    def _max_backward(
        self, gradient: Tensor, indices: Tensor, inputs: Inputs, weights: bool
    ) -> Gradients:
        """Only the maximal sender of a receiver and channel has a gradient."""
        receivers, senders, w2, b2, w3, _ = inputs
        grads = [torch.zeros_like(x) for x in inputs]
        batch, slots, hidden = senders.shape
        starts = torch.arange(batch, device=senders.device)[:, None, None] * slots
        origins = starts + indices
        for items, rows in _blocks(receivers, len(w3)):
            origin, above = origins[items, rows], gradient[items, rows]
            chosen = senders.reshape(-1, hidden)[origin]
            first = torch.relu_(receivers[items, rows, None] + chosen)
            second = torch.relu_(self._linear(first, w2, b2))
            upper = _masked(above[..., None] * w3, second)
            lower = _masked(self._linear(upper, w2.T), first)
            grads[0][items, rows] = lower.sum(dim=2)
            grads[1].view(-1, hidden).index_add_(0, origin.flatten(), lower.flatten(0, 2))
            if weights:
                grads[4] += (above[..., None] * second).sum(dim=(0, 1))
                self._add_weight_gradients(grads, upper, first)
        grads[5] = gradient.sum(dim=(0, 1))
        return tuple(grads) if weights else (*grads[:2], None, None, None, None)

    def _linear(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.dtype is None:
            return F.linear(x, w, bias)
        out = F.linear(x.to(self.dtype), w.to(self.dtype)).to(x.dtype)
        return out if bias is None else out.add_(bias)

    def _add_weight_gradients(self, grads: list[Tensor], upper: Tensor, first: Tensor) -> None:
        upper, first = upper.flatten(0, 2), first.flatten(0, 2)
        grads[2] += self._linear(upper.T, first.T)
        grads[3] += upper.sum(dim=0)


def _first_layer(receivers: Tensor, senders: Tensor) -> Tensor:
    return torch.relu_(receivers[:, :, None] + senders[:, None])


def _masked(gradient: Tensor, result: Tensor) -> Tensor:
    """Return the gradient below a ReLU, zero where the ReLU was, as autograd computes it."""
    return torch.ops.aten.threshold_backward(gradient, result, 0)


def _blocks(receivers: Tensor, partners: int) -> Iterator[tuple[slice, slice]]:
    """Yield (items of the batch, receivers) whose pairs fit into a block."""
    batch, slots, hidden = receivers.shape
    elements = CPU_BLOCK if receivers.device.type == "cpu" else DEVICE_BLOCK
    rows = max(1, elements // (partners * hidden))
    items = max(1, rows // slots)
    for item in range(0, batch, items):
        for row in range(0, slots, rows):
            yield slice(item, item + items), slice(row, row + rows)
