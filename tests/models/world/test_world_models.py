"""What holds for every world model, whatever its family."""

from functools import partial

import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world.frames import (
    RIMS_MODELS,
    SURE,
    Memoryless,
    MemorylessSizes,
    WorldModel,
    frame_bce,
    unroll,
)
from rmr_gym.models.world.nem import NEM_MODELS
from rmr_gym.models.world.s2rm import S2RM_MODELS
from rmr_gym.stages.world_model import NEM_SIZES, RIMS_SIZES, S2RM_SIZES

SHAPE = (12, 12, 1)
P = ProcessorSizes(dim=8, passes=1)
FAMILIES = ((NEM_MODELS, NEM_SIZES), (RIMS_MODELS, RIMS_SIZES), (S2RM_MODELS, S2RM_SIZES))
MODELS = {
    name: partial(make, SHAPE, sizes["smoke"])
    for models, sizes in FAMILIES
    for name, make in models.items()
} | {
    "rnem_p": partial(NEM_MODELS["rnem"], SHAPE, NEM_SIZES["smoke"].with_processor(P)),
    "rims_p": partial(RIMS_MODELS["rims"], SHAPE, RIMS_SIZES["smoke"].with_processor(P)),
    "memoryless": partial(Memoryless, SHAPE, MemorylessSizes()),
}
OF_ACTIONS = {*NEM_MODELS, *RIMS_MODELS, "rnem_p", "rims_p"} - {"nem"}


def make(name, actions=0):
    return build(lambda: MODELS[name](actions), torch_generator(0)).eval()


@pytest.fixture(params=MODELS)
def model(request):
    return make(request.param)


def clips(batch=2, time=6):
    """A square that moves one pixel to the right each frame."""
    frames = torch.zeros(batch, time, *SHAPE)
    for row in range(batch):
        for instant in range(time):
            frames[row, instant, 3 * row + 2 : 3 * row + 6, instant : instant + 4] = 1
    return frames


def states(model, frames, actions=None, **options):
    return list(unroll(model, frames, actions, torch_generator(0), **options))


def training_loss(model, frames):
    return model.losses(frames, None, torch_generator(0)).sum(dim=1).mean()


def test_predictions_are_frames_and_their_groups_are_shares(model):
    assert isinstance(model, WorldModel)
    assert model.cut == 0.5
    for state in states(model, clips(), seen=3):
        frame, groups, *_ = model.decode(state)
        assert frame.shape == (2, *SHAPE)
        assert ((frame >= 0) & (frame <= 1)).all()
        assert (groups is not None) == (getattr(model, "groups", 1) > 1)
        if groups is not None:
            torch.testing.assert_close(groups.sum(dim=1), torch.ones(2, *SHAPE[:2]))
    assert model.losses(clips(), None, torch_generator(0)).shape == (2, 5)


@pytest.mark.parametrize("name", sorted({*RIMS_MODELS, "rims_p", "memoryless"}))
def test_losses_of_all_instants_are_those_of_one_after_another(name):
    actions = None if name == "memoryless" else torch.tensor([[0, 2, 1, 0, 1], [1, 1, 0, 2, 2]])
    model, frames = make(name, 0 if actions is None else 3), clips()
    losses = model.losses(frames, actions, torch_generator(0))
    stepped = [model.decode(state).frame for state in states(model, frames[:, :-1], actions)]
    torch.testing.assert_close(losses, frame_bce(torch.stack(stepped, 1), frames[:, 1:]))


def test_what_is_seen_matters_and_so_does_how_much(model):
    seeing, blind = (model.decode(states(model, clips(), seen=n)[-1]).frame for n in (6, 3))
    assert not torch.equal(seeing, blind)


def test_sequences_do_not_meet(model):
    frames = clips()
    other = torch.cat([frames[:1], 1 - frames[1:]])
    one, two = (model.decode(states(model, shown)[-1]).frame for shown in (frames, other))
    torch.testing.assert_close(one[0], two[0])
    assert not torch.equal(one[1], two[1])


def test_every_weight_is_trained(model):
    training_loss(model.train(), clips(time=4)).backward()
    unmoved = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unmoved


@pytest.mark.parametrize("name", sorted(OF_ACTIONS))
def test_actions_matter_where_there_are_any(name):
    model, frames = make(name, actions=3), clips()
    first, second = (
        model.decode(states(model, frames, torch.full((2, 6), action))[-1]).frame
        for action in (0, 2)
    )
    assert not torch.allclose(first, second)
    with pytest.raises(RMRError, match="expected an action"):
        states(model, frames)


OVERFITTED = (
    *("rnem", "rnem_p", "rnnem", "lstm", "rims", "rims_p", "rims_lstm"),
    *("s2gru", "crops_lstm"),
)


@pytest.mark.parametrize("name", OVERFITTED)
def test_a_tiny_batch_is_overfitted(name):
    model, frames = make(name).train(), clips(time=4)
    model.noise = 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = training_loss(model, frames)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("seen", [0, 7])
def test_some_frame_must_be_shown(seen):
    with pytest.raises(RMRError, match="1 to 6 frames"):
        states(make("memoryless"), clips(), seen=seen)


def test_a_certain_mistake_costs_as_much_as_in_the_paper():
    wrong = frame_bce(torch.zeros(1, 2, 2, 1), torch.ones(1, 2, 2, 1))
    assert wrong.item() == pytest.approx(-4 * torch.log(torch.tensor(SURE)).item(), rel=1e-4)
