"""Planning: worlds played by what P imagines, from pixels, beside what stands in its place."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from rmr_gym.agents import planning as agents
from rmr_gym.agents.planning import TASKS, Discrete, Planner, Pusher, Pushing, Solver, planning_game
from rmr_gym.agents.players.graded import UNIFORM, networks, select_players
from rmr_gym.core.errors import RMRError, whole_number
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains.atari import AtariModel
from rmr_gym.experiments.atari import AtariExperiment, game_names
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_known
from rmr_gym.experiments.worlds import PLAYABLE, Playing, balls_world, find_data
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import Artifact, Task, stage
from rmr_gym.runs.training import Falling, Phase
from rmr_gym.stages import planning
from rmr_gym.stages.balls import BallsPreset, RecordedBalls
from rmr_gym.stages.chain import GameTasks
from rmr_gym.stages.games import PRETRAIN_SEED

KNOWN = "known"
POLICIES = {"random": UNIFORM.name, "player": "high-e00-h00"}
ARMS = (*planning.ARMS, KNOWN, planning.EMULATOR, *POLICIES)
PUSHED_ARMS = (*planning.PUSHED_ARMS, planning.EMULATOR, "random")

ELITES = 8
"""Continuous plans whose mean is carried out, at most: the mean of many pushes is none."""


@dataclass(frozen=True)
class Episode:
    """An episode, which hangs on nothing else but P and the head.

    Attributes:
        game: A game of which a belief is shipped, or a task with pushed balls.
        arm: A name in `ARMS`.
        model: Sizes of P.
        solver: What searches for plans.
        steps: At most.
        seed: Of the start and of every draw.
        belief: Hash of the belief.
        processor: Seed of P, of pushed balls.
    """

    game: str
    arm: str
    model: AtariModel
    solver: Solver
    steps: int
    seed: int
    belief: str = ""
    processor: int = PRETRAIN_SEED


@stage(version=3)
def planned(episode: Episode, learned: Artifact, told: Artifact | None = None) -> Artifact:
    """Play an episode and add its rewards up; see `chooser`."""
    env, rewards = (Pushing if episode.game in TASKS else planning_game)(episode.game), [0.0]
    choose, begun = chooser(env, episode, learned, told), time.process_time()
    shown, over = env.reset(seed=episode.seed)[0], False
    while len(rewards) <= episode.steps and not over:
        shown, reward, over, _, _ = env.step(choose(shown))
        rewards.append(reward)
    spent = 1000 * (time.process_time() - begun) / (len(rewards) - 1)
    return Artifact({"rows": [{"return": sum(rewards), "steps": len(rewards) - 1, "ms": spent}]})


def chooser(env: Any, episode: Episode, learned: Artifact, told: Artifact | None) -> Any:
    """Return what chooses the actions of an episode: a policy, a `Planner` or a `Pusher`.

    Args:
        env: The game, see `planning_game`, or `Pushing`.
        episode: Which arm, for how long.
        learned: What `rmr_gym.stages.planning.dynamics` or ``pushed_dynamics`` left.
        told: What `rmr_gym.stages.planning.head` left, of a game.

    Raises:
        RMRError: No P with actions was learned, or the head is of another game.
    """
    game, arm, seed = episode.game, episode.arm, episode.seed
    drawn = torch_generator(integer_seed(seed, "planning"))
    if told is None and arm == "random":
        return lambda shown: int(torch.randint(env.action_space.n, (), generator=drawn))
    if told is None:
        true = arm == planning.EMULATOR and agents.simulated(env)
        model = true or planning.foreseen(arm, learned, episode.processor)
        return Pusher(model, env, episode.solver, drawn)
    if arm in POLICIES:
        (player,) = select_players([POLICIES[arm]])
        return player.policy(generator(seed, "planning"), networks(game).get(player.skill))
    ale, true = env.unwrapped.ale, arm in (KNOWN, planning.EMULATOR)
    own, head = "rmr" if true else arm, planning.Head(told.tensors, game)
    model: Any = planning.imagination(own, episode.model, learned, PRETRAIN_SEED)
    if arm == planning.EMULATOR:
        model = agents.Emulated(ale)
    actions = torch.tensor([action.value for action in ale.getMinimalActionSet()])
    start = "ram" if true else "features"
    return Planner(model, head, episode.solver, actions, drawn, start)


@dataclass(frozen=True)
class Planning(AtariExperiment):
    """Play games, or push balls, by planning in P, pretrained on states, from what pixels give.

    Attributes:
        games: Names of games; reach, strike and bring are tasks with pushed balls.
        arms: rmr (P), shuffled_p, random_p, copy (the state stays), emulator (the true futures),
            random; of games known (P, from the true RAM), player (a trained one, without planning);
            of balls scratch_p (it learned from places in pixels), extrapolated (balls keep their
            velocities); default: all of a world.
        horizons: Steps of plans; each with the first number of candidates.
        candidates: Plans that are scored at once; each with the first horizon.
        steps: Steps of an episode.
        hold: Steps that each action of a plan is held.
        discount: Of rewards, a step.
        processors: P that are pretrained of pushed balls; episode s has number s modulo so many.
            scratch_p learns from ``natural.episodes`` episodes.
    """

    kind = "planning"

    seeds: int | None = 5
    games: tuple[str, ...] = ("Pong", "Breakout")
    arms: tuple[str, ...] = ()
    horizons: tuple[int, ...] = (8,)
    candidates: tuple[int, ...] = (32,)
    steps: int = 200
    hold: int = 2
    discount: float = 0.95
    processors: int = 1

    @property
    def phases(self) -> tuple[Phase, ...]:
        """How P is pretrained: nine times as long as the preset says, in part over two steps."""
        steps = self.pretraining.steps
        first = Falling(6 * steps, 1e-2, 32, warmup=200, end=0.1)
        return first, Falling(3 * steps, 3e-3, 64, unroll=2, warmup=100, end=0.0)

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        whole_number("horizon and candidates", min(self.horizons + self.candidates), at_least=1)
        whole_number("processors", self.processors, at_least=1)
        whole_number("steps", self.steps, at_least=1)
        names, tasks = ([game for game in self.games if (game in TASKS) == own] for own in (0, 1))
        names = game_names(names) if names else []
        known = [*dict.fromkeys(ARMS * bool(names) + PUSHED_ARMS * bool(tasks))]
        require_known(f"arm of {', '.join(self.games)}", self.arms or known, known)
        beliefs = [PretrainedEncoder.of(None, of_ram=True, game=name) for name in names]
        games = self.recorded(progress_for, names) if names else []
        rows = [row for pair in zip(games, beliefs, strict=True) for row in self._rows(*pair)]
        named = ("arms", "horizons", "candidates", "steps", "hold", "discount", "processors")
        facts: dict[str, Any] = {name: getattr(self, name) for name in named}
        if tasks:
            data = self.pushed_data(progress_for)
            if (most := len(data.open().training)) < (self.natural.episodes or 0):
                raise RMRError(
                    f"expected --natural.episodes of at most {most}, which are there for training, "
                    f"got {self.natural.episodes}"
                )
            rows += [row for task in tasks for row in self._pushed(task, data)]
            facts["pushed"] = data.summary()
        return replace(self.atari_plan(rows, games, **facts), tables=("dynamics", "head"))

    def pushed_data(self, progress_for: ProgressFor) -> RecordedBalls:
        """Return random play of pushed balls, which is recorded where it is not there."""
        episodes, steps = self.recording.episodes, min(self.recording.max_steps, 200)
        name, options = f"{episodes}x{steps}", {"resolution": agents.SIZE}
        playing = Playing(PLAYABLE, name, episodes, steps, options)
        folder = find_data(Path("rmr/PushedBalls-v0"), playing, self.root, progress_for)
        return balls_world(folder, BallsPreset()).data

    def pushed_dynamics(self, data: RecordedBalls, arm: str, seed: int = PRETRAIN_SEED) -> Task:
        """Return the task of P of pushed balls, the same for all arms but scratch_p."""
        steps, batch = self.pretraining.steps, 2 * self.pretraining.batch
        phases = Phase(steps, 1e-3, batch), Phase(-(-steps // 2), 3e-4, batch, unroll=4)
        if arm == planning.SCRATCH:
            return planning.pushed_dynamics(data, phases, arm, seed, self.natural.episodes)
        return planning.pushed_dynamics(data, phases, "rmr", seed)

    def _pushed(self, task: str, data: RecordedBalls) -> Iterator[Rows]:
        steps = min(self.steps, TASKS[task])
        for arm, seed, (ahead, count) in self._grid(PUSHED_ARMS):
            solver = Solver(ahead, count, min(max(1, count // 8), ELITES), hold=self.hold)
            number = seed % self.processors
            episode = Episode(task, arm, self.model, solver, steps, seed, processor=number)
            names = {"game": task, "arm": arm, "seed": seed, "horizon": ahead, "candidates": count}
            names["processor"] = number
            yield Rows("planning", planned(episode, self.pushed_dynamics(data, arm, number)), names)

    def _grid(self, arms: Sequence[str]) -> Iterator[tuple[str, int, tuple[int, int]]]:
        """Yield arms, seeds, and horizons with candidates; those that plan nothing have one."""
        budgets = [(steps, self.candidates[0]) for steps in self.horizons]
        budgets += [(self.horizons[0], count) for count in self.candidates[1:]]
        chosen = [arm for arm in self.arms or arms if arm in arms]
        for arm, seed in product(chosen, self.seed_list):
            for budget in budgets[:1] if arm in POLICIES else budgets:
                yield arm, seed, budget

    def _rows(self, game: GameTasks, belief: PretrainedEncoder) -> Iterator[Rows]:
        assert belief.processor is not None
        hashed = parameter_hash(belief.encoder) + parameter_hash(belief.processor)
        learned = planning.dynamics(game.data, self.model, self.phases, PRETRAIN_SEED)
        yield Rows("dynamics", learned, {"game": game.name}, "curve")
        for arm, seed, (steps, count) in self._grid(ARMS):
            names = {"game": game.name, "arm": arm, "seed": seed}
            own = arm if arm in (*planning.ARMS, planning.EMULATOR) else "rmr"
            told = planning.head(game.data, self.model, own, self.discount, PRETRAIN_SEED, learned)
            if own == arm and (steps, count) == (self.horizons[0], self.candidates[0]):
                yield Rows("head", told, names)
            solver = Discrete(steps, count, max(1, count // 8), hold=self.hold)
            episode = Episode(game.name, arm, self.model, solver, self.steps, seed, hashed)
            budget = {"horizon": steps, "candidates": count}
            yield Rows("planning", planned(episode, learned, told), names | budget)
