import json

import numpy as np
import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report
from rmr_gym.experiments.studies import report as studies
from rmr_gym.report import arms
from rmr_gym.report.arms import last_steps
from rmr_gym.report.runs import load_run, where


def read_measures(folder):
    run = load_run(folder, studies.MEASURED)
    return {"labels": where(run["labels"], label="average"), "ranking": run["ranking"]}


def measure_table(rows, name):
    part = {"labels": "category", "ranking": "ahead"}[name]
    return arms.measure_table(rows, (part,), studies.SCORES[name], studies.BASELINES)[1]


def last_step(rows):
    return last_steps(rows, "game", "objective", "arm")


RUN = ["game", "objective", "arm", "seed", "step"]
LEVELS = {"rmr": 0.5, "cswm": 0.4, "untrained": 0.6}


@pytest.fixture
def folder(tmp_path):
    """Five seeds a trained arm, whose noise is shared; the player was measured once."""
    noise = np.linspace(0, 0.08, 5)
    labels, ranking = [], []
    for game in ("Pong", "Boxing"):
        for arm, level in LEVELS.items():
            for seed in range(5):
                for step in (0,) if arm == "untrained" else (100, 300):
                    key = (game, "cswm", arm, seed, step)
                    score = level + noise[seed] + (step == 100) * 0.1
                    labels += [
                        (*key, "ball_x", "small_objects", 0.9, 0.9, 0.9, 20),
                        (*key, "average", "all_labels", score, score, score, np.nan),
                        (*key, "average", "small_objects", score / 2, score, score, np.nan),
                    ]
                    if arm != "untrained":
                        ranking += [
                            (*key, ahead, score / ahead, score, 0.0, 1000) for ahead in (1, 5)
                        ]
        labels += [(game, "cswm", "player", 0, 0, "average", "all_labels", 0.7, 0.7, 0.7, np.nan)]
    scores = ["label", "category", "macro_f1", "weighted_f1", "accuracy", "classes"]
    pd.DataFrame(labels, columns=[*RUN, *scores]).to_csv(tmp_path / "labels.csv", index=False)
    scores = ["ahead", "hits_at_1", "mrr", "tied", "rows"]
    pd.DataFrame(ranking, columns=[*RUN, *scores]).to_csv(tmp_path / "ranking.csv", index=False)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "measures", "games": ["Pong"]}))
    return tmp_path


def one(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_labels_are_compared_by_seed_at_the_last_checkpoint(folder):
    table = measure_table(read_measures(folder)["labels"], "labels")
    rmr = one(table, game="Pong", arm="rmr", category="all_labels")
    assert (rmr["step"], rmr["seeds"]) == (300, 5)
    assert rmr["macro_f1_mean"] == pytest.approx(0.54)
    assert rmr["cswm_difference"] == pytest.approx(0.1)
    assert rmr["untrained_difference"] == pytest.approx(-0.1)
    assert (rmr["cswm_verdict"], rmr["cswm_p_better"]) == ("better", 1 / 32)
    assert rmr["untrained_verdict"] == "worse"
    assert one(table, game="Pong", arm="cswm", category="all_labels")["cswm_verdict"] == ""
    assert one(table, game="Pong", arm="player")["cswm_pairs"] == 5
    half = one(table, game="Pong", arm="rmr", category="small_objects")
    assert half["cswm_difference"] == pytest.approx(0.05)


def test_correction_is_within_a_category(folder):
    table = measure_table(read_measures(folder)["labels"], "labels")
    overall = table[table["category"] == "all_labels"]
    tested = overall["cswm_p_better"].notna().sum()
    assert tested == 6
    rmr = one(overall, game="Pong", arm="rmr")
    assert rmr["cswm_p_better_bh"] == pytest.approx(1 / 32)
    assert one(overall, game="Pong", arm="untrained")["cswm_p_worse_bh"] == 1


def test_ranks_stand_by_number_of_steps(folder):
    rows = read_measures(folder)["ranking"]
    assert set(last_step(rows)["step"]) == {300}
    table = measure_table(rows, "ranking")
    assert one(table, game="Boxing", arm="rmr", ahead=1)["mrr_mean"] == pytest.approx(0.54)
    assert one(table, game="Boxing", arm="rmr", ahead=5)["hits_at_1_mean"] == pytest.approx(0.108)


def test_the_page(folder):
    path, said = write_report(folder)
    page = path.read_text(encoding="utf-8")
    assert (
        "against C-SWM (P trained), macro F1 over labels: of 2 games better on 2 (Pong and Boxing)"
        in said
    )
    assert "after 5 predicted steps" in said
    assert page.count("<figure") == 2
    assert len(pd.read_csv(folder / "labels_summary.csv")) == 2 * (2 * 3 + 1)
    assert (folder / "figures" / "ranking.svg").is_file()


def test_a_run_of_one_measure_or_none(folder):
    (folder / "ranking.csv").unlink()
    page = write_report(folder)[0].read_text(encoding="utf-8")
    assert page.count("<figure") == 1
    (folder / "labels.csv").unlink()
    assert write_report(folder)[1] == "This run has no results yet."


def test_two_rows_of_one_name_are_refused(folder):
    table = pd.read_csv(folder / "ranking.csv")
    pd.concat([table, table[:1]]).to_csv(folder / "ranking.csv", index=False)
    with pytest.raises(RMRError, match=r"ranking.csv has two rows for game Pong"):
        write_report(folder)
