"""Planning: worlds played by what P imagines, from pixels, beside what stands in its place."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch

from rmr_gym.agents import record
from rmr_gym.agents.planning import (
    TASKS,
    Discrete,
    Emulated,
    Planner,
    Pusher,
    Simulated,
    Solver,
    planning_game,
)
from rmr_gym.agents.players.graded import UNIFORM, networks, select_players
from rmr_gym.agents.sb3.agent import load_agent, train_agent
from rmr_gym.agents.sb3.worlds import BALLS, AgentConfig, find_world
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains.atari import AtariModel
from rmr_gym.domains.balls import HISTORY, BallsModel, Past, seen_places
from rmr_gym.experiments.atari import AtariExperiment
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_known
from rmr_gym.experiments.worlds import PLAYABLE, Playing, balls_world, find_data
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import Artifact, Task, stage
from rmr_gym.runs.training import Phase
from rmr_gym.stages import planning
from rmr_gym.stages.balls import BallsPreset, RecordedBalls
from rmr_gym.stages.chain import GameTasks
from rmr_gym.stages.games import PRETRAIN_SEED

KNOWN = "known"
POLICIES = {"random": UNIFORM.name, "player": "high-e00-h00"}
ARMS = (*planning.PUSHED_ARMS, KNOWN, planning.EMULATOR, *POLICIES)
ARMS_OF_GAMES = (*planning.ARMS, KNOWN, planning.EMULATOR, *POLICIES)
PUSHED_MODEL = BallsModel(dim=64, predict="acceleration")
SIZE, FARTHEST = 32, 0.7
"""Height and width of frames of pushed balls in pixels, and largest coordinate of a goal."""


@dataclass(frozen=True)
class Episode:
    """An episode, which hangs on nothing else but P and the head.

    Attributes:
        game: A game of which a belief is shipped.
        arm: A name in `ARMS`.
        model: Sizes of P.
        solver: What searches for plans.
        steps: At most.
        seed: Of the start and of every draw.
        belief: Hash of the belief.
    """

    game: str
    arm: str
    model: AtariModel
    solver: Discrete
    steps: int
    seed: int
    belief: str = ""


@stage(version=1)
def planned(episode: Episode, learned: Artifact, told: Artifact) -> Artifact:
    """Play an episode and add its rewards up; see `chooser`."""
    env, rewards = planning_game(episode.game), [0.0]
    choose, begun = chooser(env, episode, learned, told), time.process_time()
    shown, over = env.reset(seed=episode.seed)[0], False
    while len(rewards) <= episode.steps and not over:
        shown, reward, over, _, _ = env.step(choose(shown))
        rewards.append(reward)
    spent = 1000 * (time.process_time() - begun) / (len(rewards) - 1)
    return Artifact({"rows": [{"return": sum(rewards), "steps": len(rewards) - 1, "ms": spent}]})


def chooser(env: Any, episode: Episode, learned: Artifact, told: Artifact) -> Any:
    """Return what chooses the actions of an episode: a policy, or a `Planner`.

    Args:
        env: The game, see `planning_game`.
        episode: Which arm, for how long.
        learned: What `rmr_gym.stages.planning.dynamics` left.
        told: What `rmr_gym.stages.planning.head` left.

    Raises:
        RMRError: No P with actions was learned, or the head is of another game.
    """
    game, arm, seed = episode.game, episode.arm, episode.seed
    if arm in POLICIES:
        (player,) = select_players([POLICIES[arm]])
        return player.policy(generator(seed, "planning"), networks(game).get(player.skill))
    ale, true = env.unwrapped.ale, arm in (KNOWN, planning.EMULATOR)
    model = planning.imagination("rmr" if true else arm, episode.model, learned, PRETRAIN_SEED)
    actions = torch.tensor([action.value for action in ale.getMinimalActionSet()])
    return Planner(
        Emulated(ale) if arm == planning.EMULATOR else model,
        planning.Head(told.tensors, game),
        episode.solver,
        actions,
        torch_generator(integer_seed(seed, "planning")),
        start="ram" if true else "features",
    )


@dataclass(frozen=True)
class Goals:
    """Attempts at a task with pushed balls, which hang on nothing else but P.

    Attributes:
        task: A name in `rmr_gym.agents.planning.TASKS`.
        arm: A name in `ARMS`.
        solver: What searches for plans.
        steps: At most, if the task does not end sooner.
        seed: Of starts, goals, every draw, and the agent that player stands for.
        episodes: How many.
        transitions: That the agent learns from.
    """

    task: str
    arm: str
    solver: Solver
    steps: int
    seed: int
    episodes: int
    transitions: int = 0


@stage(version=1)
def pushed(goals: Goals, learned: Artifact) -> Artifact:
    """Attempt a task in some episodes; the return is the share of those in which it is done."""
    env, agent = pushing_world(), trained_agent(goals) if goals.arm == "player" else None
    begun, numbers = time.process_time(), range(goals.episodes)
    ends = [[*attempt(env, goals, learned, number, agent)][-1] for number in numbers]
    spent = 1000 * (time.process_time() - begun) / sum(end.step for end in ends)
    done, steps = (fmean(column) for column in list(zip(*ends, strict=True))[:2])
    return Artifact({"rows": [{"return": done, "steps": steps, "ms": spent}]})


def pushing_world() -> Any:
    """Return pushed balls in frames of the size that P from scratch learned from."""
    return gym.make("rmr/PushedBalls-v0", observe=["velocities"], resolution=SIZE)


def trained_agent(goals: Goals) -> Any:
    """Return an agent of Stable-Baselines3 that learned to strike, from states."""
    with TemporaryDirectory() as name:
        folder, config = Path(name), AgentConfig(BALLS, "state", seed=goals.seed)
        train_agent(config, folder, steps=goals.transitions, checkpoints=1)
        return load_agent(folder)


class Instant(NamedTuple):
    """What an attempt has come to.

    Attributes:
        done: Whether the task is done.
        step: Steps so far.
        past: Where balls were seen before the step.
        choose: What chose the step, a `Pusher` in the arms that plan.
    """

    done: bool
    step: int
    past: Past
    choose: Any


def attempt(
    env: Any, goals: Goals, learned: Artifact, number: int, agent: Any = None
) -> Iterator[Instant]:
    """Play an episode and yield every step, after two without a push: plans need three instants.

    Args:
        env: See `pushing_world`.
        goals: Which task, by whom.
        learned: What `rmr_gym.stages.planning.pushed_dynamics` left.
        number: Of the episode.
        agent: Who plays where the arm is player.
    """
    task, seed = TASKS[goals.task], integer_seed(goals.seed, "pushed balls", number)
    place = torch.from_numpy(generator(seed, "goal").uniform(-FARTHEST, FARTHEST, 2)).float()
    choose, shown = pusher(env, goals, learned, seed, place, agent), env.reset(seed=seed)[0]
    places = [_look(goals.arm, shown)]
    for step in range(2 - HISTORY, min(goals.steps, task.steps) + 1):
        past = torch.stack(places[-HISTORY:], 1)
        shown, reward, *_ = env.step(choose(past, shown) if step > 0 else 0)
        places.append(_look(goals.arm, shown, places[-1]))
        there = task.missing(torch.from_numpy(shown["state"]), place) == 0
        done = bool(there) if task.struck is None else reward > 0.5
        if step > 0:
            yield Instant(done, step, past, choose)
        if step > 0 and done:
            return


def _look(arm: str, shown: Any, before: torch.Tensor | None = None) -> torch.Tensor:
    if arm in (KNOWN, planning.EMULATOR):
        return torch.from_numpy(shown["state"])[None]
    return seen_places(torch.from_numpy(shown["pixels"])[None], before)


def pusher(
    env: Any, goals: Goals, learned: Artifact, seed: int, place: torch.Tensor, agent: Any = None
) -> Any:
    """Return what chooses pushes from three past positions: a policy, or a `Pusher`."""
    if goals.arm == "random":
        drawn = generator(seed, "pushes")
        return lambda past, shown: int(drawn.integers(env.action_space.n))
    if agent is not None:
        choose, names = record.chooser(agent), ("state", "velocities")
        return lambda past, shown: int(choose(np.concatenate([shown[n].ravel() for n in names])))
    arm = "rmr" if goals.arm == KNOWN else goals.arm
    foreseen: Any = Simulated(env)
    if arm != planning.EMULATOR:
        foreseen = planning.foreseen(arm, PUSHED_MODEL, learned, PRETRAIN_SEED)
    drawn = torch_generator(integer_seed(seed, "planning"))
    return Pusher(foreseen, TASKS[goals.task], place, goals.solver, drawn)


@dataclass(frozen=True)
class Planning(AtariExperiment):
    """Play games, or push balls, by planning in P, pretrained on states, from what pixels give.

    Attributes:
        games: Names of games, and PushedBalls.
        arms: rmr (P), shuffled_p, random_p, copy (the state stays), known (P, from the true state),
            emulator (the true futures), random, player (a trained one, without planning); of balls
            also scratch_p (learned from places in pixels) and extrapolated.
        horizons: Steps of plans; each with the first number of candidates.
        candidates: Plans that are scored at once; each with the first horizon.
        steps: Steps of an episode.
        hold: Steps that each action of a plan is held.
        discount: Of rewards, a step.
        episodes: Of pushed balls, a task and seed.
    """

    kind = "planning"

    seeds: int | None = 5
    games: tuple[str, ...] = ("Pong", "Breakout")
    arms: tuple[str, ...] = ARMS
    horizons: tuple[int, ...] = (8,)
    candidates: tuple[int, ...] = (32,)
    steps: int = 200
    hold: int = 2
    discount: float = 0.95
    episodes: int = 8

    @property
    def phases(self) -> tuple[Phase, ...]:
        """How P is pretrained: nine times as long as the preset says, in part over two steps."""
        steps = self.pretraining.steps
        two = partial(Phase, batch=64, unroll=2)
        return Phase(6 * steps, 1e-3, 50), two(2 * steps, 1e-3), two(steps, 2e-4)

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("arm", self.arms, ARMS)
        worlds = [find_world(name) for name in self.games]
        names = [name for name in worlds if name != BALLS]
        games = self.recorded(progress_for, names) if names else []
        rows = [row for game in games for row in self._rows(game)]
        named = ("arms", "horizons", "candidates", "steps", "hold", "discount", "episodes")
        facts: dict[str, Any] = {name: getattr(self, name) for name in named}
        if BALLS in worlds:
            data = self.pushed_data(progress_for)
            rows += self._pushed_rows(data)
            known = {game.name: game.data.summary() for game in games}
            facts["datasets"] = known | {BALLS: data.summary()}
        return self.atari_plan(rows, games, **facts)

    def pushed_data(self, progress_for: ProgressFor) -> RecordedBalls:
        """Return random play of pushed balls, which is recorded where it is not there."""
        episodes, steps = self.recording.episodes, min(self.recording.max_steps, 200)
        options = {"resolution": SIZE}
        playing = Playing(PLAYABLE, f"{episodes}x{steps}", episodes, steps, options)
        folder = find_data(Path("rmr/PushedBalls-v0"), playing, self.root, progress_for)
        return balls_world(folder, BallsPreset()).data

    def pushed_dynamics(self, data: RecordedBalls, arm: str) -> Task:
        """Return the task of P of pushed balls, which other arms than scratch_p share."""
        steps, batch = self.pretraining.steps, 2 * self.pretraining.batch
        phases = Phase(steps, 1e-3, batch), Phase(-(-steps // 2), 3e-4, batch, unroll=4)
        arm = arm if arm == planning.SCRATCH else "rmr"
        return planning.pushed_dynamics(data, PUSHED_MODEL, phases, arm, PRETRAIN_SEED)

    def _pushed_rows(self, data: RecordedBalls) -> Iterator[Rows]:
        transitions = len(data.open().dataset)
        for arm in self.arms:
            learned = self.pushed_dynamics(data, arm)
            if arm in ("rmr", planning.SCRATCH):
                yield Rows("dynamics", learned, {"game": BALLS, "arm": arm}, "curve")
            if arm in planning.PUSHED_ARMS:
                told = planning.foresight(data, PUSHED_MODEL, arm, PRETRAIN_SEED, learned)
                yield Rows("foresight", told, {"game": BALLS, "arm": arm})
            tasks = ("strike",) if arm == "player" else TASKS
            for task, seed, (steps, count) in product(tasks, self.seed_list, self._budgets(arm)):
                solver = Solver(steps, count, max(1, count // 8), hold=self.hold)
                goals = Goals(task, arm, solver, self.steps, seed, self.episodes, transitions)
                names = {"game": task, "arm": arm, "seed": seed}
                budget = {"horizon": steps, "candidates": count}
                yield Rows("planning", pushed(goals, learned), names | budget)

    def _budgets(self, arm: str) -> list[tuple[int, int]]:
        budgets = [(steps, self.candidates[0]) for steps in self.horizons]
        budgets += [(self.horizons[0], count) for count in self.candidates[1:]]
        return budgets[:1] if arm in POLICIES else budgets

    def _rows(self, game: GameTasks) -> Iterator[Rows]:
        belief = PretrainedEncoder.of(None, of_ram=True, game=game.name)
        assert belief.processor is not None
        hashed = parameter_hash(belief.encoder) + parameter_hash(belief.processor)
        learned = planning.dynamics(game.data, self.model, self.phases, PRETRAIN_SEED)
        yield Rows("dynamics", learned, {"game": game.name}, "curve")
        arms = [arm for arm in self.arms if arm in ARMS_OF_GAMES]
        for arm, seed in product(arms, self.seed_list):
            names = {"game": game.name, "arm": arm, "seed": seed}
            own = arm if arm in (*planning.ARMS, planning.EMULATOR) else "rmr"
            told = planning.head(game.data, self.model, own, self.discount, PRETRAIN_SEED, learned)
            if own == arm:
                yield Rows("head", told, names)
            for steps, count in self._budgets(arm):
                solver = Discrete(steps, count, max(1, count // 8), hold=self.hold)
                episode = Episode(game.name, arm, self.model, solver, self.steps, seed, hashed)
                budget = {"horizon": steps, "candidates": count}
                yield Rows("planning", planned(episode, learned, told), names | budget)
