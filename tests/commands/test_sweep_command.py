from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.commands.sweep import app
from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import config, stages
from rmr_gym.protocol.sweep import Cell, run_cells


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, tiny_preset):
    tiny = replace(
        tiny_preset,
        games=("Pong",),
        seeds=1,
        natural=replace(tiny_preset.natural, checkpoints=(2,)),
        probing=replace(tiny_preset.probing, probes=("ridge",)),
    )
    monkeypatch.setitem(config.PRESETS, "smoke", tiny)
    yield
    for cached in (stages.open_episodes, stages.natural_data, stages.probe_sets):
        cached.cache_clear()


def run(command, recorded, tmp_path, *arguments):
    folders = {"data": recorded("Pong").parent, "root": tmp_path, "out": tmp_path / "out"}
    options = [part for name, path in folders.items() for part in (f"--{name}", str(path))]
    app.cli(args=[command, "--preset", "smoke", "--workers", "1", *options, *arguments])


@pytest.fixture
def data(recorded, tmp_path):
    """A folder of data sets as the commands look for it: one folder a game."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Pong").symlink_to(recorded("Pong"))
    return lambda game: tmp_path / "data" / game


def test_transfer_then_status(data, tmp_path, capsys):
    run("transfer", data, tmp_path, "--donors", "pong", "random_dynamics")
    table = pd.read_csv(tmp_path / "out" / "transfer.csv", keep_default_na=False)
    assert set(table.donor) == {"Pong", "random_dynamics", ""}
    capsys.readouterr()
    app.cli(args=["status", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "transfer" in said
    assert "the rest needs 0.0 seconds" in said


def test_bottleneck_writes_its_widths(data, tmp_path):
    run("bottleneck", data, tmp_path, "--dims", "2")
    assert set(pd.read_csv(tmp_path / "out" / "bottleneck.csv").dim) == {2}


def test_bad_input_is_said_before_anything_runs(data, tmp_path):
    with pytest.raises(RMRError, match="seeds must be 1 or more"):
        run("transfer", data, tmp_path, "--seeds", "0")
    with pytest.raises(RMRError, match="did you mean"):
        run("transfer", data, tmp_path, "--donors", "Pongg")
    with pytest.raises(RMRError, match=r"holds no record\.json"):
        run("transfer", data, tmp_path, "--donors", f"balls={tmp_path / 'nothing'}")
    with pytest.raises(RMRError, match="holds no sweep"):
        app.cli(args=["status", str(tmp_path)])
    assert not (tmp_path / "out").exists()


def broken():
    raise RMRError("broken on purpose")


def test_status_names_what_failed_and_its_log(tmp_path, capsys):
    run_cells([Cell("bad 1", broken, ()), Cell("good 1", int, ())], folder=tmp_path)
    app.cli(args=["status", str(tmp_path)])
    said = capsys.readouterr().out
    assert "failed, attempt 1: bad 1: broken on purpose" in said
    assert str(tmp_path / "logs" / "bad_1") in said
    assert "1 cells of kinds of which none is done yet" in said
