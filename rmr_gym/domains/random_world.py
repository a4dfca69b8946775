"""Random dynamics on bytes of the console's sizes, without any of its knowledge: a control."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from rmr_gym.core.seeding import generator
from rmr_gym.data.ram import bits_to_ram, high_entropy_bytes
from rmr_gym.domains.atari import ACTIONS, BITS, SLOTS, AbstractData

STREAM = "random_dynamics"


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

    parent: Int[np.ndarray, " slots"]
    gate: Int[np.ndarray, " slots"]
    order: Int[np.ndarray, "slots bits"]
    masks: UInt8[np.ndarray, "actions slots bits"]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "RandomWorld":
        """Draw a world; no byte is its own gate."""
        parent = (np.arange(SLOTS) + rng.integers(1, SLOTS, SLOTS)) % SLOTS
        order = rng.permuted(np.tile(np.arange(BITS), (SLOTS, 1)), axis=1)
        masks = rng.integers(0, 2, (ACTIONS, SLOTS, BITS), dtype=np.uint8)
        return cls(parent, rng.integers(0, BITS, SLOTS), order, masks)

    def step(
        self, bits: UInt8[np.ndarray, "rows slots bits"], action: Int[np.ndarray, " rows"]
    ) -> UInt8[np.ndarray, "rows slots bits"]:
        """Return the bits after ``action``."""
        moved = np.take_along_axis(bits, self.order[None], axis=-1) ^ self.masks[action]
        is_open = bits[:, self.parent, self.gate].astype(bool)
        return np.where(is_open[..., None], moved, bits)

    def record(self, rng: np.random.Generator, episodes: int, steps: int) -> AbstractData:
        """Play episodes of uniform actions."""
        action = rng.integers(0, ACTIONS, (episodes, steps))
        bits = np.empty((episodes, steps + 1, SLOTS, BITS), np.uint8)
        bits[:, 0] = rng.integers(0, 2, (episodes, SLOTS, BITS))
        for time in range(steps):
            bits[:, time + 1] = self.step(bits[:, time], action[:, time])
        rows = bits.reshape(-1, SLOTS, BITS)
        current = np.delete(np.arange(len(rows)), np.s_[steps :: steps + 1])
        return AbstractData(rows, action.ravel(), current, bits_to_ram(rows))


@dataclass(frozen=True)
class RandomDynamics:
    """Episodes of the one random world that P can be pretrained on.

    Attributes:
        train_episodes: Episodes to learn from.
        validation_episodes: Episodes of the same world to score on.
        steps: Of each episode.
        entropy_threshold: Bytes above so many nats are scored.
    """

    train_episodes: int
    validation_episodes: int
    steps: int
    entropy_threshold: float = 0.6
    label: str = STREAM

    def key(self) -> dict[str, Any]:
        """Return what decides results."""
        episodes = [self.train_episodes, self.validation_episodes, self.steps]
        return {"world": STREAM, "version": 1, "episodes": episodes} | {
            "threshold": self.entropy_threshold
        }

    def abstract(self, part: str) -> AbstractData:
        """Return the "training" or the "validation" transitions."""
        sizes = {"training": self.train_episodes, "validation": self.validation_episodes}
        return _played(part, sizes[part], self.steps)

    @property
    def slots(self) -> np.ndarray:
        """The bytes that are scored."""
        return high_entropy_bytes(self.abstract("training").ram, self.entropy_threshold)


@lru_cache(maxsize=2)
def _played(part: str, episodes: int, steps: int) -> AbstractData:
    world = RandomWorld.draw(generator(0, STREAM))
    return world.record(generator(0, STREAM, part), episodes, steps)
