"""Time and memory of the fully connected message passing, side by side.

    python benchmarks/message_passing.py --batch 50 --slots 128 --dim 64
    python benchmarks/message_passing.py --device cuda --batch 1000

A row is an implementation: naive (all pairs concatenated), split (the PyTorch reference of the
library), chunked, and the compiled kernel: C++ on a CPU, Triton on a GPU. Repetitions are
interleaved, so that a busy moment of the machine hits all rows alike; the figures are medians, and
ratios are taken within each repetition before their median. One thread of a CPU is timed by the
seconds that the processor worked for it, all else by the clock. Memory on a CPU is the peak of the
resident set above the one before the step, each in a process of its own; on a GPU it is the peak of
what PyTorch allocated. What does not fit into a GPU is left out.

The floor is the arithmetic that no implementation can avoid (the pairs' middle layer; for max also
the last; backward without recomputation, for max on the maximal pairs only) at the peak of a row's
precision: what a large matrix product reaches in it in the same process, PyTorch's own or, where
that is faster on a CPU, the middle layer of the compiled kernel.
"""

import argparse
import csv
import ctypes
import functools
import math
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rmr_gym.models.rmr import kernels
from rmr_gym.models.rmr.message_passing import fully_connected_messages

Weights = list[Tensor]
AGGREGATIONS = ("max", "mean")
BASE = "split fp32"
GEOMETRIC = "torch-geometric fp32"


@dataclass(frozen=True)
class Case:
    """One problem: the sizes, the aggregation, and whether P is frozen."""

    batch: int
    slots: int
    dim: int
    aggregation: str
    frozen: bool

    def tensors(self, device: str = "cpu") -> tuple[Tensor, Weights, Tensor]:
        """Latents, the six weights of the message MLP, the gradient of the output."""
        g = torch.Generator().manual_seed(0)
        shape = (self.batch, self.slots, self.dim)
        z, gradient = (torch.randn(shape, generator=g).to(device) for _ in range(2))
        layers = [torch.nn.Linear(n * self.dim, self.dim).to(device) for n in (2, 1, 1)]
        weights = [p.requires_grad_(not self.frozen) for x in layers for p in x.parameters()]
        return z.requires_grad_(), weights, gradient


def naive(z: Tensor, weights: Weights, aggregation: str) -> Tensor:
    """All pairs concatenated, three layers on each, then the aggregation."""
    w1, b1, w2, b2, w3, b3 = weights
    shape = (*z.shape[:2], z.shape[1], z.shape[2])
    pairs = torch.cat([z[:, :, None].expand(shape), z[:, None].expand(shape)], dim=-1)
    hidden = torch.relu(F.linear(torch.relu(F.linear(pairs, w1, b1)), w2, b2))
    messages = F.linear(hidden, w3, b3)
    return messages.max(dim=2).values if aggregation == "max" else messages.mean(dim=2)


def geometric(z: Tensor, weights: Weights, aggregation: str) -> Tensor:
    """The same with torch-geometric, on the edges of the full graph of every element."""
    batch, slots, dim = z.shape
    network, edges = geometric_network(aggregation), geometric_edges(batch, slots, z.device)
    return network(z.reshape(-1, dim), edges, weights).view(batch, slots, -1)


@functools.cache
def geometric_network(aggregation: str) -> Any:
    from torch_geometric.nn import MessagePassing  # noqa: PLC0415

    class Network(MessagePassing):
        def forward(self, x, edge_index, weights):
            return self.propagate(edge_index, x=x, weights=weights)

        def message(self, x_i, x_j, weights):
            w1, b1, w2, b2, w3, b3 = weights
            hidden = torch.relu(F.linear(torch.cat([x_i, x_j], dim=-1), w1, b1))
            return F.linear(torch.relu(F.linear(hidden, w2, b2)), w3, b3)

    return Network(aggr=aggregation)


@functools.cache
def geometric_edges(batch: int, slots: int, device: torch.device) -> Tensor:
    """Senders and receivers of all pairs of slots of the same element."""
    node = torch.arange(batch * slots, device=device).view(batch, slots)
    senders = node[:, None].expand(batch, slots, slots).reshape(-1)
    return torch.stack([senders, node[:, :, None].expand(batch, slots, slots).reshape(-1)])


def operation(backend: str, precision: str) -> Callable[[Tensor, Weights, str], Tensor]:
    """The library's operation on one back end."""

    def run(z: Tensor, weights: Weights, aggregation: str) -> Tensor:
        w1, b1, *rest = weights
        receiver, sender = w1.split(z.shape[-1], dim=1)
        return fully_connected_messages(
            F.linear(z, receiver, b1),
            F.linear(z, sender),
            *rest,
            aggregation=aggregation,
            backend=backend,
            precision=precision,
        )

    return run


BACKENDS = {
    "cpu": [("chunked", "fp32"), ("chunked", "bf16"), ("cpu", "fp32"), ("cpu", "bf16")],
    "cuda": [
        ("chunked", "fp32"),
        ("chunked", "bf16"),
        ("triton", "fp32"),
        ("triton", "tf32"),
        ("triton", "bf16"),
    ],
}
IMPLEMENTATIONS = {
    "naive fp32": naive,
    GEOMETRIC: geometric,
    BASE: operation("reference", "fp32"),
} | {
    f"{backend} {precision}": operation(backend, precision)
    for backend, precision in {pair for pairs in BACKENDS.values() for pair in pairs}
}


def names(device: str) -> list[str]:
    """The implementations that a device runs."""
    plain = ["naive fp32", *([GEOMETRIC] if find_spec("torch_geometric") else [])]
    return [*plain, BASE, *(" ".join(pair) for pair in BACKENDS[device])]


def step(name: str, case: Case, tensors: tuple[Tensor, Weights, Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    z, weights, gradient = tensors
    clock = time.perf_counter if z.is_cuda or torch.get_num_threads() > 1 else time.process_time
    begin = clock()
    out = IMPLEMENTATIONS[name](z, weights, case.aggregation)
    torch.autograd.grad(out, [x for x in (z, *weights) if x.requires_grad], gradient)
    if z.is_cuda:
        torch.cuda.synchronize()
    return clock() - begin


def peak_memory(name: str, case: Case, threads: int, send) -> None:
    """Send the megabytes that a step adds to the peak of this process."""
    torch.set_num_threads(threads)
    small = Case(1, 4, 32, case.aggregation, case.frozen)
    step(name, small, small.tensors())
    tensors = case.tensors()
    before = resident_kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step(name, case, tensors)
    send.send((resident_kilobytes("VmHWM") - before) / 1024)


def resident_kilobytes(field: str) -> int:
    """A line of /proc/self/status: VmRSS is the resident set now, VmHWM its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def device_memory(name: str, case: Case, tensors: tuple[Tensor, Weights, Tensor]) -> float:
    """Megabytes that a step adds to the peak of what PyTorch allocated on the GPU."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step(name, case, tensors)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory(name: str, case: Case, threads: int) -> float:
    """Megabytes at the peak of one step, in a fresh process; NaN where the system does not say."""
    if sys.platform != "linux":
        return math.nan
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=peak_memory, args=(name, case, threads, send))
    process.start()
    megabytes = receive.recv()
    process.join()
    return megabytes


def matmul_peaks(device: str) -> dict[str, float]:
    """Multiply-adds, counted as two, that large products do in a second, by precision."""
    if device == "cuda":
        peaks = {"bf16": peak_of(8192, torch.bfloat16, device)}
        for name in ("tf32", "fp32"):
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
            peaks[name] = peak_of(8192, torch.float32, device)
        return peaks
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {
        name: max(peak_of(1536, kind, device), kernel_peak(name)) for name, kind in kinds.items()
    }


def peak_of(size: int, dtype: torch.dtype, device: str) -> float:
    """What PyTorch's product of two square matrices reaches."""
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)

    def product() -> None:
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / fastest(product)


def kernel_peak(precision: str) -> float:
    """What the middle layer of all pairs reaches in the compiled kernel; 0 without it."""
    engine = kernels.cpu_engine(precision)
    if engine is None:
        return 0.0
    ends, w2 = torch.randn(2, 8, 128, 64), torch.randn(64, 64)
    return 2 * 8 * 128**2 * 64**2 / fastest(lambda: engine.forward(*ends, w2, w2[0]))


def fastest(work: Callable[[], object]) -> float:
    """The least seconds of some repetitions, of the processor where it has one thread."""
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.process_time
    clock = time.perf_counter if torch.cuda.is_available() else clock
    seconds = []
    for _ in range(12):
        begin = clock()
        work()
        seconds.append(clock() - begin)
    return min(seconds)


def unavoidable_work(case: Case) -> float:
    """Floating point operations of the floor; see the module."""
    layer = 2.0 * case.batch * case.slots**2 * case.dim**2
    backward = 1 if case.frozen else 2
    if case.aggregation == "mean":
        return layer * (1 + backward)
    z, (w1, b1, w2, b2, w3, b3), _ = Case(1, case.slots, case.dim, "max", True).tensors()
    receiver, sender = w1.split(case.dim, dim=1)
    hidden = torch.relu(F.linear(z, receiver, b1)[:, :, None] + F.linear(z, sender)[:, None])
    winners = F.linear(torch.relu(F.linear(hidden, w2, b2)), w3, b3).max(dim=2).indices[0]
    share = statistics.mean(len(row.unique()) for row in winners) / case.slots
    return layer * (2 + backward * share)


def measure(
    case: Case, repetitions: int, threads: int, peaks: dict[str, float], device: str
) -> list[dict[str, object]]:
    """The rows of one table."""
    tensors = case.tensors(device)
    fitting = [name for name in names(device) if fits(name, case, tensors)]
    seconds: dict[str, list[float]] = {name: [] for name in fitting}
    for _ in range(repetitions):
        for name in fitting:
            seconds[name].append(step(name, case, tensors))
    work = unavoidable_work(case)
    floors = {name: work / peaks[name.split()[-1]] for name in fitting}
    used = {
        name: device_memory(name, case, tensors)
        if device == "cuda"
        else memory(name, case, threads)
        for name in fitting
    }
    base, base_memory = seconds.get(BASE), used.get(BASE, math.nan)
    return [
        {
            "aggregation": case.aggregation,
            "P": "frozen" if case.frozen else "trained",
            "implementation": name,
            "milliseconds": round(1e3 * statistics.median(times), 1),
            "times faster than split": faster(times, base),
            "times faster than torch-geometric": faster(times, seconds.get(GEOMETRIC)),
            "times the floor": round(statistics.median(times) / floors[name], 2),
            "fraction of the peak": round(floors[name] / statistics.median(times), 3),
            "peak memory MB": round(used[name], 1),
            "memory of split / its own": round(base_memory / max(used[name], 0.1), 1),
        }
        for name, times in seconds.items()
    ]


def faster(times: list[float], others: list[float] | None) -> float:
    """The median ratio of two implementations within the repetitions; NaN without the other."""
    pairs = zip(times, others or [math.nan], strict=False)
    return round(statistics.median(b / a for a, b in pairs), 2)


def fits(name: str, case: Case, tensors: tuple[Tensor, Weights, Tensor]) -> bool:
    """Warm up; False where the GPU's memory is too small."""
    try:
        step(name, case, tensors)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return False
    return True


def keep_memory() -> None:
    """Tell glibc to keep freed memory, which spares PyTorch the page faults of large tensors."""
    trim_threshold, mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, -1)
    libc.mallopt(mmap_max, 0)


def main() -> None:
    """Print the tables, and write them where ``--csv`` says."""
    parser = argparse.ArgumentParser(description="Time and memory of the message passing.")
    parser.add_argument("--device", choices=BACKENDS, default="cpu")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--keep-memory", action="store_true", help="glibc returns no memory")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that this PyTorch can use, and there is none")
    torch.set_num_threads(options.threads)
    if options.keep_memory:
        keep_memory()
    peaks = matmul_peaks(options.device)
    reached = ", ".join(f"{peak / 1e9:.0f} in {name}" for name, peak in peaks.items())
    print(
        f"batch {options.batch}, {options.slots} slots, {options.dim} dims, forward + backward, "
        f"{options.threads} thread(s)\n{machine(options.device)}, torch {torch.__version__}, "
        f"matmul peaks in GFLOP/s: {reached}"
    )
    rows: list[dict[str, object]] = []
    for aggregation in AGGREGATIONS:
        for frozen in (False, True):
            case = Case(options.batch, options.slots, options.dim, aggregation, frozen)
            table = measure(case, options.repetitions, options.threads, peaks, options.device)
            print_table(table)
            rows += table
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def machine(device: str) -> str:
    """The processor, and what it multiplies bfloat16 with."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    engine = kernels.cpu_engine("bf16")
    unit = engine.unit if engine else "none"
    return f"{platform.processor() or platform.machine()}, bf16 unit {unit}"


def print_table(rows: list[dict[str, object]]) -> None:
    """Print rows under their names."""
    columns = list(rows[0])
    print("\n" + " | ".join(columns))
    for row in rows:
        print(" | ".join(f"{row[name]!s:>{len(name)}}" for name in columns))


if __name__ == "__main__":
    main()
