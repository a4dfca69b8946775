import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.objects import (
    MOMENTS,
    CellFeatures,
    SlotAttention,
    SlotEncoder,
    cell_centres,
)
from rmr_gym.models.rmr.initialisation import build, torch_generator


def encoder(slots=3, seed=0):
    return build(lambda: SlotEncoder(CellFeatures(16, 4, 8), 8, slots), torch_generator(seed))


def attention(dim=8):
    return build(lambda: SlotAttention(dim), torch_generator(1))


def test_cells_run_from_the_top_left_with_y_upwards():
    cells = cell_centres(2)
    assert cells.tolist() == [[-0.5, 0.5], [0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]]


def test_slots_have_their_shape_and_every_weight_gets_a_gradient():
    model = encoder()
    slots = model(torch.rand(2, 3, 16, 16, 3))
    assert slots.shape == (2, 3, 3, model.width) == (2, 3, 3, 8 + MOMENTS)
    slots.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_permuting_the_first_slots_permutes_the_result():
    model = attention()
    features, slots = torch.randn(2, 20, 8), torch.randn(2, 4, 8)
    order = torch.tensor([2, 0, 3, 1])
    for first, second in zip(
        model(features, slots, 3), model(features, slots[:, order], 3), strict=True
    ):
        torch.testing.assert_close(first[:, order], second)


def test_the_order_of_the_cells_does_not_matter():
    model = attention()
    features, slots = torch.randn(2, 20, 8), torch.randn(2, 4, 8)
    order = torch.randperm(20, generator=torch_generator(0))
    found, shares = model(features, slots, 2)
    again, shares_again = model(features[:, order], slots, 2)
    torch.testing.assert_close(found, again, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shares[..., order], shares_again, atol=1e-5, rtol=1e-4)


def test_slots_compete_for_cells():
    """Each cell goes to the slot whose query points at it, and updates that slot alone."""
    model = SlotAttention(2)
    with torch.no_grad():
        for layer, gain in ((model.query, 100), (model.key, 100), (model.value, 1)):
            layer.weight.copy_(gain * torch.eye(2))
    seen = []
    model.gru.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    cells = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    _, shares = model(cells, cells.clone(), 1)
    torch.testing.assert_close(seen[0], cells[0])
    torch.testing.assert_close(shares, torch.eye(2)[None])


def test_slots_are_handed_on_from_frame_to_frame():
    model = encoder()
    frames = torch.rand(2, 3, 16, 16, 3)
    slots = model(frames)
    torch.testing.assert_close(model(frames[:, :1])[:, 0], slots[:, 0])
    features, _ = model.cells(frames[:, 1])
    following, _ = model.attention(features, slots[:, 0, :, :-MOMENTS], 1)
    torch.testing.assert_close(following, slots[:, 1, :, :-MOMENTS])


def test_moments_are_place_and_colour_of_the_cells_that_a_slot_won():
    model = encoder(slots=1)
    frame = torch.zeros(1, 1, 16, 16, 3)
    frame[..., :4, 12:, 0] = 1.0
    moments = model(frame)[0, 0, 0, -MOMENTS:]
    cells = cell_centres(4)
    expected = torch.tensor([*cells.mean(dim=0), 1 / 16, 0, 0])
    torch.testing.assert_close(moments, expected)
    _, looks = model.cells(frame[:, 0])
    assert looks[0, 3].tolist() == [0.75, 0.75, 1.0, 0.0, 0.0]


def test_equal_seeds_give_equal_weights():
    same, other = encoder(seed=3).state_dict(), encoder(seed=4).state_dict()
    for name, value in encoder(seed=3).state_dict().items():
        assert torch.equal(value, same[name])
    assert not torch.equal(same["start"], other["start"])
    assert not torch.equal(same["attention.gru.weight_hh"], other["attention.gru.weight_hh"])


@pytest.mark.parametrize(("resolution", "cell"), [(15, 4), (15, 5), (16, 3), (16, 0)])
def test_a_frame_that_has_no_whole_cells_is_refused(resolution, cell):
    with pytest.raises(RMRError, match="divide the resolution"):
        CellFeatures(resolution, 4, 8, cell)
