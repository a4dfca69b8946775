"""Planning: solvers that search for sequences of actions, of games and of continuous worlds."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float, Shaped
from torch import Tensor

from rmr_gym.core.errors import RMRError, check_counts

Plans = Shaped[Tensor, "candidates horizon *width"]
Score = Callable[[Plans], Float[Tensor, " candidates"]]
"""What is expected of each candidate; more is better."""

MOST = 2**20
"""Actions of all candidates together that a solver takes on."""
EXPLORED = 0.1
"""Share of the candidates that a categorical search draws regardless of what it has learned."""


@dataclass(frozen=True)
class Solver:
    """Searches for the plan of the highest score: draws candidates, keeps what does well, again.

    Attributes:
        horizon: Steps of a plan.
        candidates: Plans that are scored at once.
        elites: The best of them, of which the next ones are made.
        iterations: Times that candidates are drawn.
        hold: Steps that each action of a plan is held.

    Raises:
        RMRError: A number below 1, more elites than candidates, or too much to hold in memory.
    """

    horizon: int = 8
    candidates: int = 64
    elites: int = 8
    iterations: int = 1
    hold: int = 1

    def __post_init__(self) -> None:
        check_counts(self)
        if self.elites > self.candidates or self.horizon * self.candidates > MOST:
            raise RMRError(
                "a solver needs at most as many elites as candidates and at most "
                f"{MOST:,} actions in all candidates together, got {self}"
            )

    @torch.no_grad()
    def solve(self, score: Score, width: int, generator: torch.Generator) -> Tensor:
        """Return the best plan that was met [horizon *width].

        Args:
            score: What is expected of each plan.
            width: Number of actions; of a continuous action, how many numbers in [-1, 1] it has.
            generator: Source of every draw.

        Raises:
            RMRError: No action, or scores that are no finite number a candidate.
        """
        if width < 1:
            raise RMRError(f"a solver needs a model of 1 or more actions, got {width}")
        spread, best, most = self.start(width), None, -inf
        for _ in range(self.iterations):
            drawn = self.draw(spread, generator)
            plans = drawn.repeat_interleave(self.hold, 1)[:, : self.horizon]
            scores = score(plans)
            if scores.shape != plans.shape[:1] or not scores.isfinite().all():
                raise RMRError(
                    f"expected a finite score of each of {len(plans)} plans, got {scores}"
                )
            if float(scores.max()) > most:
                most, best = float(scores.max()), plans[scores.argmax()]
            spread = self.learn(drawn, scores, spread)
        return self.answer(spread, best)

    @property
    def decisions(self) -> int:
        """Actions that a plan holds before any is held."""
        return -(-self.horizon // self.hold)

    def start(self, width: int) -> Any:
        """Return what candidates are first drawn from."""
        raise AssertionError("every solver says it")

    def draw(self, spread: Any, generator: torch.Generator) -> Tensor:
        """Draw candidates [candidates decisions *width]."""
        raise AssertionError("every solver says it")

    def learn(self, drawn: Tensor, scores: Tensor, spread: Any) -> Any:
        """Return what the next candidates are drawn from."""
        raise AssertionError("every solver says it")

    def answer(self, spread: Any, best: Any) -> Tensor:
        """Return the plan that is carried out: the best that was met."""
        del spread
        return best


@dataclass(frozen=True)
class CategoricalCEM(Solver):
    """The cross-entropy method over sequences of discrete actions, each instant by itself.

    Source: Rubinstein 1999. Differs: a tenth of the candidates' actions is always drawn evenly.
    """

    def start(self, width: int) -> Tensor:
        """Return equal probabilities [decisions actions]."""
        return torch.full((self.decisions, width), 1 / width)

    def draw(self, spread: Tensor, generator: torch.Generator) -> Tensor:
        """Draw actions [candidates decisions]."""
        return spread.multinomial(self.candidates, replacement=True, generator=generator).T

    def learn(self, drawn: Tensor, scores: Tensor, spread: Tensor) -> Tensor:
        """Return how often each action is among the elites."""
        elites = drawn[scores.topk(self.elites).indices]
        chosen = F.one_hot(elites, spread.shape[1])
        often = reduce(chosen.float(), "elites decisions actions -> decisions actions", "mean")
        return (1 - EXPLORED) * often + EXPLORED / spread.shape[1]


@dataclass(frozen=True)
class GaussianCEM(Solver):
    """The cross-entropy method over continuous actions in [-1, 1]; each number by itself.

    Source: Rubinstein 1999; as in planners of learned models (Chua et al. 2018). Differs: none.
    """

    def start(self, width: int) -> tuple[Tensor, Tensor]:
        """Return mean and deviation [decisions width]."""
        return torch.zeros(self.decisions, width), torch.ones(self.decisions, width)

    def draw(self, spread: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        """Draw actions [candidates decisions width]."""
        mean, deviation = spread
        noise = torch.randn(self.candidates, *mean.shape, generator=generator)
        return (mean + deviation * noise).clamp(-1, 1)

    def learn(self, drawn: Tensor, scores: Tensor, spread: Any) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the elites."""
        elites = drawn[scores.topk(self.elites).indices]
        return elites.mean(0), elites.std(0, correction=0)


@dataclass(frozen=True)
class MPPI(GaussianCEM):
    r"""Model predictive path integral control: a mean of all candidates, weighted by their scores.

    .. math:: \mu = \sum_i w_i u_i, \qquad w_i \propto \exp(s_i / \tau)

    Source: Williams et al. 2017. Differs: the deviation stays 1 in all iterations.

    Attributes:
        temperature: :math:`\tau`, above 0, in units of the score.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < inf:
            raise RMRError(f"MPPI needs a temperature above 0, got {self.temperature}")

    def learn(self, drawn: Tensor, scores: Tensor, spread: Any) -> tuple[Tensor, Tensor]:
        """Return the weighted mean, and the deviation as it was."""
        weight = torch.softmax(scores / self.temperature, 0)
        return torch.tensordot(weight, drawn, 1), spread[1]

    def answer(self, spread: tuple[Tensor, Tensor], best: Any) -> Tensor:
        """Return the weighted mean, and not the best plan that was met."""
        del best
        return spread[0].repeat_interleave(self.hold, 0)[: self.horizon]
