"""What commands print while they compute."""

import pytest

from rmr_gym.commands import console


@pytest.fixture
def clock(monkeypatch):
    """Seconds that have passed, to be set."""
    passed = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: passed[0])
    return passed


def test_what_is_left_is_estimated_from_throughput_and_not_from_the_first_job(clock, capsys):
    with console.progress_bar("training") as progress:
        for now, done in ((100.0, 1), (120.0, 11), (140.0, 21)):
            clock[0] = now
            progress(done, 31)
    printed = capsys.readouterr().err.splitlines()
    assert printed == [
        "training: 1/31, 100 s",
        "training: 11/31, 120 s, 40 s left",
        "training: 21/31, 140 s, 20 s left",
    ]


def test_what_was_there_at_the_beginning_is_no_throughput(clock, capsys):
    with console.progress_bar("resumed") as progress:
        for now, done in ((1.0, 900), (21.0, 910)):
            clock[0] = now
            progress(done, 1000)
    assert capsys.readouterr().err.splitlines() == ["resumed: 910/1000, 21 s, 180 s left"]


@pytest.mark.parametrize("width", [30, 100])
def test_rows_are_whole_on_a_narrow_terminal_too(width, monkeypatch, capsys):
    monkeypatch.setattr(console.out_console, "width", width)
    console.print_rows([{"name": "breakout_belief", "arm": "belief", "micro_f1": 0.97654}] * 2)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert printed.count("breakout_belief") == printed.count("0.9765") == 2
    assert ("┃" in printed) is (width == 100)
