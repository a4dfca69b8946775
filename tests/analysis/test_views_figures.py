import numpy as np
import pandas as pd
import pytest

from rmr_gym.analysis.views_figures import enclaves_figure, views_figure
from rmr_gym.core.errors import RMRError


def row(model, balls=3, views=10, dropped=0, seed=0, f1=0.5):
    return {
        "model": model, "seed": seed, "test": f"{balls} balls",
        "balls": balls, "views": views, "dropped": dropped, "f1": f1,
    }  # fmt: skip


def test_a_panel_varies_one_thing_and_averages_seeds():
    rows = [row("s2gru", balls=balls, seed=seed, f1=0.1 * balls + 0.01 * seed)
            for balls in (1, 3, 6) for seed in (0, 2)]  # fmt: skip
    rows += [row("crops_lstm", balls=balls, f1=0.2) for balls in (1, 3, 6)]
    rows += [row("s2gru", views=4, f1=0.3), row("s2gru", balls=6, views=4, f1=0.9)]
    figure = views_figure(pd.DataFrame(rows), trained_on=3)
    by_balls, by_views = figure.axes
    first, second = by_balls.lines
    assert first.get_xdata().tolist() == [1, 3, 6]
    np.testing.assert_allclose(first.get_ydata(), [0.11, 0.31, 0.61])
    assert second.get_label() == "crops_lstm"
    np.testing.assert_allclose(by_views.lines[0].get_ydata(), [0.3, 0.31])
    assert by_views.get_xlabel() == "crops that are seen"


def test_one_condition_is_no_curve():
    with pytest.raises(RMRError, match="several numbers"):
        views_figure(pd.DataFrame([row("s2gru"), row("crops_lstm")]), trained_on=3)


def test_a_map_a_module_and_a_table():
    rng = np.random.default_rng(0)
    attended, heard = rng.random((7, 6, 6)), rng.random((7, 7))
    axes = enclaves_figure(attended, heard).axes
    maps = [panel for panel in axes if panel.get_title().startswith("module")]
    assert len(maps) == 7
    for panel, pixels in zip(maps, attended, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), pixels)
    (table,) = [panel for panel in axes if panel.get_title() == "who can hear whom"]
    np.testing.assert_array_equal(table.images[0].get_array(), heard)
