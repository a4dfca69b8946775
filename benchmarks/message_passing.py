"""Time and memory of the fully connected message passing, side by side.

    python benchmarks/message_passing.py --batch 50 --slots 128 --dim 64

A row is an implementation: naive (all pairs concatenated), split (the PyTorch reference of the
library), chunked, and the compiled kernel in float32 and bfloat16. Repetitions are interleaved, so
that a busy moment of the machine hits all rows alike; the figures are medians, and ratios are taken
within each repetition before their median. Memory is the peak of the resident set above the one
before the step, each in a process of its own.

The floor is the arithmetic that no implementation can avoid (the pairs' middle layer; for max also
the last; backward without recomputation, for max on the maximal pairs only) at the float32 peak
that a large matrix product of PyTorch reaches in the same process.
"""

import argparse
import csv
import ctypes
import math
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rmr_gym.models import kernels
from rmr_gym.models.message_passing import fully_connected_messages

Weights = list[Tensor]
AGGREGATIONS = ("max", "mean")
BASE = "split fp32"


@dataclass(frozen=True)
class Case:
    """One problem: the sizes, the aggregation, and whether P is frozen."""

    batch: int
    slots: int
    dim: int
    aggregation: str
    frozen: bool

    def tensors(self) -> tuple[Tensor, Weights, Tensor]:
        """Latents, the six weights of the message MLP, the gradient of the output."""
        g = torch.Generator().manual_seed(0)
        z = torch.randn(self.batch, self.slots, self.dim, generator=g).requires_grad_()
        layers = [torch.nn.Linear(n * self.dim, self.dim) for n in (2, 1, 1)]
        weights = [p.requires_grad_(not self.frozen) for x in layers for p in x.parameters()]
        return z, weights, torch.randn(self.batch, self.slots, self.dim, generator=g)


def naive(z: Tensor, weights: Weights, aggregation: str) -> Tensor:
    """All pairs concatenated, three layers on each, then the aggregation."""
    w1, b1, w2, b2, w3, b3 = weights
    shape = (*z.shape[:2], z.shape[1], z.shape[2])
    pairs = torch.cat([z[:, :, None].expand(shape), z[:, None].expand(shape)], dim=-1)
    hidden = torch.relu(F.linear(torch.relu(F.linear(pairs, w1, b1)), w2, b2))
    messages = F.linear(hidden, w3, b3)
    return messages.max(dim=2).values if aggregation == "max" else messages.mean(dim=2)


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


IMPLEMENTATIONS = {
    "naive fp32": naive,
    BASE: operation("reference", "fp32"),
    "chunked fp32": operation("chunked", "fp32"),
    "chunked bf16": operation("chunked", "bf16"),
    "cpu fp32": operation("cpu", "fp32"),
    "cpu bf16": operation("cpu", "bf16"),
}


def step(name: str, case: Case, tensors: tuple[Tensor, Weights, Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    z, weights, gradient = tensors
    begin = time.perf_counter()
    out = IMPLEMENTATIONS[name](z, weights, case.aggregation)
    torch.autograd.grad(out, [x for x in (z, *weights) if x.requires_grad], gradient)
    return time.perf_counter() - begin


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


def matmul_peak() -> float:
    """Multiply-adds, counted as two, that a large float32 product does in a second."""
    a, b = torch.randn(2, 1536, 1536)
    seconds = []
    for _ in range(8):
        begin = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begin)
    return 2 * 1536**3 / min(seconds)


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


def measure(case: Case, repetitions: int, threads: int, peak: float) -> list[dict[str, object]]:
    """The rows of one table."""
    tensors = case.tensors()
    seconds: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    for name in IMPLEMENTATIONS:
        step(name, case, tensors)
    for _ in range(repetitions):
        for name in IMPLEMENTATIONS:
            seconds[name].append(step(name, case, tensors))
    floor = unavoidable_work(case) / peak
    used = {name: memory(name, case, threads) for name in IMPLEMENTATIONS}
    return [
        {
            "aggregation": case.aggregation,
            "P": "frozen" if case.frozen else "trained",
            "implementation": name,
            "milliseconds": round(1e3 * statistics.median(times), 1),
            "times faster than split": round(
                statistics.median(b / a for a, b in zip(times, seconds[BASE], strict=True)), 2
            ),
            "times the fp32 floor": round(statistics.median(times) / floor, 2),
            "peak memory MB": round(used[name], 1),
            "memory of split / its own": round(used[BASE] / max(used[name], 0.1), 1),
        }
        for name, times in seconds.items()
    ]


def keep_memory() -> None:
    """Tell glibc to keep freed memory, which spares PyTorch the page faults of large tensors."""
    trim_threshold, mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, -1)
    libc.mallopt(mmap_max, 0)


def main() -> None:
    """Print the tables, and write them where ``--csv`` says."""
    parser = argparse.ArgumentParser(description="Time and memory of the message passing.")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--keep-memory", action="store_true", help="glibc returns no memory")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.keep_memory:
        keep_memory()
    engine = kernels.cpu_engine("bf16")
    peak = matmul_peak()
    print(
        f"batch {options.batch}, {options.slots} slots, {options.dim} dims, forward + backward, "
        f"{options.threads} thread(s)\n{platform.processor() or platform.machine()}, "
        f"torch {torch.__version__}, bf16 unit {engine.unit if engine else 'none'}, "
        f"fp32 matmul peak {peak / 1e9:.0f} GFLOP/s"
    )
    rows: list[dict[str, object]] = []
    for aggregation in AGGREGATIONS:
        for frozen in (False, True):
            case = Case(options.batch, options.slots, options.dim, aggregation, frozen)
            table = measure(case, options.repetitions, options.threads, peak)
            print_table(table)
            rows += table
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def print_table(rows: list[dict[str, object]]) -> None:
    """Print rows under their names."""
    names = list(rows[0])
    print("\n" + " | ".join(names))
    for row in rows:
        print(" | ".join(f"{row[name]!s:>{len(name)}}" for name in names))


if __name__ == "__main__":
    main()
