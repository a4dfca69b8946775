import inspect

import numpy as np
import pytest

from rmr_gym.core import metrics as ranking
from rmr_gym.core.errors import RMRError
from rmr_gym.core.metrics import ranking_scores, ranks


def plain_ranks(true, predicted):
    distance = ((true[:, None] - predicted[None]) ** 2).sum(-1)
    own = np.diagonal(distance)
    return (distance < own[:, None]).sum(1)


def test_hand_computed_ranks():
    true = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])
    predicted = np.array([[4.0, 0.0], [11.0, 0.0], [-1.0, 0.0]])
    assert ranks(true, predicted).closer.tolist() == [1, 0, 2]
    scores = ranking_scores(true, predicted)
    assert scores.hits_at_1 == pytest.approx(1 / 3)
    assert scores.mrr == pytest.approx((1 / 2 + 1 + 1 / 3) / 3)
    assert scores.tied == 0


def test_it_is_the_predictions_that_are_ranked_and_not_the_true_states():
    true = np.array([[0.0], [1.0], [2.0]])
    predicted = np.array([[0.0], [0.0], [0.1]])
    assert ranks(true, predicted).closer.tolist() == [0, 1, 0]
    assert ranks(predicted, true).closer.tolist() != [0, 1, 0]


@pytest.mark.parametrize("chunk", [7, 32, 1000])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_chunks_change_nothing_and_equal_the_plain_count(monkeypatch, chunk, offset):
    rng = np.random.default_rng(0)
    true = rng.normal(size=(60, 5))
    predicted = true + rng.normal(size=(60, 5))
    monkeypatch.setattr(ranking, "CHUNK", chunk)
    found = ranks(true + offset, predicted + offset)
    assert (found.closer == plain_ranks(true, predicted)).all()
    assert not found.tied.any()


def test_a_tie_counts_for_the_own_prediction_and_is_told():
    constant = np.full((300, 4), 0.3, np.float32)
    scores = ranking_scores(constant, constant + np.float32(1e-3))
    assert scores == (1.0, 1.0, 1.0)
    true = np.array([[0.0], [0.0], [5.0]])
    found = ranks(true, true)
    assert found.closer.tolist() == [0, 0, 0]
    assert found.tied.tolist() == [1, 1, 0]


def test_unusable_states_are_refused():
    as_users_call_it = inspect.unwrap(ranks)
    with pytest.raises(RMRError, match="one shape"):
        as_users_call_it(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(RMRError, match="at least one row"):
        ranks(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(RMRError, match="finite"):
        ranks(np.array([[np.nan]]), np.zeros((1, 1)))
