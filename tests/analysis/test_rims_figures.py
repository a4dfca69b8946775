import numpy as np
import pytest

from rmr_gym.analysis.canvas import figure_bytes
from rmr_gym.analysis.rims_figures import activation_figure
from rmr_gym.core.errors import RMRError

PHASES = {"digits": 0, "blanks": 3, "recall": 9}


def pattern(seed=0):
    return np.random.default_rng(seed).random((12, 4)).round()


def test_the_picture_shows_the_pattern_and_its_phases():
    one, mean = pattern(), np.full((12, 4), 0.5)
    figure = activation_figure({"one": one, "mean": mean}, PHASES)
    first, second = figure.axes
    np.testing.assert_array_equal(first.images[0].get_array(), one.T)
    np.testing.assert_array_equal(second.images[0].get_array(), mean.T)
    assert second.images[0].get_clim() == (0, 1)
    assert [text.get_text() for text in first.texts] == list(PHASES)
    assert [text.get_position()[0] for text in first.texts] == [1.0, 5.5, 10.0]
    assert figure_bytes(figure, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("patterns", "phases", "message"),
    [
        ({}, PHASES, "one pattern or more of one shape"),
        ({"a": pattern(), "b": pattern()[1:]}, PHASES, "one pattern or more of one shape"),
        ({"a": pattern()}, {"recall": 12}, "begin at 0 to 11"),
    ],
)
def test_bad_patterns(patterns, phases, message):
    with pytest.raises(RMRError, match=message):
        activation_figure(patterns, phases)
