import pytest
import torch
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.frames import flipped, frame_bce, unroll
from rmr_gym.models.world.nem import (
    NEM_MODELS,
    LSTMUpdate,
    NEMSizes,
    ProcessorUpdate,
    RecurrentUpdate,
    RelationalUpdate,
    mixed,
    no_attention,
    responsibilities,
)

SHAPE = (8, 8, 1)
SIZES = NEMSizes(
    3,
    channels=(2, 4),
    hidden=12,
    dim=6,
    width=5,
    attention=4,
)
MODELS = {name: (make, SIZES) for name, make in NEM_MODELS.items()}
MODELS["rnem_p"] = NEM_MODELS["rnem"], SIZES.with_processor(ProcessorSizes(dim=4, passes=2))
UPDATE = NEMSizes(hidden=7, dim=6, width=5, attention=4)
PAPER = {
    "rnem": 4_951_978,
    "rnem_no_attention": 4_926_577,
    "rnnem": 4_611_827,
    "nem": 2_280_338,
    "rnn": 4_611_827,
    "lstm": 5_185_077,
}


def make(name, sizes=None, shape=SHAPE, actions=0, seed=0):
    make_model, usual = MODELS[name]
    return build(lambda: make_model(shape, sizes or usual, actions), torch_generator(seed))


def nothing(memory):
    """What updates are told in a world without actions."""
    return memory[..., :0]


def moving_block(batch=2, time=5, size=8):
    """Return sequences in which a 3 x 3 block moves to the right, one pixel a frame."""
    frames = torch.zeros(batch, time, size, size, 1)
    for row in range(batch):
        for t in range(time):
            frames[row, t, row + 1 : row + 4, t : t + 3] = 1
    return frames


def total_loss(model, frames, actions=None, seed=1):
    return model.losses(frames, actions, torch_generator(seed)).mean()


@pytest.mark.parametrize("name", PAPER)
def test_parameters_of_the_appendix(name):
    assert sum(p.numel() for p in make(name, NEMSizes(), (64, 64, 1)).parameters()) == PAPER[name]


def test_parameters_counted_by_hand():
    encoder = (
        *(16 * 16 + 16 + 32, 16 * 16 * 32 + 32 + 64, 32 * 16 * 64 + 64 + 128),
        *(4096 * 512 + 512, 1024),
    )
    decoder = (
        *(250 * 512 + 512 + 1024, 512 * 4096 + 4096 + 8192),
        *(64 * 16 * 32 + 32 + 64, 32 * 16 * 16 + 16 + 32, 16 * 16 + 1),
    )
    update = (762 * 250 + 250, 500)
    assert sum((*encoder, *decoder, *update)) == PAPER["rnnem"]
    layer, pairs = 250 * 250 + 250 + 500, 500 * 250 + 250 + 500
    attention = (250 * 100 + 100 + 200, 100 + 1)
    relational = (layer, pairs, layer, *attention, 1012 * 250 + 250, 500)
    assert PAPER["rnem"] - PAPER["rnnem"] == sum(relational) - sum(update)
    assert PAPER["rnem"] - PAPER["rnem_no_attention"] == sum(attention)


def test_e_step_by_hand():
    pictures = torch.tensor([0.9, 0.3, 0.3]).view(1, 3, 1, 1, 1)
    lit = responsibilities(pictures, torch.ones(1, 1, 1, 1)).flatten()
    torch.testing.assert_close(lit, torch.tensor([0.6, 0.2, 0.2]), atol=1e-5, rtol=0)
    dark = responsibilities(pictures, torch.zeros(1, 1, 1, 1)).flatten()
    torch.testing.assert_close(dark, torch.tensor([0.1, 0.7, 0.7]) / 1.5, atol=1e-5, rtol=0)
    nothing = responsibilities(torch.zeros(1, 2, 1, 1, 1), torch.ones(1, 1, 1, 1)).flatten()
    torch.testing.assert_close(nothing, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("name", ["rnn", "rnem"])
def test_first_shares_are_numbers_whatever_is_drawn(name, monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda *size, **_: torch.zeros(size))
    shares = make(name).init_state(2, torch_generator(0)).groups
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, *SHAPE[:2]))


def test_loss_equals_a_loop_over_groups_and_pixels():
    model, frames = make("rnem"), moving_block(time=3)
    *_, state = unroll(model, frames[:, :2], None, torch_generator(1))
    following = frames[:, 2]
    psi, expected = state.pictures.detach().double(), torch.zeros(2, dtype=torch.float64)
    for b in range(2):
        for y in range(8):
            for x in range(8):
                pixel = following[b, y, x, 0].item()
                likely = [p if pixel else 1 - p for p in psi[b, :, y, x, 0]]
                for k in range(3):
                    share = (likely[k] + 1e-6) / (sum(likely) + 3e-6)
                    expected[b] -= share * likely[k].log()
                    expected[b] -= (1 - share) * (1 - psi[b, k, y, x, 0]).log()
    losses = model.losses(frames, None, torch_generator(1))[:, -1]
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=0)


def test_one_group_has_the_cross_entropy_as_its_loss():
    model, frames = make("rnn"), moving_block(time=2)
    (state,) = unroll(model, frames[:, :1], None, torch_generator(1))
    expected = frame_bce(model.decode(state).frame, frames[:, 1])
    losses = model.losses(frames, None, torch_generator(1))
    torch.testing.assert_close(losses[:, 0], expected)


def test_interaction_equals_a_loop_over_pairs():
    update = build(lambda: RelationalUpdate(UPDATE, 2), torch_generator(0))
    memory, seen, action = torch.rand(2, 4, 6), torch.randn(2, 4, 7), torch.randn(2, 2)
    new, shown, attention = update(memory, seen, action[:, None].expand(-1, 4, -1))
    for b in range(2):
        encoded = [update.encode(torch.cat([memory[b, k], action[b]])) for k in range(4)]
        joint = torch.cat([update.focus.weight, update.context.weight], dim=1)
        for k in range(4):
            effect = torch.zeros(5)
            for i in range(4):
                if i != k:
                    both = torch.cat([encoded[k], encoded[i]])
                    xi = update.embedding(joint @ both + update.focus.bias)
                    weight = update.attend(xi)
                    torch.testing.assert_close(attention[b, k, i], weight[0])
                    effect = effect + weight * update.effect(xi)
            raw = update.recurrence(torch.cat([encoded[k], effect, seen[b, k], action[b]]))
            torch.testing.assert_close(new[b, k], raw.sigmoid())
            torch.testing.assert_close(shown[b, k], update.norm(raw).sigmoid())
    assert not torch.diagonal(attention, dim1=1, dim2=2).any()


def test_without_attention_all_effects_count_alike():
    update = build(lambda: no_attention(UPDATE, 0), torch_generator(0))
    memory = torch.rand(2, 3, 6)
    *_, attention = update(memory, torch.randn(2, 3, 7), nothing(memory))
    assert torch.equal(attention, (1 - torch.eye(3)).expand(2, 3, 3))


def test_lstm_equals_its_equations():
    update = build(lambda: LSTMUpdate(UPDATE), torch_generator(0))
    memory, seen = torch.randn(1, 1, 12), torch.randn(1, 1, 7)
    new, shown, _ = update(memory, seen, nothing(memory))
    cell, output = memory[0, 0].split(6)
    i, j, f, o = (
        F.layer_norm(gate, (6,))
        for gate in (update.gates.weight @ torch.cat([output, seen[0, 0]])).split(6)
    )
    cell = F.layer_norm(cell * torch.sigmoid(f + 1) + torch.sigmoid(i) * torch.tanh(j), (6,))
    torch.testing.assert_close(new[0, 0], torch.cat([cell, torch.tanh(cell) * torch.sigmoid(o)]))
    torch.testing.assert_close(shown[0, 0], new[0, 0, 6:])


def test_a_step_equals_one_group_after_another():
    model, frames = make("rnnem"), moving_block(time=2)
    before = model.step(model.init_state(2, torch_generator(1)), frames[:, 0], None)
    after = model.step(before, frames[:, 1], None)
    shares = responsibilities(before.pictures, frames[:, 1])
    for k in range(3):
        error = shares[:, k, ..., None] * (after.noisy - before.pictures[:, k])
        raw = model.update.recurrence(torch.cat([before.memory[:, k], model.encoder(error)], -1))
        torch.testing.assert_close(after.memory[:, k], raw.sigmoid())
        picture = model.decoder(model.update.norm(raw).sigmoid())
        torch.testing.assert_close(after.pictures[:, k], picture)
    torch.testing.assert_close(after.groups, shares)


def test_the_gradient_step_climbs_along_the_likelihood():
    model, frames = make("nem"), moving_block(time=2)
    model.noise = 0.0
    state = model.step(model.init_state(2, torch_generator(1)), frames[:, 0], None)
    state = state._replace(noisy=frames[:, 1], memory=state.memory.detach())
    with torch.no_grad():
        slope = model.slope(state)

        def likelihood(theta):
            psi = model.decoder(theta)
            target = frames[:, 1, None].expand_as(psi)
            log = -F.binary_cross_entropy(psi, target, reduction="none")
            return (state.groups[..., None] * log).sum() / 8

        steepest = slope.abs() == slope.abs().max()
        step = 1e-3 * steepest
        rise = (likelihood(state.memory + step) - likelihood(state.memory - step)) / 2e-3
        torch.testing.assert_close(rise, slope[steepest].sum(), rtol=0.02, atol=1e-3)
        new = model.m_step(state, None)
    torch.testing.assert_close(new.memory, state.memory + model.rate * slope)


@pytest.mark.parametrize("name", ["rnem", "rnem_no_attention", "rnnem", "nem"])
def test_groups_have_no_order(name):
    model, frames, order = make(name), moving_block(time=4), torch.tensor([2, 0, 1])
    model.noise = 0.0
    first = model.init_state(2, torch_generator(1))
    other = first._replace(groups=first.groups[:, order], memory=first.memory[:, order])
    for t in range(3):
        first, other = (model.step(state, frames[:, t], None) for state in (first, other))
    torch.testing.assert_close(first.memory[:, order], other.memory, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.pictures[:, order], other.pictures, rtol=1e-4, atol=1e-5)
    shuffled = first.attention[:, order][:, :, order]
    torch.testing.assert_close(shuffled, other.attention, rtol=1e-4, atol=1e-5)


def test_groups_may_change_after_training():
    model, frames = make("rnem"), moving_block()
    model.groups = 6
    *_, state = unroll(model, frames, None, torch_generator(1))
    assert state.groups.shape == (2, 6, 8, 8)


def test_no_gradient_through_the_shares():
    model, frames = make("rnem"), moving_block(time=2)
    state = model.step(model.init_state(2, torch_generator(1)), frames[:, 0], None)
    assert state.pictures.requires_grad
    assert not responsibilities(state.pictures, frames[:, 1]).requires_grad


@pytest.mark.parametrize("cut", [0.0, 0.12, 0.5])
def test_simulation_feeds_the_prediction_back(cut):
    model, frames = make("rnem"), moving_block(time=2)
    assert model.cut == 0.5
    model.noise, model.cut = 0.0, cut
    *_, state = unroll(model, frames, None, torch_generator(1))
    state = state._replace(pictures=state.pictures * 0.3)
    lit = (state.pictures.amax(dim=1) > 0.1).float()
    assert 0 < lit.mean() < 1, "the threshold must separate something here"
    after = model.step(state, None, None)
    shares = responsibilities(state.pictures, lit)
    torch.testing.assert_close(after.groups, shares)
    own = mixed(state._replace(groups=shares))
    torch.testing.assert_close(after.noisy, (own > cut).float() if cut else own)
    if cut == 0.12:
        assert 0 < after.noisy.mean() < 1, "the cut must separate something here"


def test_noise_flips_the_share_of_pixels_it_should():
    frame = torch.zeros(4, 50, 50, 1)
    frame[:2] = 1
    noisy = flipped(frame, 0.2, torch_generator(0))
    changed = (noisy != frame).float().mean().item()
    assert changed == pytest.approx(0.2, abs=0.02)
    assert torch.equal(flipped(frame, 0.2, torch_generator(0)), noisy)
    assert torch.equal(flipped(frame, 0.0, torch_generator(0)), frame)


def test_recurrence_without_layer_norm_on_what_is_kept():
    update = build(lambda: RecurrentUpdate(UPDATE), torch_generator(0))
    memory, seen = torch.rand(2, 3, 6), torch.randn(2, 3, 7)
    kept, shown, _ = update(memory, seen, nothing(memory))
    raw = update.recurrence(torch.cat([memory, seen], dim=-1))
    torch.testing.assert_close(kept, raw.sigmoid())
    torch.testing.assert_close(shown, F.layer_norm(raw, (6,)).sigmoid())


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [
        ("rnem", {"groups": 0}, SHAPE),
        ("rnem", {"noise": 0.7}, SHAPE),
        ("rnem", {"channels": (2, 4)}, (10, 8, 1)),
        ("rnem", {"channels": ()}, SHAPE),
    ],
)
def test_sizes_that_cannot_be(name, sizes, shape):
    with pytest.raises(RMRError, match="expected"):
        make(name, NEMSizes(**sizes), shape)


def test_a_single_group_cannot_interact():
    model = make("rnem", NEMSizes(1, channels=(2,), hidden=4, dim=4, width=4, attention=2))
    with pytest.raises(RMRError, match="2 groups or more"):
        model.step(model.init_state(1, torch_generator(0)), torch.zeros(1, *SHAPE), None)


def test_the_effect_of_a_processor_is_what_it_changes():
    sizes = UPDATE.with_processor(ProcessorSizes(dim=4, passes=2))
    update = build(lambda: ProcessorUpdate(sizes), torch_generator(0))
    encoded = torch.rand(2, 3, 5)
    effect, attention = update.interact(encoded)
    for row in range(2):
        latents = torch.stack([update.enter(theta) for theta in encoded[row]])
        told = latents
        for core in update.processor.cores:
            told = told + core(told[None])[0]
        for k in range(3):
            expected = update.leave.weight @ (told[k] - latents[k])
            torch.testing.assert_close(effect[row, k], expected)
    assert not attention.any()
    alone, _ = update.interact(encoded[:, :1])
    assert not torch.allclose(alone, effect[:, :1])
