import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmr_gym.experiments.transfer.report import (
    TABLES,
    adjusted_fields,
    complete_link,
    ranking_table,
    read_matrix,
    transfer_table,
)
from rmr_gym.report.runs import load_run


def table_of(folder):
    return transfer_table(read_matrix(load_run(folder, TABLES)))


def test_complete_link_of_a_hand_computed_case():
    rows = np.array([[0.0, 0.0], [10.0, 0.0], [1.0, 0.0], [13.0, 0.0]])
    found = complete_link(rows)
    assert found.links is not None
    assert found.links[:, 2] == pytest.approx([1, 3, 13])
    assert found.order in ([0, 2, 1, 3], [3, 1, 2, 0])


def test_distances_skip_missing_cells_and_are_scaled_up():
    rows = np.array([[0.0, 0.0], [3.0, np.nan], [np.nan, 4.0]])
    found = complete_link(rows)
    assert found.links is not None
    assert found.links[:, 2] == pytest.approx([np.sqrt(18), np.sqrt(32)])


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.zeros((1, 3)), np.zeros((2, 0))])
def test_little_or_nothing_to_cluster(rows):
    assert complete_link(rows).order == list(range(len(rows)))


def test_nothing_but_gaps_can_be_ordered():
    assert sorted(complete_link(np.full((3, 2), np.nan)).order) == [0, 1, 2]


def additive(donors, recipients, lost):
    return pd.DataFrame(
        {"source": f"d{d}", "recipient": f"r{r}", "relative": give + gain, "role": "game"}
        for d, give in enumerate(donors)
        for r, gain in enumerate(recipients)
        if (d, r) not in lost
    )


@settings(deadline=None)
@given(st.integers(0, 3), st.integers(0, 3))
def test_the_adjusted_mean_does_not_depend_on_which_cell_is_missing(d, r):
    donors, recipients = [1.0, 2.0, -1.0, 0.0], [5.0, 0.0, 1.0, 2.0]
    part = additive(donors, recipients, {(d, r)})
    part["adjusted"] = adjusted_fields(part, "donor")
    means = part.groupby("source")["adjusted"].mean().to_numpy()
    assert means == pytest.approx(np.array(donors) + np.mean(recipients))
    part["adjusted"] = adjusted_fields(part, "recipient")
    means = part.groupby("recipient")["adjusted"].mean().to_numpy()
    assert means == pytest.approx(np.array(recipients) + np.mean(donors))


def test_a_donor_that_is_no_game_moves_no_rank_of_games(make_transfer):
    """However unlike the games it is, and however unlike on each recipient."""
    folder = make_transfer(games=4, others=("odd",), gain=lambda d, r: 0.01 * len(d + r))
    table = table_of(folder)
    odd = table["source"] == "odd"
    table.loc[odd, "relative"] = table.loc[odd, "recipient"].str.len().astype(float) ** 3
    keys, ranking = ["role", "name"], ranking_table(table)
    without = ranking_table(table[~odd]).set_index(keys)["adjusted"]
    beside = ranking[ranking["name"] != "odd"].set_index(keys)["adjusted"]
    assert beside.to_dict() == pytest.approx(without.to_dict())


def test_a_strong_recipient_is_no_weak_donor(make_transfer):
    """Without its own column the plain mean of Pong as a donor is low; the adjusted one is not."""

    def gain(donor, recipient):
        return (0.05 if recipient == "Pong" else 0.0) + (0.01 if donor == "Pong" else 0.0)

    folder = make_transfer(games=5, gain=gain, noise=0.0005)
    ranking = ranking_table(table_of(folder))
    donors = ranking[ranking["role"] == "donor"].set_index("name")
    assert donors.index[0] == "Pong"
    assert donors.loc["Pong", "relative"] < donors.loc["Breakout", "relative"]
    assert donors.loc["Pong", "cells"] == 4
    assert not donors.loc["balls", "is_game"]
    assert donors.loc["Pong", "low"] <= donors.loc["Pong", "adjusted"] <= donors.loc["Pong", "high"]
    recipients = ranking[ranking["role"] == "recipient"]
    assert recipients.iloc[0]["name"] == "Pong"
    assert recipients.iloc[0]["better"] == 4, "balls are no game"
