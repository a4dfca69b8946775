import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rmr_gym.stages.label_fit import predict_labels, project


def clusters(rows, classes, width, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(classes, width))
    labels = rng.integers(0, classes, rows)
    values = centres[labels] + spread * rng.normal(size=(rows, width))
    return torch.from_numpy(values).float(), labels


def test_separable_labels_are_read_off_all_at_once():
    train, first = clusters(400, 6, 12)
    test, expected = clusters(100, 6, 12, seed=1)
    labels = np.stack([first * 40, first % 2 + 254], 1).astype(np.uint8)
    fit = np.arange(400) % 4 > 0
    predicted = predict_labels(train, labels, fit, test)
    assert predicted.shape == (100, 2)
    assert (predicted[:, 0] == expected * 40).mean() > 0.97
    assert (predicted[:, 1] == expected % 2 + 254).mean() > 0.97


def test_about_as_good_as_a_validated_logistic_regression():
    train, labels = clusters(600, 8, 10, spread=1.3)
    test, expected = clusters(400, 8, 10, seed=1, spread=1.3)
    fit = np.arange(600) % 4 > 0
    predicted = predict_labels(train, labels[:, None].astype(np.uint8), fit, test)
    other = LogisticRegression(max_iter=500).fit(train[fit].numpy(), labels[fit])
    ours, theirs = (predicted[:, 0] == expected).mean(), other.score(test.numpy(), expected)
    assert ours == pytest.approx(theirs, abs=0.03)


def test_fitting_stops_before_noise_is_learned_by_heart():
    """Wide noise around one informative direction: the last round is worse than the best."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).astype(np.uint8)
    values = rng.normal(size=(300, 400))
    values[:, 0] += 4 * (2.0 * labels - 1)
    held = rng.integers(0, 2, 400).astype(np.uint8)
    test = rng.normal(size=(400, 400))
    test[:, 0] += 4 * (2.0 * held - 1)
    fit = np.arange(300) % 4 > 0
    tensors = (torch.from_numpy(part).float() for part in (values, test))
    train, others = tensors
    predicted = predict_labels(train, labels[:, None], fit, others)
    assert (predicted[:, 0] == held).mean() > 0.95


def test_constant_features_predict_the_commonest_class():
    labels = np.array([3] * 9 + [5] * 3, np.uint8)[:, None]
    fit = np.arange(12) % 4 > 0
    predicted = predict_labels(torch.ones(12, 6), labels, fit, torch.ones(4, 6))
    assert (predicted == 3).all()


def test_projection_keeps_what_rows_say_of_each_other():
    train, _ = clusters(40, 4, 30)
    found = project(train, train[:5])
    assert found.train.shape == (40, 30)
    torch.testing.assert_close(found.train[:5], found.test)
    deviation = found.train.var(0, correction=0)
    original = (train - train.mean(0)).var(0, correction=0).sum()
    # each direction is divided by the root of its deviation, so squares of variances add up
    torch.testing.assert_close(deviation.square().sum(), original, rtol=1e-3, atol=1e-3)
