import logging
import os
import platform
import re
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr import kernels, message_passing
from rmr_gym.models.rmr.kernels import Chunked
from rmr_gym.models.rmr.message_passing import fully_connected_messages

AGGREGATIONS = ("max", "sum", "mean")


def unavailable(unit: str) -> str:
    """Why a unit cannot be tested here; empty where it can."""
    engine = kernels.cpu_engine("fp32")
    if engine is None:
        return "no compiled kernel on this machine"
    known = engine.library.has_unit(kernels.UNITS.index(unit))
    return "" if known else f"this processor has no {unit}"


needs_kernel = pytest.mark.skipif(
    bool(unavailable("float32")), reason=unavailable("float32") or "-"
)
FAST = [
    pytest.param("chunked", id="chunked"),
    *(
        pytest.param(
            unit,
            id=unit,
            marks=pytest.mark.skipif(bool(unavailable(unit)), reason=unavailable(unit) or "-"),
        )
        for unit in kernels.UNITS
    ),
]


@pytest.fixture
def on_unit(monkeypatch):
    """Return a function that makes back end 'cpu' multiply on one unit, and names the back end."""

    def choose(name: str) -> str:
        if name == "chunked":
            return name
        base = kernels.cpu_engine("fp32")
        assert base is not None
        engine = kernels.CpuEngine(base.library, name)
        monkeypatch.setattr(kernels, "cpu_engine", lambda precision: engine)
        return "cpu"

    return choose


def integers(generator: torch.Generator, largest: int, *shape: int) -> Tensor:
    return torch.randint(-largest, largest + 1, shape, generator=generator).double()


def integer_problem(seed: int, batch: int, slots: int, hidden: int, dim_out: int):
    """Small integers: every sum is exact in float32 and bfloat16 operands, and ties abound."""
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

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    weights = [normal(hidden, hidden), normal(hidden), normal(dim_out, hidden), normal(dim_out)]
    scaled = [w * hidden**-0.5 for w in weights]
    return [normal(batch, slots, hidden), normal(batch, slots, hidden), *scaled], normal(
        batch, slots, dim_out
    )


def results(inputs: list[Tensor], gradient: Tensor, dtype: torch.dtype, **options: str):
    """The output and the gradients of all inputs."""
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    out = fully_connected_messages(*leaves, **options)
    return [out.detach(), *torch.autograd.grad(out, leaves, gradient.to(dtype))]


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


def test_messages_are_those_of_an_mlp_on_concatenated_pairs():
    batch, slots, dim = 2, 5, 4
    z = torch.randn(batch, slots, dim, dtype=torch.float64)
    mlp = [torch.nn.Linear(2 * dim, dim), torch.nn.Linear(dim, dim), torch.nn.Linear(dim, 3)]
    mlp = [layer.double() for layer in mlp]
    shape = (batch, slots, slots, dim)
    pairs = torch.cat([z[:, :, None].expand(shape), z[:, None].expand(shape)], dim=-1)
    messages = mlp[2](torch.relu(mlp[1](torch.relu(mlp[0](pairs)))))
    receiver, sender = mlp[0].weight.split(dim, dim=1)
    split = (z @ receiver.T + mlp[0].bias, z @ sender.T)
    rest = [p for layer in mlp[1:] for p in (layer.weight, layer.bias)]
    expected = {"max": messages.amax(2), "sum": messages.sum(2), "mean": messages.mean(2)}
    for aggregation, value in expected.items():
        for backend in ("reference", "chunked"):
            found = fully_connected_messages(*split, *rest, aggregation, backend)
            torch.testing.assert_close(found, value)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", FAST)
def test_exactly_the_reference_on_integers(name, aggregation, on_unit):
    """For the mean the number of slots is a power of two, whose division is exact too."""
    backend = on_unit(name)
    counts = st.sampled_from([1, 2, 4, 8, 16, 32])

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(
        seed=st.integers(0, 2**31),
        batch=st.integers(0, 3),
        slots=counts if aggregation == "mean" else st.integers(1, 40),
        hidden=st.integers(1, 40),
        dim_out=st.integers(1, 40),
    )
    def check(seed, batch, slots, hidden, dim_out):
        inputs, gradient = integer_problem(seed, batch, slots, hidden, dim_out)
        expected = results(
            inputs, gradient, torch.float64, aggregation=aggregation, backend="reference"
        )
        found = results(inputs, gradient, torch.float32, aggregation=aggregation, backend=backend)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a.double(), b)

    check()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("shape", [(3, 50, 64, 64), (2, 33, 100, 70), (40, 7, 64, 32)])
def test_close_to_float64_on_normal_numbers(name, aggregation, shape, on_unit):
    backend = on_unit(name)
    inputs, gradient = normal_problem(1, *shape)
    rounded = name not in ("chunked", "float32")
    if aggregation == "max":
        gradient = gradient * clear_winners(inputs, 0.1 if rounded else 1e-3)
    expected = results(
        inputs, gradient, torch.float64, aggregation=aggregation, backend="reference"
    )
    found = results(inputs, gradient, torch.float32, aggregation=aggregation, backend=backend)
    assert relative_error(found[0], expected[0]) < (1e-2 if rounded else 1e-6)
    for a, b in zip(found[1:], expected[1:], strict=True):
        # A unit within rounding of zero may switch off, which changes the gradients of its pair.
        assert relative_error(a, b) < (5e-2 if rounded else 1e-2)


def clear_winners(inputs: list[Tensor], margin: float) -> Tensor:
    """Where the largest message beats the second by so much that rounding cannot swap them."""
    receivers, senders, w2, b2, w3, b3 = inputs
    hidden = torch.relu(receivers[:, :, None] + senders[:, None])
    messages = F.linear(torch.relu(F.linear(hidden, w2, b2)), w3, b3)
    first, second = messages.topk(2, dim=2).values.unbind(2)
    return first - second > margin


@pytest.mark.parametrize("name", FAST)
def test_the_first_of_tied_senders_gets_the_gradient(name, on_unit):
    (receivers, senders, *weights), gradient = integer_problem(0, 2, 9, 8, 8)
    inputs = [receivers, senders[:, :1].expand(2, 9, 8), *weights]
    for backend in ("reference", on_unit(name)):
        grads = results(inputs, gradient, torch.float32, backend=backend)
        assert grads[2][:, 0].abs().sum() > 0
        assert grads[2][:, 1:].abs().sum() == 0


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("side", [0, 1])
def test_nan_spreads_as_in_the_reference(name, aggregation, side, on_unit):
    inputs, gradient = normal_problem(3, 3, 37, 16, 8)
    inputs[side][1, 20, 5] = torch.nan
    options = {"aggregation": aggregation}
    expected = results(inputs, gradient, torch.float32, backend="reference", **options)
    found = results(inputs, gradient, torch.float32, backend=on_unit(name), **options)
    assert expected[0].isnan().any()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.isnan(), b.isnan())


@pytest.mark.parametrize("aggregation", ["max", "sum"])
@pytest.mark.parametrize("name", FAST)
def test_leading_axes_and_strides_do_not_matter(name, aggregation, on_unit):
    backend = on_unit(name)
    inputs, gradient = integer_problem(5, 6, 11, 32, 32)
    plain = results(inputs, gradient, torch.float32, aggregation=aggregation, backend=backend)
    inputs[0] = inputs[0].unflatten(0, (2, 3))
    inputs[1] = inputs[1].transpose(1, 2).contiguous().transpose(1, 2).unflatten(0, (2, 3))
    inputs[2] = inputs[2].T.contiguous().T
    gradient = gradient.transpose(0, 2).contiguous().transpose(0, 2).unflatten(0, (2, 3))
    other = results(inputs, gradient, torch.float32, aggregation=aggregation, backend=backend)
    for a, b in zip(other, plain, strict=True):
        assert torch.equal(a.reshape(b.shape), b)


@pytest.mark.parametrize("aggregation", ["max", "sum"])
@pytest.mark.parametrize("name", FAST[1:])
def test_same_bytes_with_any_number_of_threads(name, aggregation, on_unit):
    on_unit(name)
    inputs, gradient = normal_problem(7, 37, 19, 32, 32)
    before = torch.get_num_threads()
    runs = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            runs.append(kernel_results(inputs, gradient, aggregation))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def kernel_results(inputs: list[Tensor], gradient: Tensor, aggregation: str) -> list:
    """Results of the kernel alone, without PyTorch's own layers around it."""
    engine = kernels.cpu_engine("fp32")
    assert engine is not None
    singles = tuple(x.float() for x in (inputs if aggregation == "max" else inputs[:4]))
    out, indices = engine.forward(*singles)
    found = [out, indices, *engine.backward(gradient.float(), indices, singles, True)]
    return [tensor for tensor in found if tensor is not None]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86-64")
@pytest.mark.parametrize("flag", ["-march=x86-64", "-march=haswell"])
def test_the_kernel_of_an_older_processor_computes_the_same(flag, monkeypatch, fresh_kernels):
    monkeypatch.setattr(kernels, "PROCESSOR_FLAGS", (flag,))
    for seed, sizes in enumerate([(1, 1, 1, 1), (3, 9, 33, 20), (2, 70, 64, 64)]):
        inputs, gradient = integer_problem(seed, *sizes)
        for aggregation in ("max", "sum"):
            options = {"aggregation": aggregation, "backend": "cpu"}
            found = results(inputs, gradient, torch.float32, **options)
            options["backend"] = "reference"
            expected = results(inputs, gradient, torch.float64, **options)
            for a, b in zip(found, expected, strict=True):
                assert torch.equal(a.double(), b)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", FAST)
def test_frozen_weights_get_no_gradient_and_change_nothing_else(name, aggregation, on_unit):
    backend = on_unit(name)
    inputs, gradient = normal_problem(9, 3, 21, 24, 16)
    trained = results(inputs, gradient, torch.float32, aggregation=aggregation, backend=backend)
    leaves = [x.float().requires_grad_(number < 2) for number, x in enumerate(inputs)]
    out = fully_connected_messages(*leaves, aggregation=aggregation, backend=backend)
    out.backward(gradient.float())
    assert torch.equal(out, trained[0])
    for leaf, expected in zip(leaves[:2], trained[1:3], strict=True):
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, expected)
    assert all(leaf.grad is None for leaf in leaves[2:])


@pytest.mark.parametrize("name", FAST)
def test_frozen_weights_cost_nothing(name, on_unit):
    engine = Chunked() if on_unit(name) == "chunked" else kernels.cpu_engine("fp32")
    assert engine is not None
    inputs = tuple(x.float() for x in normal_problem(0, 2, 5, 8, 8)[0])
    for part, weights in ((inputs, 4), (inputs[:4], 2)):
        out, indices = engine.forward(*part)
        assert engine.backward(out, indices, part, False)[2:] == (None,) * weights


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("name", FAST)
def test_what_is_kept_for_the_backward_pass_grows_with_the_slots(name, aggregation, on_unit):
    backend = on_unit(name)
    slots, width = 64, 16
    inputs, _ = normal_problem(2, 1, slots, width, width)
    kept: list[int] = []

    def record(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        leaves = [x.float().requires_grad_() for x in inputs]
        fully_connected_messages(*leaves, aggregation=aggregation, backend=backend)
    assert 0 < sum(kept) <= 4 * slots * width + 4 * width * (width + 1)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_numerical_derivatives(aggregation):
    inputs, _ = normal_problem(4, 2, 4, 3, 2)
    leaves = [x.requires_grad_() for x in inputs]

    def messages(backend: str):
        return lambda *x: fully_connected_messages(*x, aggregation, backend)

    assert torch.autograd.gradcheck(messages("reference"), leaves)
    assert torch.autograd.gradgradcheck(messages("reference"), leaves)
    assert torch.autograd.gradcheck(messages("chunked"), leaves)
    out = messages("chunked")(*leaves).square().sum()
    (first,) = torch.autograd.grad(out, leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


def test_chunked_blocks_cover_everything_however_small(monkeypatch):
    inputs, gradient = integer_problem(6, 3, 10, 8, 12)
    monkeypatch.setattr("rmr_gym.models.rmr.kernels.CPU_BLOCK", 300)
    for aggregation in ("max", "sum"):
        options = {"aggregation": aggregation}
        expected = results(inputs, gradient, torch.float64, backend="reference", **options)
        found = results(inputs, gradient, torch.float64, backend="chunked", **options)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_bfloat16_of_the_chunked_back_end_is_close():
    inputs, gradient = normal_problem(8, 2, 20, 32, 32)
    for aggregation in ("sum", "mean"):
        options = {"aggregation": aggregation, "backend": "chunked"}
        exact = results(inputs, gradient, torch.float32, **options)
        found = results(inputs, gradient, torch.float32, precision="bf16", **options)
        errors = [relative_error(a, b.double()) for a, b in zip(found, exact, strict=True)]
        assert max(errors) < 5e-2
        assert max(errors) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("backend", ["auto", "chunked", "cpu"])
def test_other_dtypes_keep_their_dtype(dtype, backend):
    inputs, _ = integer_problem(2, 2, 5, 4, 4)
    inputs = [x.to(dtype) for x in inputs]
    found = fully_connected_messages(*inputs, backend=backend)
    assert torch.equal(found, fully_connected_messages(*inputs, backend="reference"))
    assert found.dtype == dtype


def test_autocast_and_torch_func_run_the_reference():
    inputs, _ = normal_problem(0, 4, 5, 8, 8)
    inputs = [x.float() for x in inputs]
    expected = fully_connected_messages(*inputs, backend="reference")
    stacked = torch.func.vmap(
        lambda r, s: fully_connected_messages(r, s, *inputs[2:]), in_dims=(0, 0)
    )(*inputs[:2])
    torch.testing.assert_close(stacked, expected)
    with torch.autocast("cpu", torch.bfloat16):
        halved = F.linear(inputs[0], torch.eye(8))
        found = fully_connected_messages(halved, inputs[1], *inputs[2:])
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


def test_the_default_back_end_can_be_chosen(monkeypatch):
    inputs = [x.float() for x in integer_problem(2, 2, 5, 4, 4)[0]]
    seen: list[str] = []
    choose = message_passing._engine

    def spy(wanted: str, *rest):
        seen.append(wanted)
        return choose(wanted, *rest)

    monkeypatch.setattr(message_passing, "_engine", spy)
    fully_connected_messages(*inputs)
    monkeypatch.setenv(message_passing.ENVIRONMENT_VARIABLE, "chunked")
    fully_connected_messages(*inputs)
    fully_connected_messages(*inputs, backend="cpu")
    assert seen == ["auto", "chunked", "cpu"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aggregation": "maximum"}, "did you mean 'max'"),
        ({"backend": "gpu"}, "unknown backend"),
        ({"precision": "fp8"}, "unknown precision"),
    ],
)
def test_unknown_names(change, message):
    inputs = integer_problem(2, 2, 5, 4, 4)[0]
    with pytest.raises(RMRError, match=message):
        fully_connected_messages(*inputs, **change)


def test_no_slot_is_an_error():
    inputs = integer_problem(2, 2, 5, 4, 4)[0]
    with pytest.raises(RMRError, match="at least one slot"):
        fully_connected_messages(inputs[0][:, :0], inputs[1][:, :0], *inputs[2:])


@pytest.fixture
def fresh_kernels(monkeypatch, tmp_path):
    """Kernels that were never asked for, with an empty cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(kernels.SWITCH, raising=False)
    kernels.cpu_engine.cache_clear()
    yield tmp_path
    kernels.cpu_engine.cache_clear()


@pytest.fixture
def tiny_source(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "answer.hpp").write_text("constexpr int ANSWER = 42;\n")
    source = folder / "tiny.cpp"
    source.write_text('#include "answer.hpp"\nextern "C" int answer() { return ANSWER; }\n')
    return source


def fake_compiler(folder: Path, script: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def no_compiler(monkeypatch, folder):
    monkeypatch.setenv("CXX", str(folder / "nothing"))


def failing_compiler(monkeypatch, folder):
    script = "[ $1 = --version ] && exit 0; echo cannot compile this >&2; exit 1"
    monkeypatch.setenv("CXX", fake_compiler(folder, script))


def garbage_compiler(monkeypatch, folder):
    script = "[ $1 = --version ] && exit 0; for last; do :; done; echo garbage > $last"
    monkeypatch.setenv("CXX", fake_compiler(folder, script))


def switched_off(monkeypatch, folder):
    monkeypatch.setenv(kernels.SWITCH, "0")


def unwritable_cache(monkeypatch, folder):
    monkeypatch.setenv("CXX", fake_compiler(folder, "exit 0"))
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))


@pytest.mark.skipif(os.name != "posix", reason="the compiler stands for a shell script")
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (no_compiler, "no C\\+\\+ compiler"),
        (failing_compiler, "cannot compile this"),
        (garbage_compiler, "file too short|invalid ELF|not a mach-o"),
        (switched_off, "RMR_GYM_KERNELS=0"),
        (unwritable_cache, "Not a directory|File exists"),
    ],
)
def test_without_kernels_pytorch_runs_and_says_so_once(
    trouble, reason, fresh_kernels, monkeypatch, caplog
):
    trouble(monkeypatch, fresh_kernels)
    inputs, gradient = integer_problem(3, 2, 9, 8, 8)
    expected = results(inputs, gradient, torch.float64, backend="reference")
    with caplog.at_level(logging.WARNING):
        for backend in ("auto", "cpu", "cpu"):
            found = results(inputs, gradient, torch.float32, backend=backend)
            assert all(torch.equal(a.double(), b) for a, b in zip(found, expected, strict=True))
    assert len(caplog.records) == 1
    assert caplog.text.count("PyTorch runs instead") == 1
    assert re.search(reason, caplog.text)


@needs_kernel
def test_a_library_is_compiled_once_and_again_when_a_source_changes(fresh_kernels, tiny_source):
    assert kernels.load_library(tiny_source).answer() == 42
    (first,) = kernels.cache_folder().iterdir()
    written = first.stat().st_mtime_ns
    assert kernels.load_library(tiny_source).answer() == 42
    assert first.stat().st_mtime_ns == written
    tiny_source.with_name("answer.hpp").write_text("constexpr int ANSWER = 43;\n")
    assert kernels.load_library(tiny_source).answer() == 43
    assert len(list(kernels.cache_folder().iterdir())) == 2


@needs_kernel
def test_two_may_compile_at_once(fresh_kernels, tiny_source):
    answers: list[int] = []

    def load():
        answers.append(kernels.load_library(tiny_source).answer())

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [42] * 3
    assert len(list(kernels.cache_folder().iterdir())) == 1


@needs_kernel
def test_code_is_not_loaded_from_a_folder_that_others_may_write(fresh_kernels, tiny_source):
    kernels.cache_folder().chmod(0o777)
    with pytest.raises(kernels.KernelError, match="mode 700"):
        kernels.load_library(tiny_source)
