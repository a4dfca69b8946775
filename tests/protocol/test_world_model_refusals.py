from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.models.world.frames import FrameSizes
from rmr_gym.models.world.nem import WITH_ACTIONS, NEMSizes
from rmr_gym.protocol import world_model_rollouts, world_models
from rmr_gym.protocol import world_model_scores as scores
from rmr_gym.protocol import world_model_views as views
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.world_model_checks import check_lengths, check_test
from rmr_gym.protocol.world_model_comparison import Trial, compare_world_models
from rmr_gym.protocol.world_model_presets import (
    CROPS_PRESETS,
    WORLD_MODELS,
    WORLD_PRESETS,
    find_world_preset,
)
from rmr_gym.protocol.world_model_views import Condition
from rmr_gym.protocol.world_models import WorldTask
from rmr_gym.protocol.world_views_comparison import compare_views, conditions_of
from rmr_gym.stages.presets import as_json

TINY = replace(WORLD_PRESETS["smoke"], steps=2, batch=2, check_every=2)
CROPS = replace(CROPS_PRESETS["smoke"], steps=2, batch=2, check_every=2)
HOW = Computing("rmr-gym world-model")
ENV = "rmr/RNEMBalls4-v0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")

    def play(name, episodes, env=ENV, max_steps=7, **options):
        options = {"resolution": 16, **options}
        record(env, folder / name, episodes=episodes, max_steps=max_steps, **options)

    play("four", 4)
    play("eight", 6)
    play("other", 2, seed=1)
    play("wide", 2, seed=1, resolution=32)
    play("short", 2, seed=1, max_steps=3)
    play("pushed", 2, "rmr/PushedBalls-v0", frames="binary")
    play("one", 1)
    play("crops", 4, "rmr/S2RMBalls3-v0")
    return folder


@pytest.fixture
def task(folder, tmp_path):
    return WorldTask(folder / "four", tmp_path / "store", "rnn", TINY)


@pytest.fixture
def crops(folder, tmp_path):
    return WorldTask(folder / "crops", tmp_path / "store", "s2gru", CROPS)


REFUSED = {
    "eight": "not trained on, found eight, 4 of whose 6 episodes are in the training data",
    "wide": "frames of 16 x 16 in wide, as in training, found 32 x 32: .*resolution=16",
    "pushed": "expected 0 actions in pushed, as in training, found",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_test_set_is_told_before_training(task, folder, tmp_path, monkeypatch, name):
    monkeypatch.setattr(world_models, "train_model", None)
    test, message = folder / name, REFUSED[name]
    with pytest.raises(RMRError, match=message):
        compare_world_models([task], [0], [Trial(), Trial(test)], tmp_path / "out", HOW)
    assert not (tmp_path / "out").exists()
    with pytest.raises(RMRError, match=message):
        world_model_rollouts.drawn(task, 0, 1, seen=3, ahead=2, test=test)


def test_crops_of_frames_of_another_size_are_refused_too(crops, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(world_models, "train_model", None)
    with pytest.raises(RMRError, match="16 x 16 in wide"):
        compare_views([crops], [0], conditions_of([folder / "wide"], (), ()), tmp_path, HOW)


def test_another_seed_makes_a_test_set(task, folder):
    check_test(task, folder / "other")


def test_a_test_set_that_is_named_twice(task, folder, tmp_path):
    trials = [Trial(), Trial(folder / "other", 4), Trial(folder / "other", 5)]
    with pytest.raises(RMRError, match="each test set once, found other more than once"):
        compare_world_models([task], [0], trials, tmp_path, HOW)


def test_sequences_must_be_as_long_as_what_is_scored(task, folder, tmp_path):
    check_lengths(task, [None, folder / "other"], 8)
    with pytest.raises(RMRError, match=r"a validation episode of 9 frames .*four, found at most 8"):
        check_lengths(task, [None], 9)
    with pytest.raises(
        RMRError, match=r"a test episode of 6 frames or more in .*short, found at m"
    ):
        compare_world_models([task], [0], [Trial(folder / "short")], tmp_path, HOW)
    longer = replace(task, preset=replace(TINY, length=8))
    with pytest.raises(RMRError, match="a training episode of 9 frames"):
        check_lengths(longer, [], 0)


def test_the_horizon_is_that_of_the_longest_sequence():
    assert replace(TINY, length=9, seen=3, ahead=2).horizon == 10
    assert replace(TINY, length=9, seen=8, ahead=5).horizon == 13


def test_one_episode_cannot_be_split(task, folder):
    with pytest.raises(RMRError, match=r"2 episodes or more in .*one, .* found 1: record more"):
        world_models.training_key(replace(task, data=folder / "one"), 0)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Condition(views=5), "expected 1 to 4 crops .* got 5"),
        (Condition(views=0), "expected 1 to 4 crops .* got 0"),
        (Condition(views=-1), "expected 1 to 4 crops .* got -1"),
        (Condition(dropped=3), "expected 0 to 2 modules .* got 3"),
        (Condition(dropped=-1), "expected 0 to 2 modules .* got -1"),
    ],
)
def test_crops_and_modules_that_no_model_has(crops, tmp_path, monkeypatch, condition, message):
    monkeypatch.setattr(world_models, "train_model", None)
    tasks = [replace(crops, model="crops_lstm"), crops]
    with pytest.raises(RMRError, match=message):
        compare_views(tasks, [0], [Condition(), condition], tmp_path / "out", HOW)
    assert not (tmp_path / "out").exists()
    if condition.dropped > 0:
        with pytest.raises(RMRError, match="expected 0 to 0 modules"):
            compare_views(tasks[:1], [0], [condition], tmp_path / "out", HOW)


def test_all_crops_and_all_modules_are_always_scored_and_once(crops, tmp_path):
    conditions = conditions_of([], (2, 4, 2), (1, 1))
    compare_views([crops], [0], conditions_of([], (2,), (1,)), tmp_path / "few", HOW)
    compare_views([crops], [0], conditions, tmp_path / "all", HOW)
    for out in ("few", "all"):
        table = pd.read_csv(tmp_path / out / "views.csv")
        assert table[["views", "dropped"]].to_numpy().tolist() == [[2, 0], [4, 0], [4, 1]]


def test_a_ratio_to_what_is_never_wrong_is_none(task, monkeypatch):
    find = scores.test_clips

    def row(lit):
        def still(*arguments):
            clips = find(*arguments)
            frames = np.zeros_like(clips.frames)
            frames[clips.rows[0, -1], 0, :lit] = 255
            return replace(clips, frames=frames)

        monkeypatch.setattr(scores, "test_clips", still)
        return scores.score_model(task, 0, None, None)

    never, once = row(0), row(1)
    assert never["relative_bce"] is never["relative_rollout_bce"] is None
    assert never["bce"] > 0
    assert once["relative_bce"] == pytest.approx(row(2)["relative_bce"] * 2, rel=0.1)


def test_a_model_of_crops_is_never_scored_on_other_frames(crops, folder):
    with pytest.raises(RMRError, match="16 x 16 in wide"):
        views.view_scores(crops, 0, Condition(folder / "wide"))


@pytest.mark.parametrize(
    ("side", "channels"), [(64, 3), (48, 3), (84, 2), (10, 1), (15, 1), (96, 3)]
)
def test_convolutions_are_as_many_as_a_frame_can_be_halved(side, channels):
    whole = NEMSizes()
    fitted = whole.fitted((side, side, 1), 0)
    assert fitted == replace(whole, channels=whole.channels[:channels])
    assert whole.fitted((side, 8 * side, 1), 18) == replace(fitted, noise=WITH_ACTIONS)
    assert FrameSizes().fitted((side, side, 1), 18).channels == fitted.channels


def test_nothing_changes_for_balls(task):
    for name, entry in WORLD_MODELS.items():
        if entry.arm is None:
            ours = replace(task, model=name)
            assert ours.sizes == entry.sizes["smoke"]
            assert world_models.training_key(ours, 0)["sizes"] == as_json(entry.sizes["smoke"])


def test_models_of_a_game_fit_its_screens(recorded, tmp_path):
    pong = recorded("Pong")
    paper = WorldTask(pong, tmp_path, "rnem", find_world_preset("paper", "rnem"))
    clips = world_models.load_part(pong, 0.4, "training", 6)
    assert clips.shape == (84, 84, 1)
    model = world_models.initial(paper, clips, 0)
    assert model.noise == WITH_ACTIONS
    assert world_models.training_key(paper, 0)["sizes"]["channels"] == [16, 32]
    for name in ("rims", "rims_lstm"):
        world_models.initial(replace(paper, model=name), clips, 0)
    small = WorldTask(pong, tmp_path / "store", "rnn", TINY)
    told = world_models.trained(small, 0).record["sizes"]
    assert (told["noise"], told["channels"]) == (WITH_ACTIONS, [2, 4])
    assert world_models.training_key(small, 0)["sizes"] == told
