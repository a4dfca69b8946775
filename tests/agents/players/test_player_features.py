import numpy as np

from rmr_gym.agents.players.graded import SKILL, PlayerReference, networks, ram_features
from rmr_gym.stages.games import probe_sets


def test_the_actions_are_scored_from_these_features():
    network = networks("Pong")[SKILL]
    ram, before = np.random.default_rng(0).integers(0, 256, (2, 5, 128)).astype(np.uint8)
    weight, bias = network.layers[-1]
    scores = network.hidden(ram_features(ram, before)) @ weight.T + bias
    for row in range(5):
        expected = network.scores(ram_features(ram[row], before[row]))
        np.testing.assert_allclose(scores[row], expected, atol=1e-5)


def test_one_row_a_frame_of_the_probe_and_a_key_of_the_weights(game):
    sets = probe_sets(game.data, game.preset.model, game.preset.probing)
    train, test = PlayerReference("Pong").features(sets.training, sets.test)
    assert train.shape == (len(sets.training.frames), 64)
    assert test.shape == (len(sets.test.frames), 64)
    assert train.abs().max() <= 1
    assert train.std(0).max() > 0.05
    assert PlayerReference("Pong").key() == PlayerReference("Pong").key()
    assert PlayerReference("Pong").key()["sums"] != PlayerReference("Breakout").key()["sums"]
