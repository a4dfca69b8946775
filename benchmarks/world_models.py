"""Measure training steps of world models beside plain loops of the same mathematics.

    python benchmarks/world_models.py --batch 64 --time 20

Layers of RIMs, modules of S2GRU and groups of R-NEM, each over a sequence. Both sides run in turn
in one process, on processor time, and the least of many trials counts.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.nem import NEMSizes, RelationalUpdate
from rmr_gym.models.world.rims import RIMCell, RIMSizes
from rmr_gym.models.world.s2rm import (
    AttentionSizes,
    GRUModules,
    KernelAttention,
    S2RMSizes,
    SpatialModules,
)

Run = Callable[[Any, Any], Tensor]
GOAL = 1.5
SIDE = 48


def batched(cell: RIMCell, elements: Tensor) -> Tensor:
    """The library's layer of RIMs over a sequence."""
    state = cell.init_state(len(elements), torch_generator(0))
    for now in elements.unbind(1):
        state = cell(cell.read(now), state)
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
    maps = [
        (h @ talk.maps[rim]).view(len(h), 3, cell.sizes.heads, width) for rim, h in enumerate(heard)
    ]
    keys = torch.stack([each[:, 1] for each in maps], dim=2)
    values = torch.stack([each[:, 2] for each in maps], dim=2)
    out = []
    for each in maps:
        scores = torch.einsum("bhd,bhsd->bhs", each[:, 0], keys) * width**-0.5
        mixed = torch.einsum("bhs,bhsd->bhd", scores.softmax(dim=-1), values).flatten(1)
        out.append(talk.gate(mixed).sigmoid() * talk.message(mixed).tanh())
    return out


def modules_batched(layer: SpatialModules, views: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The library's modules of S2GRU over a sequence of views."""
    memory = layer.dynamics.start(len(views[0][0]))
    for features, centres in views:
        memory = layer(memory, features, centres)
    return memory


def modules_looped(layer: SpatialModules, views: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The same, a module at a time."""
    states = list(layer.dynamics.start(len(views[0][0])).unbind(1))
    gru: Any = layer.dynamics.gru
    for features, centres in views:
        at, everyone, after = layer.at, torch.stack(states, dim=1), []
        near, cells = layer.kernel(at, layer.places(centres)), layer.kernel(at, at)
        for module, state in enumerate(states):
            told = cells[module] / cells[module].sum().clamp(min=1)
            taken = attended(layer.input_attention, state, features, near[:, module])
            heard = attended(layer.cell_attention, state, everyone, told.expand(len(state), -1))
            weights = (
                gru.input_weight[module].T,
                gru.hidden_weight[module].T,
                gru.input_bias[module],
                gru.hidden_bias[module],
            )
            after.append(torch.gru_cell(taken, heard, *weights))
        states = after
    return torch.stack(states, dim=1)


def attended(layer: KernelAttention, y: Tensor, z: Tensor, local: Tensor) -> Tensor:
    """What one member of the query set takes."""
    heads = layer.sizes.heads
    query = layer.query(y).unflatten(-1, (heads, -1))
    key, value = (part(z).unflatten(-1, (heads, -1)) for part in (layer.key, layer.value))
    shares = torch.einsum("bhd,bjhd->bhj", query, key).softmax(-1) * local[:, None]
    far = layer.merge(torch.einsum("bhj,bjhv->bhv", shares, value).flatten(1))
    near = torch.einsum("bj,bje->be", local, z)
    return torch.lerp(far, near, layer.gate(torch.cat([far, near], dim=-1)))


def groups_batched(update: RelationalUpdate, seen: Tensor) -> Tensor:
    """The library's groups of R-NEM over a sequence of encoded inputs."""
    memory = seen.new_zeros(*seen.shape[:1], seen.shape[2], update.memory)
    for now in seen.unbind(1):
        memory, _, _ = update(memory, now, memory[..., :0])
    return memory


def groups_looped(update: RelationalUpdate, seen: Tensor) -> Tensor:
    """The same, a group at a time and for it another at a time."""
    groups, attend = range(seen.shape[2]), update.attend
    assert attend is not None
    memory = [seen.new_zeros(len(seen), update.memory) for _ in groups]
    for now in seen.unbind(1):
        encoded = [update.encode(theta) for theta in memory]
        heard = []
        for k in groups:
            effects = []
            for i in groups:
                if i != k:
                    focus, context = update.focus(encoded[k]), update.context(encoded[i])
                    pair = update.embedding(focus + context)
                    effects.append(attend(pair) * update.effect(pair))
            heard.append(torch.stack(effects).sum(dim=0))
        memory = [
            update.recurrence(torch.cat([encoded[k], heard[k], now[:, k]], dim=-1)).sigmoid()
            for k in groups
        ]
    return torch.stack(memory, dim=1)


def step(run: Run, model: nn.Module, inputs: Any) -> float:
    """Processor seconds of one forward and backward pass on this thread."""
    weights = list(model.parameters())
    begin = time.thread_time()
    torch.autograd.grad(run(model, inputs).square().sum(), weights, allow_unused=True)
    return time.thread_time() - begin


def compare(fast: Run, plain: Run, model: nn.Module, inputs: Any, trials: int) -> dict[str, object]:
    """Milliseconds of both sides, their ratio, how far their results are apart."""
    with torch.no_grad():
        apart = (fast(model, inputs) - plain(model, inputs)).abs().max().item()
    times: dict[Run, list[float]] = {fast: [], plain: []}
    for _ in range(trials):
        for run, seconds in times.items():
            seconds.append(step(run, model, inputs))
    return {
        "batched_ms": round(1e3 * min(times[fast]), 1),
        "loop_ms": round(1e3 * min(times[plain]), 1),
        "ratio": round(min(times[plain]) / min(times[fast]), 2),
        "apart": f"{apart:.0e}",
    }


def rims(options: argparse.Namespace, batch: int, count: int) -> dict[str, object]:
    """Compare layers of RIMs."""
    sizes = RIMSizes(count, max(1, 2 * count // 3), options.units, dropout=0.0)
    cell = build(lambda: RIMCell(options.width, sizes), torch_generator(0))
    shape = (batch, options.time, 1, options.width)
    elements = torch.randn(shape, generator=torch_generator(1))
    return compare(batched, looped, cell, elements, options.trials)


def s2gru(options: argparse.Namespace, batch: int, count: int) -> dict[str, object]:
    """Compare modules of S2GRU that see 10 crops."""
    units = options.units
    sizes = S2RMSizes(
        modules=count,
        units=units,
        input_attention=AttentionSizes(1, 16, 16),
        cell_attention=AttentionSizes(4, 16, 16),
    )
    layer = build(
        lambda: SpatialModules((SIDE, SIDE), sizes, GRUModules(sizes)), torch_generator(0)
    )
    drawn = torch_generator(1)
    views = [
        (
            torch.randn(batch, 10, units, generator=drawn),
            torch.randint(SIDE, (batch, 10, 2), generator=drawn),
        )
        for _ in range(options.time)
    ]
    return compare(modules_batched, modules_looped, layer, views, options.trials)


def rnem(options: argparse.Namespace, batch: int, count: int) -> dict[str, object]:
    """Compare groups of R-NEM."""
    sizes = NEMSizes(hidden=options.width, dim=options.units, width=options.units)
    update = build(lambda: RelationalUpdate(sizes), torch_generator(0))
    shape = (batch, options.time, count, options.width)
    seen = torch.randn(shape, generator=torch_generator(1))
    return compare(groups_batched, groups_looped, update, seen, options.trials)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--parts", type=int, nargs="+", default=[6, 12])
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--time", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--trials", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"training step over {options.time} instants, {options.units} units; goal {GOAL} x")
    for measure in (rims, s2gru, rnem):
        for batch in options.batch:
            for parts in options.parts:
                row = {"model": measure.__name__, "parts": parts, "batch": batch}
                row |= measure(options, batch, parts)
                print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
