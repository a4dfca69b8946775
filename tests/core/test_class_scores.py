import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from rmr_gym.core.errors import RMRError
from rmr_gym.core.metrics import class_scores


def test_hand_computed_scores():
    target = np.array([7, 7, 7, 9, 200], np.uint8)
    predicted = np.array([7, 7, 9, 9, 3], np.uint8)
    # 7: 2*2/(2+3) = 4/5; 9: 2*1/(2+1) = 2/3; 200 never found, 3 never true: 0
    scores = class_scores(predicted, target)
    assert scores.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 4)
    assert scores.weighted_f1 == pytest.approx((3 * 4 / 5 + 2 / 3) / 5)
    assert scores.accuracy == 3 / 5


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_sklearn(seed):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 256, 300).astype(np.uint8) // (1 + 40 * seed)
    predicted = np.where(rng.random(300) < 0.5, target, rng.permutation(target))
    scores = class_scores(predicted, target)
    for average, found in (("macro", scores.macro_f1), ("weighted", scores.weighted_f1)):
        expected = f1_score(target, predicted, average=average, zero_division=0)
        assert found == pytest.approx(expected)
    assert scores.accuracy == pytest.approx(accuracy_score(target, predicted))


def test_nothing_to_score_is_refused():
    empty = np.zeros(0, np.uint8)
    with pytest.raises(RMRError, match="at least one"):
        class_scores(empty, empty)
