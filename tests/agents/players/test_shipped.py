"""What comes with the package: networks and returns of every game."""

from pathlib import Path

import numpy as np
import pytest

from rmr_gym.agents.players import graded
from rmr_gym.agents.players.graded import PLAYERS, SKILLS
from rmr_gym.agents.players.train import evaluate_players
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.games import GAMES

RESULTS = Path(__file__).parents[3] / "results" / "policies.csv"
TRAINED = [game for game in GAMES if graded.is_trained(game)]


@pytest.mark.parametrize("game", TRAINED)
def test_every_game_has_three_networks_that_differ(game):
    found = graded.networks(game)
    assert set(found) == set(SKILLS)
    weights = [found[skill].layers[0][0] for skill in SKILLS]
    for first in range(3):
        assert np.isfinite(weights[first]).all()
        assert not np.array_equal(weights[first], weights[first - 1])


def test_every_player_of_every_game_is_measured():
    rows = graded.read_returns()
    assert tuple(rows[0]) == graded.COLUMNS
    assert {(row["game"], row["head"]) for row in rows} == {
        (game, player.name) for game in TRAINED for player in PLAYERS
    }
    assert len(rows) == 24 * 32
    assert min(int(row["episodes"]) for row in rows) >= 10


def test_the_results_are_those_that_come_with_the_package():
    assert RESULTS.read_bytes() == (graded.SHIPPED / "returns.csv").read_bytes()


@pytest.mark.parametrize("name", ["low-e50-h50", "high-e00-h00", "uniform-1"])
def test_the_table_can_be_measured_again(name):
    """Breakout has short episodes; the returns depend on every weight and on every draw."""
    told = next(
        row for row in graded.read_returns() if (row["game"], row["head"]) == ("Breakout", name)
    )
    player = next(player for player in PLAYERS if player.name == name)
    (measured,) = evaluate_players("Breakout", players=(player,), episodes=int(told["episodes"]))
    assert {key: str(value) for key, value in measured.items()} == told


def test_references_know_every_game():
    known = graded.references()
    assert set(known) == set(TRAINED)
    assert known["Pong"] == (-20.7, 14.6)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(RMRError, match=r"no trained players of Pong .*players train Pong"):
        graded.networks("pong", tmp_path)


def test_shipped_files_are_small():
    sizes = [path.stat().st_size for path in graded.SHIPPED.iterdir()]
    assert sum(sizes) < 6_000_000
