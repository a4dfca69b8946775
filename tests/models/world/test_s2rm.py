from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.crops import SpherePositions, ViewGeometry, Views
from rmr_gym.models.world.frames import WorldModel, unroll
from rmr_gym.models.world.rims import RIMSizes
from rmr_gym.models.world.s2rm import S2RM_MODELS, S2RMSizes
from rmr_gym.stages.world_model import S2RM_SIZES

SHAPE, SMALL = (12, 12, 1), S2RM_SIZES["smoke"]


def make(name, sizes=SMALL, shape=SHAPE):
    return build(lambda: S2RM_MODELS[name](shape, sizes, 0), torch_generator(0)).eval()


@pytest.fixture(params=S2RM_MODELS)
def model(request):
    return make(request.param)


def clips(batch=2, time=6):
    """A square that moves one pixel to the right each frame."""
    frames = torch.zeros(batch, time, *SHAPE)
    for row in range(batch):
        for instant in range(time):
            frames[row, instant, 3 * row + 2 : 3 * row + 6, instant : instant + 4] = 1
    return frames


def states(model, frames, **options):
    return list(unroll(model, frames, None, torch_generator(0), **options))


def test_whole_frames_come_out(model):
    last = states(model, clips())[-1]
    assert isinstance(model, WorldModel)
    frame, groups, *_ = model.decode(last)
    assert frame.shape == (2, *SHAPE)
    assert ((frame > 0) & (frame < 1)).all()
    assert groups is None
    patch = model.logits(last.core, torch.tensor([[[2, 2]], [[2, 2]]]))[:, 0].sigmoid()
    assert patch.shape == (2, 5, 5, 1)
    torch.testing.assert_close(frame[:, :3, :3], patch[:, :3, :3])


@pytest.mark.parametrize("name", ["s2gru", "crops_lstm"])
def test_places_are_in_the_unit_of_the_sizes(name):
    model = make(name, replace(SMALL, unit=3.0))
    places = model.spatial.places if name == "s2gru" else model.places
    torch.testing.assert_close(
        places(torch.tensor([6, 3])), SpherePositions(SMALL.place)(torch.tensor([2, 1]))
    )
    with pytest.raises(RMRError, match="a unit of places above 0 pixels"):
        replace(SMALL, unit=0.0)


@pytest.mark.parametrize("cut", [0.0, 0.49])
def test_a_model_that_sees_nothing_takes_in_its_own_answers(model, cut):
    assert model.cut == 0.5
    frames, model.cut = clips(), cut
    unseen = states(model, frames, seen=3)
    seen = states(model, frames[:, :3])
    torch.testing.assert_close(seen[-1].queries, unseen[2].queries)
    before, after = unseen[3], unseen[4]
    own = model.logits(before.core, before.queries).sigmoid()
    crops = (own > cut).float() if cut else own
    fed = replace(after, core=model.advance(before.core, Views(crops, before.queries)))
    torch.testing.assert_close(model.decode(after).frame, model.decode(fed).frame)


def test_the_loss_is_that_of_crops_where_it_looks_next(model):
    frames = clips()
    logits, truth, queries, _ = model.asked(frames, torch_generator(0))
    for t, state in enumerate(states(model, frames[:, :-1])):
        assert torch.equal(queries[:, t], state.queries)
        assert torch.equal(truth[:, t], model.geometry.look(frames[:, t + 1], state.queries))
        if not model.ahead:
            answers = model.logits(state.core, state.queries)
            torch.testing.assert_close(logits[:, t], answers, rtol=1e-5, atol=1e-6)
    losses = F.binary_cross_entropy(logits.sigmoid(), truth, reduction="none")
    expected = losses.sum(dim=(3, 4, 5)).mean(dim=2)
    torch.testing.assert_close(model.losses(frames, None, torch_generator(0)), expected)


def test_only_the_oracle_knows_what_comes():
    frames = clips()
    other = torch.cat([frames[:, :-1], 1 - frames[:, -1:]], dim=1)
    for name in S2RM_MODELS:
        model = make(name)
        one, changed = (model.asked(each, torch_generator(0)).logits for each in (frames, other))
        assert torch.equal(one, changed) == (name != "crops_oracle")


def test_the_order_of_views_does_not_matter(model):
    state = states(model, clips())[-1]
    crops, centres = model.geometry.look(clips()[:, 5], state.queries), state.queries
    answers = [
        model.logits(model.advance(state.core, Views(crops[:, each], centres[:, each])), centres)
        for each in (slice(None), [2, 0, 3, 1])
    ]
    torch.testing.assert_close(*answers)


def test_fewer_views_also_none(model):
    frames = {}
    for views in (4, 2, 0):
        model.views = views
        last = states(model, clips())[-1]
        frames[views] = model.decode(last).frame
        assert last.queries.shape == (2, 4, 2)
    assert not torch.equal(frames[4], frames[2])
    torch.testing.assert_close(frames[0][0], frames[0][1])


@pytest.mark.parametrize("name", [name for name in S2RM_MODELS if make(name).parts])
def test_parts_can_be_dropped(name):
    model = make(name)
    whole = model.decode(states(model, clips())[-1]).frame
    model.drop([1])
    assert not torch.equal(model.decode(states(model, clips())[-1]).frame, whole)
    model.drop()
    torch.testing.assert_close(model.decode(states(model, clips())[-1]).frame, whole)
    for wrong in ([3], [-1], [0, 1, 2]):
        with pytest.raises(RMRError, match="to drop"):
            model.drop(wrong)


def test_dropped_modules_are_as_if_they_had_never_been():
    model = make("s2gru")
    model.drop([1])
    before = states(model, clips())[-1]
    with torch.no_grad():
        for part in (model.spatial.embedding, model.spatial.gru.hidden_bias):
            part[1] = torch.randn_like(part[1])
    after = states(model, clips())[-1]
    torch.testing.assert_close(model.decode(before).frame, model.decode(after).frame)


@pytest.mark.parametrize("name", ["s2gru", "crops_lstm"])
@pytest.mark.parametrize("size", [5, 7, 11])
def test_crops_are_coded_by_layers_or_by_convolutions(name, size):
    for coder, kind in (("mlp", torch.nn.Linear), ("conv", torch.nn.Conv2d)):
        model = make(name, replace(SMALL, coder=coder, size=size))
        assert any(isinstance(part, kind) for part in model.encoder.features.modules()) == (
            coder == "conv"
        )
        logits, truth, *_ = model.asked(clips(), torch_generator(0))
        assert logits.shape == truth.shape == (2, 5, 4, size, size, 1)
    with pytest.raises(RMRError, match="coder of crops 'convolution'"):
        replace(SMALL, coder="convolution")


def test_models_that_cannot_be():
    with pytest.raises(RMRError, match="1 or more in S2RMSizes, got views=0"):
        replace(SMALL, views=0)
    with pytest.raises(RMRError, match="1 crop or more"):
        ViewGeometry(12, 12, 1, 0, 5)
    with pytest.raises(RMRError, match="smaller crops"):
        make("crops_lstm", shape=(4, 4, 1))
    with pytest.raises(RMRError, match="1 or more in S2RMSizes, got modules=0"):
        replace(SMALL, modules=0)
    with pytest.raises(RMRError, match="1 or more in MemorySizes, got slots=0"):
        replace(SMALL.memory, slots=0)
    with pytest.raises(RMRError, match="active RIMs"):
        replace(SMALL, rims=RIMSizes(rims=3, active=4))
    with pytest.raises(RMRError, match="without actions"):
        S2RM_MODELS["s2gru"](SHAPE, SMALL, 6)


def count(part):
    return sum(parameter.numel() for parameter in part.parameters())


def test_parameters_at_the_size_of_the_paper():
    sizes = S2RMSizes()
    model = make("s2gru", sizes, (48, 48, 1))
    spatial = model.spatial
    assert count(spatial.gru) == 10 * (2 * 128 * 384 + 2 * 384)
    assert spatial.embedding.shape == (10, 16)
    thetas = {"query": (2 * 16, 128), "key": (2 * 16, 128), "value": (2 * 128, 128)}
    phis = {"query": (4 * 16, 128), "key": (4 * 16, 128), "value": (4 * 128, 128)}
    for part, shapes in ((spatial.input_attention, thetas), (spatial.cell_attention, phis)):
        for name, shape in shapes.items():
            assert getattr(part, name).weight.shape == shape
    twice = make("s2gru", replace(sizes, modules=20), (48, 48, 1))
    each = 2 * 128 * 384 + 2 * 384 + 16
    assert count(twice) - count(model) == 10 * each
    assert make("crops_lstm", sizes, (48, 48, 1)).lstm.hidden_size == 512
    assert make("crops_rmc", sizes, (48, 48, 1)).core.start(1).shape == (1, 1, 512)
    assert make("crops_rims", sizes, (48, 48, 1)).cell.sizes.active == 5


def test_memory_is_linear_in_modules():
    def kept(modules):
        sizes = replace(SMALL, modules=modules, units=64)
        model, total = make("s2gru", sizes).train(), [0]

        def pack(tensor):
            total[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            states(model, clips(time=3))
        return total[0]

    few, some, many = kept(4), kept(12), kept(20)
    assert (many - some) / (some - few) < 1.15


@pytest.mark.parametrize("name", [name for name in S2RM_MODELS if name.startswith("s2gru")])
def test_states_stay_small_over_long_sequences(name):
    model = make(name, replace(SMALL, modules=8))
    with torch.no_grad():
        sizes = [state.core.abs().max() for state in states(model, torch.ones(1, 60, *SHAPE))]
    assert max(sizes) < 3
