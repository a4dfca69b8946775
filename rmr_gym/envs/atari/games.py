"""The 24 games of the paper's tables: one frozen row a game.

Source: RMR, tables 1 and 2, which list the games of Anand et al. (2019).
"""

import re
from dataclasses import dataclass

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

    @property
    def ale_id(self) -> str:
        """The id of ALE's own environment, for instance ``"ALE/Pong-v5"``."""
        return f"ALE/{self.name}-v5"


_ROWS = (
    Game("Asteroids", "Asteroids", "asteroids"),
    Game("BattleZone", "Battlezone", "battle_zone"),
    Game("Berzerk", "Berzerk", "berzerk"),
    Game("Bowling", "Bowling", "bowling"),
    Game("Boxing", "Boxing", "boxing"),
    Game("Breakout", "Breakout", "breakout"),
    Game("DemonAttack", "Demon Attack", "demon_attack"),
    Game("Freeway", "Freeway", "freeway"),
    Game("Frostbite", "Frostbite", "frostbite"),
    Game("Hero", "H.E.R.O.", "hero"),
    Game("MontezumaRevenge", "Montezuma's Revenge", "montezuma_revenge"),
    Game("MsPacman", "Ms. Pac-Man", "ms_pacman"),
    Game("Pitfall", "Pitfall!", "pitfall"),
    Game("Pong", "Pong", "pong"),
    Game("PrivateEye", "Private Eye", "private_eye"),
    Game("Qbert", "Q*Bert", "qbert"),
    Game("Riverraid", "River Raid", "riverraid"),
    Game("Seaquest", "Seaquest", "seaquest"),
    Game("Skiing", "Skiing", "skiing", _WITHOUT_FIRE),
    Game("SpaceInvaders", "Space Invaders", "space_invaders"),
    Game("Tennis", "Tennis", "tennis"),
    Game("Venture", "Venture", "venture"),
    Game("VideoPinball", "Video Pinball", "video_pinball"),
    Game("YarsRevenge", "Yars' Revenge", "yars_revenge"),
)

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
