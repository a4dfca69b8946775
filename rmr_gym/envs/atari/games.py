"""The 24 games of the paper's tables, one row of games.csv each.

Source: RMR, tables 1 and 2, which list the games of Anand et al. (2019).
"""

import csv
import re
from dataclasses import dataclass
from pkgutil import get_data

from rmr_gym.core.actions import ACTION_NAMES
from rmr_gym.core.errors import RMRError, letters, unknown_name

_EVERY_ACTION = tuple(range(len(ACTION_NAMES)))

_WITHOUT_FIRE = tuple(
    ACTION_NAMES.index(name.removesuffix("FIRE") or "NOOP") for name in ACTION_NAMES
)


@dataclass(frozen=True)
class Game:
    """One game of the paper's tables.

    Attributes:
        name: ALE's name and ours, for instance ``"YarsRevenge"``.
        title: The name in the paper's tables, for instance ``"Yars' Revenge"``.
        rom: The name of the ROM in ALE.
        actions: The ALE action that each of our 18 actions presses. The identity, unless the game
            knows fewer: ALE turns an action that a game does not know into NOOP, so that "right
            and fire" would not even go right.
    """

    name: str
    title: str
    rom: str
    actions: tuple[int, ...] = _EVERY_ACTION

    @property
    def env_id(self) -> str:
        """The id of our environment, for instance ``"rmr/Pong-v0"``."""
        return f"rmr/{self.name}-v0"


_ACTIONS = {"all": _EVERY_ACTION, "without fire": _WITHOUT_FIRE}

_TABLE = (get_data(__name__, "games.csv") or b"").decode()  # pathlib would make importing slower
_ROWS = [
    Game(row["name"], row["title"], row["rom"], _ACTIONS[row["actions"]])
    for row in csv.DictReader(_TABLE.splitlines())
]

GAMES: dict[str, Game] = {game.name: game for game in _ROWS}
"""Every game by its name, in the order of the paper's tables."""

_AFFIXES = re.compile(r"^(rmr_gym:)?(rmr/|ALE/)?|-v\d+$", re.IGNORECASE)

_BY_SPELLING = {
    letters(spelling): game for game in _ROWS for spelling in (game.name, game.title, game.rom)
}


def find_game(text: str) -> Game:
    """Return the game that a name, a title or an environment id stands for.

    Case, spaces and punctuation do not matter: ``"pong"``, ``"Yars' Revenge"``, ``"yars_revenge"``,
    ``"Q*Bert"``, ``"rmr/Pong-v0"`` and ``"ALE/Pong-v5"`` are all understood.

    Args:
        text: The name.

    Raises:
        RMRError: No game has that name; the message lists the games and the nearest one.
    """
    if not isinstance(text, str):
        raise RMRError(f"expected the name of a game, for instance 'Pong', found {text!r}")
    bare = _AFFIXES.sub("", text.strip())
    game = _BY_SPELLING.get(letters(bare))
    if game is None:
        raise unknown_name("game", bare, GAMES)
    return game
