from functools import partial

import numpy as np
from scipy.stats import trim_mean

from rmr_gym.experiments.agents.report import iqm, profile, stratified_interval


def test_interquartile_mean_by_hand():
    assert iqm(np.array([100.0, 1.0, 2.0, 3.0, -50.0])) == 2.0
    assert iqm(np.array([1.0, 2.0, 3.0])) == 2.0
    assert iqm(np.array([0.0, 4.0, 6.0, 1000.0])) == 5.0
    runs = np.random.default_rng(0).normal(size=(3, 11))
    np.testing.assert_allclose(iqm(runs), trim_mean(runs, 0.25, axis=1))


def test_strata_are_drawn_apart():
    strata = [np.zeros(3), np.full(3, 10.0)]
    assert stratified_interval(strata, np.random.default_rng(0)).tolist() == [5.0, 5.0]
    alone = stratified_interval([np.ones(1)], np.random.default_rng(0))
    assert np.isnan(alone).all()
    above = partial(profile, thresholds=np.array([-1.0, 5.0, 11.0]))
    band = stratified_interval(strata, np.random.default_rng(0), above)
    assert band.tolist() == [[1.0, 0.5, 0.0]] * 2
    assert np.isnan(stratified_interval([np.ones(1)], np.random.default_rng(0), above)).all()


def test_profile_by_hand():
    thresholds = np.array([-0.1, 0.0, 0.5, 1.0])
    runs = np.array([0.0, 0.5, 0.5, 1.0])
    assert profile(runs, thresholds).tolist() == [1.0, 0.75, 0.25, 0.0]
    both = profile(np.stack([runs, runs + 1]), thresholds)
    assert both.tolist() == [[1.0, 0.75, 0.25, 0.0], [1.0, 1.0, 1.0, 0.75]]


def test_a_band_holds_its_profile():
    runs, rng = np.linspace(0, 1, 10), np.random.default_rng(0)
    thresholds = np.linspace(0.05, 0.95, 7)
    low, high = stratified_interval([runs], rng, partial(profile, thresholds=thresholds))
    shares = profile(runs, thresholds)
    assert ((low < shares) & (shares < high)).all()
