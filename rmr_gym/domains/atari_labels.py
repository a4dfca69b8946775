"""Named state variables of the games: which RAM byte holds them, and to what category they belong.

Source: AtariARI, Anand et al. 2019 (the annotations and the five categories of their code).
Differs, where that table is at fault:

- Asteroids, 60: lives and direction share the byte; they are two labels here, of 4 bits each.
- Battlezone, 59 and 60: the treads' positions run modulo 8, as noted there; the upper bits are
  masked away.
- Berzerk, 64: held to be the height of a ninth robot, it never changes; 8 robots are left.
- Breakout: 77 is the score in binary coded decimal, and was called the number of blocks hit; 84
  is five times the score modulo 50, and was called the score.
- Categories: theirs are found by parts of a name, so that a label can count twice (lives and
  direction) or never (angles, treads, colours); here each label has one.
"""

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import UInt8

from rmr_gym.core.errors import unknown_name

CATEGORIES = (
    "agent_localisation",
    "small_object_localisation",
    "other_localisation",
    "score_clock_lives_display",
    "misc",
)
"""The categories of Anand et al. 2019, Table 2."""


@dataclass(frozen=True)
class Label:
    """A state variable of a game.

    Attributes:
        name: AtariARI's name, numbered where it stands for several bytes.
        ram: Address of the RAM byte, 0 to 127.
        mask: Bits of the byte that hold the variable.
        category: One of `CATEGORIES`.
    """

    name: str
    ram: int
    mask: int
    category: str


@cache
def _table() -> dict[str, tuple[Label, ...]]:
    games = defaultdict[str, list[Label]](list)
    with (files("rmr_gym.domains") / "atari_labels.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            label = Label(row["label"], int(row["ram"]), int(row["mask"]), row["category"])
            games[row["game"]].append(label)
    return {game: tuple(labels) for game, labels in games.items()}


def labels_of(game: str) -> tuple[Label, ...]:
    """Return the labels of a game, by its name here (for instance ``Pong``).

    Raises:
        RMRError: The table has no such game.
    """
    if game not in _table():
        raise unknown_name("game with labels", game, _table())
    return _table()[game]


def label_values(
    ram: UInt8[np.ndarray, "rows bytes"], labels: tuple[Label, ...]
) -> UInt8[np.ndarray, "rows labels"]:
    """Return the value of each label in each row: its bits of its byte, shifted down."""
    masks = np.array([label.mask for label in labels], np.uint8)
    lowest = (masks.astype(int) & -masks.astype(int)).tolist()
    shifts = np.array([bit.bit_length() - 1 for bit in lowest], np.uint8)
    return (ram[:, [label.ram for label in labels]] & masks) >> shifts
