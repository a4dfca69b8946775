import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from rmr_gym.agents.collect import collect
from rmr_gym.agents.players.heads import HEADS
from rmr_gym.agents.players.policies import networks
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator, integer_seed
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.wrappers import RecordTransitions

EPISODES, STEPS = 6, 40


def files(path: Path) -> dict[str, bytes]:
    found = (entry for entry in path.rglob("*") if entry.is_file())
    return {str(entry.relative_to(path)): entry.read_bytes() for entry in found}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("unbroken") / "pong"
    collect("pong", path, episodes=EPISODES, max_steps=STEPS)
    return path


@pytest.fixture
def broken(unbroken, tmp_path) -> Path:
    """Return a recording that lacks three episodes, one of them half written."""
    path = tmp_path / "pong"
    shutil.copytree(unbroken, path)
    for index in (0, 3, 5):
        (path / "episodes" / f"{index:06d}.h5").unlink()
    (path / "episodes" / ".000003.h5-9f.tmp").write_bytes(b"half")
    return path


def test_what_is_recorded(unbroken):
    dataset = TransitionDataset(unbroken, verify=True)
    dataset.require_game("Pong")
    assert [e.head for e in dataset.episodes] == [head.name for head in HEADS[:EPISODES]]
    assert [e.seed for e in dataset.episodes] == [
        integer_seed(0, "episode", index) for index in range(EPISODES)
    ]
    assert [e.length for e in dataset.episodes] == [STEPS] * EPISODES
    assert not any(e.interrupted for e in dataset.episodes)
    loaded = dataset.load(columns=("truncated", "terminated", "ram"))
    last = np.arange(EPISODES * STEPS) % STEPS == STEPS - 1
    assert (loaded["truncated"] == last).all()
    assert not loaded["terminated"].any()
    assert len(np.unique(loaded["ram"], axis=0)) > EPISODES * STEPS / 2
    manifest = dataset.manifest
    assert manifest.heads == tuple(head.name for head in HEADS)
    assert (manifest.settings["seed"], manifest.settings["max_steps"]) == (0, STEPS)
    assert manifest.env_kwargs["repeat_action_probability"] == 0.0


def test_the_wrapper_would_have_written_the_same_files(unbroken, tmp_path):
    """Play episode 2 through the registered environment, step by step."""
    head = HEADS[2]
    env = RecordTransitions(
        TimeLimit(gym.make("rmr/Pong-v0"), STEPS), tmp_path / "one", head=head.name
    )
    policy = head.policy(generator(0, "policy", 2), networks("Pong")[head.skill])
    observation, _ = env.reset(seed=integer_seed(0, "episode", 2))
    over = False
    while not over:
        observation, _, terminated, truncated, _ = env.step(policy.act(observation))
        over = terminated or truncated
    env.close()
    columns = ("pixels", "ram", "action", "reward", "terminated", "truncated")
    ours = TransitionDataset(tmp_path / "one").load(columns)
    theirs = TransitionDataset(unbroken).load(columns, episodes=[2])
    for column in columns:
        np.testing.assert_array_equal(ours[column], theirs[column])


def test_a_resumed_recording_is_that_of_an_unbroken_run(broken, unbroken):
    told = []
    collect(
        "Pong",
        broken,
        episodes=EPISODES,
        max_steps=STEPS,
        progress=lambda done, total: told.append((done, total)),
    )
    assert files(broken) == files(unbroken)
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]


def test_processes_write_the_same_files(broken, unbroken):
    told = []
    collect(
        "Pong",
        broken,
        episodes=EPISODES,
        max_steps=STEPS,
        workers=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert files(broken) == files(unbroken)
    assert told == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert not multiprocessing.active_children()


def test_more_episodes_extend_a_recording(unbroken, tmp_path):
    for episodes in (2, EPISODES, 3):
        dataset = collect("Pong", tmp_path / "d", episodes=episodes, max_steps=STEPS)
    assert len(dataset.episodes) == EPISODES, "what is there beyond the number asked for stays"
    assert files(tmp_path / "d") == files(unbroken)


def test_the_seed_decides(tmp_path):
    made = {
        (seed, sticky): collect(
            "Breakout",
            tmp_path / f"{seed}{sticky}",
            episodes=1,
            max_steps=30,
            seed=seed,
            heads="uniform",
            repeat_action_probability=sticky,
        ).load(columns=("ram", "action"))
        for seed in (0, 1)
        for sticky in (0.0, 0.5)
    }
    assert (made[0, 0.0]["action"] != made[1, 0.0]["action"]).any()
    assert (made[0, 0.0]["action"] == made[0, 0.5]["action"]).all()
    assert (made[0, 0.0]["ram"] != made[0, 0.5]["ram"]).any()


def test_an_episode_that_ends_by_itself(tmp_path):
    dataset = collect("Breakout", tmp_path, episodes=1, heads="uniform")
    loaded = dataset.load(columns=("terminated", "truncated"))
    assert loaded["terminated"].tolist() == [False] * (len(loaded) - 1) + [True]
    assert not loaded["truncated"].any()
    assert dataset.manifest.settings["max_steps"] is None


def test_other_arguments_are_refused(unbroken):
    before = files(unbroken)
    for change, message in (
        ({"game": "Breakout"}, r"game: 'Pong' in the data set, 'Breakout' asked for"),
        ({"max_steps": 41}, r"settings max_steps: 40 in the data set, 41 asked for"),
        ({"seed": 1}, r"settings seed: 0 in the data set, 1 asked for"),
        ({"frameskip": 2}, r"env_kwargs frameskip: 4 in the data set, 2 asked for"),
        ({"heads": "uniform"}, r"heads: .* in the data set, \['uniform-1'\] asked for"),
    ):
        arguments = {"game": "Pong", "max_steps": STEPS, **change}
        with pytest.raises(RMRError, match=message):
            collect(path=unbroken, episodes=EPISODES, **arguments)
    assert files(unbroken) == before


def test_overwriting(broken):
    dataset = collect("Pong", broken, episodes=1, max_steps=5, overwrite=True)
    assert [e.length for e in dataset.episodes] == [5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"game": "Pogn"}, "unknown game 'Pogn': did you mean 'Pong'"),
        ({"heads": "unifrm"}, "unknown behaviour head 'unifrm': did you mean 'uniform'"),
        ({"episodes": 0}, "at least 1 as episodes, found 0"),
        ({"workers": 0}, "at least 1 as workers, found 0"),
        ({"max_steps": 0}, "at least 1 as max_steps, found 0"),
        ({"seed": -1}, "a seed of 0 or more, found -1"),
        ({"frameskip": 0}, "at least 1 as frameskip, found 0"),
        ({"repeat_action_probability": 1.5}, r"probability in \[0, 1\]"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, change, message):
    arguments = {"game": "Pong", "episodes": 1, **change}
    with pytest.raises(RMRError, match=message):
        collect(path=tmp_path / "d", **arguments)
    assert not (tmp_path / "d").exists()


def test_a_recording_process_that_dies(tmp_path, unbroken):
    def kill_one(done: int, total: int) -> None:
        if done == 1:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with pytest.raises(RMRError, match=r"a process that recorded into .* died"):
        collect("Pong", tmp_path, episodes=EPISODES, max_steps=STEPS, workers=2, progress=kill_one)
    assert not multiprocessing.active_children()
    assert 1 <= len(TransitionDataset(tmp_path, verify=True).episodes) < EPISODES
    collect("Pong", tmp_path, episodes=EPISODES, max_steps=STEPS)
    assert files(tmp_path) == files(unbroken)


def started(path: Path, episodes: int, workers: int) -> subprocess.Popen[str]:
    """Start recording in a process of its own; return when it is about to begin."""
    code = (
        "from rmr_gym.agents.collect import collect\n"
        "if __name__ == '__main__':\n"
        "    print('ready', flush=True)\n"
        f"    collect('Pong', {str(path)!r}, episodes={episodes}, max_steps={STEPS}, "
        f"workers={workers}, progress=lambda *told: print(*told, flush=True))\n"
    )
    script = path.parent / "record.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_at_random_instants(tmp_path):
    """Kill a recording again and again; what is finished stays whole, the end is as if unbroken."""
    episodes, draw, seen = 24, random.Random(0), []
    path = tmp_path / "killed"
    for _ in range(3):
        with started(path, episodes, workers=1) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(draw.uniform(0, 0.1))
            process.kill()
        seen.append(len(TransitionDataset(path, verify=True).episodes))
    assert seen == sorted(seen)
    assert seen[0] < episodes, "no kill came before the end"
    collect("Pong", path, episodes=episodes, max_steps=STEPS)
    collect("Pong", tmp_path / "unbroken", episodes=episodes, max_steps=STEPS)
    assert files(path) == files(tmp_path / "unbroken")


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes in /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    path = tmp_path / "killed"
    with started(path, 400, workers=2) as process:
        assert process.stdout is not None
        while process.stdout.readline().split()[0] in ("0", "1"):
            pass
        children = children_of(process.pid)
        process.kill()
    assert len(children) >= 2
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)
    assert 2 <= len(TransitionDataset(path, verify=True).episodes) < 400


def children_of(parent: int) -> list[int]:
    children = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            children.append(int(entry.parent.name))
    return children
