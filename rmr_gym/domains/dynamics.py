"""Dynamics of bits without a game, for a P to be pretrained on: a random world, and algorithms.

All have the sizes of a game's RAM, 128 bytes, and its 18 actions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from rmr_gym.core.errors import known_name
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import bits_to_ram, high_entropy_bytes, ram_to_bits
from rmr_gym.domains.atari import ACTIONS, BITS, SLOTS, AbstractData

Bits = UInt8[np.ndarray, "rows bytes bits"]
Bytes = UInt8[np.ndarray, "rows bytes"]

RANDOM_DYNAMICS = "random_dynamics"
RUN = 64
"""Steps of an episode of an algorithm, in place of more: sorting comes to rest."""


class RandomWorld(NamedTuple):
    r"""Random dynamics on bytes.

    A byte changes when one bit of one other byte, its gate, is set. Then its bits trade places in
    an order of its own, and some flip, which ones depending on the action:

    .. math:: x'_i = \sigma_i(x_i) \oplus m_{i,a} \text{ if bit } b_i \text{ of } x_{p_i}
              \text{ is set, else } x_i

    Orders, masks and gates are drawn once. Episodes start from uniform bytes; actions are uniform.

    Source: RMR, Appendix E (abstract inputs from a generic random distribution); the paper
    transfers no such P. Differs: everything, it is a control.
    """

    parent: Int[np.ndarray, " bytes"]
    gate: Int[np.ndarray, " bytes"]
    order: Int[np.ndarray, "bytes bits"]
    masks: UInt8[np.ndarray, "actions bytes bits"]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "RandomWorld":
        """Draw a world; no byte is its own gate."""
        parent = (np.arange(SLOTS) + rng.integers(1, SLOTS, SLOTS)) % SLOTS
        order = rng.permuted(np.tile(np.arange(BITS), (SLOTS, 1)), axis=1)
        masks = rng.integers(0, 2, (ACTIONS, SLOTS, BITS), dtype=np.uint8)
        return cls(parent, rng.integers(0, BITS, SLOTS), order, masks)

    def step(self, bits: Bits, action: Int[np.ndarray, " rows"]) -> Bits:
        """Return the bits after ``action``."""
        moved = np.take_along_axis(bits, self.order[None], axis=-1) ^ self.masks[action]
        is_open = bits[:, self.parent, self.gate].astype(bool)
        return np.where(is_open[..., None], moved, bits)

    def start(self, rng: np.random.Generator, rows: int) -> Bits:
        """Draw uniform bytes."""
        return rng.integers(0, 2, (rows, SLOTS, BITS), dtype=np.uint8)


class Algorithm(NamedTuple):
    """An algorithm that goes on by a step, whatever the action.

    Source: steps of algorithms as supervision: Velickovic et al., "The CLRS Algorithmic Reasoning
    Benchmark", 2022. Differs: the state is bytes, all of them are inputs and outputs.

    Attributes:
        drawn: From uniform bytes, which it may change, to a start.
        advanced: From bytes to those a step later.
    """

    drawn: Callable[[Bytes], Bytes]
    advanced: Callable[[Bytes], Bytes]

    def start(self, rng: np.random.Generator, rows: int) -> Bits:
        """Draw inputs."""
        return ram_to_bits(self.drawn(rng.integers(0, 256, (rows, SLOTS), dtype=np.uint8)))

    def step(self, bits: Bits, action: Int[np.ndarray, " rows"]) -> Bits:
        """Return the bits after ``action``, which does not matter."""
        return ram_to_bits(self.advanced(bits_to_ram(bits)))


def unsorted(memory: Bytes) -> Bytes:
    """Start an odd-even transposition sort of 126 bytes.

    The last byte tells odd passes from even ones; the one before it is unused.
    """
    memory[:, -2:] = 0
    return memory


def sort_step(memory: Bytes) -> Bytes:
    """Compare, and swap, every second pair of neighbours."""
    after = memory.copy()
    for odd in (0, 1):
        turn = memory[:, -1] == odd
        pairs = memory[turn, odd : 126 - odd].reshape(-1, 63 - odd, 2)
        after[turn, odd : 126 - odd] = np.sort(pairs, 2).reshape(len(pairs), 126 - 2 * odd)
    after[:, -1] = 1 - memory[:, -1]
    return after


def search_start(memory: Bytes) -> Bytes:
    """Start binary searches in 124 sorted bytes, for one of them after the other.

    The last four bytes: what is looked for, the least and the greatest place where it may be, and
    the place that was found last.
    """
    memory[:, :124].sort(1)
    memory[:, 124:] = np.stack([memory[:, 0], *np.full((3, len(memory)), [[0], [123], [0]])], 1)
    return memory


def search_step(memory: Bytes) -> Bytes:
    """Halve the range; where one place is left, look for the byte 37 places on."""
    after, rows = memory.copy(), np.arange(len(memory))
    target, low, high, _ = memory[:, 124:].T.astype(int)
    middle = (low + high) // 2
    below = memory[rows, middle] < target
    found = low >= high
    following = (low + 37) % 124
    told = (
        np.where(found, memory[rows, following], target),
        np.where(found, 0, np.where(below, middle + 1, low)),
        np.where(found, 123, np.where(below, high, middle)),
        np.where(found, low, memory[:, 127]),
    )
    after[:, 124:] = np.stack(told, 1)
    return after


def paths_start(memory: Bytes) -> Bytes:
    """Start Bellman-Ford on 10 nodes, from one source after the other.

    Bytes 0 to 99: lengths of the edges; 100 to 109: distances; the last two: source, pass.
    """
    memory[:, 100:] = 0
    memory[:, 101:110] = 255
    return memory


def paths_step(memory: Bytes) -> Bytes:
    """Relax all edges; after 9 passes begin with the next source."""
    after, rows = memory.copy(), np.arange(len(memory))
    edges = memory[:, :100].reshape(-1, 10, 10).astype(int)
    ways = memory[:, 100:110, None].astype(int) + edges
    after[:, 100:110] = np.minimum(memory[:, 100:110], ways.min(1).clip(max=255))
    done = memory[:, 127] == 9
    source = (memory[:, 126] + done) % 10
    after[done, 100:110] = 255
    after[rows[done], 100 + source[done]] = 0
    after[:, 126], after[:, 127] = source, np.where(done, 0, memory[:, 127] + 1)
    return after


ALGORITHMS = {
    "sorting": Algorithm(unsorted, sort_step),
    "searching": Algorithm(search_start, search_step),
    "shortest_paths": Algorithm(paths_start, paths_step),
}
DYNAMICS = (RANDOM_DYNAMICS, *ALGORITHMS)
"""Dynamics that P can be pretrained on."""


@dataclass(frozen=True)
class Dynamics:
    """Episodes of dynamics that P can be pretrained on.

    Attributes:
        train_episodes: Episodes to learn from.
        validation_episodes: Episodes of the same world to score on.
        steps: Of each episode; an algorithm has more of them, of `RUN` steps.
        entropy_threshold: Bytes above so many nats are scored.
        label: A name in `DYNAMICS`.
    """

    train_episodes: int
    validation_episodes: int
    steps: int
    entropy_threshold: float = 0.6
    label: str = RANDOM_DYNAMICS

    def __post_init__(self) -> None:
        known_name("dynamics", self.label, DYNAMICS)

    def key(self) -> dict[str, Any]:
        """Return what decides results."""
        episodes = [self.train_episodes, self.validation_episodes, self.steps]
        known = {"world": self.label, "version": 1, "episodes": episodes}
        return known | {"threshold": self.entropy_threshold}

    def abstract(self, part: str) -> AbstractData:
        """Return the "training" or the "validation" transitions."""
        sizes = {"training": self.train_episodes, "validation": self.validation_episodes}
        return _played(self.label, part, sizes[part], self.steps)

    @property
    def scored_bytes(self) -> np.ndarray:
        """The bytes that are scored."""
        return high_entropy_bytes(self.abstract("training").ram, self.entropy_threshold)


@lru_cache(maxsize=2)
def _played(name: str, part: str, episodes: int, steps: int) -> AbstractData:
    rng = generator(0, name, part)
    if name == RANDOM_DYNAMICS:
        return recorded(RandomWorld.draw(generator(0, name)), rng, episodes, steps)
    short = min(steps, RUN)
    return recorded(ALGORITHMS[name], rng, episodes * steps // short, short)


def recorded(
    world: RandomWorld | Algorithm, rng: np.random.Generator, episodes: int, steps: int
) -> AbstractData:
    """Play episodes of uniform actions."""
    action = rng.integers(0, ACTIONS, (episodes, steps))
    bits = np.empty((episodes, steps + 1, SLOTS, BITS), np.uint8)
    bits[:, 0] = world.start(rng, episodes)
    for time in range(steps):
        bits[:, time + 1] = world.step(bits[:, time], action[:, time])
    rows = bits.reshape(-1, SLOTS, BITS)
    current = np.delete(np.arange(len(rows)), np.s_[steps :: steps + 1])
    return AbstractData(rows, action.ravel(), current, bits_to_ram(rows))
