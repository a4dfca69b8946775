import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.objects import (
    DECODERS,
    MOMENTS,
    CellFeatures,
    ObjectDecoder,
    SlotAttention,
    SlotEncoder,
    cell_centres,
)
from rmr_gym.models.rmr.pipeline import build, torch_generator

every_decoder = pytest.mark.parametrize("name", DECODERS)


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


def decoder(name="object", **options):
    given = {"dim": 6, "resolution": 16, "channels": 8, "grid": 8} | options
    return build(lambda: DECODERS[name](**given), torch_generator(0))


@every_decoder
@pytest.mark.parametrize(("resolution", "grid"), [(8, 8), (16, 8), (32, 8), (24, 8)])
def test_shapes_masks_and_gradients(name, resolution, grid):
    model = decoder(name, resolution=resolution, grid=grid)
    slots = torch.randn(2, 3, 6, requires_grad=True)
    decoded = model(slots)
    assert decoded.frame.shape == (2, resolution, resolution, 3)
    assert decoded.pictures.shape == (2, 3, resolution, resolution, 3)
    torch.testing.assert_close(decoded.masks.sum(dim=1), torch.ones(2, resolution, resolution))
    decoded.frame.square().sum().backward()
    assert slots.grad is not None
    assert (slots.grad.abs().sum(dim=-1) > 0).all()
    assert all(parameter.grad is not None for parameter in model.parameters())


@every_decoder
def test_the_frame_is_the_pictures_weighted_by_their_masks(name):
    decoded = decoder(name)(torch.randn(1, 2, 6))
    by_hand = sum(decoded.masks[:, k, ..., None] * decoded.pictures[:, k] for k in range(2))
    torch.testing.assert_close(decoded.frame, by_hand)


@every_decoder
def test_the_order_of_slots_does_not_change_the_frame(name):
    model, slots = decoder(name), torch.randn(2, 4, 6)
    torch.testing.assert_close(model(slots).frame, model(slots.flip(1)).frame)


def aimed(**options):
    model = decoder(**options)
    assert isinstance(model, ObjectDecoder)
    model.aim()
    return model


def test_a_moved_place_is_a_moved_picture():
    model = aimed(resolution=16, grid=16).double()
    with torch.no_grad():
        model.content.weight[:, :2] = 0.0
    slots = torch.randn(1, 1, 6, dtype=torch.float64)
    right, up = slots.clone(), slots.clone()
    right[..., 0] += 2 / 16
    up[..., 1] += 2 / 16
    here = model(slots).pictures[:, :, 6:10, 6:10]
    assert here.std() > 1e-3
    torch.testing.assert_close(here, model(right).pictures[:, :, 6:10, 7:11])
    torch.testing.assert_close(here, model(up).pictures[:, :, 5:9, 6:10])


def test_colour_is_that_of_the_slot():
    model = aimed()
    with torch.no_grad():
        model.content.weight[:, 2:5] = 0.0
    slots = torch.randn(1, 1, 6)
    brighter = slots.clone()
    brighter[..., 2:5] *= torch.tensor([0.5, 2.0, 0.0])
    expected = model(slots).pictures * torch.tensor([0.5, 2.0, 0.0])
    torch.testing.assert_close(model(brighter).pictures, expected)


def test_it_learns_to_draw_a_disc_anywhere():
    model = aimed(dim=5, grid=4, channels=16)
    generator = torch_generator(1)
    places = torch.rand(32, 2, 2, generator=generator) * 1.4 - 0.7
    colours = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).expand(32, 2, 3)
    across = (torch.arange(16) + 0.5) / 8 - 1
    pixels = torch.stack(torch.meshgrid(-across, across, indexing="ij")[::-1], dim=-1)
    away = (pixels[None, None] - places[:, :, None, None]).norm(dim=-1)
    target = ((away < 0.3).float()[..., None] * colours[:, :, None, None]).sum(dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    slots, losses = torch.cat([places, colours], dim=-1), []
    for _ in range(150):
        loss = (model(slots).frame - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * target.var().item()


def test_a_grid_that_does_not_divide_the_frame_is_refused():
    with pytest.raises(RMRError, match="divides 16 pixels, got 5"):
        decoder(grid=5)
