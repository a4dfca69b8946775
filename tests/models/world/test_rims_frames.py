from functools import partial

import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.base import unroll
from rmr_gym.models.world.frames import RIMS_MODELS, RIMS_SIZES, FrameRIMs

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


def test_frames_have_the_shape_and_range_of_frames(model):
    last = states(model, clips())[-1]
    frame, groups = model.decode(last)
    assert frame.shape == (2, *SHAPE)
    assert ((frame > 0) & (frame < 1)).all()
    assert groups is None
    assert model.loss(last, clips()[:, 0]).shape == (2,)


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


def test_sequences_do_not_meet(model):
    together = model.decode(states(model, clips())[-1]).frame
    alone = model.decode(states(model, clips()[1:])[-1]).frame
    torch.testing.assert_close(together[1:], alone)


def test_a_tiny_batch_is_overfitted(model):
    model.train()
    frames = clips(time=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        found = states(model, frames[:, :3])
        loss = sum(model.loss(s, frames[:, t + 1]).mean() for t, s in enumerate(found))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_actions_matter_where_there_are_any(name):
    model, frames = make(name, actions=3), clips()
    first, second = (
        model.decode(states(model, frames, torch.full((2, 5), action))[-1]).frame
        for action in (0, 2)
    )
    assert not torch.equal(first, second)
    with pytest.raises(RMRError, match="expected an action"):
        states(model, frames)


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
