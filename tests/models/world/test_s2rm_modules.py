import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.s2rm import (
    AttentionSizes,
    GRUModules,
    Kernel,
    MemoryCores,
    MemoryModules,
    MemorySizes,
    SpatialModules,
)

UNITS, COUNT, SIZES = 6, 4, MemorySizes(2, 2, 3, 5)


def modules(dynamics=None, truncation=0.6):
    sizes = AttentionSizes(2, 3, 4), AttentionSizes(2, 3, 4)
    return build(
        lambda: SpatialModules(
            dynamics or GRUModules(COUNT, UNITS),
            UNITS,
            (9, 11),
            COUNT,
            8,
            Kernel(1.0, truncation),
            sizes,
        ),
        torch_generator(0),
    )


def seen(views=5):
    generator = torch_generator(1)
    features = torch.randn(2, views, UNITS, generator=generator)
    centres = torch.randint(9, (2, views, 2), generator=generator)
    return features, centres


def test_a_gru_step_is_that_of_a_loop_over_modules():
    dynamics = build(lambda: GRUModules(COUNT, UNITS), torch_generator(2))
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
    cores = build(lambda: MemoryCores(COUNT, 7, count, SIZES), torch_generator(3))
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
        for head in range(SIZES.heads):
            keys = slice(head * SIZES.keys, (head + 1) * SIZES.keys)
            values = slice(head * SIZES.head, (head + 1) * SIZES.head)
            query = row @ cores.query[m][:, keys]
            scores = torch.stack([query @ (each @ cores.key[m][:, keys]) for each in rows])
            shares = (scores / SIZES.keys**0.5).softmax(0)
            told = [each @ cores.value[m][:, values] for each in rows]
            heads.append(sum(share * value for share, value in zip(shares, told, strict=True)))
        attended.append(torch.cat(heads))
    width = SIZES.row
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
    dynamics = build(lambda: MemoryModules(COUNT, UNITS, SIZES), torch_generator(4))
    start = dynamics.start(2)
    assert start.shape == (2, COUNT, 2, 6)
    assert torch.equal(start[0, 0], torch.eye(2, 6))
    shown = dynamics.shown(torch.randn(2, COUNT, 2, 6))
    assert shown.shape == (2, COUNT, UNITS)
    quiet = torch.zeros(2, COUNT, UNITS)
    told = dynamics(quiet, torch.randn(2, COUNT, UNITS), start)
    assert not torch.equal(dynamics(quiet, quiet, start), told)


def test_there_is_one_module_at_least():
    sizes = AttentionSizes(2, 3, 4), AttentionSizes(2, 3, 4)
    with pytest.raises(RMRError, match="1 module or more, got 0"):
        SpatialModules(GRUModules(1, UNITS), UNITS, (9, 11), 0, 8, Kernel(), sizes)
