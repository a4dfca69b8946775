"""Planning: solvers that search for sequences of actions, and who plans with them: games, balls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from rmr_gym.core.errors import Checked, RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import bits_to_ram
from rmr_gym.domains.balls import HISTORY, PUSHES, RADIUS, Actions, Past, Rollout, seen_places
from rmr_gym.envs.atari.games import find_game
from rmr_gym.envs.balls.env import BallsWorld
from rmr_gym.stages.planning import Foreseen, Head, Model, Ram
from rmr_gym.wrappers.features import RMRBeliefWrapper

Score = Callable[[Shaped[Tensor, "candidates horizon *width"]], Float[Tensor, " candidates"]]
"""What is expected of each candidate; more is better."""

MOST = 2**20
"""Actions of all candidates together that a solver takes on."""
EXPLORED = 0.1
"""Share of a categorical search's candidates that are drawn regardless of what it learned."""

TASKS = {"reach": 20, "strike": 20, "bring": 40}
"""Steps for tasks with pushed balls: the agent's to a place, or to the target; that to a place."""
FARTHEST, LATE, LEAD, SIZE = 0.7, 0.02, 0.2, 32
"""Largest coordinate of a place, what a step on the way costs, what the agent's distance counts
where the target is brought, and height and width of frames."""


@dataclass(frozen=True)
class Solver(Checked):
    r"""Searches for the plan of the highest score: draws candidates, learns from the best, again.

    In the cross-entropy method (CEM) all elites weigh alike; in model predictive path integral
    control (MPPI) a candidate of score s weighs :math:`\exp(s / \tau)`.

    Source: Rubinstein 1999 (CEM); Williams et al. 2017 (MPPI).
    Differs: MPPI learns the deviation too, and weighs sequences of discrete actions as well.

    Attributes:
        horizon: Steps of a plan.
        candidates: Plans that are scored at once.
        elites: The best of them, which CEM learns from.
        iterations: Times that candidates are drawn.
        hold: Steps that each action of a plan is held.
        temperature: :math:`\tau` of MPPI in units of the score, above 0; None: CEM.

    Raises:
        RMRError: A number out of range, or too much to hold in memory.
    """

    horizon: int = 8
    candidates: int = 64
    elites: int = 8
    iterations: int = 1
    hold: int = 1
    temperature: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = self.elites <= self.candidates and self.horizon * self.candidates <= MOST
        if not fits or not 0 < (self.temperature or 1.0) < inf or self.temperature == 0:
            limits = f"at most {MOST:,} actions, elites among the candidates, a temperature above 0"
            raise RMRError(f"a solver needs {limits}, got {self}")

    @torch.no_grad()
    def solve(self, score: Score, width: int, generator: torch.Generator) -> Tensor:
        """Return a plan: ``horizon`` actions, with continuous ones [horizon, width].

        Args:
            score: What is expected of each plan.
            width: Number of actions; of a continuous action, how many numbers in [-1, 1] it has.
            generator: Source of every draw.

        Raises:
            RMRError: No action, or scores that are no finite number a candidate.
        """
        if width < 1:
            raise RMRError(f"a solver needs a model of 1 or more actions, got {width}")
        spread = self.start(-(-self.horizon // self.hold), width)
        for _ in range(self.iterations):
            plans = self.draw(spread, generator)
            scores = score(self._held(plans, 1))
            if scores.shape != plans.shape[:1] or not scores.isfinite().all():
                raise RMRError(f"expected a finite score of {len(plans)} plans each, got {scores}")
            spread = self.learn(plans, self.weights(scores), width)
        return self._held(self.answer(spread), 0)

    def _held(self, plans: Tensor, dim: int) -> Tensor:
        return plans.repeat_interleave(self.hold, dim).narrow(dim, 0, self.horizon)

    def weights(self, scores: Float[Tensor, " candidates"]) -> Float[Tensor, " candidates"]:
        """Return how much is learned from each candidate; the sum is 1."""
        if self.temperature is not None:
            return torch.softmax(scores / self.temperature, 0)
        return torch.zeros_like(scores).index_fill(
            0, scores.topk(self.elites).indices, 1 / self.elites
        )

    def start(self, steps: int, width: int) -> Any:
        """Return what candidates are first drawn from: mean and deviation [steps width]."""
        return torch.zeros(steps, width), torch.ones(steps, width)

    def draw(self, spread: Any, generator: torch.Generator) -> Tensor:
        """Draw candidates, here of continuous actions [candidates steps width]."""
        noise = torch.randn(self.candidates, *spread[0].shape, generator=generator)
        return (spread[0] + spread[1] * noise).clamp(-1, 1)

    def learn(self, plans: Tensor, weights: Tensor, width: int) -> Any:
        """Return what the next candidates are drawn from: weighted mean and deviation."""
        mean = torch.tensordot(weights, plans, 1)
        return mean, torch.tensordot(weights, (plans - mean).square(), 1).sqrt()

    def answer(self, spread: Any) -> Tensor:
        """Return the plan that is carried out: the mean."""
        return spread[0]


class Discrete(Solver):
    """A solver over sequences of discrete actions, each instant by itself.

    A tenth of the candidates' actions is always drawn evenly. The plan is what weighs most at each
    instant: a single candidate that does well by an error of the model is outvoted.
    """

    def start(self, steps: int, width: int) -> Tensor:
        """Return equal probabilities [steps actions]."""
        return torch.full((steps, width), 1 / width)

    def draw(self, spread: Tensor, generator: torch.Generator) -> Tensor:
        """Draw actions [candidates steps]."""
        mixed = torch.lerp(spread, torch.full_like(spread, 1 / spread.shape[1]), EXPLORED)
        return mixed.multinomial(self.candidates, replacement=True, generator=generator).T

    def learn(self, plans: Tensor, weights: Tensor, width: int) -> Tensor:
        """Return how much each action weighs."""
        return torch.tensordot(weights, F.one_hot(plans, width).float(), 1)

    def answer(self, spread: Tensor) -> Tensor:
        """Return what weighs most at each instant [steps]."""
        return spread.argmax(1)


class Emulated:
    """The emulator itself in the place of a model; afterwards it is as it was.

    Args:
        ale: The emulator.
        frameskip: Frames a step.
    """

    def __init__(self, ale: Any, frameskip: int = 4):
        self._ale, self._frames = ale, frameskip

    def __call__(self, start: Ram, plans: Int[Tensor, "rows horizon"]) -> Tensor:
        """Return all RAM at the start and after each step of each plan."""
        origin, futures = self._ale.cloneState(), []
        for plan in plans.tolist():
            self._ale.restoreState(origin)
            futures.append(torch.stack([start[0], *map(self._after, plan)]))
        self._ale.restoreState(origin)
        return torch.stack(futures, 1)

    def _after(self, action: int) -> Tensor:
        for _ in range(self._frames):
            self._ale.act(action)
        return torch.from_numpy(np.append(self._ale.getRAM(), np.uint8(action)))


@dataclass
class Planner:
    """Plans anew at each step of a game and takes the first action of the plan.

    Args:
        model: What plans are imagined with.
        head: Says what imagined steps are worth.
        solver: Searches.
        actions: ALE's numbers of the actions that plans are made of.
        drawn: Source of every draw.
        start: What a plan starts from: entry "features" (a belief) or "ram" of what is shown.

    Attributes:
        plan: That was made last, ALE's numbers; its first action was taken.
        now: RAM, and the action before, that it starts from.
    """

    model: Model
    head: Head
    solver: Solver
    actions: Tensor
    drawn: torch.Generator
    start: str = "features"
    plan: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long))

    def __call__(self, shown: Mapping[str, Any]) -> int:
        """Return the action that is taken."""
        belief = bits_to_ram((shown["features"] > 0.5).astype(np.uint8))
        ram = belief if self.start == "features" else shown["ram"]
        self.now = torch.cat([torch.from_numpy(ram), self.plan[:1].byte()])[None]
        chosen = self.solver.solve(self._score, len(self.actions), self.drawn)
        self.plan = self.actions[chosen]
        return int(self.plan[0])

    def _score(self, chosen: Tensor) -> Tensor:
        """Return discounted rewards on the way, and the value of what is reached."""
        states = self.model(self.now.expand(len(chosen), -1), self.actions[chosen])
        worth = torch.stack([self.head(*step) for step in pairwise(states)])
        factors = self.head.discount ** torch.arange(len(worth) + 1.0)
        return factors[:-1] @ worth[..., 0] + factors[-1] * worth[-1, :, 1]


class Pushing(gym.Wrapper[Any, Any, Any, Any]):
    """Pushed balls with a task: it shows three past positions as pixels do; reward 1 if it is done.

    An episode begins with two steps without a push.

    Args:
        task: A name in `TASKS`.

    Attributes:
        place: Where a ball shall go.
    """

    def __init__(self, task: str):
        super().__init__(gym.make("rmr/PushedBalls-v0", resolution=SIZE))
        self.task = task

    def reset(self, **options: Any) -> Any:
        """Begin an episode; the seed draws the place too."""
        drawn = generator(options["seed"], "place").uniform(-FARTHEST, FARTHEST, 2)
        self.place, self._seen = torch.from_numpy(drawn).float(), ()
        self._look(self.env.reset(**options)[0])
        self.step(0)
        return self.step(0)[0], {}

    def step(self, action: int) -> Any:
        """Push."""
        shown, struck, *_ = self.env.step(action)
        self._look(shown)
        there = missing(self.task, torch.from_numpy(shown["state"]), self.place) == 0
        done = float(struck) > 0.5 if self.task == "strike" else bool(there)
        return {"past": torch.stack(self._seen, 1)}, float(done), done, False, {}

    def _look(self, shown: Any) -> None:
        before, frames = [None, *self._seen][-1], torch.from_numpy(shown["pixels"])[None]
        self._seen = (*self._seen, seen_places(frames, before))[-HISTORY:]


def missing(
    task: str, balls: Float[Tensor, "*shape slots 2"], place: Float[Tensor, " 2"]
) -> Float[Tensor, "*shape"]:
    """Return how far balls are from where a task is done, 0 there."""
    agent, target = balls[..., 0, :], balls[..., 1, :]
    moved, aim = (target if task == "bring" else agent), (target if task == "strike" else place)
    near = RADIUS * (2 if task == "strike" else 1)
    return ((moved - aim).norm(dim=-1) - near).clamp(min=0)


def simulated(env: Any) -> Foreseen:
    """Return the simulator of pushed balls itself in the place of a model; it is left as it is."""

    def imagine(past: Past, actions: Actions) -> Rollout:
        world = BallsWorld(env.unwrapped.config, len(past))
        world.begin_as(env.unwrapped.world)
        places = [world.mover(column)().positions[:, -1] for column in actions.T.numpy()]
        return torch.from_numpy(np.stack(places, 1)).float()

    return imagine


@dataclass
class Pusher:
    """Plans pushes anew at each step and takes the first one.

    Plans are continuous; each push is carried out as the nearest that there is.

    Args:
        model: What plans are imagined with.
        env: Has the task and the place.
        solver: Searches.
        drawn: Source of every draw.

    Attributes:
        plan: Actions of the plan that was made last.
    """

    model: Foreseen
    env: Pushing
    solver: Solver
    drawn: torch.Generator
    plan: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long))

    def __call__(self, shown: Mapping[str, Any]) -> int:
        """Return the action that is taken."""
        score = partial(self._score, shown["past"])
        self.plan = nearest_push(self.solver.solve(score, 2, self.drawn))
        return int(self.plan[0])

    def _score(self, past: Past, plans: Float[Tensor, "candidates horizon 2"]) -> Tensor:
        """Return how near each plan comes, and how early."""
        balls = self.model(past.expand(len(plans), -1, -1, -1), nearest_push(plans))
        left = missing(self.env.task, balls, self.env.place) + LATE * torch.arange(plans.shape[1])
        lead = (balls[..., 0, :] - balls[..., 1, :]).norm(dim=-1).amin(1)
        return -left.amin(1) - LEAD * (self.env.task == "bring") * lead


def nearest_push(wanted: Float[Tensor, "*shape 2"]) -> Int[Tensor, "*shape"]:
    """Return the action whose push is nearest to a wanted one."""
    return (wanted @ PUSHES.T - PUSHES.square().sum(1) / 2).argmax(-1)


class Varied(gym.Wrapper[Any, Any, Any, Any]):
    """Begins an episode with 1 to 30 random actions, by the seed of the reset.

    Frames without input in place of whole steps would shift the phase of the frame skip, which
    neither a belief nor P has learned.
    """

    def reset(self, **options: Any) -> Any:
        """Begin an episode, and do anything at first."""
        drawn, env = generator(options["seed"], "first actions"), cast(Any, self.env)
        shown = env.reset(**options)
        for action in drawn.integers(env.action_space.n, size=drawn.integers(1, 31)):
            shown = env.step(action)
        return shown[0], shown[-1]


def planning_game(game: str) -> Any:
    """Return a game that shows the shipped belief of its RAM, and RAM for references; see `Varied`.

    Raises:
        RMRError: No belief of the game is shipped.
    """
    return Varied(RMRBeliefWrapper(gym.make(find_game(game).env_id), keep=("ram",)))
