from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.frames import (
    RIMS_MODELS,
    FrameDecoder,
    FrameEncoder,
    FrameRIMs,
    Memoryless,
    MemorylessSizes,
    RepeatingConv,
    WorldModel,
    fitted_coder,
    unroll,
)
from rmr_gym.stages.world_model import RIMS_SIZES

SHAPE, SMALL = (8, 8, 1), RIMS_SIZES["smoke"]
MODELS = {name: partial(make, SHAPE, SMALL) for name, make in RIMS_MODELS.items()}
MODELS["rims_p"] = partial(FrameRIMs, SHAPE, SMALL.with_processor(ProcessorSizes()))


@pytest.fixture(params=MODELS)
def model(request):
    return make(request.param)


def make(name, actions=0):
    return build(lambda: MODELS[name](actions), torch_generator(0)).eval()


def clips(batch=2, time=5):
    """A square that moves one pixel to the right each frame."""
    frames = torch.zeros(batch, time, *SHAPE)
    for row in range(batch):
        for instant in range(time):
            frames[row, instant, 2 * row + 1 : 2 * row + 3, instant : instant + 2] = 1
    return frames


def states(model, frames, actions=None, **options):
    return list(unroll(model, frames, actions, torch_generator(0), **options))


@pytest.mark.parametrize("cut", [0.0, 0.45])
def test_a_model_that_sees_nothing_goes_on_from_its_own_prediction(model, cut):
    frames, model.cut = clips(), cut
    unseen = states(model, frames, seen=3)
    fed = frames.clone()
    for instant in (3, 4):
        own = model.decode(unseen[instant - 1]).frame.detach()
        fed[:, instant] = (own > cut).float() if cut else own
    if cut:
        assert 0 < fed[:, 3:].mean() < 1, "the cut must separate something here"
    for blind, shown in zip(unseen, states(model, fed), strict=True):
        torch.testing.assert_close(model.decode(blind).frame, model.decode(shown).frame)
    seeing = model.decode(states(model, frames)[-1]).frame
    assert not torch.equal(model.decode(unseen[-1]).frame, seeing)


def test_activity_is_told_and_rims_can_be_dropped():
    model = make("rims")
    before, *after = [model.init_state(2, torch_generator(0)), *states(model, clips())]
    assert not before.active.any()
    assert all((state.active.sum(1) == 2).all() for state in after)
    whole = model.decode(after[-1]).frame
    model.drop([int(after[-1].active[0].nonzero()[0, 0])])
    fewer = states(model, clips())[-1]
    assert not torch.equal(model.decode(fewer).frame[0], whole[0])


def test_the_decoder_sees_every_rim_active_or_not():
    model = make("rims")
    state = states(model, clips())[-1]
    for rim in range(SMALL.rims.rims):
        hidden = state.hidden.clone()
        hidden[:, rim] += 1
        moved = state._replace(hidden=hidden)
        assert not torch.equal(model.decode(moved).frame, model.decode(state).frame)


def test_frames_that_cannot_be_halved():
    with pytest.raises(RMRError, match="halved"):
        FrameRIMs((10, 10, 1), SMALL)


ODD = (9, 11, 1)


def memoryless(**sizes):
    return build(lambda: Memoryless(ODD, MemorylessSizes(**sizes)), torch_generator(0)).eval()


def last(model, frames, **options):
    *_, state = unroll(model, frames, None, torch_generator(1), **options)
    return model.decode(state)


def test_only_the_last_frame_counts():
    model, frames = memoryless(), torch.rand(3, 4, *ODD).round()
    assert isinstance(model, WorldModel)
    frame, groups, *_ = last(model, frames)
    assert frame.shape == (3, *ODD)
    assert groups is None
    torch.testing.assert_close(frame, last(model, frames[:, -1:]).frame)
    assert not torch.allclose(frame, last(model, frames[:, :-1]).frame)


def test_a_pixel_is_predicted_from_what_surrounds_it():
    model, frames = memoryless(kernel=3), torch.zeros(1, 1, *ODD)
    before = last(model, frames).frame
    frames[0, 0, 4, 5] = 1
    changed = (last(model, frames).frame != before)[0, ..., 0].nonzero()
    assert changed.amin(dim=0).tolist() == [3, 4]
    assert changed.amax(dim=0).tolist() == [5, 6]


def test_without_a_frame_it_goes_on_from_its_own():
    model, frames = memoryless(), torch.rand(2, 3, *ODD).round()
    own = last(model, frames[:, :1]).frame
    model.cut = own.median().item()
    fed = (own > model.cut).float()
    assert 0 < fed.mean() < 1
    expected = last(model, fed[:, None]).frame
    torch.testing.assert_close(last(model, frames[:, :2], seen=1).frame, expected)


def test_it_learns_to_copy_what_stands_still():
    model, frames = memoryless().train(), (torch.rand(8, 1, *ODD) < 0.3).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        loss = model.losses(frames.expand(-1, 2, -1, -1, -1), None, torch_generator(1))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    assert loss.mean() < 5


@pytest.mark.parametrize("sizes", [{"channels": 0}, {"kernel": 4}, {"kernel": -1}])
def test_impossible_sizes_are_told(sizes):
    with pytest.raises(RMRError, match=r"an odd kernel, got|counts of 1 or more in Memory"):
        MemorylessSizes(**sizes)


def test_encoder_and_decoder_of_the_appendix():
    encoder, decoder = (
        FrameEncoder((64, 64, 1), (16, 32, 64), 512),
        FrameDecoder(250, (64, 64, 1), (16, 32, 64), 512),
    )
    kinds = [(nn.Conv2d, 3), (nn.ELU, 4), (nn.GroupNorm, 3), (nn.LayerNorm, 1)]
    for kind, count in kinds:
        assert sum(isinstance(layer, kind) for layer in encoder.layers) == count
    assert encoder(torch.zeros(2, 3, 64, 64, 1)).shape == (2, 3, 512)
    assert decoder(torch.zeros(2, 3, 250)).shape == (2, 3, 64, 64, 1)
    assert sum(isinstance(layer, nn.ReLU) for layer in decoder.layers) == 4


@pytest.mark.parametrize("repeats", [2, 4])
def test_it_equals_repeated_pixels_and_a_convolution(repeats):
    layer = build(
        lambda: RepeatingConv(3, 2, repeats, (5 * repeats, 4 * repeats)), torch_generator(0)
    )
    picture = torch.randn(2, 3, 5, 4, generator=torch_generator(1))
    zeros = (repeats - 1, repeats) * 2
    repeated = F.pad(F.interpolate(picture, scale_factor=repeats), zeros)
    expected = F.conv2d(repeated, layer.weight, layer.bias)
    torch.testing.assert_close(layer(picture), expected)


def test_a_row_and_a_column_more_are_those_of_the_nearest_pixels():
    layer = build(lambda: RepeatingConv(3, 2, 2, (21, 21)), torch_generator(0))
    picture = torch.randn(2, 3, 10, 10, generator=torch_generator(1))
    nearest = F.pad(F.interpolate(picture, size=(21, 21)), (1, 0, 1, 0), mode="replicate")
    expected = F.conv2d(F.pad(nearest, (0, 2, 0, 2)), layer.weight, layer.bias)
    torch.testing.assert_close(layer(picture), expected)


def test_encoder_and_decoder_of_games():
    coder = fitted_coder((84, 84, 1), (8, 16, 32), 64)
    assert coder == {"channels": (16, 32), "hidden": 250}
    encoder, decoder = (
        FrameEncoder((84, 84, 1), coder["channels"], coder["hidden"]),
        FrameDecoder(128, (84, 84, 1), coder["channels"], coder["hidden"]),
    )
    convolutions = [layer for layer in encoder.layers if isinstance(layer, nn.Conv2d)]
    assert [(c.kernel_size, c.stride) for c in convolutions] == [((8, 8), (4, 4)), ((4, 4), (2, 2))]
    wide = {layer.out_features for layer in decoder.layers if isinstance(layer, nn.Linear)}
    assert wide == {250, 10 * 10 * 32}
    frames = torch.rand(2, 3, 84, 84, 1, generator=torch_generator(0)).requires_grad_()
    assert encoder(frames).shape == (2, 3, 250)
    pictures = decoder(torch.ones(2, 3, 128))
    assert pictures.shape == (2, 3, 84, 84, 1)
    assert 0 < pictures.min() < pictures.max() < 1
    encoder(frames).sum().backward()
    assert frames.grad is not None
    assert (frames.grad != 0).all(), "every pixel is seen"


@pytest.mark.parametrize(("side", "channels"), [(84, 3), (84, 0), (30, 2)])
def test_frames_of_another_size_are_refused(side, channels):
    widths = tuple(range(1, channels + 1))
    for make_coder in (FrameEncoder, partial(FrameDecoder, 8)):
        with pytest.raises(RMRError, match=rf"halved {channels} times .* found {side} x {side}"):
            make_coder((side, side, 1), widths, 8)
