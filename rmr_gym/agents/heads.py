"""The behaviour heads: who plays while a data set is recorded. One frozen row a head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from rmr_gym.envs.games import ACTION_NAMES
from rmr_gym.errors import RMRError, unknown_name
from rmr_gym.seeding import generator
from rmr_gym.types import Observation

_BLOCK = 256


@runtime_checkable
class Policy(Protocol):
    """Something that plays one episode."""

    def act(self, observation: Observation) -> int:
        """Return the action, 0 to 17, for what the environment shows."""
        ...


@dataclass(frozen=True)
class Head:
    """One way of playing without having learned: which actions, and how long each is held.

    At each step the action of the step before is kept with probability ``hold``; otherwise a new
    one is drawn from ``preference``. Each action is therefore held for 1 / (1 - hold) steps on
    average (more where the same one is drawn again).

    Attributes:
        name: Its name in manifests, ``<preference>-<mean steps of holding>``.
        preference: Probability of each of the 18 actions.
        hold: Probability of keeping the action, in [0, 1).
    """

    name: str
    preference: tuple[float, ...]
    hold: float

    def policy(self, rng: np.random.Generator) -> Policy:
        """Return a policy that plays one episode with draws from ``rng``."""
        return _HeldActions(self, rng)


class _HeldActions:
    def __init__(self, head: Head, rng: np.random.Generator):
        self._actions = _held_actions(head, rng)

    def act(self, observation: Observation) -> int:
        return next(self._actions)


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


def _rows() -> Iterator[Head]:
    """Yield every combination once; the first eight already differ in both respects."""
    steps, names = list(_HOLDS), list(_PREFERENCES)
    for row in range(len(steps) * len(names)):
        name = names[row % len(names)]
        held = steps[(row + row // len(names)) % len(steps)]
        yield Head(f"{name}-{held}", _PREFERENCES[name], _HOLDS[held])


HEADS: tuple[Head, ...] = tuple(_rows())
"""The 32 heads: 8 preferences x 4 lengths of holding, in the order in which episodes take turns.

Source: RMR, section 5 (transitions from the 32 policy heads of an Agent57).
Differs: those heads are not public. These are their unskilled stand-in: they differ in exploration
as Agent57's do, and none has learned a game. Heads of trained skill are more rows of this kind.
"""

UNIFORM = HEADS[0]
"""A new action at every step, all 18 equally likely."""


def select_heads(choice: str | Sequence[str]) -> tuple[Head, ...]:
    """Return the heads that a choice stands for.

    Args:
        choice: ``"all"``; ``"uniform"`` for the uniform random policy alone; names, in a sequence
            or in one string with commas between them.

    Raises:
        RMRError: There is no such head, none is named, or one is named twice.
    """
    if choice == "all":
        return HEADS
    names = choice.split(",") if isinstance(choice, str) else list(choice)
    names = [UNIFORM.name if name.strip() == "uniform" else name.strip() for name in names]
    table = {head.name: head for head in HEADS}
    for name in names:
        if name not in table:
            raise unknown_name("behaviour head", name, ["all", "uniform", *table])
    if not names or len(set(names)) != len(names):
        raise RMRError(f"expected behaviour heads, each named once, found {names}")
    return tuple(table[name] for name in names)
