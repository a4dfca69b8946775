import numpy as np
import pytest

from rmr_gym.agents.players.player_features import SKILL, hidden_features, player_features
from rmr_gym.agents.players.policies import networks
from rmr_gym.agents.players.ram_network import ram_features
from rmr_gym.protocol import stages
from rmr_gym.protocol.memory_features import memory_sets


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.probe_sets, memory_sets):
        cached.cache_clear()


def test_the_actions_are_scored_from_these_features():
    network = networks("Pong")[SKILL]
    ram, before = np.random.default_rng(0).integers(0, 256, (2, 5, 128)).astype(np.uint8)
    weight, bias = network.layers[-1]
    scores = hidden_features(network, ram, before).astype(float) @ weight.T + bias
    for row in range(5):
        expected = network.scores(ram_features(ram[row], before[row]))
        np.testing.assert_allclose(scores[row], expected, atol=1e-5)


def test_one_row_a_frame_of_the_probe(task):
    train, test = player_features(task)
    sets = stages.probe_sets(task)
    assert train.shape == (len(sets.training.frames), 64)
    assert test.shape == (len(sets.test.frames), 64)
    assert np.abs(train).max() <= 1
    assert train.std(0).max() > 0.05
