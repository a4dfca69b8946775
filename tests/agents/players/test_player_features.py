import numpy as np
import pytest

from rmr_gym.agents.players.player_features import player_features
from rmr_gym.protocol import stages
from rmr_gym.protocol.memory_features import memory_sets


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.probe_sets, memory_sets):
        cached.cache_clear()


def test_one_row_a_frame_of_the_probe(task):
    train, test = player_features(task)
    sets = stages.probe_sets(task)
    assert train.shape == (len(sets.training.frames), 64)
    assert test.shape == (len(sets.test.frames), 64)
    assert np.abs(train).max() <= 1
    assert train.std(0).max() > 0.05
