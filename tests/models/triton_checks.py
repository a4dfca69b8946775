"""What the Triton kernels compute; `test_triton_messages` runs this file in a process of its own.

With ``TRITON_INTERPRET=1`` the kernels run through Triton's interpreter, which must be chosen
before Triton is imported, else on a GPU.
"""

import importlib
import logging
import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rmr_gym.models.rmr import kernels, message_passing
from rmr_gym.models.rmr.message_passing import (
    describe_backend,
    fully_connected_messages,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
AGGREGATIONS = ("max", "sum", "mean")
PRECISIONS = ("fp32", "tf32", "bf16")


def integers(generator: torch.Generator, largest: int, *shape: int) -> Tensor:
    return torch.randint(-largest, largest + 1, shape, generator=generator).double()


def integer_problem(seed: int, batch: int, slots: int, hidden: int, dim_out: int):
    """Small integers: exact in every precision, and ties abound."""
    g = torch.Generator().manual_seed(seed)
    inputs = [
        integers(g, 2, batch, slots, hidden),
        integers(g, 2, batch, slots, hidden),
        integers(g, 1, hidden, hidden),
        integers(g, 2, hidden),
        integers(g, 1, dim_out, hidden),
        integers(g, 2, dim_out),
    ]
    return inputs, integers(g, 1, batch, slots, dim_out)


def normal_problem(seed: int, batch: int, slots: int, hidden: int, dim_out: int):
    g = torch.Generator().manual_seed(seed)
    shapes = [(hidden, hidden), (hidden,), (dim_out, hidden), (dim_out,)]
    layers = [torch.randn(s, generator=g, dtype=torch.float64) * hidden**-0.5 for s in shapes]
    slots_of = [(batch, slots, hidden)] * 2 + [(batch, slots, dim_out)]
    a, b, gradient = (torch.randn(s, generator=g, dtype=torch.float64) for s in slots_of)
    return [a, b, *layers], gradient


def results(inputs: list[Tensor], gradient: Tensor, dtype: torch.dtype, **options: str):
    """The output and the gradients of all inputs, on the CPU for float64."""
    device = "cpu" if dtype == torch.float64 else DEVICE
    leaves = [x.to(device, dtype, copy=True).requires_grad_() for x in inputs]
    out = fully_connected_messages(*leaves, **options)
    found = [out.detach(), *torch.autograd.grad(out, leaves, gradient.to(device, dtype))]
    return [x.double().cpu() for x in found]


def both(inputs: list[Tensor], gradient: Tensor, precision: str = "fp32", **options: str):
    """Results of the kernels and of the reference in float64."""
    with as_engine():
        found = results(
            inputs, gradient, torch.float32, backend="triton", precision=precision, **options
        )
    return found, results(inputs, gradient, torch.float64, backend="reference", **options)


class as_engine:  # noqa: N801
    """Fails where another back end would step in."""

    def __enter__(self):
        self.chunked = kernels.Chunked
        kernels.Chunked = None  # type: ignore[assignment]

    def __exit__(self, *_):
        kernels.Chunked = self.chunked


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_exactly_the_reference_on_integers(aggregation):
    counts = st.sampled_from([1, 2, 4, 8])  # the mean is exact for powers of two

    @settings(
        max_examples=6,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # shrinking through the interpreter takes minutes
    )
    @given(
        seed=st.integers(0, 2**31),
        batch=st.integers(0, 2),
        slots=counts if aggregation == "mean" else st.integers(1, 10),
        hidden=st.integers(1, 20),
        dim_out=st.integers(1, 20),
        precision=st.sampled_from(PRECISIONS),
    )
    def check(seed, batch, slots, hidden, dim_out, precision):
        inputs, gradient = integer_problem(seed, batch, slots, hidden, dim_out)
        found, expected = both(inputs, gradient, precision, aggregation=aggregation)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)

    check()


@pytest.mark.parametrize("aggregation", ["max", "sum"])
def test_several_tiles_and_shared_sums_of_the_weights(aggregation, monkeypatch):
    """35 slots are two tiles in fp32; three programs share four of them."""
    module = importlib.import_module("rmr_gym.models.rmr.kernels.triton_messages")
    monkeypatch.setattr(module, "PROGRAMS", 3)
    inputs, gradient = integer_problem(1, 2, 35, 5, 7)
    found, expected = both(inputs, gradient, aggregation=aggregation)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def clear_winners(inputs: list[Tensor], margin: float) -> Tensor:
    """Where the largest message beats the second by so much that rounding cannot swap them."""
    receivers, senders, w2, b2, w3, b3 = inputs
    hidden = torch.relu(receivers[:, :, None] + senders[:, None])
    messages = F.linear(torch.relu(F.linear(hidden, w2, b2)), w3, b3)
    first, second = messages.topk(2, dim=2).values.unbind(2)
    return first - second > margin


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_close_to_float64_on_normal_numbers(aggregation, precision):
    exact = precision == "fp32" or (INTERPRETED and precision == "tf32")
    inputs, gradient = normal_problem(1, 1, 10, 40, 24)
    if aggregation == "max":
        gradient = gradient * clear_winners(inputs, 1e-3 if exact else 0.1)
    found, expected = both(inputs, gradient, precision, aggregation=aggregation)
    errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]
    assert errors[0] < (2e-6 if exact else 2e-2)
    # A unit within rounding of zero may switch off, which changes the gradients of its pair.
    # The interpreter cuts numbers to bfloat16 where a GPU rounds them.
    assert max(errors[1:]) < (1e-2 if exact else 0.15)
    assert exact or errors[0] > 1e-5


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("side", [0, 1])
def test_nan_spreads_as_in_the_reference(aggregation, side):
    inputs, gradient = normal_problem(3, 2, 6, 16, 8)
    inputs[side][1, 4, 5] = torch.nan
    found, expected = both(inputs, gradient, aggregation=aggregation)
    assert expected[0].isnan().any()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.isnan(), b.isnan())


def test_the_first_of_tied_senders_gets_the_gradient():
    (receivers, senders, *layers), gradient = integer_problem(0, 2, 5, 8, 8)
    found, _ = both([receivers, senders[:, :1].expand(2, 5, 8), *layers], gradient)
    assert found[2][:, 0].abs().sum() > 0
    assert found[2][:, 1:].abs().sum() == 0


@pytest.mark.parametrize("aggregation", ["max", "sum"])
def test_leading_axes_and_strides_do_not_matter(aggregation):
    inputs, gradient = integer_problem(5, 2, 6, 20, 18)
    plain, _ = both(inputs, gradient, aggregation=aggregation)
    inputs[0] = inputs[0].unflatten(0, (2, 1))
    inputs[1] = inputs[1].transpose(1, 2).contiguous().transpose(1, 2).unflatten(0, (2, 1))
    inputs[2], inputs[4] = inputs[2].T.contiguous().T, inputs[4].T.contiguous().T
    gradient = gradient.transpose(0, 2).contiguous().transpose(0, 2).unflatten(0, (2, 1))
    other, _ = both(inputs, gradient, aggregation=aggregation)
    for a, b in zip(other, plain, strict=True):
        assert torch.equal(a.reshape(b.shape), b)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_frozen_weights_get_no_gradient_and_change_nothing_else(aggregation):
    inputs, gradient = normal_problem(9, 1, 7, 20, 16)
    trained, _ = both(inputs, gradient, aggregation=aggregation)
    leaves = [x.to(DEVICE, torch.float32).requires_grad_(n < 2) for n, x in enumerate(inputs)]
    out = fully_connected_messages(*leaves, aggregation=aggregation, backend="triton")
    out.backward(gradient.to(DEVICE, torch.float32))
    for leaf, expected in zip(leaves[:2], trained[1:3], strict=True):
        assert leaf.grad is not None
        assert torch.equal(leaf.grad.double().cpu(), expected)
    assert all(leaf.grad is None for leaf in leaves[2:])


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_what_is_kept_for_the_backward_pass_grows_with_the_slots(aggregation):
    slots, width = 24, 4
    inputs, _ = normal_problem(2, 1, slots, width, width)
    kept: list[int] = []

    def record(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        leaves = [x.to(DEVICE, torch.float32).requires_grad_() for x in inputs]
        fully_connected_messages(*leaves, aggregation=aggregation, backend="triton")
    assert 0 < sum(kept) <= 4 * slots * width + 4 * width * (width + 1)


def test_what_the_kernels_cannot_take_falls_back_and_says_so_once(caplog):
    message_passing._say_once.cache_clear()
    inputs = [x.to(DEVICE, torch.float32) for x in integer_problem(0, 1, 2, 129, 4)[0]]
    halves = [x.half() for x in inputs]
    doubles = [x.double() for x in inputs]
    for given_inputs, reason in ((inputs, "widths up to 128"), (halves, "float32"), (doubles, "")):
        expected = fully_connected_messages(*given_inputs, backend="reference")
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                found = fully_connected_messages(*given_inputs, backend="triton")
                assert torch.equal(found, expected)
                assert found.dtype == given_inputs[0].dtype
        assert len(caplog.records) == bool(reason)
        assert reason in caplog.text


def test_the_description_names_what_runs(monkeypatch):
    monkeypatch.setenv("RMR_GYM_MESSAGES", "triton")
    assert describe_backend(DEVICE, "bf16") == "Triton, bf16"
