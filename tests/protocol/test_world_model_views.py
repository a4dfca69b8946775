from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.models.world.crops import Asked, ViewGeometry
from rmr_gym.protocol import world_model_rollouts, world_models
from rmr_gym.protocol import world_model_views as views
from rmr_gym.protocol.world_model_presets import CROPS_PRESETS, find_world_preset
from rmr_gym.protocol.world_model_views import Condition, PixelCounts
from rmr_gym.protocol.world_models import WorldTask

TINY = replace(CROPS_PRESETS["smoke"], steps=3, batch=2, check_every=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for count, episodes in ((3, 4), (5, 2)):
        path = folder / f"balls{count}"
        env = f"rmr/S2RMBalls{count}-v0"
        record(env, path, episodes=episodes, max_steps=11, resolution=16)
    return folder


@pytest.fixture
def task(folder, tmp_path):
    return WorldTask(folder / "balls3", tmp_path / "store", "s2gru", TINY)


def test_balanced_accuracy_and_f1_by_hand():
    counts = PixelCounts(6, 2, 3, 14)
    assert counts.balanced_accuracy == pytest.approx((6 / 9 + 14 / 16) / 2)
    precision, recall = 6 / 8, 6 / 9
    assert counts.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert np.isnan(PixelCounts(0, 0, 0, 5).f1)
    assert np.isnan(PixelCounts(2, 0, 3, 0).balanced_accuracy)


def test_scores_under_several_conditions_train_once(task, folder, monkeypatch):
    whole = views.view_scores(task, 0, Condition())
    assert tuple(whole) == views.VIEW_ROW
    assert (whole["views"], whole["dropped"], whole["balls"], whole["test"]) == (
        4,
        0,
        3,
        "validation",
    )
    assert 0 <= whole["balanced_accuracy"] <= 1
    monkeypatch.setattr(world_models, "train_model", None)
    met, count = [], views.count_pixels

    def counted(model, clips):
        met.append((model.views, int((~model.spatial.present).sum())))
        return count(model, clips)

    monkeypatch.setattr(views, "count_pixels", counted)
    few = views.view_scores(task, 0, Condition(views=1))
    less = views.view_scores(task, 0, Condition(dropped=2))
    more = views.view_scores(task, 0, Condition(folder / "balls5"))
    assert (few["views"], less["dropped"], more["balls"], more["test"]) == (1, 2, 5, "balls5")
    assert met == [(1, 0), (4, 2), (4, 0)], "crops that are seen, modules that are gone"
    assert len({row["balanced_accuracy"] for row in (whole, few, less, more)}) > 1
    monkeypatch.setattr(views, "count_pixels", None)
    assert views.view_scores(task, 0, Condition(views=1)) == few
    with pytest.raises(RMRError, match="0 to 4 views"):
        views.view_scores(task, 0, Condition(views=5))
    with pytest.raises(RMRError, match="fewer than all 3"):
        views.view_scores(task, 0, Condition(dropped=3))


class Seer(nn.Module):
    """Says of the queried crops what ``say`` makes of the truth."""

    cut = 0.5

    def __init__(self, say, places):
        super().__init__()
        self.say, self.places = say, places
        self.nothing = nn.Parameter(torch.zeros(()))
        self.geometry = ViewGeometry(16, 16, 1, 2, 5)

    def init_state(self, batch, generator):
        return self.geometry.draw(batch, generator), generator

    def step(self, state, observation, action):
        del action, observation
        return self.geometry.draw(len(state[0]), state[1]), state[1]

    def decode(self, state):
        raise NotImplementedError

    def loss(self, state, following):
        raise NotImplementedError

    def asked(self, state, following):
        self.places.append(state[0])
        truth = self.geometry.look(following, state[0])
        return Asked(2 * self.say(truth) - 1, truth)


def test_pixels_are_counted_at_the_same_places_for_every_model(task):
    clips = world_model_rollouts.test_clips(task, None, TINY.length + 1)
    places = [], [], []
    right, wrong, lit = (
        views.count_pixels(Seer(say, seen), clips)
        for say, seen in zip(
            (lambda truth: truth, lambda truth: 1 - truth, torch.ones_like), places, strict=True
        )
    )
    assert right.balanced_accuracy == right.f1 == 1
    assert wrong.balanced_accuracy == wrong.f1 == 0
    assert sum(right) == sum(wrong) == len(clips.rows) * TINY.length * 2 * 25
    assert right.true_positives != right.true_negatives
    assert lit == PixelCounts(right.true_positives, right.true_negatives, 0, 0)
    assert wrong == PixelCounts(0, right.true_negatives, right.true_positives, 0)
    assert all(torch.equal(*pair) for pair in zip(*places[:2], strict=True))


def test_those_that_go_first_are_gone_when_more_go(task):
    model = world_models.initial(task, world_model_rollouts.test_clips(task, None, 2), 0)
    assert views.parts_of(task) == model.parts == 3
    one, two = (views.dropped_parts(model, count) for count in (1, 2))
    assert len(set(two)) == 2
    assert two[:1] == one
    lstm = replace(task, model="crops_lstm")
    assert views.parts_of(lstm) == 0
    with pytest.raises(RMRError, match="none to drop"):
        views.view_scores(lstm, 0, Condition(dropped=1))


def test_enclaves_of_s2rms_alone(task):
    found = views.enclaves(task, 0)
    assert found is not None
    assert found.attended.shape == (3, 16, 16)
    assert 0 <= found.attended.min() < found.attended.max() <= 1
    np.testing.assert_allclose(found.heard, found.heard.T, atol=1e-6)
    assert views.enclaves(replace(task, model="crops_lstm"), 0) is None


def test_what_cannot_be_is_said(task):
    with pytest.raises(RMRError, match="sees crops"):
        views.view_scores(replace(task, model="rims"), 0, Condition())
    with pytest.raises(RMRError, match="15 frames or more, found at most 12"):
        world_models.trained(replace(task, preset=replace(TINY, length=14)), 0)


def test_presets_of_models_of_crops():
    paper = find_world_preset("paper", "s2gru")
    assert (paper.batch, paper.learning_rate, paper.seen, paper.ahead) == (32, 3e-4, 20, 25)
    assert find_world_preset("paper", "rnem").batch == 64
    with pytest.raises(RMRError, match="laptop"):
        find_world_preset("labtop", "s2gru")
