import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.broadcast_decoder import DECODERS, ObjectDecoder
from rmr_gym.models.rmr.initialisation import build, torch_generator

every_decoder = pytest.mark.parametrize("name", DECODERS)


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
