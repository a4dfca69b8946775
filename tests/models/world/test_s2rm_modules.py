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
    KernelAttention,
    MemoryCore,
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
    (name,) = wrong
    with pytest.raises(RMRError, match=f"expected {name} in .* in Kernel, got {name}="):
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
    return build(lambda: SpatialModules((9, 11), sizes), torch_generator(0))


def seen(views=5):
    generator = torch_generator(1)
    features = torch.randn(2, views, UNITS, generator=generator)
    centres = torch.randint(9, (2, views, 2), generator=generator)
    return features, centres


def step(layer, memory, features, centres):
    """The modules' states after what is seen at one instant."""
    return next(layer(memory, features[:, None], centres[:, None]))


def gru_cells(gru, taken, aggregated):
    """A GRU of torch a module."""
    out = []
    for module in range(COUNT):
        weights = gru.input_weight[module].T, gru.hidden_weight[module].T
        biases = gru.input_bias[module], gru.hidden_bias[module]
        out.append(torch.gru_cell(taken[:, module], aggregated[:, module], *weights, *biases))
    return torch.stack(out, dim=1)


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
    expected = gru_cells(layer.gru, taken, aggregated)
    torch.testing.assert_close(step(layer, memory, features, centres), expected)
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
    nothing = step(layer, memory, features[:, :0], centres[:, :0])
    changed = (step(layer, memory, features, centres) != nothing).any(dim=2)
    for b in range(2):
        row, column = centres[b, 0]
        assert torch.equal(changed[b], enclaves[:, row, column] > 0)
    assert changed.any()
    assert not changed.all()
    torch.testing.assert_close(layer.interactions().diagonal(), torch.ones(COUNT))


def test_embeddings_start_apart_and_get_gradients_through_the_kernel():
    layer = modules(truncation=0.99)
    step(layer, torch.randn(2, COUNT, UNITS), *seen()).sum().backward()
    assert (layer.embedding.grad.abs().sum(dim=1) > 0).all()
    torch.testing.assert_close(layer.at.norm(dim=1), torch.ones(COUNT))


def test_a_memory_core_is_that_of_a_loop():
    core = build(lambda: MemoryCore(7, MEMORY), torch_generator(3))
    memory, inputs = torch.randn(2, 2, 6), torch.randn(2, 7)
    fast = core(inputs, memory)
    for b in range(2):
        torch.testing.assert_close(fast[b], one_core(core, inputs[b], memory[b]))
    assert torch.equal(core.start(3)[2], torch.eye(2, 6))


def one_core(core, inputs, memory):
    """One memory, a head and a row at a time."""
    x = core.taken.weight @ inputs
    rows = torch.cat([memory, x[None]])
    attended = []
    for row in memory:
        heads = []
        for head in range(MEMORY.heads):
            keys = slice(head * MEMORY.keys, (head + 1) * MEMORY.keys)
            values = slice(head * MEMORY.head, (head + 1) * MEMORY.head)
            query = core.query.weight[keys] @ row
            scores = torch.stack([query @ (core.key.weight[keys] @ each) for each in rows])
            shares = (scores / MEMORY.keys**0.5).softmax(0)
            told = [core.value.weight[values] @ each for each in rows]
            heads.append(sum(share * value for share, value in zip(shares, told, strict=True)))
        attended.append(torch.cat(heads))
    mixed = norm(memory + torch.stack(attended))
    mixed = norm(mixed + core.mlp(mixed))
    gates = core.input_gates(x) + core.memory_gates(memory.tanh())
    take, keep = gates.split(MEMORY.row, dim=-1)
    return take.sigmoid() * mixed.tanh() + (keep + 1).sigmoid() * memory


def norm(x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
