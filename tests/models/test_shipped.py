"""The encoders that come with the package: they load, fit their game and say how good they are."""

import warnings

import gymnasium as gym
import numpy as np
import pytest

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.envs.atari.games import find_game
from rmr_gym.models.pretrained import CARD, PretrainedEncoder, shipped_encoders
from rmr_gym.wrappers.features import RMRObservationWrapper

SHIPPED = sorted(shipped_encoders())


def test_a_few_games_are_shipped_in_a_few_megabytes():
    files = [file for folder in shipped_encoders().values() for file in folder.iterdir()]
    assert {"pong", "breakout", "freeway", "seaquest"} <= set(SHIPPED)
    assert sum(file.stat().st_size for file in files) < 5e6


@pytest.mark.parametrize("name", SHIPPED)
def test_one_line_gives_features_of_the_game(name):
    game = find_game(name).name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = RMRObservationWrapper(gym.make(f"rmr/{game}-v0"), name, output="processed")
    first, _ = env.reset(seed=0)
    for _ in range(20):
        last = env.step(env.action_space.sample())[0]
    assert first.shape == (128, 64)
    assert np.isfinite(last).all()
    assert np.abs(last - first).max() > 0
    env.close()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_shows_what_the_encoder_must_beat(name):
    read = PretrainedEncoder.from_pretrained(name)
    scores = {row["features"]: row["micro_f1"] for row in read.provenance["metrics"]}
    assert {"this encoder", "untrained encoder", "pixels through PCA"} == set(scores)
    assert read.processor is not None
    card = (shipped_encoders()[name] / CARD).read_text()
    assert all(f"{score:.4f}" in card for score in scores.values())
    assert "license: mit" in card
