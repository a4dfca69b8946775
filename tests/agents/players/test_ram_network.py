import itertools

import numpy as np
import pytest
from safetensors.numpy import save_file

from rmr_gym.agents.players.graded import (
    HIDDEN,
    RamNetwork,
    load_networks,
    ram_features,
    save_networks,
)
from rmr_gym.core.errors import RMRError


def a_network(seed: int = 0) -> RamNetwork:
    rng = np.random.default_rng(seed)
    widths = (256, *HIDDEN, 18)
    return RamNetwork(
        tuple(
            (rng.normal(size=(outside, inside)) / 16, rng.normal(size=outside))
            for inside, outside in itertools.pairwise(widths)
        )
    )


def test_features_by_hand():
    now, before = np.zeros((2, 128), np.uint8)
    now[:3], before[:3] = (255, 0, 51), (0, 255, 51)
    features = ram_features(now, before)
    assert features.shape == (256,)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:4], (1, -1, -0.6, -1), atol=1e-6)
    np.testing.assert_allclose(features[128:132], (2, -2, 0, 0), atol=1e-6)


def test_scores_are_those_of_the_layers():
    network = a_network()
    features = np.random.default_rng(1).normal(size=256).astype(np.float32)
    (a, b), (c, d), (e, f) = network.layers
    expected = e @ np.tanh(c @ np.tanh(a @ features.astype(float) + b) + d) + f
    np.testing.assert_allclose(network.scores(features), expected, rtol=1e-12)
    np.testing.assert_allclose(network.scores(features[None]), [expected], rtol=1e-12)
    np.testing.assert_allclose(e @ network.hidden(features) + f, expected, rtol=1e-12)


def test_a_file_holds_half_precision_and_notes(tmp_path):
    path, network = tmp_path / "Pong.safetensors", a_network()
    save_networks(path, {"low": network, "high": a_network(1)}, {"game": "Pong"})
    found, notes = load_networks(path)
    assert notes == {"game": "Pong"}
    assert set(found) == {"low", "high"}
    for (weight, bias), (kept, kept_bias) in zip(network.layers, found["low"].layers, strict=True):
        np.testing.assert_array_equal(kept, weight.astype(np.float16).astype(float))
        np.testing.assert_array_equal(kept_bias, bias.astype(np.float16).astype(float))
    assert path.stat().st_size < 140_000


def test_files_that_hold_something_else(tmp_path):
    with pytest.raises(RMRError, match=r"expected the weights of trained players in .*none"):
        load_networks(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(RMRError, match="expected the weights of trained players"):
        load_networks(tmp_path / "text")
    save_file({"low.0.weight": np.zeros((3, 3))}, tmp_path / "other", metadata={"notes": "{}"})
    with pytest.raises(RMRError, match="expected the layers of a RAM policy"):
        load_networks(tmp_path / "other")
    save_file({"a": np.zeros(1)}, tmp_path / "bad", metadata={"notes": "{"})
    with pytest.raises(RMRError, match="expected the weights of trained players"):
        load_networks(tmp_path / "bad")
