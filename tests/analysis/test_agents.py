import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import trim_mean

from rmr_gym.analysis import agents
from rmr_gym.analysis.agents_figure import agents_figure
from rmr_gym.analysis.canvas import save_figure
from rmr_gym.errors import RMRError

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


def test_interquartile_mean_by_hand():
    assert agents.iqm(np.array([100.0, 1.0, 2.0, 3.0, -50.0])) == 2.0
    assert agents.iqm(np.array([1.0, 2.0, 3.0])) == 2.0
    assert agents.iqm(np.array([0.0, 4.0, 6.0, 1000.0])) == 5.0
    runs = np.random.default_rng(0).normal(size=(3, 11))
    np.testing.assert_allclose(agents.iqm(runs), trim_mean(runs, 0.25, axis=1))


def test_scores_by_hand(folder):
    found = agents.scores(agents.load_results(folder))
    best = next(
        each for each in found if (each.env, each.features, each.seed) == ("Pong", "rmr", 4)
    )
    assert (best.returned, best.final) == (0.0, 1.0)
    assert best.efficiency == pytest.approx(0.5)
    cnn = [each.final for each in found if (each.env, each.features) == ("Pong", "cnn")]
    np.testing.assert_allclose(cnn, [0.1, 0.15, 0.2, 0.25, 0.3])


def test_summary(folder):
    found = agents.scores(agents.load_results(folder))
    table = {(row["env"], row["features"]): row for row in agents.summary(found)}
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


def test_strata_are_drawn_apart():
    low, high = agents.stratified_interval(
        [np.zeros(3), np.full(3, 10.0)], np.random.default_rng(0)
    )
    assert low == high == 5.0
    alone = agents.stratified_interval([np.ones(1)], np.random.default_rng(0))
    assert np.isnan(alone).all()


def test_profile_by_hand():
    shares = agents.profile(np.array([0.0, 0.5, 0.5, 1.0]), np.array([-0.1, 0.0, 0.5, 1.0]))
    assert shares.tolist() == [1.0, 0.75, 0.25, 0.0]


def test_pairs_are_exact(folder):
    rows = agents.pairs(agents.scores(agents.load_results(folder)))
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


def test_agents_that_still_learn_are_left_out(folder):
    path = folder / "results.csv"
    table = pd.read_csv(path)
    stopped = (table["env"] == "Pong") & (table["features"] == "rmr") & (table["seed"] == 2)
    table[~(stopped & (table["step"] == 200))].to_csv(path, index=False)
    found = agents.scores(agents.load_results(folder))
    runs = [each for each in found if (each.env, each.features) == ("Pong", "rmr")]
    assert [each.seed for each in runs] == [0, 1, 3, 4]
    pong = next(row for row in agents.pairs(found) if row["env"] == "Pong")
    assert (pong["pairs"], pong["verdict"]) == (4, "too few seeds")


def test_without_random_play_and_where_nobody_learns():
    rows = [{"features": "cnn", "step": 1, "return": value} for value in (2.0, 4.0)]
    assert agents.normalisation(rows) == (2.0, 2.0)
    rows.append({"features": "random", "step": 0, "return": 5.0})
    assert agents.normalisation(rows) == (5.0, 1.0)


def test_files(folder):
    summary, pairs = agents.write_tables(folder)
    assert len(pd.read_csv(summary)) == 7
    assert len(pd.read_csv(pairs)) == 6
    before = summary.read_bytes(), pairs.read_bytes()
    agents.write_tables(folder)
    assert (summary.read_bytes(), pairs.read_bytes()) == before
    path = save_figure(agents_figure(agents.load_results(folder)), folder / "agents.png")
    with Image.open(path) as picture:
        assert picture.size[0] > 600


def test_bad_input(tmp_path):
    with pytest.raises(RMRError, match="expected a comparison of agents"):
        agents.load_results(tmp_path)
    (tmp_path / "results.csv").write_text("env,seed\nPong,0\n")
    with pytest.raises(RMRError, match="lacks the columns"):
        agents.load_results(tmp_path)
    (tmp_path / "results.csv").write_text("env,algorithm,features,seed,step,return,episodes\n")
    with pytest.raises(RMRError, match="no agents yet"):
        agents.load_results(tmp_path)
