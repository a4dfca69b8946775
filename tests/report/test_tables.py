import pandas as pd
import pytest

from rmr_gym.report import page as words
from rmr_gym.report import tables as text
from rmr_gym.report.tables import Table, grouped, shown, wide

NAN = float("nan")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (text.marked("better"), "▲ better"),
        (text.marked("same"), "same"),
        (text.marked(""), "–"),
        (text.number(0.12345), "0.123"),
        (text.number(NAN), "–"),
        (text.signed(0.0123), "+0.012"),
        (text.signed(-0.0123), "−0.012"),
        (text.signed(-0.0001), "0.000"),
        (text.spread(0.8, 0.01), "0.800 ± 0.010"),
        (text.spread(0.8, NAN), "0.800"),
        (text.spread(NAN, NAN), "–"),
        (text.interval(-0.1, 0.2), "−0.100 to +0.200"),
        (text.interval(NAN, NAN), "–"),
        (text.p_value(0.03125), "0.031"),
        (text.p_value(1e-6), "<0.001"),
        (text.p_value(NAN), "–"),
        (text.duration(2.34), "2.3 s"),
        (text.duration(59.7), "1 min 00 s"),
        (text.duration(252.0), "4 min 12 s"),
        (text.duration(11100.0), "3 h 05 min"),
        (words.listing(["a"]), "a"),
        (words.listing(["a", "b", "c"]), "a, b and c"),
        (words.named(["a", "b"]), " (a and b)"),
        (words.named([]), ""),
        (words.named(list("abcdefg")), ""),
    ],
)
def test_values_as_text(found, expected):
    assert found == expected


ROWS = pd.DataFrame(
    {"game": ["Pong", "Hero", "Pong"], "arm": ["rmr", "rmr", "no P, or none"]}
    | {"f1_mean": [0.5, 0.25, 0.75], "f1_std": [0.1, NAN, 0.0], "gap": [0.1, -0.2, NAN]}
)
COLUMNS = [("arm", "arm"), ("f1", "F1", "spread"), ("gap", "gap", "signed 1")]


def test_rows_stand_under_their_heading_where_names_are_what_they_are_called():
    table = shown(ROWS.assign(objective="cswm"), COLUMNS, "{game}, {objective}")
    assert table.blocks() == {
        "Pong, C-SWM hinge": [
            ["rmr", "0.500 ± 0.100", "+0.1"],
            ["no P, or none", "0.750 ± 0.000", "–"],
        ],
        "Hero, C-SWM hinge": [["rmr", "0.250", "−0.2"]],
    }
    assert not Table(ROWS.iloc[:0], [])


def test_every_form_of_a_column():
    row = {"p": 0.0001, "low": -0.5, "high": 0.25, "arm": "rmr", "verdict": "worse", "n": 1500}
    columns = [("p", "", "p"), ("", "", "interval"), ("arm", "", "label"), ("n", "", "number 0")]
    table = shown(pd.DataFrame([row]), [*columns, ("verdict", "", "verdict")])
    texts = ["<0.001", "−0.500 to +0.250", "RMR (frozen P)", "1,500", "▼ worse"]
    assert table.blocks() == {"": [texts]}


def test_text_is_aligned():
    lines = shown(ROWS, COLUMNS).lines()[""]
    starts = ("F1", "0.5", "0.2", "0.7")
    assert [line.index(word) for line, word in zip(lines, starts, strict=True)] == [15] * 4
    assert not any(line.endswith(" ") for line in lines)


def test_scores_of_names_stand_side_by_side_also_where_a_key_is_missing():
    table = ROWS.assign(game=["Pong", None, "Pong"])
    found = wide(table, ["game"], "arm", ["f1_mean", "f1_std"])
    assert found["rmr_mean"].tolist() == [0.5, 0.25]
    assert found["no P, or none_mean"].iloc[0] == 0.75


def test_neighbours_of_one_name_come_together():
    assert grouped(ROWS, "game")["game"].tolist() == ["Pong", "Pong", "Hero"]
    assert grouped(ROWS.iloc[:0], "game").empty
