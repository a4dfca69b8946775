"""Solvers find what is known to be best, repeat themselves by their seed, and refuse nonsense."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rmr_gym.agents.planning import MPPI, CategoricalCEM, GaussianCEM, Solver
from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import torch_generator

WANTED = torch.tensor([2, 0, 1, 2, 1])
AIM = torch.tensor([[0.5, -0.25], [-0.75, 0.0], [0.1, 0.9]])


def hits(plans: Tensor) -> Tensor:
    return (plans == WANTED).float().sum(1)


def nearness(plans: Tensor) -> Tensor:
    return -(plans - AIM).square().sum((1, 2))


def test_categorical_search_finds_the_best_of_243_plans() -> None:
    solver = CategoricalCEM(horizon=5, candidates=40, elites=5, iterations=6)
    assert solver.solve(hits, 3, torch_generator(0)).tolist() == WANTED.tolist()


@pytest.mark.parametrize("solver", [GaussianCEM(3, 200, 20, 10), MPPI(3, 400, 20, 10)])
def test_continuous_search_comes_near(solver: Solver) -> None:
    found = solver.solve(nearness, 2, torch_generator(0))
    assert (found - AIM).abs().max() < 0.15


def test_mppi_weighs_candidates_as_the_formula_says() -> None:
    solver = MPPI(horizon=1, candidates=2, elites=1, temperature=0.5)
    drawn, scores = torch.tensor([[[1.0]], [[-1.0]]]), torch.tensor([0.5, 0.0])
    mean, _ = solver.learn(drawn, scores, solver.start(1))
    weight = torch.tensor(1.0).exp() / (1 + torch.tensor(1.0).exp())
    torch.testing.assert_close(mean, (2 * weight - 1).view(1, 1))


@pytest.mark.parametrize("kind", [CategoricalCEM, GaussianCEM, MPPI])
def test_equal_seeds_give_equal_plans(kind: type[Solver]) -> None:
    def scored(plans: Tensor) -> Tensor:
        return plans.flatten(1).float().sum(1)

    first, second, third = (
        kind(4, 16, 4).solve(scored, 5, torch_generator(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CategoricalCEM(horizon=0), "horizon"),
        (lambda: CategoricalCEM(candidates=4, elites=5), "at most as many elites"),
        (lambda: GaussianCEM(horizon=2**12, candidates=2**12), "actions in all candidates"),
        (lambda: MPPI(temperature=0.0), "temperature above 0"),
        (lambda: CategoricalCEM().solve(hits, 0, torch_generator(0)), "1 or more actions"),
        (
            lambda: CategoricalCEM().solve(
                lambda plans: torch.full((len(plans),), float("nan")), 2, torch_generator(0)
            ),
            "finite score",
        ),
    ],
)
def test_bad_input_gets_a_sentence(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(RMRError, match=sentence):
        make()
