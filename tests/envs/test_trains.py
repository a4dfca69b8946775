import os
import random
import subprocess
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
from rmr_gym.envs.grids import FLATLAND, TrainsEnv
from tests.envs.grids import (
    lit,
    played,
    require_determined,
    require_equal_files,
    require_refusals_of_steps,
)

TRAINS = "rmr/Trains-v0"
STEPS = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}


@pytest.fixture(autouse=True)
def _flatland(request):
    if "missing" not in request.node.name:
        reason = "flatland-rl asks for an older NumPy: not among the extras"
        pytest.importorskip("flatland", reason=reason)


journey = partial(played, TRAINS)


def cells(observation, name):
    return lit(observation["pixels"][..., TrainsEnv.channels.index(name)])


def places(observation):
    return [tuple(map(int, place)) for place in observation["places"]]


def test_gymnasium_finds_no_fault():
    check_env(gym.make(TRAINS, trains=3).unwrapped, skip_render_check=True)


def test_a_seed_determines_a_journey():
    require_determined(TRAINS)


def test_nobody_elses_chance_is_touched():
    random.seed(7)
    expected = random.random()
    random.seed(7)
    list(journey(3, trains=2))
    assert random.random() == expected


def test_trains_stand_on_rails_and_every_way_out_is_a_rail():
    for seen, *_ in journey(3, trains=9):
        there = [place for place in places(seen) if place[0] >= 0]
        rails = cells(seen, "rail")
        assert len(set(there)) == len(there)
        assert {*there} == cells(seen, "train")
        assert {*there} | cells(seen, "target") <= rails
        assert rails == set.union(*(cells(seen, f"rail {way}") for way in STEPS))
        for way, step in STEPS.items():
            assert cells(seen, way) <= cells(seen, f"rail {way}") & {*there}
            for row, column in cells(seen, f"rail {way}"):
                assert (row + step[0], column + step[1]) in rails
        assert sum(len(cells(seen, way)) for way in STEPS) == len(there)


def test_trains_go_where_they_say_unless_another_is_in_the_way():
    moved = arrived = 0
    for (seen, *_), (then, *_) in pairwise(journey(0, trains=6, max_episode_steps=60)):
        for here, there in zip(places(seen), places(then), strict=True):
            if here[0] < 0:
                continue
            (way,) = (way for way in STEPS if here in cells(seen, way))
            ahead = (here[0] + STEPS[way][0], here[1] + STEPS[way][1])
            moved += there == ahead
            arrived += there == (-1, -1)
            assert there in (ahead, here, (-1, -1))
            if there == here:
                assert ahead in cells(then, "train") | cells(seen, "train")
            if there == (-1, -1):
                assert ahead in cells(seen, "target")
    assert moved > 50
    assert arrived > 0


def test_alone_without_noise_a_train_arrives_and_the_journey_ends():
    *_, (last, terminated, truncated) = journey(0, trains=1, noise=0.0, max_episode_steps=200)
    assert (terminated, truncated) == (True, False)
    assert not cells(last, "train") | cells(last, "target")
    assert np.array_equal(last["places"], [[-1, -1]])
    *_, (_, terminated, truncated) = journey(0, trains=1)
    assert (terminated, truncated) == (False, True)


def test_noise_takes_longer_ways():
    lengths = [len(list(journey(1, trains=1, noise=p, max_episode_steps=300))) for p in (0.0, 0.9)]
    assert lengths[0] < lengths[1]


def test_recordings_have_the_same_bytes(tmp_path):
    for name, beside in (("one", 1), ("two", 2)):
        record(TRAINS, tmp_path / name, episodes=3, seed=5, trains=3, num_envs=beside)
    require_equal_files(tmp_path / "one", tmp_path / "two")
    dataset = TransitionDataset(tmp_path / "one")
    dataset.verify()
    assert "mujoco" not in dataset.manifest.versions
    assert "flatland-rl" in dataset.manifest.versions
    window = dataset.load(columns=("pixels", "places"))
    assert window["pixels"].shape[1:] == (30, 30, len(TrainsEnv.channels))
    assert window["places"].shape[1:] == (3, 2)


def test_another_process_sees_the_same():
    script = (
        "import hashlib, gymnasium as gym, rmr_gym\n"
        "env = gym.make('rmr/Trains-v0')\n"
        "seen = [env.reset(seed=4)[0], *(env.step(0)[0] for _ in range(20))]\n"
        "print(hashlib.sha256(b''.join(o['pixels'].tobytes() for o in seen)).hexdigest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashing in ("1", "2")
    }
    assert len(told) == 1


@pytest.mark.parametrize("wrong", [{"trains": 0}, {"trains": 51}, {"size": 21}, {"size": 101}])
def test_trains_that_cannot_be(wrong):
    message = r"a grid of 22 to 100 cells a side with 1 to 50 trains, found \d+ on one of \d+"
    with pytest.raises(RMRError, match=message):
        gym.make(TRAINS, **wrong)


def test_other_wrong_arguments():
    with pytest.raises(RMRError, match="expected a whole number of at least 0 as trains"):
        gym.make(TRAINS, trains=-1)
    with pytest.raises(RMRError, match=r"probability in .* as noise"):
        gym.make(TRAINS, noise=-0.1)
    env = gym.make(TRAINS, disable_env_checker=True).unwrapped
    require_refusals_of_steps(env)


def test_flatland_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "flatland", None)
    with pytest.raises(RMRError) as told:
        gym.make(TRAINS)
    assert "expected the package flatland, found that it cannot be imported" in str(told.value)
    assert f"install it with `pip install {FLATLAND}`" in str(told.value)
