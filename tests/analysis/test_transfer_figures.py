import pytest
from matplotlib.patches import Rectangle

from rmr_gym.analysis.canvas import figure_bytes
from rmr_gym.analysis.sweep_run import load_sweep_run
from rmr_gym.analysis.transfer import read_matrix, transfer_table
from rmr_gym.analysis.transfer_figures import heat_map, ranking_dots
from rmr_gym.analysis.transfer_order import complete_link, improvements, ranking_table
from rmr_gym.core.errors import RMRError


def planted(donor, recipient):
    return {"Pong": 0.03, "Breakout": -0.03}.get(donor, 0.0)


def table_of(folder):
    return transfer_table(read_matrix(load_sweep_run(folder)))


def texts(figure):
    return [text.get_text() for panel in figure.axes for text in panel.texts]


def hatched(figure):
    patches = [patch for panel in figure.axes for patch in panel.patches]
    return [patch for patch in patches if isinstance(patch, Rectangle) and patch.get_hatch()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_cells_marks_and_gaps_are_drawn(make_transfer):
    missing = {("Seaquest", "Pong"), ("balls", "Freeway")}
    table = table_of(make_transfer(games=4, seeds=7, gain=planted, missing=missing))
    figure = heat_map(table)
    said = texts(figure)
    assert len(said) == 4 * 4 + 4 + 3 * 4 - len(missing)
    assert sum("▲" in text for text in said) == 4
    assert sum("▼" in text for text in said) == 4
    assert len(hatched(figure)) == len(missing)
    assert "missing or not comparable" in legend(figure)
    assert "the game's own P" in legend(figure)


def test_rows_and_columns_stand_as_clustered(make_transfer):
    table = table_of(make_transfer(gain=planted))
    figure = heat_map(table)
    games = list(dict.fromkeys(table["recipient"]))
    ours = improvements(table, games, games)
    ticks = [[tick.get_text() for tick in panel.get_yticklabels()] for panel in figure.axes]
    assert [games[index] for index in complete_link(ours).order] in ticks
    across = [[tick.get_text() for tick in panel.get_xticklabels()] for panel in figure.axes]
    assert [games[index] for index in complete_link(ours.T).order] in across


def test_a_significance_that_correction_takes_away_is_hollow(make_transfer):
    def gain(donor, recipient):
        return 0.05 if donor == "Pong" else 0.0

    figure = heat_map(table_of(make_transfer(games=6, gain=gain)))
    said = texts(figure)
    assert sum("△" in text for text in said) >= 6
    assert not any("▲" in text for text in said)
    assert "△ better, p < 0.05 before correction only" in legend(figure)


def test_three_seeds_are_never_marked(make_transfer):
    figure = heat_map(table_of(make_transfer(games=3, seeds=3, gain=lambda *_: 0.2)))
    assert not any(mark in text for text in texts(figure) for mark in "▲△▼▽")
    assert "cells under 5 seeds have no mark" in legend(figure)


@pytest.mark.parametrize("games", [1, 2, 24])
def test_matrices_of_any_size_draw(make_transfer, games):
    table = table_of(make_transfer(games=games, seeds=1, others=(), steps=(100,)))
    assert figure_bytes(heat_map(table), "png").startswith(b"\x89PNG")
    if games > 1:
        dots = ranking_dots(table, ranking_table(table))
        assert figure_bytes(dots, "png").startswith(b"\x89PNG")


def test_the_ranking_shows_each_cell(make_transfer):
    table = table_of(make_transfer(games=4, gain=planted))
    figure = ranking_dots(table, ranking_table(table))
    donors, recipients = figure.axes
    assert donors.get_yticklabels()[0].get_text() == "Pong"
    dots = [len(line.get_xdata()) for line in donors.lines if line.get_marker() == "o"]
    assert sorted(dots) == [3, 3, 3, 3, 4]
    assert len(recipients.get_yticklabels()) == 4


def test_nothing_to_draw_is_an_error(make_transfer):
    folder = make_transfer(games=2, controls={"random_p": 0.0})
    table = table_of(folder)
    with pytest.raises(RMRError, match="no cell to draw"):
        heat_map(table)
    with pytest.raises(RMRError, match="no cell to rank"):
        ranking_dots(table, ranking_table(table))
