"""The fast back ends of the message passing: tensors in, tensors out.

The kernels for CPUs are compiled with the system's C++ compiler, once, and loaded from a private
cache. `CpuEngine` calls them through ctypes, which releases the interpreter's lock during the call;
widths are padded with zeros to what the kernel takes. The Triton kernels for GPUs are in a module
of their own, which is imported when a GPU asks for it. `Chunked` needs no compiler.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError
from rmr_gym.core.processes import processor_lines

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

HERE = Path(__file__).parent
"""Folder of the sources that are compiled."""

_log = logging.getLogger(__name__)


NAMES = ("receivers", "senders", "w2", "b2", "w3", "b3")
"""Inputs of the message passing, as messages.cpp calls them."""


def structure(numbers: Sequence[str], addresses: Sequence[str]) -> type[ctypes.Structure]:
    """Return the argument of compiled functions: whole numbers by name, then addresses."""
    kinds = dict.fromkeys(numbers, ctypes.c_int64) | dict.fromkeys(addresses, ctypes.c_void_p)
    return type("Argument", (ctypes.Structure,), {"_fields_": [*kinds.items()]})


_COUNTS = ("batch", "slots", "width", "outputs", "threads", "unit")
_GRADIENTS = tuple(f"g_{name}" for name in NAMES[:5])
_Problem = structure(_COUNTS, (*NAMES, "out", "indices", "gradient", *_GRADIENTS))
"""The argument of every function in messages.cpp."""


@cache
def cpu_engine(precision: str) -> "CpuEngine | None":
    """Return the compiled engine; None, and once a line in the log, where it cannot be had."""
    library = library_of(HERE / "messages.cpp", "PyTorch runs instead")
    if library is None:
        return None
    unit = UNITS[library.bfloat16_unit()] if precision == "bf16" else "float32"
    if precision == "bf16" and unit == "float32":
        _log.warning("this processor has no fast bfloat16 products: float32 runs instead")
    return CpuEngine(library, unit)


def library_of(source: Path, instead: str) -> ctypes.CDLL | None:
    """Return a compiled source; None, and a line in the log, where it cannot be had.

    Args:
        source: The file to compile.
        instead: What happens without, for the log.
    """
    try:
        return load_library(source)
    except KernelError as reason:
        _log.warning("no compiled %s, %s: %s", source.stem, instead, reason)
        return None


@cache
def triton_engine(precision: str, device: torch.device, hidden: int, outputs: int) -> Any:
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
        call(self.library, function, problem)


def call(library: ctypes.CDLL, function: str, problem: ctypes.Structure) -> None:
    """Call a kernel with its arguments.

    Raises:
        MemoryError: There is not enough.
    """
    outcome = getattr(library, function)(ctypes.byref(problem))
    if outcome == 1:
        raise MemoryError(f"{function}: out of memory")
    assert outcome == 0, f"{function}: this processor has no such unit"


def _padded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors whose widths (all axes of weights, else the last) are padded."""
    padded = {}
    for name, tensor in tensors.items():
        axes = tensor.shape[-2:] if name in ("w2", "w3") else tensor.shape[-1:]
        missing = [-size % PAD for size in axes]
        sides = [side for size in reversed(missing) for side in (0, size)]
        padded[name] = (F.pad(tensor, sides) if any(missing) else tensor).contiguous()
    return padded


FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
PROCESSOR_FLAGS = ("-march=native", "-mcpu=native")
"""How compilers are told to use all that this processor has; the first that one takes."""

COMPILERS = ("c++", "g++", "clang++")
SWITCH = "RMR_GYM_KERNELS"


class KernelError(RMRError):
    """The kernels cannot be had on this machine; the message says why."""


def load_library(source: Path) -> ctypes.CDLL:
    """Return the shared library of one C++ source, compiled now or earlier.

    The library is kept in ``$XDG_CACHE_HOME/rmr_gym/kernels`` (``~/.cache`` by default) under a
    hash of sources, flags, compiler and processor. ``RMR_GYM_KERNELS=0`` switches the kernels off.

    Args:
        source: The file to compile; it may include headers that lie beside it.

    Raises:
        KernelError: Switched off, no compiler, no private cache, or compiling failed.
    """
    if os.environ.get(SWITCH, "1") == "0":
        raise KernelError(f"switched off by {SWITCH}=0")
    if os.name != "posix":
        raise KernelError("only POSIX systems are supported")
    compiler = find_compiler()
    try:
        library = cache_folder() / f"{_fingerprint(source, compiler)}.so"
        if not library.exists():
            _compile(source, compiler, library)
        return ctypes.CDLL(str(library))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise KernelError(str(error)) from error


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler: ``$CXX``, else the first of `COMPILERS` on the path.

    Raises:
        KernelError: There is none.
    """
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [[name] for name in COMPILERS]:
        if path := shutil.which(command[0]):
            return [path, *command[1:]]
    raise KernelError(f"no C++ compiler ({' '.join(chosen) or ', '.join(COMPILERS)}) found")


def cache_folder() -> Path:
    """Return the folder of compiled kernels, which only its owner may read or write.

    Raises:
        KernelError: The folder belongs to somebody else or is open to others.
        OSError: It cannot be made.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "rmr_gym" / "kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise KernelError(
            f"{folder} must belong to you and have mode 700, as code is loaded from it"
        )
    return folder


def _compile(source: Path, compiler: list[str], library: Path) -> None:
    """Compile next to ``library`` and rename, so that no process ever loads half a file."""
    complaints = []
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        for flag in PROCESSOR_FLAGS:
            command = [*compiler, *FLAGS, flag, str(source), "-o", str(made)]
            done = subprocess.run(  # noqa: S603
                command, check=False, capture_output=True, text=True, timeout=600
            )
            if done.returncode == 0:
                made.chmod(0o700)
                made.replace(library)
                return
            complaints.append(done.stderr.strip()[:500])
    raise KernelError(f"{compiler[0]} failed: {complaints[0]}")


def _fingerprint(source: Path, compiler: list[str]) -> str:
    version = subprocess.run(  # noqa: S603
        [*compiler, "--version"], check=True, capture_output=True, timeout=60
    ).stdout
    code = [path.read_bytes() for path in sorted(source.parent.glob("*.[ch]pp"))]
    settings = repr((source.name, compiler, FLAGS, PROCESSOR_FLAGS, _processor())).encode()
    return hashlib.sha256(b"\0".join([*code, version, settings])).hexdigest()[:32]


def _processor() -> str:
    """Return what ``-march=native`` depends on."""
    known = sorted({*processor_lines("model name", "flags", "Features")})
    return "\n".join([platform.machine(), platform.processor(), platform.platform(), *known])


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
        """Return the sum of the second hidden layer over senders [batch slots hidden], and None.

        With w3 and b3: the maximal messages and the first sender of each [batch slots dim_out].
        """
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
