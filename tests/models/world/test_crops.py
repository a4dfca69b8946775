import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.models.world.crops import ViewGeometry, present
from rmr_gym.wrappers.views import crop

WIDE = ViewGeometry(7, 9, 2, 3, 5)


def frames(batch=2):
    return torch.rand(batch, 7, 9, 2, generator=torch_generator(0))


def test_crops_are_those_of_the_wrapper():
    centres = WIDE.draw(2, torch_generator(1))
    found = WIDE.look(frames(), centres)
    assert found.shape == (2, 3, 5, 5, 2)
    np.testing.assert_array_equal(found.numpy(), crop(frames().numpy(), centres.numpy(), 5))


def test_every_pixel_is_drawn_as_often():
    centres = WIDE.draw(4000, torch_generator(2)).flatten(0, 1)
    counts = torch.zeros(7, 9).index_put_(tuple(centres.T), torch.ones(len(centres)), True)
    expected = len(centres) / 63
    assert counts.sum() == len(centres)
    assert ((counts - expected).abs() < 5 * expected**0.5).all()


@pytest.mark.parametrize("geometry", [WIDE, ViewGeometry(48, 48, 2, 1, 11)])
def test_a_grid_of_crops_makes_the_frame_again(geometry):
    picture = torch.rand(2, geometry.height, geometry.width, 2)
    grid = geometry.grid().expand(2, -1, -1)
    torch.testing.assert_close(geometry.stitch(geometry.look(picture, grid), grid), picture)
    assert geometry.height != 48 or grid.shape == (2, 25, 2)


def test_where_crops_overlap_their_mean_counts_and_the_rest_is_dark():
    geometry = ViewGeometry(3, 6, 1, 2, 3)
    crops = torch.stack([torch.zeros(3, 3, 1), torch.ones(3, 3, 1)])[None]
    stitched = geometry.stitch(crops, torch.tensor([[[1, 1], [1, 3]]]))[0, ..., 0]
    assert stitched.tolist() == [[0, 0, 0.5, 1, 1, 0]] * 3


@pytest.mark.parametrize(("views", "size"), [(0, 5), (3, 4), (3, 9), (3, -1)])
def test_crops_that_cannot_be(views, size):
    with pytest.raises(RMRError, match="odd size from 1 to 7"):
        ViewGeometry(7, 9, 2, views, size)


def test_agents_look_from_where_they_are_marked():
    frame = torch.zeros(3, 7, 9, 2)
    marked = [{(1, 2), (6, 8), (3, 3)}, {(0, 0)}, {(row, 4) for row in range(5)}]
    for world, cells in enumerate(marked):
        for row, column in cells:
            frame[world, row, column, 0] = 1
    places = WIDE.agents(frame, torch_generator(0))
    there = present(places)
    assert there.sum(dim=1).tolist() == [3, 1, 3], "at most as many as views"
    for world, cells in enumerate(marked):
        found = {tuple(place) for place in places[world][there[world]].tolist()}
        assert len(found) == there[world].sum()
        assert found <= cells
    assert (places[~there] == -1).all()
    orders = {
        tuple(map(tuple, WIDE.agents(frame, torch_generator(n))[0].tolist())) for n in range(40)
    }
    assert len(orders) == 6, "every order comes"


def test_views_that_are_not_there_are_not_stitched():
    places = torch.tensor([[[2, 2], [-1, -1]]])
    picture = torch.ones(1, 7, 9, 2)
    stitched = WIDE.stitch(WIDE.look(picture, places), places)
    assert stitched.sum() == 5 * 5 * 2
