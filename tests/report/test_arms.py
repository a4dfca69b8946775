import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rmr_gym.core.errors import RMRError
from rmr_gym.report import arms
from rmr_gym.report.arms import ARM_LABELS
from rmr_gym.report.runs import load_run
from rmr_gym.report.tables import save_tables


def load(folder):
    return load_run(folder, arms.NATURAL | arms.ABSTRACT)


def standing(run, probe="ridge", step=None):
    return arms.standing(run["natural"], run.games, probe, step)


def natural_table(run, probe="ridge", step=None):
    rows = standing(run, probe, step)
    return arms.natural_table(rows, arms.arm_pairs(rows))


def row(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def edit(folder, change):
    table = pd.read_csv(folder / "natural.csv")
    change(table).to_csv(folder / "natural.csv", index=False)


def test_rows_stand_in_fixed_order_with_labels(make_run):
    table = natural_table(load(make_run()))
    assert list(table["game"].unique()) == ["Pong", "Freeway"]
    for game in ("Pong", "Freeway"):
        assert list(table[table["game"] == game]["label"]) == list(ARM_LABELS.values())[:-1]


def test_means_are_over_seeds_at_the_last_checkpoint(make_run):
    run = load(make_run())
    scores = run["natural"].query(
        "game == 'Pong' and arm == 'rmr' and probe == 'ridge' and step == 1000"
    )["micro_f1"]
    found = row(natural_table(run), game="Pong", arm="rmr")
    assert found["micro_f1_mean"] == pytest.approx(scores.mean())
    assert found["micro_f1_std"] == pytest.approx(scores.std())
    assert (found["seeds"], found["step"], found["checkpoint"]) == (6, 1000, 1000)
    assert found["paper_mean"] == 0.762


@pytest.mark.parametrize(
    ("moved", "verdict", "p"), [(0.02, "better", "p_better"), (-0.02, "worse", "p_worse")]
)
def test_a_moved_arm_is_found_in_either_direction(make_run, moved, verdict, p):
    table = natural_table(load(make_run(effect={"rmr": moved})))
    found = row(table, game="Pong", arm="rmr")
    assert found["cswm_verdict"] == verdict
    assert found[f"cswm_{p}"] == pytest.approx(1 / 64)
    assert found["cswm_difference"] == pytest.approx(moved, abs=0.003)
    assert found["cswm_low"] < found["cswm_difference"] < found["cswm_high"]
    assert found["untrained_verdict"] == "worse"


def test_correction_is_over_each_column_of_the_table(make_run):
    table = natural_table(load(make_run()))
    for column in ("cswm_p_better", "cswm_p_worse", "untrained_p_better"):
        raw = table[column].to_numpy()
        expected = stats.false_discovery_control(raw[~np.isnan(raw)])
        assert table[f"{column}_bh"].dropna().to_numpy() == pytest.approx(expected)


def test_no_significance_under_five_seeds(make_run):
    table = natural_table(load(make_run(seeds=4, effect={"rmr": 0.2})))
    assert set(table["cswm_verdict"]) == {"too few seeds", ""}
    assert set(table["cswm_verdict_bh"]) == {"too few seeds", ""}
    assert row(table, game="Pong", arm="rmr")["cswm_p_better"] == pytest.approx(1 / 16)


def test_one_seed_has_no_deviation_and_no_interval(make_run):
    found = row(natural_table(load(make_run(seeds=1))), game="Pong", arm="rmr")
    assert np.isnan(found["micro_f1_std"])
    assert np.isnan(found["cswm_low"])
    assert found["cswm_pairs"] == 1


def test_pairs_are_by_seed_not_by_place(make_run):
    folder = make_run(effect={"rmr": 0.02})
    edit(folder, lambda table: table.sample(frac=1, random_state=0))
    folder_sorted = make_run("sorted", effect={"rmr": 0.02})
    pd.testing.assert_frame_equal(natural_table(load(folder)), natural_table(load(folder_sorted)))


def test_a_missing_score_costs_its_pair_only(make_run):
    folder = make_run()

    def lose(table):
        lost = (table["arm"] == "cswm") & (table["seed"] == 2) & (table["step"] == 1000)
        return table.assign(micro_f1=table["micro_f1"].mask(lost))

    edit(folder, lose)
    table = natural_table(load(folder))
    assert row(table, game="Pong", arm="cswm")["seeds"] == 5
    assert row(table, game="Pong", arm="rmr")["seeds"] == 6
    assert row(table, game="Pong", arm="rmr")["cswm_pairs"] == 5


def test_an_arm_that_stopped_early_is_shown_without_a_score(make_run):
    folder = make_run()
    edit(folder, lambda table: table[~((table["arm"] == "cswm") & (table["step"] == 1000))])
    table = natural_table(load(folder))
    assert row(table, game="Pong", arm="cswm")["seeds"] == 0
    assert np.isnan(row(table, game="Pong", arm="cswm")["micro_f1_mean"])
    assert row(table, game="Pong", arm="rmr")["cswm_pairs"] == 0
    assert row(table, game="Pong", arm="rmr")["untrained_pairs"] == 6


def test_without_a_baseline_there_is_no_verdict(make_run):
    folder = make_run()
    edit(folder, lambda table: table[table["arm"] == "rmr"])
    found = row(natural_table(load(folder)), game="Pong", arm="rmr")
    assert (found["cswm_verdict"], found["cswm_verdict_bh"]) == ("", "")


def test_references_are_shared_by_objectives(make_run):
    folder = make_run()
    edit(
        folder,
        lambda table: pd.concat(
            [table, table[table["arm"].isin(["rmr", "cswm"])].assign(objective="infonce")]
        ),
    )
    table = natural_table(load(folder))
    arms = {
        objective: list(table[(table["game"] == "Pong") & (table["objective"] == objective)]["arm"])
        for objective in ("cswm", "infonce")
    }
    assert arms["cswm"] == list(ARM_LABELS)[:-1]
    assert arms["infonce"] == ["rmr", "cswm", "untrained", "supervised", "pca"]
    borrowed = row(table, game="Pong", objective="infonce", arm="rmr")
    assert borrowed["untrained_pairs"] == 6


def test_pca_noted_once_stands_beside_every_seed_and_others_do_not(make_run):
    folder = make_run()
    edit(folder, lambda table: table[(table["seed"] == 0) | ~table["arm"].isin(["pca", "no_p"])])
    table = natural_table(load(folder))
    pca = row(table, game="Pong", arm="pca")
    assert (pca["seeds"], pca["cswm_pairs"], pca["untrained_pairs"]) == (1, 6, 6)
    assert pca["cswm_difference"] == pytest.approx(
        pca["micro_f1_mean"] - row(table, game="Pong", arm="cswm")["micro_f1_mean"]
    )
    assert row(table, game="Pong", arm="no_p")["cswm_pairs"] == 1


def test_an_arm_of_the_future_comes_last_under_its_own_name(make_run):
    table = natural_table(load(make_run(effect={"transferred": 0.01})))
    assert table[table["game"] == "Pong"]["label"].iloc[-1] == "transferred"


def test_other_steps_and_probes(make_run):
    run = load(make_run())
    early = natural_table(run, "adam_raw", 300)
    assert set(early["checkpoint"]) == {300}
    assert row(early, game="Pong", arm="untrained")["step"] == 0
    with pytest.raises(RMRError, match="did you mean 'ridge'"):
        natural_table(run, "rigde")
    with pytest.raises(RMRError, match=r"no step 500 .* choose one of 300, 1000"):
        natural_table(run, step=500)


def test_checkpoint_table_holds_every_probe_and_step(make_run):
    run = load(make_run())
    table = arms.checkpoint_table(run["natural"], run.games)
    pairs = table[["probe", "checkpoint"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [["ridge", 300], ["ridge", 1000], ["adam_raw", 300], ["adam_raw", 1000]]
    last = table[(table["probe"] == "ridge") & (table["checkpoint"] == 1000)]
    pd.testing.assert_frame_equal(last.reset_index(drop=True), natural_table(run))


def test_contrast_to_controls(make_run):
    table = arms.contrast_table(standing(load(make_run())))
    assert list(table[table["game"] == "Pong"]["control"]) == ["random_p", "shuffled_p", "no_p"]
    found = row(table, game="Pong", control="no_p")
    assert (found["verdict"], found["pairs"]) == ("better", 6)
    assert found["difference"] == pytest.approx(0.03, abs=0.003)


def test_abstract_table_beside_the_paper(make_run):
    table = arms.abstract_table(load(make_run()))
    assert list(table[table["game"] == "Pong"]["model"]) == ["copy", "mlp", "deep_sets", "mpnn"]
    found = row(table, game="Pong", model="deep_sets")
    assert found["bit_f1_mean"] == pytest.approx(0.93 + 0.001 * 2.5)
    assert (found["step"], found["seeds"]) == (120, 6)
    assert found["paper_slot_accuracy"] == pytest.approx(0.7471)
    assert found["paper_bit_f1"] == 0.920
    assert np.isnan(row(table, game="Pong", model="copy")["mask_accuracy_mean"])


def tables_of(run):
    rows = standing(run)
    return {
        "natural": natural_table(run),
        "contrast": arms.contrast_table(rows),
        "checkpoints": arms.checkpoint_table(run["natural"], run.games),
        "abstract": arms.abstract_table(run),
    }


def test_an_empty_run_gives_empty_tables_with_their_columns(make_run):
    empty = tables_of(load(make_run(drop=("natural.csv", "abstract.csv"))))
    for name, table in tables_of(load(make_run("whole"))).items():
        assert empty[name].empty
        assert list(empty[name]) == list(table)


def test_tables_are_written_and_read_back(make_run, tmp_path):
    run = load(make_run())
    tables = tables_of(run)
    paths = save_tables(tables, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in paths}
    natural = pd.read_csv(tmp_path / "out" / "natural.csv")
    assert list(natural.columns) == list(natural_table(run).columns)
    assert natural["micro_f1_mean"].to_numpy() == pytest.approx(
        natural_table(run)["micro_f1_mean"].to_numpy(), abs=1e-6
    )
    before = [path.read_bytes() for path in paths]
    save_tables(tables, tmp_path / "out")
    assert before == [path.read_bytes() for path in paths]
