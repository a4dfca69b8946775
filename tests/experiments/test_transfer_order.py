import numpy as np
import pytest

from rmr_gym.experiments.transfer.report import (
    TABLES,
    complete_link,
    overview_table,
    read_matrix,
    transfer_table,
)
from rmr_gym.report.runs import load_run


def test_complete_link_of_a_hand_computed_case():
    rows = np.array([[0.0, 0.0], [10.0, 0.0], [1.0, 0.0], [13.0, 0.0]])
    found = complete_link(rows)
    assert found[1] is not None
    assert found[1][:, 2] == pytest.approx([1, 3, 13])
    assert found[0] in ([0, 2, 1, 3], [3, 1, 2, 0])


def test_distances_skip_missing_cells_and_are_scaled_up():
    rows = np.array([[0.0, 0.0], [3.0, np.nan], [np.nan, 4.0]])
    found = complete_link(rows)
    assert found[1] is not None
    assert found[1][:, 2] == pytest.approx([np.sqrt(18), np.sqrt(32)])


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.zeros((1, 3)), np.zeros((2, 0))])
def test_little_or_nothing_to_cluster(rows):
    assert complete_link(rows)[0] == list(range(len(rows)))


def test_nothing_but_gaps_can_be_ordered():
    assert sorted(complete_link(np.full((3, 2), np.nan))[0]) == [0, 1, 2]


def test_a_donor_is_judged_by_what_it_gives_to_other_games(make_transfer):
    def gain(donor, recipient):
        return 0.2 if donor == recipient else 0.01 if donor == "Pong" else 0.0

    table = transfer_table(read_matrix(load_run(make_transfer(games=6, gain=gain), TABLES)))
    found = overview_table(table).set_index("scope")
    pong, breakout = found.loc["Pong"], found.loc["Breakout"]
    assert (pong["cells"], pong["recipients"], pong["verdict"]) == (5, 5, "better")
    assert pong["difference"] == pytest.approx(0.01, abs=0.002)
    assert breakout["difference"] == pytest.approx(0.0, abs=0.002)
    assert found.loc["balls", "cells"] == 6
