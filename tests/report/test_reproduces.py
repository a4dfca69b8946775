"""Every summary table of every committed run comes out of its raw tables again."""

from pathlib import Path

import pandas as pd
import pytest

from rmr_gym.experiments import experiments, part_of
from rmr_gym.report.runs import run_kind
from rmr_gym.report.tables import save_tables

RESULTS = Path(__file__).parents[2] / "results"
FOLDERS = [
    folder
    for folder in sorted(RESULTS.iterdir())
    if (folder / "run.json").is_file() and run_kind(folder) in experiments()
]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_tables_come_out_again(folder, tmp_path):
    report = part_of(run_kind(folder), "report")
    tables = {name: table for name, table in report(folder).tables.items() if len(table)}
    written = save_tables(tables, tmp_path)
    assert written
    for path in written:
        committed, again = pd.read_csv(folder / path.name), pd.read_csv(path)
        pd.testing.assert_frame_equal(again, committed, rtol=1.1e-5, obj=path.name)
