"""Planning: games played by what P imagines, from pixels, beside what stands in its place."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch

from rmr_gym.agents.planning import Discrete, Emulated, Planner, planning_game
from rmr_gym.agents.players.graded import UNIFORM, networks, select_players
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.domains.atari import AtariModel
from rmr_gym.experiments.atari import AtariExperiment
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_known
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import Artifact, stage
from rmr_gym.runs.training import Phase
from rmr_gym.stages import planning
from rmr_gym.stages.chain import GameTasks
from rmr_gym.stages.games import PRETRAIN_SEED

KNOWN = "known"
POLICIES = {"random": UNIFORM.name, "player": "high-e00-h00"}
ARMS = (*planning.ARMS, KNOWN, planning.EMULATOR, *POLICIES)


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
class Planning(AtariExperiment):
    """Play games by planning in P, pretrained on RAM, from beliefs that pixels give.

    Attributes:
        arms: rmr (P), shuffled_p, random_p, copy (the state stays), known (P, from the true RAM),
            emulator (the true futures), random, player (a trained one, without planning).
        horizons: Steps of plans; each with the first number of candidates.
        candidates: Plans that are scored at once; each with the first horizon.
        steps: Steps of an episode.
        hold: Steps that each action of a plan is held.
        discount: Of rewards, a step.
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

    @property
    def phases(self) -> tuple[Phase, ...]:
        """How P is pretrained: nine times as long as the preset says, in part over two steps."""
        steps = self.pretraining.steps
        two = partial(Phase, batch=64, unroll=2)
        return Phase(6 * steps, 1e-3, 50), two(2 * steps, 1e-3), two(steps, 2e-4)

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("arm", self.arms, ARMS)
        games = self.recorded(progress_for)
        rows = [row for game in games for row in self._rows(game)]
        named = ("arms", "horizons", "candidates", "steps", "hold", "discount")
        return self.atari_plan(rows, games, **{name: getattr(self, name) for name in named})

    def _rows(self, game: GameTasks) -> Iterator[Rows]:
        belief = PretrainedEncoder.of(None, of_ram=True, game=game.name)
        assert belief.processor is not None
        hashed = parameter_hash(belief.encoder) + parameter_hash(belief.processor)
        learned = planning.dynamics(game.data, self.model, self.phases, PRETRAIN_SEED)
        yield Rows("dynamics", learned, {"game": game.name}, "curve")
        budgets = [(steps, self.candidates[0]) for steps in self.horizons]
        budgets += [(self.horizons[0], count) for count in self.candidates[1:]]
        for arm, seed in product(self.arms, self.seed_list):
            names = {"game": game.name, "arm": arm, "seed": seed}
            own = arm if arm in (*planning.ARMS, planning.EMULATOR) else "rmr"
            told = planning.head(game.data, self.model, own, self.discount, PRETRAIN_SEED, learned)
            if own == arm:
                yield Rows("head", told, names)
            for steps, count in budgets[:1] if arm in POLICIES else budgets:
                solver = Discrete(steps, count, max(1, count // 8), hold=self.hold)
                episode = Episode(game.name, arm, self.model, solver, self.steps, seed, hashed)
                budget = {"horizon": steps, "candidates": count}
                yield Rows("planning", planned(episode, learned, told), names | budget)
