from dataclasses import replace

import matplotlib.image
import pandas as pd
import pytest

from rmr_gym.commands import copying as commands
from rmr_gym.errors import RMRError
from rmr_gym.protocol import copying_presets


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    smoke = copying_presets.COPYING_PRESETS["smoke"]
    tiny = replace(smoke, checkpoints=(2,), sequences=4)
    monkeypatch.setitem(copying_presets.COPYING_PRESETS, "smoke", tiny)


def run(tmp_path, *arguments):
    places = ("--out", str(tmp_path / "out"), "--root", str(tmp_path / "runs"))
    commands.app.cli(args=["copying", *places, "--preset", "smoke", *arguments])


def test_tables_and_picture(tmp_path, capsys):
    run(tmp_path, "--active", "3")
    table = pd.read_csv(tmp_path / "out" / "copying.csv")
    assert set(table.model) == {"rims", "lstm"}
    assert set(table[table.model == "rims"].active) == {3}
    curves = pd.read_csv(tmp_path / "out" / "copying_curves.csv")
    assert len(curves) == 2 * 2
    assert matplotlib.image.imread(tmp_path / "out" / "active_rims_0.png").ndim == 3
    assert "cross_entropy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "0"), "seeds must be 1 or more"),
        (("--active", "9"), "1 to 4 active RIMs out of 4, got 9"),
        (("--models", "rims", "elman"), "unknown model 'elman'"),
        (("--models",), "one model or more, got none"),
        (("--out", "copying.csv"), "expected a folder for --out, .* leave .csv out"),
    ],
)
def test_bad_input_ends_before_anything_is_computed(tmp_path, arguments, message):
    with pytest.raises(RMRError, match=message):
        run(tmp_path, *arguments)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "runs").exists()
