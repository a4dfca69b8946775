from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.base import run
from rmr_gym.experiments.sequences.grid import SequencesRun
from rmr_gym.stages.sequences import SEQUENCE_PRESETS

SMOKE = SEQUENCE_PRESETS["smoke"]
TINY = vars(replace(SMOKE, task=replace(SMOKE.task, checkpoints=(2,), sequences=4)))


def test_tables_of_both_models(tmp_path):
    options = {"rims": replace(SMOKE.rims, active=3), "workers": 1, "root": tmp_path}
    folder, problems = run(SequencesRun(**TINY | options))
    assert problems == []
    table = pd.read_csv(folder / "sequences.csv")
    assert table.groupby("model").active.unique().map(list).to_dict() == {"lstm": [0], "rims": [3]}
    assert sorted(table.span.unique()) == [4, 12]
    assert len(pd.read_csv(folder / "sequences_curves.csv")) == 2 * 2
    assert (folder / "activity.npz").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be 1 or more"),
        ({"models": ("rims", "elman")}, "unknown model 'elman'"),
        ({"models": ()}, "one model or more, got none"),
        ({"out": "sequences.csv"}, "expected a folder for --out"),
    ],
)
def test_bad_input_ends_before_anything_is_computed(tmp_path, options, message):
    if "out" in options:
        options = {"out": tmp_path / options["out"]}
    with pytest.raises(RMRError, match=message):
        run(SequencesRun(**TINY | {"root": tmp_path / "runs"} | options))
    assert not list(tmp_path.rglob("*.csv"))
