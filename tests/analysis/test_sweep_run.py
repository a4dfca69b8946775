import json

import pandas as pd
import pytest

from rmr_gym.analysis.run import load_run, run_kind
from rmr_gym.analysis.sweep_run import load_sweep_run
from rmr_gym.core.errors import RMRError


def test_both_kinds_are_read(make_transfer, make_bottleneck):
    transfer = load_sweep_run(make_transfer(games=2))
    assert transfer.kind == "transfer"
    assert set(transfer.scores["donor"]) == {"", "Pong", "Breakout", "balls"}
    assert transfer.abstract.empty
    bottleneck = load_sweep_run(make_bottleneck())
    assert bottleneck.kind == "bottleneck"
    assert bottleneck.scores["dim"].dtype == int
    assert len(bottleneck.abstract) == 12


def test_names_stand_in_the_order_of_the_run_with_those_still_missing(make_transfer):
    folder = make_transfer(games=2)
    info = {"kind": "transfer", "recipients": ["Skiing", "Pong"]}
    (folder / "run.json").write_text(json.dumps(info))
    run = load_sweep_run(folder)
    assert run.named("recipients", "games", column="recipient") == ["Skiing", "Pong", "Breakout"]
    assert run.named("donors", column="donor") == ["Breakout", "Pong", "balls"]


def test_the_kind_is_found_without_run_json(make_transfer, make_run):
    folder = make_transfer(games=2)
    (folder / "run.json").unlink()
    assert run_kind(folder) == "transfer"
    assert run_kind(make_run(seeds=1)) == "compare"


def test_kinds_are_not_confused(make_transfer, make_run):
    with pytest.raises(RMRError, match="kind transfer: expected a comparison"):
        load_run(make_transfer(games=2))
    with pytest.raises(RMRError, match=r"expected a folder with transfer\.csv .* 'compare'"):
        load_sweep_run(make_run(seeds=1))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.drop(columns="donor"), "lacks the columns donor"),
        (lambda table: pd.concat([table, table.tail(1)]), "two rows for recipient Breakout, donor"),
        (lambda table: table.assign(micro_f1="high"), "column micro_f1: expected numbers"),
        (
            lambda table: table.assign(donor=table["donor"].replace("balls", "")),
            "expected a donor for the arm rmr .* '' for the arm 'rmr'",
        ),
        (
            lambda table: table.assign(donor=table["donor"].fillna("Pong")),
            "expected a donor for the arm rmr .* 'Pong' for the arm 'cswm'",
        ),
    ],
)
def test_damaged_scores_are_named(make_transfer, edit, message):
    folder = make_transfer(games=2)
    edit(pd.read_csv(folder / "transfer.csv")).to_csv(folder / "transfer.csv", index=False)
    with pytest.raises(RMRError, match=message):
        load_sweep_run(folder)


def test_cells_are_read_and_named_once(make_transfer):
    folder = make_transfer(games=2)
    line = "Pong<-balls,failed,3.5,2,NaN loss\n"
    (folder / "jobs.csv").write_text(f"key,state,seconds,attempts,error\n{line}")
    cells = load_sweep_run(folder).base.cells
    assert cells.to_dict("records") == [
        {
            "key": "Pong<-balls",
            "state": "failed",
            "seconds": 3.5,
            "attempts": 2,
            "error": "NaN loss",
        }
    ]
    (folder / "jobs.csv").write_text(f"key,state,seconds,attempts,error\n{line}{line}")
    with pytest.raises(RMRError, match="two rows for key Pong<-balls"):
        load_sweep_run(folder)
