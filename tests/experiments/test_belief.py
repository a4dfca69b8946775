from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report
from rmr_gym.experiments.base import run
from rmr_gym.experiments.belief import report as pages
from rmr_gym.experiments.belief.grid import Belief, Believing
from rmr_gym.report.page import findings_of
from rmr_gym.runs.training import Phase
from rmr_gym.stages.belief import Strict
from rmr_gym.stages.chain import GameTasks
from rmr_gym.stages.games import GameData
from rmr_gym.stages.presets import PRESETS
from tests.conftest import write_sweep

F1 = {"rmr": 0.97, "copy": 0.95, "shuffled_p": 0.94, "pixels": 0.93, "p_alone": 0.8}
SMALL = Believing(horizon=12, tracks=8, segment=12, rounds=1, starts=(0, 8), scored=(1, 12))


@pytest.fixture
def folder(tmp_path):
    rows = [
        {
            "game": game,
            "labels": 300,
            "arm": arm,
            "seed": seed,
            "start": start,
            "k": k,
            "bytes": kind,
            "count": 20,
            "tracks": 40,
            "micro_f1": F1[arm] + 0.001 * seed + 0.01 * (start > 0) - 0.02 * (kind == "hidden"),
        }
        for game, arm, seed, start, k, kind in product(
            ("Pong", "Breakout"), F1, range(5), (0, 100), (1, 16, 59), ("all", "hidden")
        )
    ]
    write_sweep(tmp_path / "run", "belief", rows, {"games": ["Pong", "Breakout"]})
    return tmp_path / "run"


def test_errors_are_those_left_of_the_best_controls(folder):
    table = pages.belief(folder).tables["belief_errors"]
    assert len(table) == 2 * 3 * 2
    row = table[(table["game"] == "Pong") & (table["k"] == 16) & (table["bytes"] == "all")].iloc[0]
    assert row["best"] == "belief copied"
    assert row["rmr"] == pytest.approx(0.97 + 0.002 + 0.005)
    assert row["lower"] == pytest.approx(100 * (1 - 0.023 / 0.043))
    assert row["other_lower"] == pytest.approx(row["lower"])


def test_p_alone_is_a_control_that_can_be_left_out(folder):
    summary = pages.belief(folder).tables["belief_summary"]
    summary.loc[summary["arm"] == "p_alone", "micro_f1_mean"] = 0.96
    (row,) = pages.errors(summary).query("game == 'Pong' and k == 16 and bytes == 'all'").iloc
    assert (row["best"], row["other_best"]) == ("P alone, no frames", "belief copied")
    assert row["lower"] == pytest.approx(100 * (1 - 0.023 / 0.04))
    assert row["other_lower"] == pytest.approx(100 * (1 - 0.023 / 0.043))
    table = pages.errors(summary[summary["arm"].isin(["rmr", "p_alone"])])
    assert table["other_lower"].isna().all()
    assert table["lower"].notna().all()


def test_p_is_tested_against_every_control_by_seed(folder):
    tests = pages.belief(folder).tables["belief_tests"]
    assert set(tests["against"]) == set(F1) - {"rmr"}
    assert (tests["pairs"] == 5).all()
    assert (tests["verdict"] == "better").all()
    assert tests["p_better"].to_numpy() == pytest.approx(1 / 32)


def test_tests_are_corrected_over_the_games_alone(folder):
    """As the rule of choosing says; not over controls against controls as well."""
    tests = pages.belief(folder).tables["belief_tests"]
    assert tests["p_better_bh"].to_numpy() == pytest.approx(1 / 32)
    assert (tests["verdict_bh"] == "better").all()


def test_findings_and_page_say_what_was_measured(folder):
    page = pages.belief(folder)
    findings = {f.subject: f.statement for f in findings_of(pages.belief, page)}
    said = findings["300 labelled frames, 16 steps after the start"]
    assert "−47%, mean of 2 games (Pong −47%, Breakout −47%)" in said
    assert "better on 2" in findings["P against belief copied, 300 labelled frames, step 16"]
    path, _ = write_report(folder)
    html = path.read_text()
    for text in ("bytes that one frame does not show", "belief copied", "How to read this"):
        assert text in html
    assert (folder / "figures" / "belief_all.svg").is_file()


def test_a_run_without_results_says_so(tmp_path):
    write_sweep(tmp_path / "run", "belief", [], {"games": ["Pong"]})
    _, text = write_report(tmp_path / "run")
    assert "no results yet" in text


def test_a_tiny_run_from_data_to_page(tiny):
    changes = {
        "belief": SMALL,
        "labels": (40,),
        "arms": ("rmr", "copy", "scratch_p", "gru", "instants", "supervised"),
    }
    quick = Phase(steps=4, batch=4, unroll=5)
    changes |= {"gru": quick, "supervised": quick, "start": "unknown"}
    changes |= {"donors": ("Pong", "random_dynamics")}
    folder, problems = run(Belief(**(Belief.proposals("tiny") | tiny | changes)))
    assert not problems
    page = pages.belief(folder)
    assert set(page.tables["belief_summary"]["arm"]) == {*changes["arms"], "random_dynamics"}
    assert "P of random_dynamics" in set(page.tables["belief_summary"]["label"])
    assert "random_dynamics" in set(page.tables["belief_tests"]["against"])
    assert set(page.tables["belief_summary"]["k"]) == {1, 12}
    path, _ = write_report(folder)
    assert "starts from what is read of the first frame" in path.read_text()


def test_a_run_without_donors_has_the_arms_alone(tiny):
    changes = {"belief": SMALL, "arms": ("copy",), "labels": (40,)}
    experiment = Belief(**(Belief.proposals("tiny") | tiny | changes))
    plan = experiment.plan(lambda title: lambda *_: None)
    assert {row.names["arm"] for row in plan.rows if row.table == "belief"} == {"copy"}
    assert plan.facts["donors"] == []


def test_a_tiny_strict_run_has_a_page_and_a_folder_of_its_own(tiny):
    learned = Strict(Phase(steps=3, batch=2, unroll=3), ahead=2, length=6, scoring=SMALL)
    changes = {"regime": "strict", "strict": learned, "labels": (40,), "arms": ("rmr", "pixels")}
    options = Belief.proposals("tiny") | tiny | {"belief": SMALL}
    folder, problems = run(Belief(**(options | changes)))
    assert not problems
    assert set(pages.belief(folder).tables["belief_summary"]["arm"]) == {"rmr", "pixels"}
    path, _ = write_report(folder)
    assert "nothing but pixels and actions is learned from" in path.read_text()
    with pytest.raises(RMRError, match="holds results of something else"):
        run(Belief(**options, labels=(40,), arms=("copy",)))
    with pytest.raises(RMRError, match="instants"):
        run(Belief(**(options | changes | {"arms": ("instants",)})))
    with pytest.raises(RMRError, match="no --donors in the strict regime"):
        run(Belief(**(options | changes | {"donors": ("Pong",)})))


def test_a_known_start_is_not_part_of_the_key():
    """What was computed before other starts came is not computed again."""

    class Recorded(GameData):
        def key(self):
            return "pong"

    game = GameTasks(Recorded("Pong", Path("nowhere"), 48, 48), PRESETS["laptop"])
    for arm in ("rmr", "foreign_p", "copy"):
        (known,) = Belief().tracked([game], 3000, arm, 1)
        (other,) = Belief(start="unknown").tracked([game], 3000, arm, 1)
        assert known.task.key == known.task.key_without("start") != other.task.key


def test_bad_input_is_refused(tiny):
    for wrong, message in (
        ({"arms": ("lstm",)}, "lstm"),
        ({"labels": (40, 40)}, "more than once"),
        ({"start": "unkown"}, "unkown"),
        ({"donors": ("Pongg",)}, "Pongg"),
        ({"donors": ("x=nowhere", "x=here")}, "more than once"),
        ({"regime": "stricter"}, "strict"),
        ({"labels": (40, 0)}, "at least 8 as number of labelled frames, found 0"),
        ({"frames": 0}, "at least 1 as frames that are read together"),
    ):
        with pytest.raises(RMRError, match=message):
            run(Belief(preset="tiny", belief=SMALL, **(tiny | wrong)))


def test_the_claim_is_told_first():
    rows = {"game": "Pong", "labels": 300, "lower": 1.0}
    errors = pd.DataFrame([rows | {"k": step} for step in (1, 16, 59)])
    assert [step for (_, step), _ in pages.claim_first(errors)] == [16, 1, 59]
