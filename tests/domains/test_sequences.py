import math

import pytest
import torch
from torch import nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.domains.sequences import (
    BLANK,
    MARKER,
    TOKENS,
    copying_batch,
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


@pytest.mark.parametrize("change", [{"batch": 0}, {"span": -1}, {"digits": 0}])
def test_bad_lengths(change):
    with pytest.raises(RMRError, match="span of 0 or more"):
        copying_batch(generator(0), **{"batch": 2, "span": 3, "digits": 2} | change)


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


def test_the_loss_is_of_all_instants():
    logits = torch.zeros(2, 6, TOKENS)
    targets = torch.randint(0, TOKENS, (2, 6), generator=torch_generator(0))
    assert losses(logits, targets).item() == pytest.approx(math.log(TOKENS))
    logits[0, 0, targets[0, 0]] = 100.0
    assert losses(logits, targets).item() == pytest.approx(math.log(TOKENS) * 11 / 12)
