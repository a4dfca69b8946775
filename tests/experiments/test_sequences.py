import sys
from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.sequences import digit_images
from rmr_gym.experiments import write_report
from rmr_gym.experiments.base import run
from rmr_gym.experiments.sequences.grid import SequencesRun
from rmr_gym.experiments.sequences.report import chosen
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
    ("kind", "score", "told"),
    [("digits", "cross_entropy", "at 12 pixels across"), ("adding", "mse", "of 12 numbers")],
)
def test_other_tasks_have_tables_and_a_page(tmp_path, kind, score, told):
    task = replace(SMOKE.task, kind=kind, checkpoints=(1, 2), sequences=4)
    options = {"task": task, "workers": 1, "root": tmp_path, "seeds": 5, "models": ("lstm", "rims")}
    folder, problems = run(SequencesRun(**TINY | options))
    assert problems == []
    path, text = write_report(folder)
    assert f"Accuracy {told}: " in text
    pairs = pd.read_csv(folder / "pairs.csv")
    assert {*pairs.score} == {"accuracy", score}
    assert (pairs.pairs == 5).all()
    summary = pd.read_csv(folder / "sequences_summary.csv")
    assert f"{score}_mean" in summary
    assert (folder / "figures" / "active_4.png").is_file()
    assert told[3:] in path.read_text(encoding="utf-8")


def test_the_checkpoint_is_chosen_for_each_model_and_seed():
    key = ["model", "seed", "step", "dropped", "held_out"]
    rows = [
        *(("rims", 0, 1, -1, 0.5), ("rims", 0, 2, -1, 0.7), ("rims", 0, 1, 3, float("nan"))),
        *(("rims", 1, 1, -1, 0.6), ("rims", 1, 2, -1, 0.4)),
    ]
    table = pd.DataFrame(rows, columns=key)
    best = chosen(table)
    assert [*zip(best.seed, best.step, best.dropped, strict=True)] == [
        *((0, 1, -1), (0, 1, 3), (1, 2, -1)),
    ]
    last = chosen(table.assign(held_out=float("nan")))
    assert [*zip(last.seed, last.step, strict=True)] == [(0, 2), (1, 2)]


def test_without_scikit_learn_nothing_is_computed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digit_images.cache_clear()
    options = {"task": SEQUENCE_PRESETS["digits"].task, "root": tmp_path / "runs"}
    with pytest.raises(RMRError, match="expected the package sklearn"):
        run(SequencesRun(**TINY | options))
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "at least 1 as seeds"),
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
