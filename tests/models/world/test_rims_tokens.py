import pytest
import torch
from torch.nn import functional as F

from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.rims import RIMSizes, TokenLSTM, TokenRIMs

SIZES = RIMSizes(rims=3, active=2, units=8, keys=4, heads=2, message=4, dropout=0.0)
MODELS = {
    "rims": lambda: TokenRIMs(5, 6, SIZES),
    "lstm": lambda: TokenLSTM(5, 6, 16),
}
TOKENS = torch.tensor([[1, 2, 0, 0], [3, 4, 0, 0], [2, 2, 0, 0]])


@pytest.mark.parametrize("name", MODELS)
def test_a_tiny_batch_is_overfitted(name):
    model = build(MODELS[name], torch_generator(0))
    target = torch.tensor([[0, 0, 1, 2], [0, 0, 3, 4], [0, 0, 2, 2]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        out = model(TOKENS, torch_generator(0))
        loss = F.cross_entropy(out.logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(out.logits.argmax(-1), target)
    assert out.active.shape == (3, 4, 3 if name == "rims" else 0)


@pytest.mark.parametrize("name", MODELS)
def test_the_past_alone_decides(name):
    model = build(MODELS[name], torch_generator(0))
    changed = TOKENS.clone()
    changed[:, 2] = 4
    before, after = (model(x, torch_generator(0)).logits for x in (TOKENS, changed))
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.equal(after[:, 2], before[:, 2])


@pytest.mark.parametrize("name", MODELS)
def test_equal_generators_give_equal_weights(name):
    first, second = (build(MODELS[name], torch_generator(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_all_states_are_decoded_and_activity_is_that_of_the_cell():
    model = build(MODELS["rims"], torch_generator(0))
    out = model(TOKENS, torch_generator(0))
    state = model.cell.init_state(3, torch_generator(0))
    for instant in range(4):
        reading = model.cell.read(model.embedding[TOKENS[:, instant]])
        state = model.cell(reading, state)
        assert torch.equal(out.active[:, instant], state.active)
        torch.testing.assert_close(out.logits[:, instant], model.decoder(state.hidden.flatten(1)))
