"""The Triton back end: what it computes (`triton_checks`), when it is chosen, that it compiles."""

import importlib
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rmr_gym.models.rmr import kernels, message_passing
from rmr_gym.models.rmr.message_passing import describe_backend, fully_connected_messages

CHECKS = Path(__file__).with_name("triton_checks.py")

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU in reach")


@needs_triton
@pytest.mark.parametrize(
    "interpret", [pytest.param("1", id="interpreter"), pytest.param("0", id="gpu", marks=needs_gpu)]
)
def test_the_kernels_equal_the_reference(interpret):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, str(CHECKS)],
        env=os.environ | {"TRITON_INTERPRET": interpret},
        cwd=CHECKS.parents[2],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def problem(batch: int, slots: int, width: int) -> list[torch.Tensor]:
    shapes = [(batch, slots, width)] * 2 + [(width, width), (width,)] * 2
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.fixture
def forgotten_engines():
    kernels.triton_engine.cache_clear()
    message_passing._say_once.cache_clear()
    yield
    kernels.triton_engine.cache_clear()


@pytest.mark.parametrize("installed", [True, False])
def test_without_a_gpu_pytorch_runs_and_says_so_once(
    installed, forgotten_engines, monkeypatch, caplog
):
    if not installed:
        monkeypatch.setitem(sys.modules, "rmr_gym.models.rmr.kernels.triton_messages", None)
    inputs = problem(2, 5, 4)
    expected = fully_connected_messages(*inputs, backend="reference")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = fully_connected_messages(*inputs, backend="triton")
            torch.testing.assert_close(found, expected)
    assert len(caplog.records) == 1
    assert "PyTorch runs instead" in caplog.text


def test_the_cpu_never_asks_for_triton_by_itself(forgotten_engines):
    inputs = problem(8, 128, 64)
    assert message_passing._triton_engine(tuple(inputs), "auto", "fp32") is None
    assert kernels.triton_engine.cache_info().misses == 0
    assert "Triton" not in describe_backend("cpu", "fp32")


TRAINED = {"MAX": True, "OWN_RECEIVE": True, "WEIGHTS": True}
SENDERS = {"MAX": False, "OWN_RECEIVE": False, "WEIGHTS": False}
CASES = [
    ("_forward", {"MAX": True}, "bf16", 64),
    ("_backward", TRAINED, "bf16", 128),
    ("_backward", TRAINED, "fp32", 64),
    ("_backward", SENDERS, "tf32", 64),
]
H200_SHARED_MEMORY = 227 * 1024


@needs_triton
@pytest.mark.parametrize(("kernel", "flags", "precision", "width"), CASES)
def test_compiles_for_a_gpu_that_is_not_there(
    kernel, flags, precision, width, monkeypatch, tmp_path
):
    """The interpreter takes more than the compiler does, and other NaN."""
    triton = pytest.importorskip("triton")
    compiler = pytest.importorskip("triton.compiler")
    target = pytest.importorskip("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    module = importlib.import_module("rmr_gym.models.rmr.kernels.triton_messages")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    receivers = torch.empty(1, 128, width)
    sizes = module.TritonEngine(precision)._sizes(receivers, receivers, flags["MAX"])
    function = getattr(module, kernel)
    types = {"slots": "i32", "tiles": "i32", "all_tiles": "i32", "indices": "*i32"}
    constants = sizes | flags
    unused = [] if flags["MAX"] else ["w3", "b3", "indices", "g_w3"]
    unused += [] if flags.get("WEIGHTS") else ["g_w2", "g_b2", "g_w3"]
    constants |= {name: None for name in unused if name in function.arg_names}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "*fp32")
        for name in function.arg_names
    }
    source = compiler.ASTSource(function, signature, constexprs=constants)
    built = triton.compile(source, target=target, options=module.OPTIONS)
    assert built.metadata.shared <= H200_SHARED_MEMORY
    assert "mma" in built.asm["ptx"]
    assert "max.NaN" in built.asm["ptx"]
    assert "atom" not in built.asm["ptx"]
