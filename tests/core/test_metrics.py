import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, adjusted_rand_score, f1_score

from rmr_gym.core.errors import RMRError
from rmr_gym.core.metrics import BitScores, bit_f1, effective_rank, foreground_ari


def noisy_bits(seed, shape=(200, 5, 8), flip=0.2):
    rng = np.random.default_rng(seed)
    target = rng.random(shape) < rng.random(shape[1:])
    return target ^ (rng.random(shape) < flip), target


def test_hand_computed_scores():
    target = np.zeros((2, 2, 2), bool)
    predicted = np.zeros((2, 2, 2), bool)
    target[:, 0, 0] = True  # always 1, found once: TP 1, FN 1 -> F1 2/3
    predicted[0, 0, 0] = True
    predicted[0, 0, 1] = True  # never 1, predicted once: F1 0; the other two bits: no F1
    scores = bit_f1(predicted, target)
    assert scores == BitScores(
        micro_f1=2 / 4, macro_f1=(2 / 3 + 0) / 2, slot_accuracy=2 / 4, bit_accuracy=6 / 8
    )


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_sklearn(seed):
    predicted, target = noisy_bits(seed)
    predicted[:, 0, :2] = target[:, 0, :2] = False
    scores = bit_f1(predicted, target)
    guess, truth = (bits.reshape(len(bits), -1) for bits in (predicted, target))
    macro = f1_score(truth, guess, average="macro", zero_division=np.nan)
    assert scores.micro_f1 == pytest.approx(f1_score(truth, guess, average="micro"))
    assert scores.macro_f1 == pytest.approx(macro)
    assert scores.bit_accuracy == pytest.approx(accuracy_score(truth.ravel(), guess.ravel()))
    whole = (guess.reshape(-1, 8) == truth.reshape(-1, 8)).all(1).mean()
    assert scores.slot_accuracy == pytest.approx(whole)


def test_zero_one_bytes_score_as_booleans():
    predicted, target = noisy_bits(0)
    assert bit_f1(predicted.astype(np.uint8), target.astype(np.uint8)) == bit_f1(predicted, target)


def test_perfect_prediction_of_constant_bytes_has_no_f1():
    nothing = np.zeros((3, 1, 8), bool)
    scores = bit_f1(nothing, nothing)
    assert np.isnan(scores.micro_f1)
    assert np.isnan(scores.macro_f1)
    assert scores.slot_accuracy == scores.bit_accuracy == 1


def test_nothing_to_score_is_an_error():
    predicted, target = noisy_bits(0)
    with pytest.raises(RMRError, match="one row and one byte"):
        bit_f1(predicted[:, :0], target[:, :0])
    with pytest.raises(RMRError, match="one row and one byte"):
        bit_f1(predicted[:0], target[:0])


def test_shapes_must_agree():
    predicted, target = noisy_bits(0)
    as_users_call_it = inspect.unwrap(bit_f1)  # without the shape checks of the tests
    with pytest.raises(RMRError, match="one shape"):
        as_users_call_it(predicted[:1], target)


def test_effective_rank_follows_its_definition():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 20)) * np.geomspace(1, 1e-3, 20) + 5
    singular = np.linalg.svd(features - features.mean(0), compute_uv=False)
    share = singular / singular.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    assert effective_rank(features) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(features[:15]) == pytest.approx(
        effective_rank(np.pad(features[:15], ((0, 0), (0, 30))))
    )


def test_effective_rank_of_equal_and_single_directions():
    corners = np.concatenate([np.eye(6), -np.eye(6)])
    assert effective_rank(corners) == pytest.approx(6)
    line = np.outer(np.arange(10.0), np.arange(1.0, 5.0))
    assert effective_rank(line) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_effective_rank_does_not_depend_on_scale(scale):
    features = np.random.default_rng(0).normal(size=(40, 7))
    assert effective_rank(features * scale) == pytest.approx(effective_rank(features))


def test_effective_rank_of_what_does_not_vary():
    assert effective_rank(np.zeros((10, 4))) == 0
    assert effective_rank(np.full((1000, 300), 0.1)) == 0
    assert effective_rank(np.full((1000, 300), 0.1, np.float32)) == 0
    assert effective_rank(np.ones((1, 4))) == 0
    assert effective_rank(np.ones((0, 4))) == 0
    assert np.isnan(effective_rank(np.array([[np.nan, 1.0], [0.0, 1.0]])))


def test_effective_rank_of_single_precision():
    features = np.random.default_rng(0).normal(size=(50, 400)).astype(np.float32)
    assert effective_rank(features) == pytest.approx(
        effective_rank(features.astype(np.float64)), rel=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), objects=st.integers(1, 4), labels=st.integers(1, 4))
def test_foreground_ari_equals_scikit_learn(data, objects, labels):
    shape = (2, 3, 4)
    truth = data.draw(arrays(np.uint8, shape, elements=st.integers(0, objects)))
    predicted = data.draw(arrays(np.int64, shape, elements=st.integers(0, labels - 1)))
    for row, score in enumerate(foreground_ari(truth, predicted)):
        seen = truth[row] > 0
        if not seen.any():
            assert np.isnan(score)
            continue
        expected = adjusted_rand_score(truth[row][seen], predicted[row][seen])
        assert score == pytest.approx(expected, abs=1e-12)


def test_foreground_ari_ignores_names_and_background():
    truth = np.array([[[0, 1, 1], [2, 2, 0]]])
    predicted = np.array([[[7, 3, 3], [0, 0, 5]]])
    assert foreground_ari(truth, predicted).tolist() == [1.0]
    assert foreground_ari(truth, np.ones_like(truth)).tolist() == [0.0]
    with pytest.raises(RMRError, match="one shape"):
        foreground_ari(truth, predicted[:, :1])
