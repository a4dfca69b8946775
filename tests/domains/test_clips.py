import gymnasium as gym
import numpy as np
import pytest
import torch

import rmr_gym  # noqa: F401
from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import palette_to_gray
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.clips import (
    collided,
    gone_on,
    load_clips,
    lone_shifts,
    pixels_a_frame,
    relational_weight,
    true_groups,
)

OPTIONS = {"resolution": 32, "observe": ["radii", "velocities"]}
STEPS = 40


def recorded(path, env_id="rmr/RNEMBalls6to8-v0", episodes=2, **options):
    return record(env_id, path, episodes=episodes, max_steps=STEPS, **OPTIONS | options)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("data") / "crowd")


def replayed(dataset, episode, **options):
    """Return what the simulator itself says of a recorded episode."""
    env = gym.make(dataset.manifest.env_id, masks=True, **OPTIONS | options)
    infos = [env.reset(seed=dataset.episodes[episode].seed)[1]]
    infos += [env.step(0)[-1] for _ in range(STEPS)]
    env.close()
    return infos


def test_groups_are_those_of_the_simulator(crowd):
    clips = load_clips(crowd, [0, 1], STEPS + 1, truth=True)
    for episode, rows in enumerate(clips.rows):
        infos = replayed(crowd, episode)
        truth = np.stack([info["masks"] for info in infos])
        found = true_groups(clips, rows)
        assert np.array_equal(found > 0, truth > 0)
        assert (found == truth).mean() > 0.999, "pixels where balls touch may differ"


def test_collisions_are_those_of_the_simulator(crowd):
    clips = load_clips(crowd, [0, 1], STEPS + 1, truth=True)
    right = wrong = 0
    for episode, rows in enumerate(clips.rows):
        infos = replayed(crowd, episode)
        balls = len(infos[0]["collisions"])
        truth = np.stack([info["collisions"][:, :balls].any(axis=1) for info in infos[1:]])
        found = collided(clips, rows[:-1])
        right += (found & truth).sum()
        wrong += (found != truth).sum()
    assert right > 20
    assert wrong <= 0.1 * right, "a ball that hits a wall beside another one may be mistaken"


def test_relational_pixels_belong_to_balls_that_collide(crowd):
    clips = load_clips(crowd, [0], STEPS + 1, truth=True)
    rows = clips.rows[0, :-1]
    hit, weight = collided(clips, rows), relational_weight(clips, rows)
    assert hit.any()
    assert np.array_equal(weight.any(axis=(1, 2)), hit.any(axis=1))
    for instant in np.flatnonzero(hit.any(axis=1)):
        owners = [true_groups(clips, rows[instant : instant + 1] + ahead)[0] for ahead in (0, 1)]
        marked = np.flatnonzero(hit[instant]) + 1
        expected = np.isin(owners[0], marked) | np.isin(owners[1], marked)
        assert np.array_equal(weight[instant] > 0, expected)


def test_a_fixed_ball_and_a_curtain(tmp_path):
    dataset = recorded(tmp_path / "s2rm", "rmr/S2RMBalls3-v0", episodes=1)
    clips = load_clips(dataset, [0], 5, truth=True)
    middle = true_groups(clips, clips.rows[0])[:, 15:17, 15:17]
    assert (middle == 4).all(), "the ball in the middle has a number of its own"
    dataset = recorded(tmp_path / "curtain", "rmr/RNEMBallsCurtain-v0", episodes=1)
    clips = load_clips(dataset, [0], STEPS + 1, truth=True)
    groups = true_groups(clips, clips.rows[0])
    assert np.array_equal(groups > 0, clips.frames[clips.rows[0]][..., 0] > 0)
    assert set(np.unique(groups)) == {0, 1, 2, 3}


def test_windows_shown_and_strides(crowd):
    every, apart = (load_clips(crowd, [0, 1], 10, stride) for stride in (1, 10))
    assert every.rows.shape == (2 * (STEPS - 8), 10)
    assert apart.rows.shape == (8, 10)
    assert every.shape == (32, 32, 1)
    assert every.truth is None
    index = np.array([3, 0])
    frames, actions = every.shown(index, torch.device("cpu"))
    assert actions is None
    assert frames.shape == (2, 10, 32, 32, 1)
    assert set(frames.unique().tolist()) == {0.0, 1.0}
    assert np.array_equal(frames[0, 2].numpy() * 255, every.frames[5])


def test_actions_of_a_world_that_has_some(tmp_path):
    dataset = recorded(tmp_path / "pushed", "rmr/PushedBalls-v0", frames="binary", colors="white")
    clips = load_clips(dataset, [0, 1], 4)
    assert clips.choices == 5
    _, actions = clips.shown(np.array([0]), torch.device("cpu"))
    taken = dataset.load(columns=("action",), episodes=[0, 1])["action"]
    assert actions[0].tolist() == taken[:4].tolist()
    second = int(np.searchsorted(clips.current, STEPS + 1))
    _, actions = clips.shown(np.array([second]), torch.device("cpu"))
    assert actions[0].tolist() == taken[STEPS : STEPS + 4].tolist()


def test_screens_of_a_game_are_binary(tmp_path):
    options = {"episodes": 1, "max_steps": 6, "players": "uniform"}
    game = record("SpaceInvaders", tmp_path / "game", **options)
    clips = load_clips(game, [0], 5)
    assert clips.shape == (84, 84, 1)
    assert clips.choices == 18
    frames, actions = clips.shown(np.array([1]), torch.device("cpu"))
    assert set(frames.unique().tolist()) == {0, 1}
    assert actions is not None
    assert actions[0].tolist() == game.load(("action",))["action"][1:6].tolist()
    screen = palette_to_gray(game.load(("pixels",))["pixels"][1])
    rows = screen[round(18 * 210 / 110) : round(102 * 210 / 110)]
    lit = (rows > 0).mean()
    assert lit < frames[0, 0].mean() < 3 * lit, "what is lit in part is lit"
    assert frames[0, 0, :, :, 0].any(dim=1).tolist().count(True) < 84


def test_data_that_do_not_fit(crowd, tmp_path):
    with pytest.raises(RMRError, match="record longer episodes"):
        load_clips(crowd, [0], STEPS + 2)
    with pytest.raises(RMRError, match="one channel"):
        load_clips(recorded(tmp_path / "rgb", frames="rgb"), [0], 3)
    bare = record("rmr/RNEMBalls4-v0", tmp_path / "bare", episodes=1, max_steps=5, resolution=16)
    assert isinstance(bare, TransitionDataset)
    clips = load_clips(bare, [0], 3, truth=True)
    with pytest.raises(RMRError, match="found no truth"):
        true_groups(clips, clips.rows[0])


def test_balls_that_meet_nothing_go_on_as_predicted(tmp_path):
    dataset = recorded(tmp_path / "one", "rmr/S2RMBalls1-v0", episodes=3, fixed_ball=None)
    clips = load_clips(dataset, [0, 1, 2], STEPS + 1, truth=True)
    gone = gone_on(clips, clips.rows[:, 0], STEPS)
    truth = clips.frames[clips.rows[:, 1:], ..., 0] > 0
    assert (gone == truth).mean() > 0.99, "also after walls"
    assert (truth[:, 0] == truth[:, -1]).mean() < 0.97


def test_shifts_are_those_of_balls_alone(crowd):
    clips = load_clips(crowd, [0], STEPS + 1, truth=True)
    rows = clips.rows[0, :-1]
    truth = clips.frames[rows + 1][..., 0] / 255
    made, came = lone_shifts(clips, rows, truth)
    assert np.array_equal(made, came)
    assert 0 < came.any(axis=-1).mean() < 1
    moved = clips.truth.positions[rows + 1] - clips.truth.positions[rows]
    alone = came.any(axis=-1)
    assert np.abs(came - moved)[alone].max() < 0.04, "two thirds of a pixel"
    still, _ = lone_shifts(clips, rows, clips.frames[rows][..., 0] / 255)
    dark, _ = lone_shifts(clips, rows, np.zeros_like(truth))
    assert np.abs(still).max() < 1e-12
    assert not dark.any()


def test_the_pace_of_balls(crowd):
    speeds = np.linalg.norm(load_clips(crowd, [0, 1], 2, truth=True).truth.velocities, axis=-1)
    expected = (speeds[speeds > 0] ** 2).mean() ** 0.5 / 20 * 16
    assert pixels_a_frame(crowd) == pytest.approx(expected, rel=0.15), "balls that turn move less"
