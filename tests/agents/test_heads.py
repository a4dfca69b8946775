import numpy as np
import pytest

from rmr_gym.agents.heads import HEADS, Head, select_heads
from rmr_gym.envs.games import ACTION_NAMES
from rmr_gym.errors import RMRError


def played(head: Head, steps: int, seed: int = 0) -> np.ndarray:
    policy = head.policy(np.random.default_rng(seed))
    return np.array([policy.act(None) for _ in range(steps)])


def expected_repeats(head: Head) -> float:
    return head.hold + (1 - head.hold) * np.square(head.preference).sum()


def test_thirty_two_heads_no_two_alike():
    assert len(HEADS) == 32
    assert len({head.name for head in HEADS}) == 32
    assert len({(head.preference, head.hold) for head in HEADS}) == 32
    assert len({head.hold for head in HEADS}) == 4
    assert len({head.preference for head in HEADS}) == 8


def test_the_first_eight_heads_differ_in_both_respects():
    assert len({head.preference for head in HEADS[:8]}) == 8
    assert len({head.hold for head in HEADS[:8]}) == 4


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.name)
def test_a_head_plays_as_its_row_says(head):
    assert sum(head.preference) == pytest.approx(1)
    steps = 40_000
    actions = played(head, steps)
    assert actions.min() >= 0
    assert actions.max() <= 17
    repeats = np.mean(actions[1:] == actions[:-1])
    assert repeats == pytest.approx(expected_repeats(head), abs=0.02)
    frequency = np.bincount(actions, minlength=18) / steps
    drawn_afresh = steps * (1 - head.hold)
    np.testing.assert_allclose(frequency, head.preference, atol=4 / np.sqrt(drawn_afresh))


def test_preferences_lean_where_they_say():
    by_name = {head.name: np.array(head.preference) for head in HEADS}
    for name, words in {
        "fire-2": ("FIRE",),
        "horizontal-5": ("LEFT", "RIGHT"),
        "vertical-1": ("UP", "DOWN"),
        "up-1": ("UP",),
    }.items():
        named = np.array([any(word in action for word in words) for action in ACTION_NAMES])
        assert by_name[name][named].sum() > 0.8
        assert by_name[name].min() > 0, "every action stays possible"
    assert np.ptp(by_name["uniform-1"]) == 0


def test_the_name_tells_how_long_an_action_is_held():
    for head in HEADS:
        assert 1 / (1 - head.hold) == pytest.approx(int(head.name.rsplit("-", 1)[1]))


def test_the_generator_decides():
    head = HEADS[5]
    assert (played(head, 700, seed=1) == played(head, 700, seed=1)).all()
    assert (played(head, 700, seed=1) != played(head, 700, seed=2)).any()
    assert all(type(action) is int for action in [head.policy(np.random.default_rng(0)).act(None)])


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("uniform", ["uniform-1"]),
        ("fire-2,uniform-20", ["fire-2", "uniform-20"]),
        ("fire-2, uniform", ["fire-2", "uniform-1"]),
        (["up-1"], ["up-1"]),
        (("uniform", "mix_a-2"), ["uniform-1", "mix_a-2"]),
    ],
)
def test_choices(choice, names):
    assert [head.name for head in select_heads(choice)] == names


def test_all_of_them():
    assert select_heads("all") == HEADS


def test_wrong_choices():
    with pytest.raises(RMRError, match="unknown behaviour head 'fier-2': did you mean 'fire-2'"):
        select_heads("fier-2")
    for wrong in ([], "fire-2,fire-2", ["uniform", "uniform-1"]):
        with pytest.raises(RMRError, match="each named once"):
            select_heads(wrong)
