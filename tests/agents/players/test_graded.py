import itertools

import numpy as np
import pytest
from safetensors.numpy import save_file

from rmr_gym.agents.players.graded import (
    HIDDEN,
    PLAYERS,
    SKILLS,
    UNSKILLED,
    Player,
    RamNetwork,
    load_networks,
    ram_features,
    save_networks,
    select_players,
)
from rmr_gym.core.actions import ACTION_NAMES
from rmr_gym.core.errors import RMRError

UNTRAINED = [player for player in PLAYERS if player.skill == UNSKILLED]
TRAINED = [player for player in PLAYERS if player.skill != UNSKILLED]


def a_network(seed: int = 0) -> RamNetwork:
    rng = np.random.default_rng(seed)
    widths = (256, *HIDDEN, 18)
    return RamNetwork(
        tuple(
            (rng.normal(size=(outside, inside)), rng.normal(size=outside))
            for inside, outside in itertools.pairwise(widths)
        )
    )


def screens(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"ram": row} for row in rng.integers(0, 256, (count, 128), np.uint8)]


def played(player: Player, steps: int, seed: int = 0) -> np.ndarray:
    policy = player.policy(np.random.default_rng(seed), a_network())
    return np.array([policy(screen) for screen in screens(steps)])


def test_thirty_two_players_no_two_alike():
    assert len(PLAYERS) == 32
    assert len({player.name for player in PLAYERS}) == 32
    assert len({(h.skill, h.exploration, h.hold, h.preference) for h in PLAYERS}) == 32
    assert len(UNTRAINED) == 8
    assert len({player.preference for player in UNTRAINED}) == 8
    assert {player.hold for player in UNTRAINED} == {0.0, 0.5, 0.8, 0.95}
    for skill in SKILLS:
        rows = [player for player in PLAYERS if player.skill == skill]
        assert len({(player.exploration, player.hold) for player in rows}) == 8


def test_the_first_four_players_have_four_skills():
    assert {player.skill for player in PLAYERS[:4]} == {UNSKILLED, *SKILLS}


@pytest.mark.parametrize("player", UNTRAINED, ids=lambda player: player.name)
def test_an_unskilled_player_plays_as_its_row_says(player):
    assert sum(player.preference) == pytest.approx(1)
    steps = 40_000
    policy = player.policy(np.random.default_rng(0))
    actions = np.array([policy(None) for _ in range(steps)])
    assert actions.min() >= 0
    assert actions.max() <= 17
    repeats = np.mean(actions[1:] == actions[:-1])
    expected = player.hold + (1 - player.hold) * np.square(player.preference).sum()
    assert repeats == pytest.approx(expected, abs=0.02)
    frequency = np.bincount(actions, minlength=18) / steps
    drawn_afresh = steps * (1 - player.hold)
    np.testing.assert_allclose(frequency, player.preference, atol=4 / np.sqrt(drawn_afresh))


def test_preferences_lean_where_they_say():
    for player in UNTRAINED:
        words = {"fire": ("FIRE",), "horizontal": ("LEFT", "RIGHT"), "vertical": ("UP", "DOWN")}
        preference = np.array(player.preference)
        assert preference.min() > 0, "every action stays possible"
        kind = player.name.rsplit("-", 1)[0]
        if kind in words:
            named = [any(word in name for word in words[kind]) for name in ACTION_NAMES]
            assert preference[np.array(named)].sum() > 0.8


def test_the_name_tells_how_long_an_action_is_held():
    for player in UNTRAINED:
        assert 1 / (1 - player.hold) == pytest.approx(int(player.name.rsplit("-", 1)[1]))
    for player in TRAINED:
        explored, held = (int(part[1:]) / 100 for part in player.name.split("-")[1:])
        assert (explored, held) == (player.exploration, player.hold)


def test_a_skilled_player_draws_from_the_softmax_of_its_scores():
    player = next(player for player in TRAINED if (player.exploration, player.hold) == (0, 0))
    *hidden, _ = a_network().layers
    constant = [(weight * 0, bias * 0) for weight, bias in hidden]
    network = RamNetwork((*constant, (np.zeros((18, HIDDEN[1])), np.log(np.arange(1, 19)))))
    policy, screen = player.policy(np.random.default_rng(0), network), screens(1)[0]
    actions = np.array([policy(screen) for _ in range(20_000)])
    frequency = np.bincount(actions, minlength=18) / len(actions)
    np.testing.assert_allclose(frequency, np.arange(1, 19) / 171, atol=0.012)


def test_a_skilled_player_sees_the_change_since_the_step_before():
    """With scores far apart the softmax is the best action: that of the plain computation."""
    player = next(player for player in TRAINED if (player.exploration, player.hold) == (0, 0))
    shown, network = screens(50), a_network()
    sharp = RamNetwork(tuple((weight * 50, bias * 50) for weight, bias in network.layers))
    policy = player.policy(np.random.default_rng(3), sharp)
    before = shown[0]["ram"]
    for screen in shown:
        best = int(sharp.scores(ram_features(screen["ram"], before)).argmax())
        assert policy(screen) == best
        before = screen["ram"]


@pytest.mark.parametrize("hold", [0.0, 0.5])
def test_exploring_players_play_every_action(hold):
    player = next(h for h in TRAINED if (h.exploration, h.hold) == (0.5, hold))
    assert len(np.unique(played(player, 4000))) == 18


def test_holding_players_repeat_actions():
    pairs = {
        hold: next(h for h in TRAINED if (h.skill, h.exploration, h.hold) == ("high", 0.5, hold))
        for hold in (0.0, 0.5)
    }
    repeats = {hold: np.mean(np.diff(played(player, 4000)) == 0) for hold, player in pairs.items()}
    assert repeats[0.5] == pytest.approx(0.5 + 0.5 * repeats[0.0], abs=0.05)


@pytest.mark.parametrize("player", [UNTRAINED[5], TRAINED[2], TRAINED[-1]], ids=lambda h: h.name)
def test_the_generator_decides(player):
    assert (played(player, 700, seed=1) == played(player, 700, seed=1)).all()
    assert (played(player, 700, seed=1) != played(player, 700, seed=2)).any()


def test_a_skilled_player_needs_its_network():
    with pytest.raises(RMRError, match=r"expected the network of skill 'high' for player 'high"):
        PLAYERS[0].policy(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("uniform", ["uniform-1"]),
        ("fire-2,uniform", ["fire-2", "uniform-1"]),
        ("low-e05-h50, fire-2", ["low-e05-h50", "fire-2"]),
        (["uniform-1"], ["uniform-1"]),
    ],
)
def test_choices(choice, names):
    known = {player.name for player in PLAYERS}
    assert set(names) <= known, sorted(known)
    assert [player.name for player in select_players(choice)] == names


def test_all_of_them():
    assert select_players("all") == PLAYERS
    assert set(select_players("unskilled")) == set(UNTRAINED)


def test_wrong_choices():
    with pytest.raises(RMRError, match="unknown player 'high-e00': did you mean 'high-e"):
        select_players("high-e00")
    for wrong in ([], "fire-2,fire-2", ["uniform", "uniform-1"]):
        with pytest.raises(RMRError, match="each named once"):
            select_players(wrong)


def a_small_network(seed: int = 0) -> RamNetwork:
    """Return a network whose hidden layers are not saturated."""
    return RamNetwork(tuple((weight / 16, bias) for weight, bias in a_network(seed).layers))


def test_features_by_hand():
    now, before = np.zeros((2, 128), np.uint8)
    now[:3], before[:3] = (255, 0, 51), (0, 255, 51)
    features = ram_features(now, before)
    assert features.shape == (256,)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:4], (1, -1, -0.6, -1), atol=1e-6)
    np.testing.assert_allclose(features[128:132], (2, -2, 0, 0), atol=1e-6)


def test_scores_are_those_of_the_layers():
    network = a_small_network()
    features = np.random.default_rng(1).normal(size=256).astype(np.float32)
    (a, b), (c, d), (e, f) = network.layers
    expected = e @ np.tanh(c @ np.tanh(a @ features.astype(float) + b) + d) + f
    np.testing.assert_allclose(network.scores(features), expected, rtol=1e-12)
    np.testing.assert_allclose(network.scores(features[None]), [expected], rtol=1e-12)
    np.testing.assert_allclose(e @ network.hidden(features) + f, expected, rtol=1e-12)


def test_a_file_holds_half_precision_and_notes(tmp_path):
    path, network = tmp_path / "Pong.safetensors", a_small_network()
    save_networks(path, {"low": network, "high": a_small_network(1)}, {"game": "Pong"})
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
