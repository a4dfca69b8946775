"""Measure training steps of world models beside plain loops of the same mathematics.

    python benchmarks/world_models.py --batch 64 --time 20

Both sides run in turn in one process, on processor time, and the least of many trials counts.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from rmr_gym.models.initialisation import build, torch_generator
from rmr_gym.models.rims import RIMCell, RIMSizes

Run = Callable[[RIMCell, Tensor], Tensor]
GOAL = 1.5


def batched(cell: RIMCell, elements: Tensor) -> Tensor:
    """The library's layer of RIMs over a sequence."""
    state = cell.init_state(len(elements), torch_generator(0))
    for now in elements.unbind(1):
        state, _ = cell(cell.read(now), state)
    return state.hidden


def looped(cell: RIMCell, elements: Tensor) -> Tensor:
    """The same, a RIM at a time."""
    batch, time_, _, _ = elements.shape
    rims, units = cell.sizes.rims, cell.sizes.units
    hidden = [elements.new_zeros(batch, units) for _ in range(rims)]
    memory = [elements.new_zeros(batch, units) for _ in range(rims)]
    for instant in range(time_):
        hidden, memory = looped_step(cell, elements[:, instant], hidden, memory)
    return torch.stack(hidden, dim=1)


def looped_step(
    cell: RIMCell, elements: Tensor, hidden: list[Tensor], memory: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """One step of the loop."""
    attention, dynamics, sizes = cell.attention, cell.dynamics, cell.sizes
    there = torch.cat([torch.zeros_like(elements[:, :1]), elements], dim=1)
    keys, values = there @ attention.key, there @ attention.value
    nulls, states, memories = [], [], []
    for rim in range(sizes.rims):
        query = hidden[rim] @ attention.query[rim]
        scores = torch.einsum("bk,bek->be", query, keys) * sizes.keys**-0.5
        shares = scores.softmax(dim=1)
        taken = torch.einsum("be,bev->bv", shares, values)
        weights = (
            dynamics.input_weight[rim].T,
            dynamics.hidden_weight[rim].T,
            dynamics.input_bias[rim],
            dynamics.hidden_bias[rim],
        )
        after, kept = torch.lstm_cell(taken, (hidden[rim], memory[rim]), *weights)
        nulls.append(shares[:, 0])
        states.append(after)
        memories.append(kept)
    ranks = torch.stack(nulls, dim=1).detach().argsort(dim=1, stable=True).argsort(dim=1)
    active = [(ranks[:, rim] < sizes.active)[:, None] for rim in range(sizes.rims)]
    heard = [torch.where(on, s, s.detach()) for on, s in zip(active, states, strict=True)]
    spoken = messages(cell, heard)
    hidden = [
        torch.where(on, s + m, old)
        for on, s, m, old in zip(active, states, spoken, hidden, strict=True)
    ]
    memory = [torch.where(*each) for each in zip(active, memories, memory, strict=True)]
    return hidden, memory


def messages(cell: RIMCell, heard: list[Tensor]) -> list[Tensor]:
    """What every RIM adds to its state, a RIM at a time."""
    talk, width = cell.communication, cell.sizes.message
    maps = [(h @ talk.maps[rim]).view(len(h), 3, talk.heads, width) for rim, h in enumerate(heard)]
    keys = torch.stack([each[:, 1] for each in maps], dim=2)
    values = torch.stack([each[:, 2] for each in maps], dim=2)
    out = []
    for each in maps:
        scores = torch.einsum("bhd,bhsd->bhs", each[:, 0], keys) * width**-0.5
        mixed = torch.einsum("bhs,bhsd->bhd", scores.softmax(dim=-1), values).flatten(1)
        out.append(talk.gate(mixed).sigmoid() * talk.message(mixed).tanh())
    return out


def step(run: Run, cell: RIMCell, elements: Tensor) -> float:
    """Processor seconds of one forward and backward pass on this thread."""
    begin = time.thread_time()
    torch.autograd.grad(run(cell, elements).square().sum(), list(cell.parameters()))
    return time.thread_time() - begin


def compare(sizes: RIMSizes, batch: int, length: int, width: int, trials: int) -> dict[str, object]:
    """One row: milliseconds of both sides, their ratio, how far their results are apart."""
    cell = build(lambda: RIMCell(width, sizes), torch_generator(0))
    elements = torch.randn(batch, length, 1, width, generator=torch_generator(1))
    with torch.no_grad():
        apart = (batched(cell, elements) - looped(cell, elements)).abs().max().item()
    fast, plain = [], []
    for _ in range(trials):
        fast.append(step(batched, cell, elements))
        plain.append(step(looped, cell, elements))
    return {
        "rims": sizes.rims,
        "units": sizes.units,
        "batch": batch,
        "batched_ms": round(1e3 * min(fast), 1),
        "loop_ms": round(1e3 * min(plain), 1),
        "ratio": round(min(plain) / min(fast), 2),
        "apart": f"{apart:.0e}",
    }


def main() -> None:
    """Print a table of layers of RIMs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rims", type=int, nargs="+", default=[6, 12])
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--time", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--trials", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"training step of a layer of RIMs over {options.time} instants; goal {GOAL} x")
    for batch in options.batch:
        for rims in options.rims:
            sizes = RIMSizes(rims, max(1, 2 * rims // 3), options.units, dropout=0.0)
            row = compare(sizes, batch, options.time, options.width, options.trials)
            print(", ".join(f"{name} {value}" for name, value in row.items()))


if __name__ == "__main__":
    main()
