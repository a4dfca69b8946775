"""The demonstration: all of it in small, what is wrong with a folder, and what Ctrl-C leaves."""

import re

import pandas as pd
import pytest
from demo import grid
from demo.__main__ import main
from demo.grid import READERS, Demo
from demo.report import demo
from PIL import Image

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.base import run
from rmr_gym.report.page import write_report

SIZES = {"steps": 12, "episodes": 1, "agent_steps": 800, "copies": 4, "workers": 1}


@pytest.fixture
def tiny_demo(tiny_preset, two_games, tmp_path):
    stages = ("model", "recording", "pretraining", "natural")
    small = {name: getattr(tiny_preset, name) for name in stages}
    small["probing"] = grid.Probing(("ridge",), train_rows=60, test_rows=40)
    places = {"root": tmp_path / "runs", "data": two_games}
    return Demo(**Demo.proposals() | small | places | SIZES)


def test_the_page_opens_with_what_the_run_computed(tiny_demo, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(grid.tracked, "function", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_demo)
    stored = kept(tiny_demo)
    assert any("pushed" in path for path in stored)
    out, problems = run(tiny_demo)
    assert problems == []
    assert {path: kept(tiny_demo)[path] for path in stored} == stored
    page, text = write_report(out, demo)
    rows = pd.read_csv(out / "belief.csv")
    errors = 1 - rows.pivot_table("micro_f1", "game", "reader")
    fewer = 100 * (1 - errors["belief"].mean() / errors["frames alone"].mean())
    html = page.read_text(encoding="utf-8")
    headline = re.search(r'class="headline">(.*?)</p>', html, re.S)[1]
    assert f"{fewer:.0f}% fewer errors" in headline
    assert "significance" not in text
    for subject in ("P predicts", "a demonstration and no test", "An agent that pushes balls"):
        assert subject in text
    assert html.index("<img") < html.index("<table")
    films = sorted(film.stem for film in out.glob("*.gif"))
    assert films == [
        *("agent_PushedBalls", "belief_Breakout", "belief_Pong", "slots_Breakout", "slots_Pong")
    ]
    assert html.count("data:image/gif") == len(films)
    with Image.open(out / "belief_Pong.gif") as film:
        assert film.n_frames == SIZES["steps"] + 1
    assert set(rows["reader"]) == {*READERS}
    assert (rows.groupby("reader")["micro_f1"].mean() > 0.5).all()
    learned = pd.read_csv(out / "agent.csv")
    assert set(learned["step"]) == {0, 800}


def interrupted(*_, **__):
    raise KeyboardInterrupt


def kept(demo):
    records = (demo.root / "store").glob("*/*/record.json")
    return {str(path): path.stat().st_mtime_ns for path in records}


@pytest.mark.parametrize(
    ("root", "complaint"), [("file", "file"), ("/proc/nowhere", "/proc/nowhere")]
)
def test_a_root_that_cannot_be_written_is_said_and_nothing_is_computed(
    root, complaint, tmp_path, capsys
):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main(["--root", str(tmp_path / root), "--workers", "1"])
    assert stop.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "file").read_text() == "mine"


def test_a_page_that_cannot_stand_where_a_file_is(tiny_demo):
    tiny_demo.root.mkdir()
    tiny_demo.folder().write_text("mine")
    with pytest.raises(RMRError, match="expected a folder"):
        run(tiny_demo)


def test_an_interrupt_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rmr_gym.experiments.atari.record", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["--root", str(tmp_path), "--workers", "1"])
    assert stop.value.code == 130
    assert "run the same command again" in " ".join(capsys.readouterr().err.split())
