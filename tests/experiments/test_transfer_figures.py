import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.transfer.report import (
    TABLES,
    complete_link,
    improvements,
    matrix_map,
    read_matrix,
    transfer_table,
)
from rmr_gym.report.charts import figure_bytes
from rmr_gym.report.runs import load_run


def planted(donor, recipient):
    return {"Pong": 0.03, "Breakout": -0.03}.get(donor, 0.0)


def table_of(folder):
    return transfer_table(read_matrix(load_run(folder, TABLES)))


def texts(figure):
    return [text.get_text() for panel in figure.axes for text in panel.texts]


def hatched(figure):
    """Fields without a value, through which the hatched ground is seen."""
    values = [image.get_array() for panel in figure.axes for image in panel.images]
    return sum(int(np.ma.getmaskarray(part).sum()) for part in values)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_cells_marks_and_gaps_are_drawn(make_transfer):
    missing = {("Seaquest", "Pong"), ("balls", "Freeway")}
    table = table_of(make_transfer(games=4, seeds=7, gain=planted, missing=missing))
    figure = matrix_map(table)
    said = texts(figure)
    assert len([text for text in said if text]) == 4 * 4 + 4 + 3 * 4 - len(missing)
    assert sum("▲" in text for text in said) == 4
    assert sum("▼" in text for text in said) == 4
    assert hatched(figure) == len(missing)
    assert "missing or not comparable" in legend(figure)
    assert "the game's own P" in legend(figure)


def test_rows_and_columns_stand_as_clustered(make_transfer):
    table = table_of(make_transfer(gain=planted))
    figure = matrix_map(table)
    games = list(dict.fromkeys(table["recipient"]))
    ours = improvements(table, games, games)
    ticks = [[tick.get_text() for tick in panel.get_yticklabels()] for panel in figure.axes]
    assert [games[index] for index in complete_link(ours)[0]] in ticks
    across = [[tick.get_text() for tick in panel.get_xticklabels()] for panel in figure.axes]
    assert [games[index] for index in complete_link(ours.T)[0]] in across


def test_a_significance_that_correction_takes_away_is_hollow(make_transfer):
    def gain(donor, recipient):
        return 0.05 if donor == "Pong" else 0.0

    figure = matrix_map(table_of(make_transfer(games=6, gain=gain)))
    said = texts(figure)
    assert sum("△" in text for text in said) >= 6
    assert not any("▲" in text for text in said)
    assert "△ better, p < 0.05 before correction only" in legend(figure)


def test_three_seeds_are_never_marked(make_transfer):
    figure = matrix_map(table_of(make_transfer(games=3, seeds=3, gain=lambda *_: 0.2)))
    assert not any(mark in text for text in texts(figure) for mark in "▲△▼▽")
    assert "cells under 5 seeds have no mark" in legend(figure)


@pytest.mark.parametrize("games", [1, 2, 24])
def test_matrices_of_any_size_draw(make_transfer, games):
    table = table_of(make_transfer(games=games, seeds=1, others=(), steps=(100,)))
    assert figure_bytes(matrix_map(table), "png").startswith(b"\x89PNG")


def test_nothing_to_draw_is_an_error(make_transfer):
    folder = make_transfer(games=2, controls={"random_p": 0.0})
    table = table_of(folder)
    with pytest.raises(RMRError, match="no cell to draw"):
        matrix_map(table)
