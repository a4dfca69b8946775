import numpy as np
import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.world_models.report import enclave_figures, views_figure


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


def test_a_map_a_module_and_a_table(tmp_path):
    rng = np.random.default_rng(0)
    attended, heard = rng.random((7, 6, 6)), rng.random((7, 7))
    np.savez(tmp_path / "enclaves_s2gru_0.npz", attended=attended, heard=heard)
    figures = {name: draw() for name, draw in enclave_figures(tmp_path / "enclaves_s2gru_0.npz")}
    drawn = [ax.images[0].get_array() for ax in figures["enclaves_s2gru_0"].axes if ax.images]
    np.testing.assert_array_equal(np.stack(drawn), attended)
    table = next(ax for ax in figures["enclaves_s2gru_0_heard"].axes if ax.images)
    np.testing.assert_array_equal(table.images[0].get_array(), heard)
