"""`rmr-gym run`, `status`, `report`."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

import pandas as pd
import pytest

from rmr_gym.commands.console import parsed
from rmr_gym.commands.experiments import report, run, status
from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.compare.grid import Compare
from rmr_gym.stages.presets import PRESETS


def typed(name, tiny, *arguments, **changes):
    folders = tiny | changes
    options = [word for option, value in folders.items() for word in (f"--{option}", str(value))]
    run([name, "--preset", "tiny", *options, *map(str, arguments)])
    return folders["out"]


def test_what_is_typed_overrides_the_preset_field_by_field(capsys):
    words = ["--preset", "smoke", "--natural.objective", "infonce", "--seeds", "2"]
    chosen = parsed(Compare, words, "compare")
    smoke = PRESETS["smoke"]
    assert (chosen.preset, chosen.seeds, chosen.natural.objective) == ("smoke", 2, "infonce")
    assert chosen.natural.checkpoints == smoke.natural.checkpoints
    assert (chosen.model, chosen.probing) == (smoke.model, smoke.probing)
    assert parsed(Compare, ["--preset=smoke"], "compare").chosen == smoke
    assert parsed(Compare, [], "compare").chosen == PRESETS["laptop"]
    with pytest.raises(RMRError, match="did you mean 'laptop'"):
        parsed(Compare, ["--preset", "latpop"], "compare")
    with pytest.raises(SystemExit) as stop:
        parsed(Compare, ["--natural.checkpoints", "5", "3"], "compare")
    assert stop.value.code == 2
    assert "checkpoints must be rising" in capsys.readouterr().err


def test_measures_are_computed_reported_and_their_status_told(tiny, capsys):
    out = typed("measures", tiny, "--arms", "no_p", "untrained", "player", "--seeds", 1)
    assert set(pd.read_csv(out / "labels.csv")["arm"]) == {"no_p", "untrained", "player"}
    printed = " ".join(capsys.readouterr().out.split())
    assert str(out / "report.html") in printed.replace(" ", "") or "report:" in printed
    assert (out / "report.html").is_file()
    status(out)
    told = " ".join(capsys.readouterr().out.split())
    assert "label_probe" in told
    assert "the rest needs 0.0 s" in told
    (out / "report.html").unlink()
    report(out)
    assert (out / "report.html").is_file()


@pytest.mark.parametrize(
    ("variable", "value", "printed"),
    [
        ("PYTHONIOENCODING", "ascii", " +/- 0.0"),
        ("PYTHONIOENCODING", "latin-1", " \xb1 0.0"),
        ("MPLBACKEND", "module://a_notebook_s.backend", "Pong: C-SWM hinge"),
        ("MPLBACKEND", "tkagg", "Pong: C-SWM hinge"),
    ],
)
def test_a_report_is_printed_and_drawn_wherever_it_is_asked_for(make_run, variable, value, printed):
    folder = make_run(seeds=2, games=("Pong",))
    asked = subprocess.run(
        [sys.executable, "-m", "rmr_gym", "report", str(folder)],
        env=os.environ | {variable: value},
        capture_output=True,
        check=False,
    )
    assert (asked.returncode, asked.stderr) == (0, b"")
    assert printed in asked.stdout.decode("latin-1" if value == "latin-1" else "utf-8")
    assert (folder / "figures" / "frames_Pong.png").is_file()


def test_table_of_two_games_beside_the_paper(tiny, two_games, tmp_path, capsys):
    arguments = ("--games", "pong", "Breakout", "--models", "deep_sets")
    out = typed("table2", tiny, *arguments, data=two_games)
    table = pd.read_csv(out / "abstract.csv")
    assert columns_of(table) == {
        (game, model) for game in ("Pong", "Breakout") for model in ("copy", "deep_sets")
    }
    assert json.loads((out / "run.json").read_text())["games"] == ["Pong", "Breakout"]
    assert "Deep Sets" in capsys.readouterr().out


def columns_of(table):
    return set(zip(table["game"], table["model"], strict=True))


def test_status_names_what_failed_and_its_log(tiny, tmp_path, monkeypatch, capsys):
    from rmr_gym.stages.natural import pretrain

    train = pretrain.function

    def fail(data, model, *rest, **more):
        if model.core == "mlp":
            raise RMRError("broken on purpose")
        return train(data, model, *rest, **more)

    monkeypatch.setattr(pretrain, "function", fail)
    arguments = ("--games", "Pong", "--models", "mlp", "deep_sets")
    with pytest.raises(SystemExit) as stop:
        typed("table2", tiny, *arguments, root=tmp_path / "root")
    assert stop.value.code == 1
    out = tiny["out"]
    problems = capsys.readouterr().err
    assert "note: pretrain Pong mlp dim 4: broken on purpose" in problems
    status(out)
    told = capsys.readouterr().out
    assert "failed, attempt 1: pretrain Pong mlp dim 4: broken on purpose" in told
    log = next(line for line in told.splitlines() if line.strip().startswith("log: "))
    assert str(tmp_path / "root" / "store" / "pretrain") in log


def test_time_left_is_that_of_the_jobs_of_this_run(tmp_path, capsys):
    now = time.time()
    ended = {"old": now - 90_000, "one": now - 20, "two": now - 10, "next": None, "last": None}
    for name, at in ended.items():
        (tmp_path / name).mkdir()
        if at is not None:
            record = tmp_path / name / "record.json"
            record.write_text('{"seconds": 5.0}')
            os.utime(record, (at, at))
    jobs = [{"title": f"work {name}", "result": str(tmp_path / name)} for name in ended]
    (tmp_path / "plan.json").write_text(json.dumps(jobs))
    status(tmp_path)
    assert "of late" in capsys.readouterr().out
    started = datetime.fromtimestamp(now - 30, UTC).isoformat(timespec="seconds")
    (tmp_path / "run.json").write_text(json.dumps({"started": started}))
    status(tmp_path)
    told = " ".join(capsys.readouterr().out.split())
    assert "the rest needs 10 s of late 360 jobs an hour: 20 s left" in told


def test_status_of_no_run_is_said(tmp_path):
    with pytest.raises(RMRError, match="holds no run"):
        status(tmp_path)
