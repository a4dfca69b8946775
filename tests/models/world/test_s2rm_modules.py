import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.crops import Kernel, SpherePositions
from rmr_gym.models.world.s2rm import (
    AttentionSizes,
    GRUModules,
    KernelAttention,
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


def points(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch_generator(seed)), dim=-1)


def attention(terms="both", heads=2):
    sizes = AttentionSizes(heads, 3, 5, terms)
    return build(lambda: KernelAttention(4, 6, sizes), torch_generator(1))


def sets(batch=2, i=3, j=4):
    y, z = torch.randn(batch, i, 4), torch.randn(batch, j, 6)
    local = Kernel(1.0, 0.2)(points(i, 3), points(batch, j, 3, seed=1))
    return y, z, local, torch.ones(j, dtype=torch.bool)


def test_places_are_sines_and_cosines_on_the_sphere():
    place = SpherePositions(16)(torch.tensor([5, 3]))
    frequencies = [10000 ** (-i * 2 / 16) for i in (0, 2, 4, 6)]
    angles = [x * f for x in (5, 3) for f in frequencies]
    by_hand = [math.sin(a) / 8**0.5 for a in angles] + [math.cos(a) / 8**0.5 for a in angles]
    torch.testing.assert_close(place, torch.tensor(by_hand), rtol=1e-5, atol=1e-6)
    assert place.norm().item() == pytest.approx(1)


def test_the_unit_of_places_is_that_of_pixels():
    half, whole = SpherePositions(16, 2.0), SpherePositions(16)
    torch.testing.assert_close(half(torch.tensor([10, 6])), whole(torch.tensor([5, 3])))
    for unit in (0.0, -1.0):
        with pytest.raises(RMRError, match="a unit of places above 0 pixels"):
            SpherePositions(16, unit)


def test_no_two_pixels_are_at_one_place():
    pixels = torch.cartesian_prod(torch.arange(48), torch.arange(48))
    places = SpherePositions(16)(pixels)
    others = (places @ places.T).fill_diagonal_(0)
    assert others.max() < 1 - 1e-4
    with pytest.raises(RMRError, match="multiple of 4"):
        SpherePositions(6)


def test_the_kernel_is_gaussian_and_cut_off():
    kernel = Kernel(0.9, 0.6)
    p = torch.tensor([[1.0, 0.0]])
    cosines = torch.tensor([1.0, 0.7, 0.6, 0.59, -1.0])
    s = torch.stack([cosines, (1 - cosines**2).sqrt()], dim=-1)
    expected = torch.where(cosines >= 0.6, (-1.8 * (1 - cosines)).exp(), 0.0)
    torch.testing.assert_close(kernel(p, s)[0], expected)


def test_gradients_pass_as_if_it_were_not_cut_off():
    p, s = points(3, 4), points(5, 4, seed=2)
    grads = []
    for truncation in (0.6, -1.0):
        leaf = p.clone().requires_grad_()
        value = Kernel(1.0, truncation)(leaf, s)
        grads.append(torch.autograd.grad(value.sum(), leaf)[0])
        assert ((value == 0).any()) == (truncation == 0.6)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("wrong", [{"bandwidth": 0.0}, {"truncation": 1.0}, {"truncation": -1.1}])
def test_kernels_that_cannot_be(wrong):
    with pytest.raises(RMRError, match="bandwidth"):
        Kernel(**wrong)


@pytest.mark.parametrize("terms", ["both", "local", "nonlocal"])
def test_attention_is_that_of_slow_loops(terms):
    layer, (y, z, local, present) = attention(terms), sets()
    fast = layer(y, z, local, present)
    assert (local == 0).any()
    for b in range(2):
        for i in range(3):
            near, far = loops(layer, y[b, i], z[b], local[b, i])
            expected = far
            if terms != "nonlocal":
                gate = layer.gate(torch.cat([far, near]))
                expected = gate * near + (1 - gate) * far
            torch.testing.assert_close(fast[b, i], expected)


def loops(layer, y, z, local):
    """Eq. 15 to 19 for one member of the query set, a head and a key at a time."""
    near = sum(local[j] * z[j] for j in range(len(z)))
    values = []
    for head in range(layer.sizes.heads):
        scores = [torch.zeros(())] * len(z)
        if layer.sizes.terms != "local":
            query = layer.query.weight.view(2, 3, 4)[head] @ y
            scores = [query @ (layer.key.weight.view(2, 3, 6)[head] @ each) for each in z]
        shares = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
        weights = shares if layer.sizes.terms == "nonlocal" else shares * local
        value = layer.value.weight.view(2, 5, 6)[head]
        values.append(sum(weight * (value @ each) for weight, each in zip(weights, z, strict=True)))
    return near, layer.merge.weight @ torch.cat(values)


@pytest.mark.parametrize("terms", ["both", "local", "nonlocal"])
def test_order_and_absent_members_do_not_matter(terms):
    layer, (y, z, local, present) = attention(terms), sets()
    order = [2, 0, 3, 1]
    torch.testing.assert_close(
        layer(y, z, local, present), layer(y, z[:, order], local[..., order], present)
    )
    some = torch.tensor([True, False, True, True])
    torch.testing.assert_close(
        layer(y, z, local, some), layer(y, z[:, some], local[..., some], present[some])
    )


def test_what_is_out_of_reach_is_not_taken():
    y, z, local, present = sets()
    local[:, 1] = 0
    local[:, :, 2] = 0
    moved = z.clone()
    moved[:, 2] += 1
    for terms in ("both", "local"):
        layer = attention(terms)
        taken = layer(y, z, local, present)
        assert not taken[:, 1].any()
        assert taken[:, 0].any()
        same = torch.allclose(layer(y, moved, local, present), taken)
        assert same == (terms == "local")


@pytest.mark.parametrize("terms", ["both", "local", "nonlocal"])
def test_an_empty_set_gives_nothing(terms):
    layer = attention(terms)
    nobody = torch.ones(0, dtype=torch.bool)
    given = layer(torch.randn(2, 3, 4), torch.zeros(2, 0, 6), torch.zeros(2, 3, 0), nobody)
    assert given.shape == (2, 3, 6)
    assert not given.any()


def test_sizes_that_cannot_be():
    with pytest.raises(RMRError, match="nonlocal"):
        AttentionSizes(1, 1, 1, "nonlocl")
    with pytest.raises(RMRError, match="1 or more"):
        AttentionSizes(0, 1, 1)


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
