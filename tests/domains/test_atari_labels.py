import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import CATEGORIES, _table, label_values, ram_labels
from rmr_gym.envs.atari.games import GAMES


@pytest.mark.parametrize("game", _table())
def test_every_game_has_labels_that_make_sense(game):
    labels = ram_labels(game)
    assert game in GAMES
    assert len({label.name for label in labels}) == len(labels) >= 5
    assert all(0 <= label.ram < 128 for label in labels)
    assert all(label.category in CATEGORIES for label in labels)
    bits = [(label.ram, bit) for label in labels for bit in range(8) if label.mask >> bit & 1]
    assert len(bits) == len(set(bits)), "two labels share a bit"


def test_as_many_labels_as_the_source_has():
    assert sum(len(ram_labels(game)) for game in _table()) == 362


def test_masked_bits_are_shifted_down():
    labels = ram_labels("Asteroids")
    ram = np.zeros((2, 128), np.uint8)
    ram[0, 60], ram[1, 60] = 0x4D, 0x3F
    names = [label.name for label in labels]
    values = label_values(ram, labels)
    assert values[:, names.index("num_lives")].tolist() == [4, 3]
    assert values[:, names.index("player_direction")].tolist() == [0xD, 0xF]
    ram[:, 73] = [255, 7]
    assert label_values(ram, labels)[:, names.index("player_x")].tolist() == [255, 7]


def test_unknown_games_are_named():
    with pytest.raises(RMRError, match="did you mean 'Pong'"):
        ram_labels("Pongo")


@pytest.mark.parametrize(
    ("game", "label", "sign"),
    [("Pong", "enemy_score", -1), ("Breakout", "score", 1), ("Breakout", "score_times_five", 1)],
)
def test_scores_change_with_the_reward_and_never_else(recorded, game, label, sign):
    from rmr_gym.data.dataset import TransitionDataset

    dataset = TransitionDataset(recorded(game))
    loaded = dataset.load(columns=("ram", "reward"), episodes=range(len(dataset.episodes)))
    (chosen,) = (each for each in ram_labels(game) if each.name == label)
    value = label_values(loaded["ram"], (chosen,))[:, 0]
    changed = value[loaded.current] != value[loaded.current + 1]
    rewarded = sign * loaded["reward"] > 0
    assert (changed == rewarded).all()
    assert rewarded.any()
