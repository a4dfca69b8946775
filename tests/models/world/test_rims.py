from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.rims import (
    LSTMSizes,
    RIMCell,
    RIMSizes,
    SequenceLSTM,
    SequenceMemoryless,
    SequenceRIMs,
    dropout,
    least,
)

SMALL = RIMSizes(rims=5, active=2, units=6, keys=4, heads=2, message=3, dropout=0.0)
ELEMENTS, BATCH = 7, 4


def make(sizes=SMALL, elements=ELEMENTS, scale=1.0):
    """A cell in float64 whose attention is far from even."""
    cell = build(lambda: RIMCell(elements, sizes), torch_generator(1)).double()
    generator = torch_generator(2)
    for part in (cell.attention, cell.communication):
        for parameter in part.parameters():
            parameter.data.normal_(0, scale, generator=generator)
    return cell


def random_state(cell, batch=BATCH):
    state = cell.init_state(batch, torch_generator(0))
    generator = torch_generator(3)
    hidden, memory = (
        torch.randn(part.shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for part in (state.hidden, state.memory)
    )
    return state._replace(hidden=hidden, memory=memory)


def random_elements(number, batch=BATCH, elements=ELEMENTS):
    shape = (batch, number, elements)
    return torch.randn(shape, dtype=torch.float64, generator=torch_generator(4), requires_grad=True)


def torch_cell(cell, rim):
    """The dynamics of one RIM as torch's own cell, which shares no memory with it."""
    dynamics = cell.dynamics
    kind = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[cell.sizes.dynamics]
    return kind, (
        dynamics.input_weight[rim].T,
        dynamics.hidden_weight[rim].T,
        dynamics.input_bias[rim],
        dynamics.hidden_bias[rim],
    )


def slow_step(cell, elements, hidden, memory):
    """The equations, sequence by sequence and RIM by RIM."""
    rows = [slow_sequence(cell, elements[b], hidden[b], memory[b]) for b in range(len(elements))]
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


def slow_sequence(cell, elements, hidden, memory):
    sizes, attention, talk = cell.sizes, cell.attention, cell.communication
    there = torch.cat([torch.zeros(1, elements.shape[1], dtype=elements.dtype), elements])
    nulls, states, memories = [], [], []
    for rim in range(sizes.rims):
        scores = (hidden[rim] @ attention.query[rim]) @ (there @ attention.key).T
        shares = (scores / sizes.keys**0.5).softmax(0)
        taken = shares @ (there @ attention.value)
        kind, weights = torch_cell(cell, rim)
        step = {nn.LSTMCell: torch.lstm_cell, nn.GRUCell: torch.gru_cell}[kind]
        if kind is nn.LSTMCell:
            after, kept = step(taken[None], (hidden[rim][None], memory[rim][None]), *weights)
        else:
            after, kept = step(taken[None], hidden[rim][None], *weights), memory[rim][None]
        nulls.append(shares[0])
        states.append(after[0])
        memories.append(kept[0])
    active = sorted(range(sizes.rims), key=lambda rim: nulls[rim].item())[: sizes.active]
    heard = [s if rim in active else s.detach() for rim, s in enumerate(states)]
    new, remembered = list(hidden), list(memory)
    for rim in active:
        new[rim] = states[rim] + slow_message(talk, heard, rim)
        remembered[rim] = memories[rim]
    flags = torch.tensor([rim in active for rim in range(sizes.rims)])
    return torch.stack(new), torch.stack(remembered), flags


def slow_message(talk, heard, rim):
    width = talk.maps.shape[2] // (3 * talk.heads)
    maps = talk.maps.unflatten(2, (3, talk.heads, width))
    mixed = []
    for head in range(talk.heads):
        query = heard[rim] @ maps[rim, :, 0, head]
        keys = torch.stack([h @ maps[j, :, 1, head] for j, h in enumerate(heard)])
        values = torch.stack([h @ maps[j, :, 2, head] for j, h in enumerate(heard)])
        mixed.append((keys @ query / width**0.5).softmax(0) @ values)
    message = torch.cat(mixed)
    return talk.gate(message).sigmoid() * talk.message(message).tanh()


@pytest.mark.parametrize("dynamics", ["lstm", "gru"])
@pytest.mark.parametrize("number", [1, 3])
def test_the_batched_step_is_the_loop_over_rims(dynamics, number):
    cell = make(replace(SMALL, dynamics=dynamics))
    elements, state = random_elements(number), random_state(cell)
    after = cell(cell.read(elements), state)
    hidden, memory, active = slow_step(cell, elements, state.hidden, state.memory)
    torch.testing.assert_close(after.hidden, hidden)
    torch.testing.assert_close(after.memory, memory)
    assert torch.equal(after.active, active)
    assert (after.active.sum(1) == SMALL.active).all()


@pytest.mark.parametrize("dynamics", ["lstm", "gru"])
def test_its_gradients_are_those_of_the_loop(dynamics):
    cell = make(replace(SMALL, dynamics=dynamics))
    elements, state = random_elements(2), random_state(cell)
    wanted = [elements, state.hidden, *cell.parameters()]
    wanted += [state.memory] if dynamics == "lstm" else []

    def gradients(hidden, memory):
        loss = (hidden * torch.arange(hidden.numel()).view_as(hidden)).sum() + memory.sum()
        return torch.autograd.grad(loss, wanted)

    after = cell(cell.read(elements), state)
    fast = gradients(after.hidden, after.memory)
    slow = gradients(*slow_step(cell, elements, state.hidden, state.memory)[:2])
    for mine, theirs in zip(fast, slow, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_inactive_rims_keep_state_and_gradient_bit_by_bit():
    cell = make().float()
    state = random_state(cell)
    hidden, memory = (x.detach().float().requires_grad_() for x in state[:2])
    state = state._replace(hidden=hidden, memory=memory)
    after = cell(cell.read(random_elements(1).detach().float()), state)
    idle = ~after.active
    assert torch.equal(after.hidden[idle], state.hidden[idle])
    assert torch.equal(after.memory[idle], state.memory[idle])
    assert (after.hidden[after.active] != state.hidden[after.active]).any(dim=-1).all()
    (gradient,) = torch.autograd.grad(after.memory.sum(), state.memory)
    assert (gradient[idle] == 1).all()


def test_nothing_is_learned_through_what_is_heard_from_inactive_rims():
    cell = make()
    state = random_state(cell)
    after = cell(cell.read(random_elements(1)), state)
    row, rim = torch.nonzero(after.active)[0]
    idle = torch.nonzero(~after.active[row])[0, 0]
    (gradient,) = torch.autograd.grad(after.hidden[row, rim].sum(), state.hidden)
    assert (gradient[row, idle] == 0).all()
    assert (gradient[row, rim] != 0).all()
    moved = state._replace(hidden=state.hidden.detach().clone())
    moved.hidden[row, idle] += 1e-3
    again = cell(cell.read(random_elements(1)), moved)
    assert not torch.equal(again.hidden[row, rim], after.hidden[row, rim])


def test_a_reading_of_a_vocabulary_is_that_of_its_words():
    cell, vocabulary = make(), random_elements(1, batch=9)
    index = torch.tensor([3, 3, 0, 8])
    chosen, direct = cell.read(vocabulary).at(index), cell.read(vocabulary[index])
    torch.testing.assert_close(chosen.keys, direct.keys)
    torch.testing.assert_close(chosen.drives, direct.drives)


@pytest.mark.parametrize(("dynamics", "gates"), [("lstm", 4), ("gru", 3)])
def test_parameter_count(dynamics, gates):
    sizes = RIMSizes(dynamics=dynamics)
    cell = RIMCell(300, sizes)
    attention = 6 * 100 * 64 + 300 * 64 + 300 * 400
    own = 6 * gates * 100 * (400 + 100 + 2)
    talk = 6 * 100 * 3 * 4 * 32 + 2 * (128 * 100 + 100)
    assert sum(p.numel() for p in cell.parameters()) == attention + own + talk


def test_dropped_rims_are_neither_active_nor_heard_nor_changed():
    cell = make()
    elements, state = random_elements(1).detach(), random_state(cell)
    whole = cell(cell.read(elements), state)
    cell.drop([0, 3, 4])
    after = cell(cell.read(elements), state)
    assert not after.active[:, [0, 3, 4]].any()
    assert after.active[:, [1, 2]].all()
    deaf = state._replace(hidden=state.hidden.detach().clone())
    deaf.hidden[:, [0, 3, 4]] = 5.0
    other = cell(cell.read(elements), deaf)
    assert torch.equal(other.hidden[:, [1, 2]], after.hidden[:, [1, 2]])
    cell.drop([0, 1, 3, 4])
    assert cell(cell.read(elements), state).active.sum() == BATCH
    cell.drop()
    back = cell(cell.read(elements), state)
    assert torch.equal(back.hidden, whole.hidden)
    assert "present" not in cell.state_dict()


@pytest.mark.parametrize("gone", [[5], [-1], [0, 1, 2, 3, 4]])
def test_rims_that_cannot_be_dropped(gone):
    with pytest.raises(RMRError, match="RIMs from 0 to 4, and not all"):
        make().drop(gone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"active": 7}, "1 to 6 active RIMs out of 6, got 7"),
        ({"active": 0}, "counts of 1 or more in RIMSizes, got active=0"),
        ({"rims": 0, "active": 0}, "counts of 1 or more in RIMSizes, got rims=0"),
        ({"units": 0}, "counts of 1 or more in RIMSizes, got units=0"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\) in RIMSizes, got dropout=1.0"),
        ({"dynamics": "ltsm"}, "did you mean 'lstm'"),
    ],
)
def test_bad_sizes(change, message):
    with pytest.raises(RMRError, match=message):
        RIMSizes(**change)


def test_the_least_are_marked_and_the_first_among_equals():
    values = torch.tensor([[0.5, 0.1, 0.3], [0.2, 0.2, 0.2]])
    marked = [[False, True, True], [True, True, False]]
    assert least(values, 2).tolist() == marked


def test_dropout_comes_from_the_generator_and_only_in_training():
    cell = make(replace(SMALL, dropout=0.5))
    elements = random_elements(1)

    def step(seed):
        state = random_state(cell)._replace(generator=torch_generator(seed))
        return cell(cell.read(elements), state).hidden

    assert torch.equal(step(0), step(0))
    assert not torch.equal(step(0), step(1))
    cell.eval()
    assert torch.equal(step(0), step(1))


def test_dropout_keeps_the_mean():
    x = dropout(torch.ones(40, 50), 0.2, torch_generator(0))
    assert sorted(x.unique().tolist()) == [0.0, 1.25]
    assert x.mean().item() == pytest.approx(1.0, abs=0.03)


def test_initial_weights_come_from_the_generator():
    first, second, other = (
        build(lambda: RIMCell(4, SMALL), torch_generator(seed)).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("dynamics", ["lstm", "gru"])
def test_a_tiny_batch_is_overfitted(dynamics):
    sizes = replace(SMALL, dynamics=dynamics, units=8)
    cell = build(lambda: RIMCell(3, sizes), torch_generator(0))
    head = build(lambda: nn.Linear(sizes.rims * sizes.units, 2), torch_generator(1))
    sequence = torch.randn(4, 3, 1, 3, generator=torch_generator(2))
    target = torch.randn(4, 2, generator=torch_generator(3))
    optimizer = torch.optim.Adam([*cell.parameters(), *head.parameters()], lr=0.02)
    losses = []
    for _ in range(80):
        state = cell.init_state(4, torch_generator(0))
        for instant in range(3):
            state = cell(cell.read(sequence[:, instant]), state)
        loss = (head(state.hidden.flatten(1)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]


def test_communication_through_a_processor_hears_who_is_present():
    sizes = replace(SMALL, processor=ProcessorSizes(dim=7, passes=2), dropout=0.0)
    cell = make(sizes)
    talk = cell.communication
    hidden = torch.randn(BATCH, sizes.rims, sizes.units, dtype=torch.float64)
    cell.drop([0, 3])
    active = torch.zeros(BATCH, sizes.rims, dtype=torch.bool)
    active[:, 1] = True
    after = talk(hidden, active, cell.present, torch_generator(0))
    for row in range(BATCH):
        latents = torch.stack([hidden[row, k] @ talk.maps[k] for k in (1, 2, 4)])
        told = latents
        for core in talk.processor.cores:
            told = told + core(told[None])[0]
        for place, k in enumerate((1, 2, 4)):
            heard = told[place] - latents[place]
            expected = hidden[row, k] + talk.gate(heard).sigmoid() * talk.message(heard).tanh()
            torch.testing.assert_close(after[row, k], expected)
    deaf = hidden.clone()
    deaf[:, [0, 3]] = 9.0
    again = talk(deaf, active, cell.present, torch_generator(0))
    assert torch.equal(again[:, [1, 2, 4]], after[:, [1, 2, 4]])
    hidden.requires_grad_()
    talk(hidden, active, cell.present, torch_generator(0))[:, 1].sum().backward()
    assert hidden.grad[:, 1].any()
    assert not hidden.grad[:, [0, 2, 3, 4]].any()


TOKEN_SIZES = RIMSizes(rims=3, active=2, units=8, keys=4, heads=2, message=4, dropout=0.0)
TOKEN_MODELS = {
    "rims": lambda: SequenceRIMs(5, 5, 6, TOKEN_SIZES),
    "lstm": lambda: SequenceLSTM(5, 5, 6, LSTMSizes(16)),
}
TOKENS = torch.tensor([[1, 2, 0, 0], [3, 4, 0, 0], [2, 2, 0, 0]])


@pytest.mark.parametrize("name", TOKEN_MODELS)
def test_a_tiny_batch_of_tokens_is_overfitted(name):
    model = build(TOKEN_MODELS[name], torch_generator(0))
    target = torch.tensor([[0, 0, 1, 2], [0, 0, 3, 4], [0, 0, 2, 2]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        out = model(TOKENS, torch_generator(0))
        loss = F.cross_entropy(out.outputs.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(out.outputs.argmax(-1), target)
    assert out.active.shape == (3, 4, 3 if name == "rims" else 0)


@pytest.mark.parametrize("name", TOKEN_MODELS)
def test_the_past_alone_decides(name):
    model = build(TOKEN_MODELS[name], torch_generator(0))
    changed = TOKENS.clone()
    changed[:, 2] = 4
    before, after = (model(x, torch_generator(0)).outputs for x in (TOKENS, changed))
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.equal(after[:, 2], before[:, 2])


@pytest.mark.parametrize("name", TOKEN_MODELS)
def test_features_that_mark_tokens_are_read_as_tokens(name):
    model = build(TOKEN_MODELS[name], torch_generator(0))
    features = F.one_hot(TOKENS, 5).float()
    tokens, marked = (model(x, torch_generator(0)) for x in (TOKENS, features))
    torch.testing.assert_close(marked.outputs, tokens.outputs)
    assert torch.equal(marked.active, tokens.active)


@pytest.mark.parametrize("name", TOKEN_MODELS)
def test_equal_generators_give_equal_weights(name):
    first, second = (build(TOKEN_MODELS[name], torch_generator(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", TOKEN_MODELS)
def test_a_sequence_goes_on_from_the_state_of_its_first_part(name):
    model = build(TOKEN_MODELS[name], torch_generator(0))
    whole, first = (model(tokens, torch_generator(0)) for tokens in (TOKENS, TOKENS[:, :3]))
    rest = model(TOKENS[:, 3:], torch_generator(0), first.state)
    torch.testing.assert_close(torch.cat([first.outputs, rest.outputs], 1), whole.outputs)
    assert not torch.allclose(model(TOKENS[:, 3:], torch_generator(0)).outputs, rest.outputs)


def test_without_memory_every_instant_is_a_first_one():
    lstm, memoryless = (
        build(lambda kind=kind: kind(5, 5, 6, LSTMSizes(16)), torch_generator(0))
        for kind in (SequenceLSTM, SequenceMemoryless)
    )
    out = memoryless(TOKENS, torch_generator(0))
    for instant in range(4):
        alone = lstm(TOKENS[:, instant : instant + 1], torch_generator(0)).outputs
        torch.testing.assert_close(out.outputs[:, instant : instant + 1], alone)
    assert out.active.shape == (3, 4, 0)
    assert out.state is None


def test_all_states_are_decoded_and_activity_is_that_of_the_cell():
    model = build(TOKEN_MODELS["rims"], torch_generator(0))
    out = model(TOKENS, torch_generator(0))
    state = model.cell.init_state(3, torch_generator(0))
    for instant in range(4):
        reading = model.cell.read(model.embedding[TOKENS[:, instant]])
        state = model.cell(reading, state)
        assert torch.equal(out.active[:, instant], state.active)
        torch.testing.assert_close(out.outputs[:, instant], model.decoder(state.hidden.flatten(1)))
