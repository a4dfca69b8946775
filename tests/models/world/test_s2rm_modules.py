from dataclasses import replace

import pytest
import torch

from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.s2rm import (
    AttentionSizes,
    GRUModules,
    Kernel,
    MemoryCores,
    MemoryModules,
    MemorySizes,
    S2RMSizes,
    SpatialModules,
)

UNITS, COUNT, MEMORY = 6, 4, MemorySizes(2, 2, 3, 5)
SIZES = S2RMSizes(
    modules=COUNT,
    units=UNITS,
    place=8,
    input_attention=AttentionSizes(2, 3, 4),
    cell_attention=AttentionSizes(2, 3, 4),
    module_memory=MEMORY,
)


def modules(truncation=0.6):
    sizes = replace(SIZES, kernel=Kernel(1.0, truncation))
    return build(lambda: SpatialModules((9, 11), sizes, GRUModules(sizes)), torch_generator(0))


def seen(views=5):
    generator = torch_generator(1)
    features = torch.randn(2, views, UNITS, generator=generator)
    centres = torch.randint(9, (2, views, 2), generator=generator)
    return features, centres


def test_a_gru_step_is_that_of_a_loop_over_modules():
    dynamics = build(lambda: GRUModules(SIZES), torch_generator(2))
    taken, aggregated = torch.randn(2, COUNT, UNITS), torch.randn(2, COUNT, UNITS)
    fast = dynamics(taken, aggregated, dynamics.start(2))
    gru = dynamics.gru
    for module in range(COUNT):
        cell = torch.nn.GRUCell(UNITS, UNITS)
        for name, block in (
            ("weight_ih", gru.input_weight[module].T),
            ("weight_hh", gru.hidden_weight[module].T),
            ("bias_ih", gru.input_bias[module]),
            ("bias_hh", gru.hidden_bias[module]),
        ):
            setattr(cell, name, torch.nn.Parameter(block.detach().clone()))
        torch.testing.assert_close(fast[:, module], cell(taken[:, module], aggregated[:, module]))


def test_a_step_reads_places_in_the_right_order():
    layer = modules()
    memory = torch.randn(2, COUNT, UNITS)
    features, centres = seen()
    at, places = layer.at, layer.places(centres)
    hears = torch.ones(COUNT, dtype=torch.bool)
    near = torch.stack([layer.kernel(at, each) for each in places])
    taken = layer.input_attention(memory, features, near, hears.new_ones(5))
    cells = layer.kernel(at, at)
    assert (cells.sum(dim=1) > 1).any()
    cells = torch.stack([row / max(1, row.sum()) for row in cells]).expand(2, -1, -1)
    aggregated = layer.cell_attention(memory, memory, cells, hears)
    expected = layer.dynamics(taken, aggregated, memory)
    torch.testing.assert_close(layer(memory, features, centres), expected)
    polled = layer.poll(memory, centres)
    for b in range(2):
        for q in range(5):
            by_hand = sum(near[b, m, q] * memory[b, m] for m in range(COUNT))
            torch.testing.assert_close(polled[b, q], by_hand)


def test_enclaves_are_where_views_are_taken_in():
    layer = modules(truncation=0.8)
    enclaves = layer.enclaves()
    assert enclaves.shape == (COUNT, 9, 11)
    memory = torch.zeros(2, COUNT, UNITS)
    features, centres = seen(views=1)
    nothing = layer(memory, features[:, :0], centres[:, :0])
    changed = (layer(memory, features, centres) != nothing).any(dim=2)
    for b in range(2):
        row, column = centres[b, 0]
        assert torch.equal(changed[b], enclaves[:, row, column] > 0)
    assert changed.any()
    assert not changed.all()
    torch.testing.assert_close(layer.interactions().diagonal(), torch.ones(COUNT))


def test_embeddings_start_apart_and_get_gradients_through_the_kernel():
    layer = modules(truncation=0.99)
    layer(torch.randn(2, COUNT, UNITS), *seen()).sum().backward()
    assert (layer.embedding.grad.abs().sum(dim=1) > 0).all()
    torch.testing.assert_close(layer.at.norm(dim=1), torch.ones(COUNT))


@pytest.mark.parametrize("count", [1, 2])
def test_memory_cores_are_those_of_a_loop(count):
    cores = build(lambda: MemoryCores(COUNT, 7, count, MEMORY), torch_generator(3))
    torch.nn.init.normal_(cores.biases)
    memory, inputs = torch.randn(2, COUNT, 2, 6), torch.randn(2, COUNT, count, 7)
    fast = cores(inputs, memory)
    for b in range(2):
        for module in range(COUNT):
            slow = one_core(cores, module, inputs[b, module], memory[b, module])
            torch.testing.assert_close(fast[b, module], slow)


def one_core(cores, m, inputs, memory):
    """One memory, a head and a row at a time."""
    x = torch.stack([row @ cores.taken[m, i] for i, row in enumerate(inputs)])
    rows = torch.cat([memory, x])
    attended = []
    for row in memory:
        heads = []
        for head in range(MEMORY.heads):
            keys = slice(head * MEMORY.keys, (head + 1) * MEMORY.keys)
            values = slice(head * MEMORY.head, (head + 1) * MEMORY.head)
            query = row @ cores.query[m][:, keys]
            scores = torch.stack([query @ (each @ cores.key[m][:, keys]) for each in rows])
            shares = (scores / MEMORY.keys**0.5).softmax(0)
            told = [each @ cores.value[m][:, values] for each in rows]
            heads.append(sum(share * value for share, value in zip(shares, told, strict=True)))
        attended.append(torch.cat(heads))
    width = MEMORY.row
    first, second, take, keep = cores.biases[m, 0].split(width)
    mixed = norm(memory + torch.stack(attended))
    inner = (mixed @ cores.first[m] + first).relu()
    mixed = norm(mixed + (inner @ cores.second[m] + second).relu())
    gates = x.sum(0) @ cores.input_gates[m] + memory.tanh() @ cores.memory_gates[m]
    took = (gates[:, :width] + take).sigmoid() * mixed.tanh()
    return took + (gates[:, width:] + keep + 1).sigmoid() * memory


def norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def test_memories_inside_modules_take_in_what_is_heard():
    dynamics = build(lambda: MemoryModules(SIZES), torch_generator(4))
    start = dynamics.start(2)
    assert start.shape == (2, COUNT, 2, 6)
    assert torch.equal(start[0, 0], torch.eye(2, 6))
    shown = dynamics.shown(torch.randn(2, COUNT, 2, 6))
    assert shown.shape == (2, COUNT, UNITS)
    quiet = torch.zeros(2, COUNT, UNITS)
    told = dynamics(quiet, torch.randn(2, COUNT, UNITS), start)
    assert not torch.equal(dynamics(quiet, quiet, start), told)
