from dataclasses import replace

import matplotlib.image
import pandas as pd
import pytest

from rmr_gym.commands import copying as commands
from rmr_gym.core.errors import RMRError
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


def test_settings_change_the_task(tmp_path):
    run(tmp_path, "--models", "lstm", "--set", "span=3", "test_spans=[3,7]", "lstm_units=8")
    table = pd.read_csv(tmp_path / "out" / "copying.csv")
    assert table.span.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "0"), "seeds must be 1 or more"),
        (("--active", "9"), "1 to 4 active RIMs out of 4, got 9"),
        (("--models", "rims", "elman"), "unknown model 'elman'"),
        (("--set", "spam=3"), "unknown setting 'spam': did you mean 'span'"),
        (("--set", "span=-1"), "spans must be 0 or more"),
        (("--models",), "one model or more, got none"),
        (("--out", "copying.csv"), "expected a folder for --out, .* leave .csv out"),
    ],
)
def test_bad_input_ends_before_anything_is_computed(tmp_path, arguments, message):
    with pytest.raises(RMRError, match=message):
        run(tmp_path, *arguments)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "runs").exists()
