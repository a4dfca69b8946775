import json

import numpy as np
import pandas as pd
import pytest

from rmr_gym.analysis.run import COLUMNS, load_run, where
from rmr_gym.core.errors import RMRError


def test_a_whole_folder_is_read(make_run):
    run = load_run(make_run())
    assert run.games == ["Pong", "Freeway"]
    assert run.probes == ["ridge", "adam_raw"]
    assert run.info["preset"] == "smoke"
    assert run.frames["Pong_rgb"].shape == (3, 210, 160, 3)
    assert run.natural["seed"].dtype == int
    assert len(where(run.natural, game="Pong", arm="rmr", probe="ridge", step=300)) == 6


@pytest.mark.parametrize(
    "missing", [f"{name}.csv" for name in COLUMNS] + ["run.json", "frames.npz"]
)
def test_what_is_not_there_yet_is_empty(make_run, missing):
    run = load_run(make_run(seeds=1, drop=(missing,)))
    name = missing.partition(".")[0]
    if missing == "run.json":
        assert run.info == {}
        assert run.games == ["Freeway", "Pong"]
    elif missing == "frames.npz":
        assert run.frames == {}
    else:
        table = getattr(run, name)
        assert table.empty
        assert tuple(table.columns) == COLUMNS[name]


@pytest.mark.parametrize("make", ["nothing", "file", "other folder"])
def test_what_is_no_run_says_what_was_expected(tmp_path, make):
    folder = tmp_path / "here"
    if make == "file":
        folder.write_text("x")
    elif make == "other folder":
        folder.mkdir()
        (folder / "notes.txt").write_text("x")
    with pytest.raises(RMRError, match=r"is not a run: expected .*natural\.csv.*rmr-gym demo"):
        load_run(folder)


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
        load_run(folder)


def test_damaged_files_are_named(make_run):
    folder = make_run(seeds=1)
    (folder / "frames.npz").write_bytes((folder / "frames.npz").read_bytes()[:200])
    with pytest.raises(RMRError, match=r"frames\.npz cannot be read"):
        load_run(folder)
    (folder / "run.json").write_text('{"preset": ')
    with pytest.raises(RMRError, match=r"run\.json is not JSON"):
        load_run(folder)
    (folder / "run.json").write_text("[]")
    with pytest.raises(RMRError, match="expected a JSON object"):
        load_run(folder)
    (folder / "run.json").unlink()
    (folder / "natural.csv").write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe")
    with pytest.raises(RMRError, match=r"natural\.csv cannot be read"):
        load_run(folder)


def test_an_empty_table_file_counts_as_not_there(make_run):
    folder = make_run(seeds=1)
    (folder / "natural.csv").write_text("")
    assert load_run(folder).natural.empty


def test_missing_scores_become_nan_and_extra_columns_stay(make_run):
    folder = make_run(seeds=1)
    change(folder, lambda table: table.drop(columns="dead_slots").assign(note="x"))
    table = load_run(folder).natural
    assert table["dead_slots"].isna().all()
    assert set(table["note"]) == {"x"}


def test_frames_that_need_pickle_are_refused(make_run):
    folder = make_run(seeds=1)
    np.savez(folder / "frames.npz", Pong_rgb=np.array([{"a": 1}], object))
    with pytest.raises(RMRError, match=r"frames\.npz cannot be read"):
        load_run(folder)


def test_games_stand_in_the_order_of_the_run(make_run):
    folder = make_run(seeds=1, games=("Freeway", "Pong"))
    info = json.loads((folder / "run.json").read_text()) | {"games": ["Pong", "Skiing"]}
    (folder / "run.json").write_text(json.dumps(info))
    assert load_run(folder).games == ["Pong", "Freeway"]
