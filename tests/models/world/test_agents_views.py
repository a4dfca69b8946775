"""Frames of several channels are seen by the agents that the first channel marks."""

from dataclasses import replace

import pytest
import torch

from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.crops import LocalState, Views, present
from rmr_gym.models.world.frames import unroll
from rmr_gym.models.world.s2rm import S2RM_MODELS
from rmr_gym.stages.world_model import S2RM_SIZES

SHAPE, SIZES = (12, 12, 3), replace(S2RM_SIZES["smoke"], views=4)


@pytest.fixture(params=S2RM_MODELS)
def model(request):
    return build(lambda: S2RM_MODELS[request.param](SHAPE, SIZES, 0), torch_generator(0)).eval()


def battles(agents=(2, 4), time=5):
    """Frames in which some agents are marked, each going down a row an instant."""
    frames = torch.zeros(len(agents), time, *SHAPE)
    for world, count in enumerate(agents):
        for instant in range(time):
            frames[world, instant, 1 + instant, 2 : 2 + 2 * count : 2, 0] = 1
            frames[world, instant, 9, 3 + instant, 1:] = torch.tensor([1.0, 0.6])
    return frames


def test_views_that_are_not_there_change_nothing(model):
    core = model.start(2, torch_generator(1))
    crops, centres = torch.rand(2, 4, 5, 5, 3), torch.randint(12, (2, 4, 2))
    fewer = centres.clone()
    fewer[:, [1, 3]] = -1
    queries = torch.randint(12, (2, 3, 2))
    masked = model.logits(model.advance(core, Views(crops, fewer)), queries)
    taken = Views(crops[:, [0, 2]], centres[:, [0, 2]])
    torch.testing.assert_close(masked, model.logits(model.advance(core, taken), queries))
    nobody = model.advance(core, Views(crops, torch.full_like(centres, -1)))
    assert model.logits(nobody, queries).isfinite().all()


def test_agents_are_asked_about_where_they_will_be(model):
    frames = battles()
    logits, truth, queries, seen = model.asked(frames, torch_generator(0))
    there = present(queries)
    assert there.sum(dim=2).tolist() == [[2] * 4, [4] * 4]
    assert (truth[there][:, 2, 2, 0] == 1).all(), "there is always an agent in the middle"
    assert (truth[there][:, 1, 2, 0] == 0).all()
    assert (
        queries[..., 0][there] == (torch.arange(2, 6)[None, :, None].expand(2, -1, 4))[there]
    ).all()
    state = LocalState(model.start(2, torch_generator(0)), queries, torch_generator(0))
    for t in range(0 if model.ahead else 4):
        state = model.step(state, frames[:, t], None)
        assert torch.equal(state.queries, seen.centres[:, t])
        answers = model.logits(state.core, queries[:, t])
        torch.testing.assert_close(logits[:, t][there[:, t]], answers[there[:, t]])


def test_the_loss_is_that_of_agents_that_are_there(model):
    frames = battles()
    logits, truth, queries, _ = model.asked(frames, torch_generator(0))
    losses = model.losses(frames, None, torch_generator(0))
    for world in range(2):
        for t in range(4):
            chosen = present(queries[world, t])
            expected = torch.nn.functional.binary_cross_entropy_with_logits(
                logits[world, t][chosen], truth[world, t][chosen], reduction="sum"
            )
            torch.testing.assert_close(losses[world, t], expected / chosen.sum())


def test_fewer_agents_share_what_they_see(model):
    model.views = 1
    *_, queries, seen = model.asked(battles(), torch_generator(0))
    assert seen.crops.shape[2] == 1
    assert present(queries).sum(dim=2).tolist() == [[2] * 4, [4] * 4]


@pytest.mark.parametrize("cut", [0.0, 0.5])
def test_simulations_look_at_what_they_predict(model, cut):
    model.cut = cut
    *_, last = unroll(model, battles(), None, torch_generator(0), seen=3)
    frame = model.decode(last).frame
    assert frame.shape == (2, *SHAPE)
    assert frame.isfinite().all()
