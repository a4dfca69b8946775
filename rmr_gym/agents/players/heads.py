"""The behaviour heads: who plays while a data set is recorded. One frozen row a head."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from rmr_gym.agents.players.ram_network import RamNetwork, ram_features
from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.seeding import generator
from rmr_gym.envs.atari.games import ACTION_NAMES

UNSKILLED = "none"
SKILLS = ("low", "middle", "high")
"""Levels of skill above none; each game has a trained network a level."""

_BLOCK = 256


Policy = Callable[[Any], Any]
"""Plays one episode: from what the environment shows to an action."""


@dataclass(frozen=True)
class Head:
    """One way of playing: how well, how often at random, and how long an action is held.

    At each step the action of the step before is kept with probability ``hold``. Otherwise, with
    probability ``exploration``, a new one is drawn from ``preference``; otherwise it is drawn from
    the softmax of the scores of the game's network of that skill.

    Attributes:
        name: Its name in manifests.
        skill: ``"none"``, ``"low"``, ``"middle"`` or ``"high"``.
        exploration: Probability of not asking the network, in [0, 1]; 1 without skill.
        hold: Probability of keeping the action, in [0, 1).
        preference: Probability of each of the 18 actions when the network is not asked.
    """

    name: str
    skill: str
    exploration: float
    hold: float
    preference: tuple[float, ...]

    def policy(self, rng: np.random.Generator, network: RamNetwork | None = None) -> Policy:
        """Return a policy that plays one episode with draws from ``rng``.

        Args:
            rng: Source of every draw.
            network: The game's network of this head's skill, see
                `rmr_gym.agents.players.policies.networks`; heads without skill need none.

        Raises:
            RMRError: The head has a skill and no network came.
        """
        if self.skill == UNSKILLED:
            actions = _held_actions(self, rng)
            return lambda _: next(actions)
        if network is None:
            raise RMRError(
                f"expected the network of skill {self.skill!r} for head {self.name!r}, found none: "
                "take it from rmr_gym.agents.players.policies.networks(game)"
            )
        return _skilled(self, rng, network)


def _held_actions(head: Head, rng: np.random.Generator) -> Iterator[int]:
    """Yield actions; they are drawn a block at a time because one by one costs more than a step."""
    cumulative = np.cumsum(head.preference)
    held = _drawn(cumulative, rng.random())
    while True:
        fresh = _drawn(cumulative, rng.random(_BLOCK))
        renewed = rng.random(_BLOCK) >= head.hold
        source = np.maximum.accumulate(np.where(renewed, np.arange(_BLOCK), -1))
        block = np.where(source >= 0, fresh[source], held)
        held = block[-1]
        yield from block.tolist()


def _skilled(head: Head, rng: np.random.Generator, network: RamNetwork) -> Policy:
    """Ask the network with the RAM of this step and of the one before."""
    draws, before, action = _skilled_draws(head, rng), None, 0

    def act(observation: Any) -> int:
        nonlocal before, action
        ram, last = observation["ram"], before
        before = ram
        held, explored, drawn, noise = next(draws)
        if held and last is not None:
            return action
        if explored:
            action = drawn
        else:
            features = ram_features(ram, ram if last is None else last)
            action = int((network.scores(features) + noise).argmax())
        return action

    return act


def _skilled_draws(
    head: Head, rng: np.random.Generator
) -> Iterator[tuple[bool, bool, int, np.ndarray]]:
    """Yield, for each step, whether to hold, whether to explore, what, and Gumbel noise.

    The largest of scores with Gumbel noise is a draw from their softmax.
    """
    cumulative = np.cumsum(head.preference)
    while True:
        held = rng.random(_BLOCK) < head.hold
        explored = rng.random(_BLOCK) < head.exploration
        drawn = _drawn(cumulative, rng.random(_BLOCK))
        noise = rng.gumbel(size=(_BLOCK, len(head.preference)))
        yield from zip(held.tolist(), explored.tolist(), drawn.tolist(), noise, strict=True)


def _drawn(cumulative: np.ndarray, uniform: Any) -> Any:
    """Return the actions at ``uniform`` in [0, 1); the last takes what rounding leaves."""
    return np.searchsorted(cumulative[:-1], uniform, side="right")


def _towards(*directions: str) -> tuple[float, ...]:
    """Return four fifths of the probability on the actions that are named, the rest on all."""
    named = np.array([any(word in name for word in directions) for name in ACTION_NAMES])
    return _normalised(0.2 / named.size + 0.8 * named / named.sum())


def _mixture(name: str) -> tuple[float, ...]:
    """Return a lopsided distribution, the same for ever."""
    rng = generator(0, "behaviour head", name)
    return _normalised(rng.dirichlet(np.full(len(ACTION_NAMES), 0.4)))


def _normalised(weights: Float64[np.ndarray, " actions"]) -> tuple[float, ...]:
    return tuple((weights / weights.sum()).tolist())


_PREFERENCES: dict[str, tuple[float, ...]] = {
    "uniform": _normalised(np.ones(len(ACTION_NAMES))),
    "fire": _towards("FIRE"),
    "horizontal": _towards("LEFT", "RIGHT"),
    "vertical": _towards("UP", "DOWN"),
    "up": _towards("UP"),
    "mix_a": _mixture("mix_a"),
    "mix_b": _mixture("mix_b"),
    "mix_c": _mixture("mix_c"),
}

_HOLDS = {1: 0.0, 2: 0.5, 5: 0.8, 20: 0.95}
_EXPLORATION = (0.0, 0.05, 0.2, 0.5)
_PERSISTENCE = (0.0, 0.5)


def _unskilled_rows() -> Iterator[Head]:
    for row, (name, preference) in enumerate(_PREFERENCES.items()):
        steps = list(_HOLDS)[(row + row // len(_HOLDS)) % len(_HOLDS)]
        yield Head(f"{name}-{steps}", UNSKILLED, 1.0, _HOLDS[steps], preference)


def _skilled_rows(skill: str) -> Iterator[Head]:
    for row in range(len(_EXPLORATION) * len(_PERSISTENCE)):
        explore, hold = _EXPLORATION[row % 4], _PERSISTENCE[(row + row // 4) % 2]
        name = f"{skill}-e{100 * explore:02.0f}-h{100 * hold:02.0f}"
        yield Head(name, skill, explore, hold, _PREFERENCES["uniform"])


def _rows() -> Iterator[Head]:
    """Yield one head of each skill in turn, so that the first few already differ."""
    low, middle, high = map(_skilled_rows, SKILLS)
    for heads in zip(high, _unskilled_rows(), middle, low, strict=True):
        yield from heads


HEADS: tuple[Head, ...] = tuple(_rows())
"""The 32 heads of every game, in the order in which episodes take turns.

24 of trained skill: 3 levels x 4 rates of exploration x 2 lengths of holding; 8 without: as many
preferences for actions, held for 1, 2, 5 or 20 steps on average.

Source: RMR, section 5 (transitions from the 32 policy heads of an Agent57).
Differs: those heads are not public. These grade what PPO learns from the RAM in a modest budget;
`rmr_gym.agents.players.policies` tells where the networks come from, its table what each head
scores.
"""

UNIFORM = next(head for head in HEADS if head.name == "uniform-1")
"""A new action at every step, all 18 equally likely."""


def select_heads(choice: str | Sequence[str]) -> tuple[Head, ...]:
    """Return the heads that a choice stands for.

    Args:
        choice: ``"all"``; ``"unskilled"`` for those that need no trained network; ``"uniform"`` for
            the uniform random policy alone; names, in a sequence or in one string with commas
            between them.

    Raises:
        RMRError: There is no such head, none is named, or one is named twice.
    """
    if choice == "all":
        return HEADS
    if choice == "unskilled":
        return tuple(head for head in HEADS if head.skill == UNSKILLED)
    names = choice.split(",") if isinstance(choice, str) else list(choice)
    names = [UNIFORM.name if name.strip() == "uniform" else name.strip() for name in names]
    table = {head.name: head for head in HEADS}
    for name in names:
        if name not in table:
            raise unknown_name("behaviour head", name, ["all", "unskilled", "uniform", *table])
    if not names or len(set(names)) != len(names):
        raise RMRError(f"expected behaviour heads, each named once, found {names}")
    return tuple(table[name] for name in names)
