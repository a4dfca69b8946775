import math
import sys

import pytest
import torch
from torch import nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.domains.sequences import (
    BLANK,
    EPISODES,
    HIT,
    MARKER,
    PARTS,
    PLACES,
    TOKENS,
    TORQUES,
    adding_batch,
    copying_batch,
    digit_images,
    digits_batch,
    imitation_batch,
    losses,
    score,
)
from rmr_gym.models.rmr.pipeline import torch_generator
from rmr_gym.models.world.rims import SequenceOutput


def test_a_sequence_is_digits_blanks_marker_blanks():
    inputs, targets = copying_batch(generator(0, "t"), batch=200, span=5, digits=3)
    assert inputs.shape == targets.shape == (200, 2 * 3 + 5 + 1)
    digits = inputs[:, :3]
    assert sorted(digits.unique().tolist()) == list(range(1, 9))
    assert (inputs[:, 3:8] == BLANK).all()
    assert (inputs[:, 8] == MARKER).all()
    assert (inputs[:, 9:] == BLANK).all()
    assert (targets[:, :9] == BLANK).all()
    assert torch.equal(targets[:, 9:], digits)


def test_digits_are_scaled_to_the_nearest_neighbour():
    native, small, large = (digits_batch(generator(0, "d"), 5, side, "test") for side in (8, 6, 10))
    assert torch.equal(native.targets, small.targets)
    images = native.inputs.reshape(5, 8, 8)
    assert sorted(images.unique().tolist()) == [0, 1]
    kept, doubled = [0, 1, 2, 4, 5, 6], [0, 0, 1, 2, 3, 4, 4, 5, 6, 7]
    assert torch.equal(small.inputs.reshape(5, 6, 6), images[:, kept][:, :, kept])
    assert torch.equal(large.inputs.reshape(5, 10, 10), images[:, doubled][:, :, doubled])


def test_parts_of_the_digits_are_whole_and_every_class_is_in_each():
    parts = {part: digits_batch(generator(0), 2000, 8, part) for part in PARTS}
    sizes = {"test": 500, "validation": 250, "training": 1047}
    assert {part: len(batch.inputs) for part, batch in parts.items()} == sizes
    assert all(sorted(batch.targets.unique().tolist()) == [*range(10)] for batch in parts.values())
    drawn = digits_batch(generator(1), 40, 8, "training")
    assert len(drawn.inputs.unique(dim=0)) > 35


def test_without_scikit_learn_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digit_images.cache_clear()
    with pytest.raises(RMRError, match=r"the package sklearn.*pip install .rmr-gym\[digits\]"):
        digits_batch(generator(0), 2, 8, "training")


@pytest.mark.parametrize("length", [2, 7, 50])
def test_one_number_of_each_half_is_marked_and_their_sum_is_asked_for(length):
    inputs, targets = adding_batch(generator(0), 300, length)
    numbers, first, second, one = inputs.unbind(-1)
    assert inputs.shape == (300, length, 4)
    assert targets.shape == (300, 1)
    assert (one == 1).all()
    assert (first[:, : length // 2].sum(1) == 1).all()
    assert (second[:, length // 2 :].sum(1) == 1).all()
    assert (inputs[..., 1:3].sum(dim=(1, 2)) == 2).all()
    assert 0 <= numbers.min() <= numbers.max() < 1
    torch.testing.assert_close(targets[:, 0], (numbers * (first + second)).sum(1))


class Oracle(nn.Module):
    """Knows how many blanks there are; says digits with a certainty, blanks with none."""

    def __init__(self, digits, certainty):
        super().__init__()
        self.digits, self.certainty = digits, certainty

    def forward(self, tokens, generator):
        assert not self.training
        logits = torch.full((*tokens.shape, TOKENS), -100.0)
        recall = logits[:, -self.digits :]
        recall[..., 1:MARKER] = 0
        said = nn.functional.one_hot(tokens[:, : self.digits], TOKENS).bool()
        recall[said] = self.certainty
        return SequenceOutput(logits, torch.zeros(*tokens.shape, 0, dtype=torch.bool))


@pytest.mark.parametrize(
    ("certainty", "loss", "accuracy"), [(40.0, 0.0, 1.0), (0.0, math.log(8), None)]
)
def test_scores_are_those_of_the_digits_alone(certainty, loss, accuracy):
    data = copying_batch(generator(1), 150, 4, 5)
    model = Oracle(5, certainty)
    scores, active = score(model, data, 5, torch_generator(0))
    assert scores["cross_entropy"] == pytest.approx(loss, abs=1e-5)
    assert accuracy is None or scores["accuracy"] == accuracy
    assert active.shape == (150, 15, 0)
    assert model.training


class Guesser(nn.Module):
    """Says the same number at every instant."""

    def forward(self, inputs, generator):
        outputs = torch.full((*inputs.shape[:2], 1), 1.0)
        return SequenceOutput(outputs, torch.zeros(*inputs.shape[:2], 0, dtype=torch.bool))


def test_sums_are_scored_by_squared_error_and_by_how_many_are_near():
    data = adding_batch(generator(2), 4000, 6)
    scores, _ = score(Guesser(), data, 1, torch_generator(0))
    assert scores["mse"] == pytest.approx(1 / 6, abs=0.01)
    assert scores["accuracy"] == pytest.approx(2 * HIT - HIT**2, abs=0.02)


def test_the_loss_is_of_all_instants():
    logits = torch.zeros(2, 6, TOKENS)
    targets = torch.randint(0, TOKENS, (2, 6), generator=torch_generator(0))
    assert losses(logits, targets).item() == pytest.approx(math.log(TOKENS))
    logits[0, 0, targets[0, 0]] = 100.0
    assert losses(logits, targets).item() == pytest.approx(math.log(TOKENS) * 11 / 12)


def test_stretches_of_an_expert_are_places_with_the_actions_of_the_same_instants():
    numbers = torch.arange(6 * 30.0).reshape(6, 30, 1)
    shown = {"states": numbers.repeat(1, 1, 17), "actions": -numbers.repeat(1, 1, TORQUES)}
    for part, there in (("test", {0, 1}), ("validation", {2, 3}), ("training", {4, 5})):
        inputs, targets = imitation_batch(generator(0, part), 50, 7, part, shown)
        assert inputs.shape == (50, 7, PLACES)
        assert torch.equal(targets, -inputs[..., :TORQUES])
        assert {int(first) // 30 for first in inputs[:, 0, 0]} == there
        assert (inputs[:, 1:] - inputs[:, :-1] == 1).all()
    whole = imitation_batch(generator(0), 3, 30, "test", shown)
    assert set(whole.inputs[:, 0, 0].tolist()) <= {0.0, 30.0}
    assert [*EPISODES] == [*PARTS]


def test_the_squared_error_of_several_numbers_is_of_every_instant():
    outputs = torch.randn(4, 5, 6, generator=torch_generator(0))
    targets = torch.randn(4, 5, 6, generator=torch_generator(1))
    torch.testing.assert_close(losses(outputs, targets), (outputs - targets).square().mean())
