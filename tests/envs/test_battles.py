import sys
from functools import partial
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.envs.grids import BattlesEnv
from tests.envs.grids import (
    lit,
    played,
    require_determined,
    require_equal_files,
    require_refusals_of_steps,
)

BATTLES, CHANNELS = "rmr/Battles-v0", BattlesEnv.channels


@pytest.fixture(autouse=True)
def _magent2(request):
    if "missing" not in request.node.name:
        pytest.importorskip("magent2")


battle = partial(played, BATTLES)


def channel(observation, name):
    return observation["pixels"][..., CHANNELS.index(name)]


def cells(observation, name):
    return lit(channel(observation, name))


def test_gymnasium_finds_no_fault():
    check_env(gym.make(BATTLES, team=3, size=12).unwrapped, skip_render_check=True)


def test_a_seed_determines_a_battle():
    require_determined(BATTLES)


def test_markers_places_and_health_agree():
    for seen, *_ in battle(3, team=6):
        known = {tuple(map(int, place)) for place in seen["places"] if place[0] >= 0}
        friends, enemies = cells(seen, "friend"), cells(seen, "enemy")
        assert known == friends
        assert not friends & enemies
        assert cells(seen, "health") == friends | enemies
        for name in CHANNELS[3:]:
            assert cells(seen, name) <= friends


def test_friends_do_what_they_say():
    """One against one, in the open: no one is in the way until they meet."""
    steps = list(battle(0, team=1))
    moved = hit = 0
    for (seen, *_), (then, *_) in pairwise(steps):
        if not cells(seen, "friend") or not cells(then, "friend"):
            break
        ((row, column),), ((later, aside),) = cells(seen, "friend"), cells(then, "friend")
        down, up, right, left, attacks = (
            bool(channel(seen, name).any()) for name in ("down", "up", "right", "left", "attacks")
        )
        if attacks:
            before, after = (
                channel(s, "health")[channel(s, "enemy") > 0].sum() for s in (seen, then)
            )
            hit += after < before
        elif len(cells(seen, "enemy") & {(row + down - up, column + right - left)}) == 0:
            apart = max(
                abs(np.subtract(*[next(iter(cells(seen, n))) for n in ("friend", "enemy")]))
            )
            if apart > 2:
                assert (later, aside) == (row + down - up, column + right - left)
                moved += down or up or right or left
    assert moved > 3
    assert hit > 0


def test_a_battle_ends_where_a_team_has_fallen():
    *_, (last, terminated, truncated) = battle(0, team=2)
    assert (terminated, truncated) == (True, False)
    assert not cells(last, "friend") or not cells(last, "enemy")
    *_, (_, terminated, truncated) = battle(0, team=2, max_episode_steps=3)
    assert (terminated, truncated) == (False, True)


def test_recordings_have_the_same_bytes(tmp_path):
    for name, beside in (("one", 1), ("two", 3)):
        record(BATTLES, tmp_path / name, episodes=4, seed=5, team=3, num_envs=beside)
    require_equal_files(tmp_path / "one", tmp_path / "two")
    assert "magent2" in TransitionDataset(tmp_path / "one").manifest.versions


@pytest.mark.parametrize("wrong", [{"team": 0}, {"team": 155}, {"size": 11}, {"size": 101}])
def test_battles_that_cannot_be(wrong):
    message = (
        r"a grid of 12 to 100 cells a side with 1 to \d+ units a team, found \d+ on one of \d+"
    )
    with pytest.raises(RMRError, match=message):
        gym.make(BATTLES, **wrong)


def test_other_wrong_arguments():
    with pytest.raises(RMRError, match=r"probability in .* as noise"):
        gym.make(BATTLES, noise=1.5)
    env = gym.make(BATTLES, disable_env_checker=True).unwrapped
    require_refusals_of_steps(env)


def test_an_option_that_the_environment_lacks_is_told_before_anything_is_recorded(tmp_path):
    for env_id in (BATTLES, "CartPole-v1"):
        with pytest.raises(RMRError, match=r"cannot be made with \{'balls': 3\}: .*'balls'"):
            record(env_id, tmp_path / "none", episodes=1, balls=3)
    assert not (tmp_path / "none").exists()


def test_magent2_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "magent2", None)
    with pytest.raises(RMRError, match=r'magent2.*pip install "rmr-gym\[battles\]"'):
        gym.make(BATTLES)
