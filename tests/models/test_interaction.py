import torch

from rmr_gym.models.rmr.initialisation import build, torch_generator
from rmr_gym.models.rmr.interaction import InteractionNetwork

SLOTS, DIM = 5, 16


def network(**options):
    return build(lambda: InteractionNetwork(DIM, **options), torch_generator(0))


def latents():
    return torch.randn(3, SLOTS, DIM, generator=torch.Generator().manual_seed(1))


def test_it_is_the_sum_of_effects_of_all_others():
    core, z = network(), latents()
    expected = torch.empty_like(z)
    for item in range(3):
        for i in range(SLOTS):
            own = core.project(z[item, i])
            others = [core.project(z[item, j]) for j in range(SLOTS) if j != i]
            heard = sum(core.relation(torch.cat([own, other])) for other in others)
            expected[item, i] = core.expand(core.object(torch.cat([own, heard])))
    torch.testing.assert_close(core(z), expected)


def test_it_is_permutation_equivariant():
    core, z, order = network(), latents(), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(core(z[:, order]), core(z)[:, order])


def test_only_the_numbers_of_the_bottleneck_pass():
    core, z = network(state=2, outcome=1), latents()
    unseen = torch.linalg.svd(core.project.weight).Vh[2:].T
    hidden = unseen @ torch.randn(DIM - 2, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(core(z + hidden), core(z), atol=1e-5, rtol=1e-5)
    out = (core(z) - core.expand.bias).flatten(0, 1)
    assert torch.linalg.matrix_rank(out.detach(), rtol=1e-4) == 1
