import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import (
    CORES,
    InteractionNetwork,
    freeze,
    load_weights,
    make_processor,
    parameter_hash,
    shuffle_weights,
)

SLOTS, DIM, ACTIONS = 6, 4, 5


def processor(core="mpnn", **options):
    return build(
        lambda: make_processor(core, slots=SLOTS, actions=ACTIONS, dim=DIM, **options),
        torch_generator(0),
    )


def latents(batch=3):
    return torch.randn(batch, SLOTS, DIM, generator=torch.Generator().manual_seed(1))


ACTION = torch.tensor([0, 4, 2])


@pytest.mark.parametrize("core", CORES)
def test_every_core_keeps_the_shape_and_passes_gradients(core):
    z = latents().requires_grad_()
    out = processor(core)(z, ACTION)
    assert out.shape == z.shape
    out.square().sum().backward()
    assert torch.isfinite(z.grad).all()
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("core", ["mpnn", "deep_sets", "none"])
@pytest.mark.parametrize("aggregation", ["max", "sum", "mean"])
def test_graph_cores_are_permutation_equivariant(core, aggregation):
    p, z = processor(core, aggregation=aggregation), latents()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(p(z[:, order], ACTION), p(z, ACTION)[:, order])


def test_skip_and_action_follow_equations_2_and_3():
    p, z = processor("mpnn"), latents()
    alpha = torch.eye(ACTIONS)[ACTION] @ p.action_encoder.weight.T + p.action_encoder.bias
    shifted = z + alpha[:, None]
    torch.testing.assert_close(p(z, ACTION), p.core(shifted) + shifted)


@pytest.mark.parametrize("aggregation", ["max", "sum", "mean"])
def test_message_passing_equals_the_loop_over_pairs(aggregation):
    core, z = processor("mpnn", aggregation=aggregation).core, latents(batch=2)
    reduce = {
        "max": lambda m: m.max(0).values,
        "sum": lambda m: m.sum(0),
        "mean": lambda m: m.mean(0),
    }[aggregation]
    expected = torch.empty_like(z)
    for item in range(2):
        for i in range(SLOTS):
            messages = []
            for j in range(SLOTS):
                hidden = torch.relu(core.receiver(z[item, i]) + core.sender(z[item, j]))
                messages.append(core.message(torch.relu(core.hidden(hidden))))
            heard = reduce(torch.stack(messages))
            expected[item, i] = core.update(torch.cat([z[item, i], heard]))
    torch.testing.assert_close(core(z), expected)


def test_deep_sets_hears_itself_alone():
    core, z = processor("deep_sets").core, latents()
    moved = z.clone()
    moved[:, 1] += 1
    changed = (core(z) != core(moved)).any(-1)[0]
    assert changed.tolist() == [False, True, False, False, False, False]


def test_no_core_leaves_the_latents_and_the_action():
    p, z = processor("none"), latents()
    alpha = p.action_encoder.weight.T[ACTION] + p.action_encoder.bias
    torch.testing.assert_close(p(z, ACTION), z + alpha[:, None])


def test_freezing_stops_gradients_and_keeps_the_hash():
    p = processor()
    before = parameter_hash(p)
    freeze(p)
    assert not any(parameter.requires_grad for parameter in p.parameters())
    assert parameter_hash(p) == before


def test_hash_sees_one_changed_weight():
    p = processor()
    before = parameter_hash(p)
    with torch.no_grad():
        p.core.update.bias[0] += 1e-6
    assert parameter_hash(p) != before


def test_shuffling_keeps_every_value_and_moves_most():
    p, shuffled = processor(), processor()
    shuffle_weights(shuffled, np.random.default_rng(0))
    for name, weight in p.named_parameters():
        other = shuffled.get_parameter(name)
        assert torch.equal(weight.flatten().sort().values, other.flatten().sort().values)
    assert not torch.equal(p.core.hidden.weight, shuffled.core.hidden.weight)


def test_misfitting_weights_are_refused_clearly():
    with pytest.raises(RMRError, match="do not fit"):
        load_weights(processor("mpnn"), processor("none").state_dict(), "the donor")


@pytest.mark.parametrize(
    ("core", "options", "message"),
    [("mpn", {}, "did you mean 'mpnn'"), ("mpnn", {"aggregation": "maxx"}, "did you mean 'max'")],
)
def test_unknown_names_show_the_nearest(core, options, message):
    with pytest.raises(RMRError, match=message):
        make_processor(core, **options)


def network(**options):
    return build(lambda: InteractionNetwork(16, **options), torch_generator(0))


def slots_of_five():
    return torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))


def test_the_interaction_network_is_the_sum_of_effects_of_all_others():
    core, z = network(), slots_of_five()
    expected = torch.empty_like(z)
    for item in range(3):
        for i in range(5):
            own = core.project(z[item, i])
            others = [core.project(z[item, j]) for j in range(5) if j != i]
            heard = sum(core.relation(torch.cat([own, other])) for other in others)
            expected[item, i] = core.expand(core.object(torch.cat([own, heard])))
    torch.testing.assert_close(core(z), expected)


def test_the_interaction_network_is_permutation_equivariant():
    core, z, order = network(), slots_of_five(), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(core(z[:, order]), core(z)[:, order])


def test_only_the_numbers_of_the_bottleneck_pass():
    core, z = network(state=2, outcome=1), slots_of_five()
    unseen = torch.linalg.svd(core.project.weight).Vh[2:].T
    hidden = unseen @ torch.randn(14, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(core(z + hidden), core(z), atol=1e-5, rtol=1e-5)
    out = (core(z) - core.expand.bias).flatten(0, 1)
    assert torch.linalg.matrix_rank(out.detach(), rtol=1e-4) == 1
