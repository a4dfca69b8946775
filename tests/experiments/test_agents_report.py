import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments import write_report
from rmr_gym.experiments.agents import report as agents
from rmr_gym.experiments.agents.report import agents_figure
from rmr_gym.report.runs import load_run, where

COMMITTED = Path(__file__).parents[2] / "results"


def load(folder):
    return load_run(folder, agents.TABLES)["results"]


def scored(folder):
    return agents.pooled(agents.scores(load(folder)))


STEPS = (100, 200)


def rows_of(env, features, finals, algorithm="ppo", low=0.0):
    """Agents that are half-way at the first measurement."""
    return [
        (env, algorithm, features, seed, step, low + (final - low) * step / 200, 10)
        for seed, final in enumerate(finals)
        for step in STEPS
    ]


@pytest.fixture
def folder(tmp_path):
    rows = [("Pong", "", "random", 0, 0, -20.0, 10), ("Breakout", "", "random", 0, 0, 1.0, 10)]
    rows += rows_of("Pong", "rmr", [-10, -8, -6, -4, 0], low=-20)
    rows += rows_of("Pong", "cnn", [-18, -17, -16, -15, -14], low=-20)
    rows += rows_of("Breakout", "rmr", [3, 3, 4, 5, 11], low=1)
    rows += rows_of("Breakout", "cnn", [2, 2.5, 3, 4, 9], low=1)
    rows += [("PushedBalls", "", "random", 0, 0, 0.5, 10)]
    rows += rows_of("PushedBalls", "state", [1, 2], low=0.5)
    columns = [*agents.KEY, "return", "episodes"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "results.csv", index=False)
    return tmp_path


def test_scores_by_hand(folder):
    found = agents.scores(load(folder)).set_index(["env", "features", "seed"]).sort_index()
    best = found.loc[("Pong", "rmr", 4)]
    assert (best["returned"], best["final"]) == (0.0, 1.0)
    assert best["efficiency"] == pytest.approx(0.5)
    cnn = found.loc[("Pong", "cnn"), "final"]
    np.testing.assert_allclose(cnn, [0.1, 0.15, 0.2, 0.25, 0.3])


def test_summary(folder):
    rows = agents.summary(scored(folder)).to_dict("records")
    table = {(row["env"], row["features"]): row for row in rows}
    assert set(table) == {
        *((env, features) for env in ("Pong", "Breakout", "all") for features in ("rmr", "cnn")),
        ("PushedBalls", "state"),
    }
    pong = table["Pong", "rmr"]
    assert (pong["runs"], pong["return_iqm"]) == (5, -6.0)
    assert pong["final"] == pytest.approx(0.7)
    assert 0.5 <= pong["final_low"] < 0.7 < pong["final_high"] <= 1.0
    pooled = [0.5, 0.6, 0.7, 0.8, 1.0, 0.2, 0.2, 0.3, 0.4, 1.0]
    assert table["all", "rmr"]["runs"] == 10
    assert table["all", "rmr"]["final"] == pytest.approx(np.sort(pooled)[2:8].mean())


def test_pairs_are_exact(folder):
    rows = agents.agent_pairs(scored(folder)).to_dict("records")
    table = {(row["env"], row["measure"]): row for row in rows}
    assert set(table) == {
        (env, measure) for env in ("Pong", "Breakout", "all") for measure in agents.MEASURES
    }
    pong = table["Pong", "final"]
    assert (pong["first"], pong["second"], pong["pairs"]) == ("rmr", "cnn", 5)
    assert pong["p_better"] == 1 / 32
    assert pong["verdict"] == "better"
    assert pong["mean"] == pytest.approx(0.52)
    assert table["all", "final"]["p_better"] == 1 / 1024
    assert all(row["adjusted_better"] >= row["p_better"] for row in rows)


def test_interquartile_means_and_probabilities_of_improvement_are_those_of_rliable():
    """The figures of rliable 1.2.0 on the same scores; intervals differ by their draws."""
    found = agents.pooled(agents.scores(pd.read_csv(COMMITTED / "agents-games" / "results.csv")))
    rows = where(agents.summary(found), env="all").set_index("features")
    figures = {"rmr": 0.7100, "cswm": 0.6510, "untrained": 0.5437, "cnn": 0.4114, "ram": 0.6849}
    assert dict(rows["final"].round(4)) == figures
    intervals = {"rmr": (0.461, 0.868), "cnn": (0.199, 0.572), "ram": (0.510, 0.859)}
    for features, (low, high) in intervals.items():
        found_low, found_high = rows.loc[features, ["final_low", "final_high"]]
        assert (found_low, found_high) == pytest.approx((low, high), abs=0.01)
    pairs = where(agents.agent_pairs(found), env="all", first="rmr", second="cnn", measure="final")
    assert pairs["improvement"].item() == pytest.approx(0.81)


def test_algorithms_are_paired_on_the_same_features(tmp_path):
    rows = []
    for algorithm, gain in (("recurrent_ppo", 0), ("rims_ppo", 1)):
        for features in ("cnn", "ram"):
            rows += rows_of("Pong", features, [2 + gain, 3 + gain, 4 + gain, 5, 6], algorithm)
    columns = [*agents.KEY, "return", "episodes"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "agents", "games": ["Pong"]}))
    _, said = write_report(tmp_path)
    pairs = pd.read_csv(tmp_path / "agents_pairs.csv").query("measure == 'final'")
    named = pairs[["algorithm", "first", "second_algorithm", "second"]].itertuples(index=False)
    lstm, rims = "recurrent_ppo", "rims_ppo"
    assert {tuple(row) for row in named} == {
        *((each, "cnn", each, "ram") for each in (lstm, rims)),
        *((lstm, seen, rims, seen) for seen in ("cnn", "ram")),
    }
    across = pairs[pairs["algorithm"] != pairs["second_algorithm"]]
    assert set(across["p_worse"]) == {1 / 8}
    assert "recurrent PPO (LSTM) against recurrent PPO (RIMs), RAM bits, final score:" in said


def test_agents_that_still_learn_are_left_out(folder):
    path = folder / "results.csv"
    table = pd.read_csv(path)
    stopped = (table["env"] == "Pong") & (table["features"] == "rmr") & (table["seed"] == 2)
    table[~(stopped & (table["step"] == 200))].to_csv(path, index=False)
    found = scored(folder)
    runs = found[(found["env"] == "Pong") & (found["features"] == "rmr")]
    assert runs["seed"].tolist() == [0, 1, 3, 4]
    pong = agents.agent_pairs(found).query("env == 'Pong'").iloc[0]
    assert (pong["pairs"], pong["verdict"]) == (4, "too few seeds")


def test_without_random_play_and_where_nobody_learns():
    rows = pd.DataFrame({"features": "cnn", "step": 1, "return": [2.0, 4.0]})
    assert agents.normalisation(rows) == (2.0, 2.0)
    random = pd.DataFrame({"features": ["random"], "step": 0, "return": 5.0})
    assert agents.normalisation(pd.concat([rows, random])) == (5.0, 1.0)


def test_scores_along_training_of_worlds_that_can_be_pooled(folder):
    assert "random" not in set(agents.normalised(load(folder))["features"])
    panels = {panel.get_title(): panel for panel in agents_figure(load(folder)).axes}
    lines = panels["score, Pong, Breakout"].get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[100, 200]] * 2
    whole = agents.iqm(np.array([0.1, 0.15, 0.2, 0.25, 0.3, 0.1, 0.15, 0.2, 0.3, 0.8]))
    np.testing.assert_allclose(lines[1].get_ydata(), [whole / 2, whole])
    table = load(folder)
    one = (table["env"] == "Pong") & (table["seed"] == 3) & (table["step"] == 100)
    gap = {panel.get_title(): panel for panel in agents_figure(table[~one]).axes}
    lines = gap["score, Pong, Breakout"].get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[200]] * 2


def test_figure(folder):
    figure = agents_figure(load(folder))
    titles = [panel.get_title() for panel in figure.axes]
    both = "Pong, Breakout"
    assert titles == ["Pong", "Breakout", "PushedBalls", f"score, {both}", f"final score, {both}"]
    lines = figure.axes[3].get_lines()
    assert len(lines) == 2
    pooled = np.sort([0.5, 0.6, 0.7, 0.8, 1.0, 0.2, 0.2, 0.3, 0.4, 1.0])
    np.testing.assert_allclose(lines[0].get_ydata()[-1], pooled[2:8].mean())


@pytest.fixture
def run(folder):
    games = ["Breakout", "Pong", "PushedBalls"]
    described = {"kind": "agents", "games": games, "command": "rmr-gym agent compare", "seeds": [0]}
    described["problems"] = ["agent Pong-rmr-ppo-9: <broken>"]
    (folder / "run.json").write_text(json.dumps(described))
    return folder


def test_report(run):
    path, said = write_report(run)
    page = path.read_text(encoding="utf-8")
    for heading in (
        "What the numbers say",
        "Final score and sample efficiency",
        "Paired tests",
        "What was run",
        "How to read this",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "<h2>Unfinished</h2>" not in page
    assert "<title>Agents: Breakout, Pong and PushedBalls</title>" in page
    assert "&lt;broken&gt;" in page
    row = '<th scope="row">RMR features</th><td>PPO</td><td>5</td><td>-6.00</td><td>0.700</td>'
    assert row in page.replace("\n", "")
    assert (
        "RMR features against NatureCNN, end to end, PPO, final score: of 3 comparisons better on "
        "3 (Pong, Breakout and all together), worse on 0, not significant on 0; "
    ) in said
    assert len(pd.read_csv(run / "agents_summary.csv")) == 7
    assert len(pd.read_csv(run / "agents_pairs.csv")) == 6
    assert (run / "figures" / "agents.svg").is_file()
    before = path.read_bytes()
    write_report(run)
    assert path.read_bytes() == before


def test_a_run_that_has_only_begun_has_a_report(run):
    (run / "results.csv").unlink()
    path, said = write_report(run)
    assert "<h2>Unfinished</h2>" in path.read_text(encoding="utf-8")
    assert "agent Pong-rmr-ppo-9: <broken>" in said
    assert not (run / "agents_summary.csv").exists()


def test_a_damaged_table_is_told(run):
    (run / "results.csv").write_text("env,seed\nPong,0\n")
    with pytest.raises(RMRError, match="lacks the columns"):
        write_report(run)


def test_arms_of_balls_stand_where_their_likes_of_games_do(tmp_path):
    rows = [("PushedBalls", "", "random", 0, 0, 0.0, 10)]
    names = ("untrained", "baseline_aligned", "rmr_aligned", "state")
    for name in names:
        rows += rows_of("PushedBalls", name, [1, 2, 3, 4, 5])
    columns = [*agents.KEY, "return", "episodes"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "results.csv", index=False)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "agents"}))
    page, said = write_report(tmp_path)
    first = said.splitlines()[0]
    assert first.startswith("RMR features, aligned start against features of a trained P, aligned")
    assert "rmr_aligned" not in page.read_text(encoding="utf-8").split("What was run")[0]
