"""The page of planning: returns by arm and budget, P beside every control."""

from pathlib import Path

from rmr_gym.report.page import Page
from rmr_gym.report.runs import Schema, load_run, where
from rmr_gym.report.statistics import means, paired
from rmr_gym.report.tables import called, labels_of

PLACE = ["game", "horizon", "candidates"]
TABLES = {
    "planning": Schema((*PLACE, "arm", "seed"), ("return", "steps", "ms")),
    "head": Schema(("game", "arm", "seed"), ("reward_r2", "value_r2")),
}


def planning(folder: Path) -> Page:
    """Return the page of a run of planning.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run, labels = load_run(folder, TABLES, "planning"), labels_of("planning")
    rows = run["planning"].astype({"horizon": int, "candidates": int})
    tests = paired(rows, "return", "arm", list(labels)[1:], PLACE)
    tests = where(tests, (tests["arm"] == "rmr") & (tests["pairs"] > 0)).drop(columns="gaps")
    summary = means(rows, [*PLACE, "arm"], ["return", "ms"])
    heads = means(run["head"], ["game", "arm"], ["reward_r2", "value_r2"])
    tables = {"planning_summary": summary, "planning_tests": tests, "planning_heads": heads}
    for table in tables.values():
        column = "against" if "against" in table else "arm"
        table.insert(0, "label", called(table[column], labels))
    return Page(run, tables, {}, {})
