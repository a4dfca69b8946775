"""Solvers find what is known to be best, repeat themselves by their seed, and refuse nonsense."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rmr_gym.agents.planning import Discrete, Pushing, Solver, missing, nearest_push, simulated
from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import torch_generator

WANTED = torch.tensor([2, 0, 1, 2, 1])
AIM = torch.tensor([[0.5, -0.25], [-0.75, 0.0], [0.1, 0.9]])


def hits(plans: Tensor) -> Tensor:
    return (plans == WANTED).float().sum(1)


def nearness(plans: Tensor) -> Tensor:
    return -(plans - AIM).square().sum((1, 2))


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_discrete_search_finds_the_best_of_243_plans(temperature: float | None) -> None:
    solver = Discrete(5, 40, 5, iterations=8, temperature=temperature)
    assert solver.solve(hits, 3, torch_generator(0)).tolist() == WANTED.tolist()


@pytest.mark.parametrize("temperature", [None, 0.2])
def test_continuous_search_comes_near(temperature: float | None) -> None:
    solver = Solver(3, 1000, 20, iterations=10, temperature=temperature)
    found = solver.solve(nearness, 2, torch_generator(0))
    assert (found - AIM).abs().max() < 0.15


def test_weights_are_those_of_the_formulas() -> None:
    scores = torch.tensor([0.5, 0.0, 1.0])
    assert Solver(candidates=3, elites=2).weights(scores).tolist() == [0.5, 0.0, 0.5]
    expected = (scores / 0.5).exp() / (scores / 0.5).exp().sum()
    torch.testing.assert_close(Solver(temperature=0.5).weights(scores), expected)


def test_held_actions_repeat_and_are_cut_at_the_horizon() -> None:
    plan = Discrete(5, 8, 2, hold=2).solve(
        lambda plans: plans.sum(1).float(), 9, torch_generator(1)
    )
    assert plan.shape == (5,)
    assert plan[0] == plan[1]
    assert plan[2] == plan[3]


@pytest.mark.parametrize("kind", [Discrete, Solver])
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
        (lambda: Discrete(horizon=0), "horizon"),
        (lambda: Discrete(candidates=4, elites=5), "elites among the candidates"),
        (lambda: Solver(horizon=2**12, candidates=2**12), "actions, elites"),
        (lambda: Solver(temperature=0.0), "temperature above 0"),
        (lambda: Discrete().solve(hits, 0, torch_generator(0)), "1 or more actions"),
        (
            lambda: Discrete().solve(
                lambda plans: torch.full((len(plans),), float("nan")), 2, torch_generator(0)
            ),
            "finite score",
        ),
    ],
)
def test_bad_input_gets_a_sentence(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(RMRError, match=sentence):
        make()


def test_the_nearest_push_is_taken():
    wanted = torch.tensor([[0.4, -0.4], [0.9, 0.8], [0.1, -0.7], [-0.6, 0.0], [0.3, 0.6]])
    assert nearest_push(wanted).tolist() == [0, 1, 4, 3, 2]


def test_what_is_missing_is_nothing_where_a_task_is_done():
    balls, place = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.9, 0.9]]), torch.tensor([0.0, 0.35])
    left = [float(missing(task, balls, place)) for task in ("reach", "strike", "bring")]
    assert left == pytest.approx([0.2, 0.2, 0.6103 - 0.15], abs=1e-4)
    assert float(missing("strike", balls * 0.6, place)) == 0


def test_the_simulator_foresees_and_is_left_as_it_is():
    env = Pushing("strike")
    past = env.reset(seed=2)[0]["past"]
    plans = torch.tensor([[1, 1, 0, 2], [0, 0, 0, 0]])
    futures = simulated(env)(past.expand(2, -1, -1, -1), plans)
    for step, action in enumerate(plans[0].tolist()):
        seen = env.step(action)[0]["past"][0, -1]
        assert (seen[:2] - futures[0, step, :2]).norm(dim=-1).max() < 0.02
    assert not torch.equal(futures[0], futures[1])
