from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.base import run
from rmr_gym.experiments.copying.grid import CopyingRun
from rmr_gym.stages.copying import COPYING_PRESETS

SMOKE = COPYING_PRESETS["smoke"]
TINY = vars(replace(SMOKE, task=replace(SMOKE.task, checkpoints=(2,), sequences=4)))


def test_tables_of_both_models(tmp_path):
    options = {"rims": replace(SMOKE.rims, active=3), "workers": 1, "root": tmp_path}
    folder, problems = run(CopyingRun(**TINY | options))
    assert problems == []
    table = pd.read_csv(folder / "copying.csv")
    assert table.groupby("model").active.unique().map(list).to_dict() == {"lstm": [0], "rims": [3]}
    assert sorted(table.span.unique()) == [4, 12]
    assert len(pd.read_csv(folder / "copying_curves.csv")) == 2 * 2
    assert (folder / "activity.npz").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more"),
        ({"models": ("rims", "elman")}, "unknown model 'elman'"),
        ({"models": ()}, "one model or more, got none"),
        ({"out": "copying.csv"}, "expected a folder for --out"),
    ],
)
def test_bad_input_ends_before_anything_is_computed(tmp_path, options, message):
    if "out" in options:
        options = {"out": tmp_path / options["out"]}
    with pytest.raises(RMRError, match=message):
        run(CopyingRun(**TINY | {"root": tmp_path / "runs"} | options))
    assert not list(tmp_path.rglob("*.csv"))
