import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

import rmr_gym
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.envs.atari.vector import PairedAtariVectorEnv

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(rmr_gym.__file__).parents[1])}
RANDOM = {"noop_max": 9, "repeat_action_probability": 0.25}


def same(first, second) -> bool:
    """Bitwise equality of nested results of reset and step."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray) and first.dtype == object:
        return second.dtype == object and same(tuple(first), tuple(second))
    if not isinstance(first, np.ndarray):
        return first is second is None
    return np.array_equal(first, second) and first.dtype == second.dtype


def play(envs, steps, seed=0):
    envs.action_space.seed(seed)
    return [envs.reset(seed=seed), *(envs.step(envs.action_space.sample()) for _ in range(steps))]


def both(env_id, *, autoreset_mode="NextStep", workers=0, num_envs=3, **options):
    """Make our vector and Gymnasium's of the same environments."""
    ours = gym.make_vec(env_id, num_envs, workers=workers, autoreset_mode=autoreset_mode, **options)
    theirs = gym.make_vec(
        env_id,
        num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": autoreset_mode},
        **options,
    )
    assert isinstance(ours, PairedAtariVectorEnv)
    assert isinstance(theirs, gym.vector.SyncVectorEnv)
    return ours, theirs


@pytest.fixture(scope="module")
def two_workers():
    envs = gym.make_vec("rmr/Breakout-v0", 3, workers=2, max_episode_steps=7, **RANDOM)
    yield envs
    envs.close()


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize(
    "options",
    [
        {"max_episode_steps": 7, **RANDOM},
        {"max_num_frames_per_episode": 40, "pixels": "palette", "noop_max": 30},
        {"frameskip": 30, "pixels": "rgb", "max_pool": True, "noop_max": 30},
    ],
    ids=["cut by steps", "cut by frames", "played to its end"],
)
def test_equal_to_single_environments_bit_by_bit_over_episodes(mode, options):
    ours, theirs = both("rmr/Breakout-v0", autoreset_mode=mode, **options)
    ended = np.zeros((2, 3), int)
    for mine, other in zip(play(ours, 45), play(theirs, 45), strict=True):
        assert same(mine, other)
        if len(mine) == 5:
            ended += mine[2:4]
    assert (ended[0 if "frameskip" in options else 1] > 0).all(), "episodes ended on the way"
    assert same(ours.reset(), theirs.reset())
    assert same(ours.reset(seed=[3, 1, 4]), theirs.reset(seed=[3, 1, 4]))
    ours.close()
    theirs.close()


def test_worker_processes_change_no_bit(two_workers):
    alone = gym.make_vec("rmr/Breakout-v0", 3, workers=1, max_episode_steps=7, **RANDOM)
    for mine, other in zip(play(two_workers, 18), play(alone, 18), strict=True):
        assert same(mine, other)
    assert same(two_workers.reset(seed=[5, None, 2])[0], alone.reset(seed=[5, None, 2])[0])


def test_the_last_observation_crosses_the_process_border_too():
    settings = {"autoreset_mode": "SameStep", "max_episode_steps": 3, "noop_max": 20}
    together, alone = (
        gym.make_vec("rmr/Pong-v0", 2, workers=workers, render_mode="rgb_array", **settings)
        for workers in (2, 0)
    )
    for mine, other in zip(play(together, 7), play(alone, 7), strict=True):
        assert same(mine, other)
    assert same(together.render(), alone.render())
    assert together.render()[1].shape == (210, 160, 3)
    together.close()


def test_without_autoreset_a_mask_resets_what_is_over():
    options = {"autoreset_mode": "Disabled", "max_episode_steps": 4, **RANDOM}
    ours, theirs = both("rmr/Breakout-v0", **options)
    assert same(play(ours, 2)[-1], play(theirs, 2)[-1])
    mask = np.array([False, True, False])
    for seed in (None, [7, 8, 9]):
        results = [envs.reset(seed=seed, options={"reset_mask": mask}) for envs in (ours, theirs)]
        assert same(*results)
        assert results[0][1]["_lives"].tolist() == mask.tolist()
    actions = np.array([1, 3, 4])
    for _ in range(2):
        assert same(ours.step(actions), theirs.step(actions))
    with pytest.raises(RMRError, match=r"found \[0, 2\] over: reset those"):
        ours.step(actions)
    options = {"reset_mask": ~mask}
    ours.reset(options=options)
    assert list(options) == ["reset_mask"], "the argument is left as it was"
    assert ours.step(actions)[3].tolist() == [False, False, False]


def test_observations_are_new_arrays_unless_views_are_asked_for():
    envs = PairedAtariVectorEnv("Pong", 2, workers=0)
    kept = [result[0] for result in play(envs, 40)]
    assert len({each["ram"].tobytes() for each in kept}) > 30
    assert all(each in envs.observation_space for each in kept)
    views = PairedAtariVectorEnv("Pong", 2, workers=0, copy=False)
    seen = play(views, 40)[-1][0]
    assert same(seen, kept[-1])
    views.step(np.zeros(2, int))
    assert not same(seen, kept[-1])


def test_what_gymnasium_puts_around_vectors():
    envs = gym.make_vec("rmr/Pong-v0", 2, workers=0, max_num_frames_per_episode=40)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert envs.spec.kwargs["workers"] == 0
    around = DictInfoToList(RecordEpisodeStatistics(envs))
    results = play(around, 12)
    assert [info["episode"]["l"] for info in results[10][4]] == [10, 10]
    assert results[3][4][1]["episode_frame_number"] == 12
    again = gym.make_vec(envs.spec)
    assert isinstance(again, PairedAtariVectorEnv)
    assert again.num_envs == 2


def test_a_worker_that_dies_is_named_and_takes_the_others_with_it():
    envs = PairedAtariVectorEnv("Pong", 3, workers=2)
    envs.reset(seed=0)
    processes = envs._copies._processes
    os.kill(processes[1].pid, signal.SIGKILL)
    with pytest.raises(RMRError, match=r"process 1 of 2 that plays Pong \(environments 2 to 2\)"):
        envs.step(np.zeros(3, int))
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(RMRError, match="make the environments again"):
        envs.step(np.zeros(3, int))
    envs.close()


def test_an_exception_in_a_worker_is_told_and_ends_all():
    envs = PairedAtariVectorEnv("Pong", 2, workers=2)
    with pytest.raises(RMRError, match=r"process 0 of 2 .* failed: KeyError: 'dance'"):
        envs._copies._ask("dance")
    assert not any(process.is_alive() for process in envs._copies._processes)
    envs.close()
    envs.close()
    for call in (envs.reset, envs.render, lambda: envs.step([0, 0])):
        with pytest.raises(RMRError, match="closed ones"):
            call()


ORPHANS = """
import numpy as np
from rmr_gym.envs.atari.vector import PairedAtariVectorEnv
envs = PairedAtariVectorEnv("Pong", 2, workers=2)
envs.reset(seed=0)
print(*[process.pid for process in envs._copies._processes], flush=True)
while True:
    envs.step(np.zeros(2, int))
"""


def test_workers_end_when_their_owner_is_killed():
    owner = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 2
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 20
    while any(map(runs, pids)):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


UNGUARDED = """
import gymnasium, rmr_gym
gymnasium.make_vec("rmr/Pong-v0", 2, workers=2)
"""


def test_a_script_without_its_guard_is_told_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    run = subprocess.run(
        [sys.executable, script], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, check=False
    )
    assert run.returncode == 1
    assert 'started by a script without `if __name__ == "__main__":`' in run.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"game": "Pogn"}, "did you mean 'Pong'"),
        ({"num_envs": 0}, "at least 1 as num_envs"),
        ({"workers": -1}, "at least 0 as workers"),
        ({"max_episode_steps": 0}, "at least 1 as max_episode_steps"),
        ({"autoreset_mode": "never"}, "'never': .*one of NextStep, SameStep, Disabled"),
        ({"frameskip": 0}, "at least 1 as frameskip"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(RMRError, match=message):
        PairedAtariVectorEnv(**{"game": "Pong", **options})


def test_bad_calls():
    envs = PairedAtariVectorEnv("Pong", 2, workers=0)
    with pytest.raises(ResetNeeded):
        envs.step([0, 0])
    with pytest.raises(ResetNeeded):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    for actions in ([0], [0, 18], [-1, 0], [0.5, 0]):
        with pytest.raises(RMRError, match="expected 2 actions from 0 to 17"):
            envs.step(actions)
    for mask in ([True], [0, 1], [False, False]):
        with pytest.raises(RMRError, match="a reset_mask of 2 booleans"):
            envs.reset(options={"reset_mask": np.array(mask)})
    with pytest.raises(RMRError, match="unknown reset option"):
        envs.reset(options={"mask": 1})
    for seed in ([1], -1, [1, -1]):
        with pytest.raises(RMRError, match="seed"):
            envs.reset(seed=seed)
    assert envs.render() is None


def test_copies_are_new_vectors():
    envs = PairedAtariVectorEnv("Pong", 2, workers=0, autoreset_mode="SameStep", frameskip=2)
    for twin in (copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))):
        assert same(tuple(play(twin, 4)), tuple(play(envs, 4)))
        assert twin.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("seed", [np.int64(3), np.array([3, 4]), [np.uint8(3), 4], 2**80])
def test_every_whole_number_is_a_seed(seed):
    envs = PairedAtariVectorEnv("Pong", 2, workers=0, **RANDOM)
    alone = PairedAtariEnv("Pong", **RANDOM)
    first = seed[0] if np.ndim(seed) else seed
    shown, single = envs.reset(seed=seed)[0], alone.reset(seed=first)[0]
    assert np.array_equal(shown["ram"][0], single["ram"])


def test_a_daemonic_process_plays_by_itself(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    envs = PairedAtariVectorEnv("Pong", 2)
    assert envs.reset(seed=0)[0]["ram"].shape == (2, 128)
    with pytest.raises(RMRError, match="ask for workers=0 here"):
        PairedAtariVectorEnv("Pong", 2, workers=2)
