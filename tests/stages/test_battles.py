"""What models say of battles, scored by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from rmr_gym.domains.clips import Clips
from rmr_gym.models.world.crops import Asked, ViewGeometry, Views
from rmr_gym.stages.world_model import battle_scores

TIME, STILL, GONE = 5, ((5, 5), (5, 7)), 102
"""Two friends stand still; an enemy, of 0.4 of its health, goes by."""


def clips(count=3):
    frames = np.zeros((count * TIME, 12, 12, 8), np.uint8)
    for row in range(len(frames)):
        for place in STILL:
            frames[row, *place, [0, 2]] = 255
        frames[row, 3, 3 + row % TIME, 1] = 255
        frames[row, 3, 3 + row % TIME, 2] = GONE
        frames[row, 5, 5, 3] = 255
    rows = np.arange(len(frames)).reshape(count, TIME)
    return Clips(frames, rows, None, 0, None)


class Seer(nn.Module):
    """Says of the queried crops what ``say`` makes of the truth, in probabilities."""

    def __init__(self, say):
        super().__init__()
        self.say, self.nothing = say, nn.Parameter(torch.zeros(()))
        self.geometry = ViewGeometry(12, 12, 8, 3, 5)

    def asked(self, frames, generator):
        centres = torch.stack([self.geometry.agents(f, generator) for f in frames.unbind(1)], 1)
        crops = self.geometry.look(frames, centres)
        said = self.say(crops[:, 1:]).logit(1e-6)
        return Asked(said, crops[:, 1:], centres[:, 1:], Views(crops[:, :-1], centres[:, :-1]))


def test_who_knows_all_is_right():
    scores = battle_scores(Seer(lambda truth: truth), clips())
    for name in ("f1", "f1_moving", "f1_friends", "f1_enemies", "balanced_accuracy"):
        assert scores[name] == 1
    assert scores["nmse"] == pytest.approx(0, abs=1e-9)
    seen, cells = 7, 2 * 4 * (25 - 1)
    entropy = -(0.4 * np.log(0.4) + 0.6 * np.log(0.6))
    assert scores["log_likelihood"] == pytest.approx(-seen * entropy / cells, abs=1e-4)


def test_who_says_nothing_and_who_says_the_contrary():
    dark = battle_scores(Seer(torch.zeros_like), clips())
    assert (dark["f1"], dark["f1_moving"], dark["balanced_accuracy"]) == (0, 0, 0.5)
    cells = 2 * 4 * (25 - 1)
    assert dark["nmse"] == pytest.approx(-(7 * 0.4**2 + 8) / cells, rel=1e-4)
    wrong = battle_scores(Seer(lambda truth: 1 - truth), clips())
    assert wrong["f1"] == wrong["balanced_accuracy"] == 0


def test_the_last_views_by_hand():
    """The enemy is seen 7 times and where it was 6 times; each friend sees the other, 8 times."""
    scores = battle_scores(Seer(torch.zeros_like), clips())
    assert scores["f1_copied"] == pytest.approx(2 * 8 / (2 * 8 + 7 + 6))
    cells = 2 * 4 * (25 - 1)
    assert scores["nmse_copied"] == pytest.approx(-13 * 0.4**2 / cells, rel=1e-4)


class Copier(Seer):
    """Says that all stays as it was."""

    def asked(self, frames, generator):
        asked = super().asked(frames, generator)
        copied = self.geometry.look(frames[:, :-1], asked.queries)
        return asked._replace(logits=copied.logit(1e-6))


def test_who_copies_knows_nothing_of_what_moves():
    scores = battle_scores(Copier(torch.zeros_like), clips())
    assert scores["f1_moving"] == 0
    assert scores["f1_friends"] == 1
    assert scores["f1_enemies"] == 0
    assert 0 < scores["f1"] < 1
