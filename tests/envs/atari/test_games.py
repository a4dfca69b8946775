import dataclasses

import gymnasium as gym
import pytest

from rmr_gym.core.actions import ACTION_NAMES
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.envs.atari.games import GAMES, find_game

TITLES = """
Asteroids
Battlezone
Berzerk
Bowling
Boxing
Breakout
Demon Attack
Freeway
Frostbite
H.E.R.O.
Montezuma's Revenge
Ms. Pac-Man
Pitfall!
Pong
Private Eye
Q*Bert
River Raid
Seaquest
Skiing
Space Invaders
Tennis
Venture
Video Pinball
Yars' Revenge
""".strip().splitlines()


def test_the_table_holds_the_papers_games_in_the_papers_order():
    titles = [game.title for game in GAMES.values()]
    assert [title for title in titles if title in TITLES] == TITLES


def test_names_and_ids_are_those_of_ale():
    import ale_py

    gym.register_envs(ale_py)
    for name, game in GAMES.items():
        assert name == game.name
        assert gym.spec(f"ALE/{game.name}-v5").kwargs["game"] == game.rom


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_every_game_has_18_actions(game):
    identity = tuple(range(18))
    assert len(game.actions) == len(ACTION_NAMES) == 18
    assert (game.actions == identity) == (game.name != "Skiing")


def test_skiing_presses_the_same_direction_without_the_button():
    by_name = dict(zip(ACTION_NAMES, GAMES["Skiing"].actions, strict=True))
    assert by_name == {
        "NOOP": 0,
        "FIRE": 0,
        "UP": 2,
        "RIGHT": 3,
        "LEFT": 4,
        "DOWN": 5,
        "UPRIGHT": 6,
        "UPLEFT": 7,
        "DOWNRIGHT": 8,
        "DOWNLEFT": 9,
        "UPFIRE": 2,
        "RIGHTFIRE": 3,
        "LEFTFIRE": 4,
        "DOWNFIRE": 5,
        "UPRIGHTFIRE": 6,
        "UPLEFTFIRE": 7,
        "DOWNRIGHTFIRE": 8,
        "DOWNLEFTFIRE": 9,
    }


def test_action_names_are_ales():
    from ale_py import Action

    assert [Action(value).name for value in range(18)] == list(ACTION_NAMES)


def test_a_game_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GAMES["Pong"].title = "Ping"


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_a_game_is_found_by_each_of_its_names(game):
    for text in (
        game.name,
        game.title,
        game.rom,
        game.env_id,
        f"ALE/{game.name}-v5",
        game.name.upper(),
    ):
        assert find_game(text) is game


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pong", "Pong"),
        ("Yars' Revenge", "YarsRevenge"),
        ("yars_revenge", "YarsRevenge"),
        ("Q*Bert", "Qbert"),
        ("q-bert", "Qbert"),
        ("H.E.R.O.", "Hero"),
        ("ms pacman", "MsPacman"),
        ("Ms. Pac-Man", "MsPacman"),
        ("River Raid", "Riverraid"),
        ("Battlezone", "BattleZone"),
        ("montezuma_revenge", "MontezumaRevenge"),
        ("rmr_gym:rmr/Pong-v0", "Pong"),
        ("ALE/Pong-v5", "Pong"),
        (" Pong ", "Pong"),
    ],
)
def test_spellings(text, name):
    assert find_game(text).name == name


@pytest.mark.parametrize("text", ["Pnog", "rmr/Pnog-v0", "ALE/pnog-v5"])
def test_a_misspelt_game_gets_the_nearest_and_the_choices(text):
    with pytest.raises(
        RMRError, match=r"did you mean 'Pong'\? choose one of Asteroids, BattleZone"
    ):
        find_game(text)


def test_of_a_long_list_the_first_names_are_told_and_how_many_there_are_beside():
    with pytest.raises(RMRError, match=r"choose one of \w+, .*, and 76 more$") as caught:
        known_name("number", "none", [f"n{number}" for number in range(100)])
    assert str(caught.value).count(",") == 24


@pytest.mark.parametrize("text", ["", "***", "Alien", "ALE/Alien-v5", "gym/Pong-v0", "Pong Pong"])
def test_what_is_no_game_of_the_paper_is_refused(text):
    with pytest.raises(RMRError, match="unknown game"):
        find_game(text)
