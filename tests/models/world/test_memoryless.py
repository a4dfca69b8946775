"""The control without memory: it sees the last frame and nothing before it."""

import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.base import WorldModel, unroll
from rmr_gym.models.world.frames import Memoryless, MemorylessSizes

SHAPE = (9, 11, 1)


def make(**sizes):
    return build(lambda: Memoryless(SHAPE, MemorylessSizes(**sizes)), torch_generator(0)).eval()


def last(model, frames, **options):
    *_, state = unroll(model, frames, None, torch_generator(1), **options)
    return model.decode(state)


def test_only_the_last_frame_counts():
    model, frames = make(), torch.rand(3, 4, *SHAPE).round()
    assert isinstance(model, WorldModel)
    frame, groups = last(model, frames)
    assert frame.shape == (3, *SHAPE)
    assert groups is None
    torch.testing.assert_close(frame, last(model, frames[:, -1:]).frame)
    assert not torch.allclose(frame, last(model, frames[:, :-1]).frame)


def test_a_pixel_is_predicted_from_what_surrounds_it():
    model, frames = make(kernel=3), torch.zeros(1, 1, *SHAPE)
    before = last(model, frames).frame
    frames[0, 0, 4, 5] = 1
    changed = (last(model, frames).frame != before)[0, ..., 0].nonzero()
    assert changed.amin(dim=0).tolist() == [3, 4]
    assert changed.amax(dim=0).tolist() == [5, 6]


def test_without_a_frame_it_goes_on_from_its_own():
    model, frames = make(), torch.rand(2, 3, *SHAPE).round()
    own = last(model, frames[:, :1]).frame
    model.cut = own.median().item()
    fed = (own > model.cut).float()
    assert 0 < fed.mean() < 1
    expected = last(model, fed[:, None]).frame
    torch.testing.assert_close(last(model, frames[:, :2], seen=1).frame, expected)


def test_it_learns_to_copy_what_stands_still():
    model, frames = make().train(), (torch.rand(8, 1, *SHAPE) < 0.3).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        *_, state = unroll(model, frames, None, torch_generator(1))
        loss = model.loss(state, frames[:, 0])
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    assert loss.mean() < 5


@pytest.mark.parametrize("sizes", [{"channels": 0}, {"kernel": 4}, {"kernel": -1}])
def test_impossible_sizes_are_told(sizes):
    with pytest.raises(RMRError, match="an odd kernel, got"):
        MemorylessSizes(**sizes)
