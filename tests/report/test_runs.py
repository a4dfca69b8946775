import json

import numpy as np
import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.report.arms import ABSTRACT, NATURAL, probes
from rmr_gym.report.runs import (
    EVERY_RUN,
    Schema,
    load_run,
    read_frames,
    read_table,
    run_kind,
    where,
)

TABLES = NATURAL | ABSTRACT


def load(folder):
    return load_run(folder, TABLES)


def test_a_whole_folder_is_read(make_run):
    run = load(make_run())
    assert run.games == ["Pong", "Freeway"]
    assert probes(run["natural"]) == ["ridge", "adam_raw"]
    assert run.info["preset"] == "smoke"
    assert read_frames(run.folder)["Pong_rgb"].shape == (3, 210, 160, 3)
    assert run["natural"]["seed"].dtype == int
    assert len(where(run["natural"], game="Pong", arm="rmr", probe="ridge", step=300)) == 6


@pytest.mark.parametrize(
    "missing", [f"{name}.csv" for name in TABLES | EVERY_RUN] + ["run.json", "frames.npz"]
)
def test_what_is_not_there_yet_is_empty(make_run, missing):
    run = load(make_run(seeds=1, drop=(missing,)))
    name = missing.partition(".")[0]
    if missing == "run.json":
        assert run.info == {}
        assert run.games == ["Freeway", "Pong"]
    elif missing == "frames.npz":
        assert read_frames(run.folder) == {}
    else:
        key, values, _ = (TABLES | EVERY_RUN)[name]
        assert run[name].empty
        assert tuple(run[name]) == (*key, *values)


@pytest.mark.parametrize("make", ["nothing", "file", "other folder"])
def test_what_is_no_run_says_what_was_expected(tmp_path, make):
    folder = tmp_path / "here"
    if make == "file":
        folder.write_text("x")
    elif make == "other folder":
        folder.mkdir()
        (folder / "notes.txt").write_text("x")
    with pytest.raises(RMRError, match=r"is not a run: expected .*natural\.csv.*rmr-gym run"):
        load(folder)


def change(folder, edit, file="natural.csv"):
    table = pd.read_csv(folder / file)
    edit(table).to_csv(folder / file, index=False)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.drop(columns="probe"), "lacks the columns probe"),
        (lambda table: pd.concat([table, table.tail(1)]), "two rows for game Freeway"),
        (lambda table: table.assign(micro_f1="high"), "column micro_f1: expected numbers"),
    ],
)
def test_damaged_tables_are_named(make_run, edit, message):
    folder = make_run(seeds=1)
    change(folder, edit)
    with pytest.raises(RMRError, match=message):
        load(folder)


def test_damaged_files_are_named(make_run):
    folder = make_run(seeds=1)
    (folder / "frames.npz").write_bytes((folder / "frames.npz").read_bytes()[:200])
    with pytest.raises(RMRError, match=r"frames\.npz cannot be read"):
        read_frames(folder)
    (folder / "run.json").write_text('{"preset": ')
    with pytest.raises(RMRError, match=r"run\.json is not JSON"):
        load(folder)
    (folder / "run.json").write_text("[]")
    with pytest.raises(RMRError, match="expected a JSON object"):
        load(folder)
    (folder / "run.json").unlink()
    (folder / "natural.csv").write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe")
    with pytest.raises(RMRError, match=r"natural\.csv cannot be read"):
        load(folder)


def test_an_empty_table_file_counts_as_not_there(make_run):
    folder = make_run(seeds=1)
    (folder / "natural.csv").write_text("")
    assert load(folder)["natural"].empty


def test_missing_scores_become_nan_and_extra_columns_stay(make_run):
    folder = make_run(seeds=1)
    change(folder, lambda table: table.drop(columns="dead_slots").assign(note="x"))
    table = load(folder)["natural"]
    assert table["dead_slots"].isna().all()
    assert set(table["note"]) == {"x"}


def test_frames_that_need_pickle_are_refused(make_run):
    folder = make_run(seeds=1)
    np.savez(folder / "frames.npz", Pong_rgb=np.array([{"a": 1}], object))
    with pytest.raises(RMRError, match=r"frames\.npz cannot be read"):
        read_frames(folder)


def test_games_stand_in_the_order_of_the_run(make_run):
    folder = make_run(seeds=1, games=("Freeway", "Pong"))
    info = json.loads((folder / "run.json").read_text()) | {"games": ["Pong", "Skiing"]}
    (folder / "run.json").write_text(json.dumps(info))
    assert load(folder).games == ["Pong", "Freeway"]


def test_names_stand_in_the_order_of_the_run_with_those_still_missing(make_transfer):
    folder = make_transfer(games=2)
    info = {"kind": "transfer", "recipients": ["Skiing", "Pong"]}
    (folder / "run.json").write_text(json.dumps(info))
    run = load_run(folder, {"transfer": Schema(("recipient", "donor", "seed", "step", "arm"), ())})
    found = run.named("recipients", "games", table="transfer", column="recipient")
    assert found == ["Skiing", "Pong", "Breakout"]
    assert run.named("donors", table="transfer", column="donor") == ["Breakout", "Pong", "balls"]


def test_the_kind_is_found_without_run_json(make_transfer, make_run):
    folder = make_transfer(games=2)
    (folder / "run.json").unlink()
    assert run_kind(folder) == "transfer"
    assert run_kind(make_run(seeds=1)) == "compare"


def test_kinds_are_not_confused(make_transfer):
    with pytest.raises(RMRError, match="kind transfer: expected the kind compare"):
        load_run(make_transfer(games=2), TABLES, "compare")


def test_jobs_are_read_and_named_once(make_run):
    folder = make_run(seeds=1)
    line = "Pong<-balls,failed,3.5,2,NaN loss\n"
    (folder / "jobs.csv").write_text(f"key,state,seconds,attempts,error\n{line}")
    job = {"key": "Pong<-balls", "state": "failed", "seconds": 3.5, "attempts": 2}
    assert load(folder)["jobs"].to_dict("records") == [job | {"error": "NaN loss"}]
    (folder / "jobs.csv").write_text(f"key,state,seconds,attempts,error\n{line}{line}")
    with pytest.raises(RMRError, match="two rows for key Pong<-balls"):
        load(folder)


def test_columns_of_text_may_be_a_table_s_own(tmp_path):
    (tmp_path / "planets.csv").write_text("planet,seed,mass\nMars,0,1.5\n12,1,\n")
    table = read_table(tmp_path / "planets.csv", Schema(("planet", "seed"), ("mass",), ("planet",)))
    assert table["planet"].tolist() == ["Mars", "12"]
    with pytest.raises(RMRError, match="column planet: expected numbers"):
        read_table(tmp_path / "planets.csv", Schema(("planet", "seed"), ("mass",)))
