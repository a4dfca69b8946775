import numpy as np
import pandas as pd
import pytest

from rmr_gym.experiments.balls.report import arms_figure, ratio_table, worse_than_copy


def row(arm, seed, mse, **more):
    return {"arm": arm, "seed": seed, "mse": mse, "ratio_to_copy": mse, **more}


def test_no_ratio_while_an_arm_is_no_better_than_a_copy():
    table = pd.DataFrame([row("warm_start", 0, 9.0), row("rmr", 0, 0.2), row("cswm", 0, 1.0)])
    assert worse_than_copy(table) == ["cswm seed 0"]
    (found,) = ratio_table(table).to_dict("records")
    assert np.isnan([found[name] for name in ("ratio", "low", "high")]).all()
    assert found["p_better"] == 0.5, "ranks are what they are"
    assert worse_than_copy(pd.DataFrame([row("rmr", 0, np.nan)])) == ["rmr seed 0"]


def test_ratios_are_taken_within_a_seed():
    rows = [row("rmr", 0, 0.1), row("cswm", 0, 0.2), row("rmr", 1, 0.4)]
    rows += [row("cswm", 1, 0.2), row("rmr", 2, 0.3)]
    (found,) = ratio_table(pd.DataFrame(rows)).to_dict("records")
    assert found == {
        **{"error": "mse", "arm": "rmr", "against": "cswm", "seeds": 2},
        **{"ratio": pytest.approx(1.0), "low": pytest.approx(0.5), "high": pytest.approx(2.0)},
        **dict.fromkeys(("p_better_bh", "p_worse_bh"), pytest.approx(np.nan, nan_ok=True)),
        **{"p_better": pytest.approx(0.75), "p_worse": pytest.approx(0.75)},
    }


def test_the_two_claims_are_corrected_and_arms_have_the_baseline_of_their_start():
    rows = [
        row(arm, seed, mse + seed / 1000)
        for seed in range(8)
        for arm, mse in (("rmr", 0.3), ("cswm", 0.2), ("rmr_aligned", 0.1), ("cswm_aligned", 0.15))
    ]
    rows[1]["mse"] = 0.5
    table = ratio_table(pd.DataFrame(rows)).set_index(["arm", "against"])
    own = ("rmr_aligned", "cswm_aligned")
    assert set(table.index) == {("rmr", "cswm"), own, *((arm, "cswm") for arm in own)}
    claims = table.loc[[("rmr", "cswm"), own]]
    assert claims["p_better"].tolist()[1] == 1 / 256
    assert claims["p_better_bh"].tolist()[1] == 2 / 256
    assert table.drop(claims.index)["p_better_bh"].isna().all()
    assert (table["low"] <= table["ratio"]).all()
    assert (table["ratio"] <= table["high"]).all()


def test_five_lower_errors_have_the_least_p_and_rollouts_a_row_of_their_own():
    rows = [
        row(arm, seed, mse + seed / 100, rollout_mse=other)
        for seed in range(5)
        for arm, mse, other in (("rmr", 0.1, 0.5), ("cswm", 0.2, 0.4))
    ]
    table = ratio_table(pd.DataFrame(rows)).set_index("error")
    assert table.loc["mse", "p_better"] == table.loc["rollout_mse", "p_worse"] == 1 / 32
    assert table.loc["rollout_mse", "ratio"] == pytest.approx(1.25)


def test_points_of_a_sweep_are_compared_within_themselves():
    rows = [
        row(arm, 0, mse, core="mpnn", dim=dim)
        for dim, mses in ((2, (0.1, 0.2)), (4, (0.3, 0.1)))
        for arm, mse in zip(("rmr", "cswm"), mses, strict=True)
    ]
    table = ratio_table(pd.DataFrame(rows))
    assert table[["dim", "ratio"]].to_numpy() == pytest.approx(np.array([[2, 0.5], [4, 3.0]]))
    rows[0]["ratio_to_copy"] = 2.0
    assert worse_than_copy(pd.DataFrame(rows)) == ["core mpnn dim 2 rmr seed 0"]


def test_every_arm_has_its_dots_in_both_panels():
    rows = [
        {"arm": arm, "seed": seed, "mse": mse, "copy_mse": 1.0}
        | {"rollout_mse": 2 * mse, "rollout_copy_mse": 1.0}
        for arm, mse in (("rmr_aligned", 0.1), ("cswm", 0.4))
        for seed in range(3)
    ]
    panels = arms_figure(pd.DataFrame(rows)).axes
    dots = [
        np.concatenate([line.get_xdata() for line in panel.lines if len(line.get_xdata()) == 3])
        for panel in panels
    ]
    assert dots[0] == pytest.approx([0.1] * 3 + [0.4] * 3)
    assert dots[1] == pytest.approx([0.2] * 3 + [0.8] * 3)
    assert [t.get_text() for t in panels[0].get_yticklabels()] == ["rmr_aligned", "cswm"]
