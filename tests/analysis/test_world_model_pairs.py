import numpy as np
import pandas as pd

from rmr_gym.analysis.world_model_pairs import PAIR_ROW, paired_rows


def scores(**models):
    rows = []
    for model, losses in models.items():
        for seed, loss in enumerate(losses):
            rows.append(
                {
                    "model": model,
                    "seed": seed,
                    "relative_bce": loss,
                    "relative_rollout_bce": 1.0,
                    "ari_last": -loss if model.startswith("rnem") else np.nan,
                }
            )
    return pd.DataFrame(rows)


def test_a_model_is_better_where_it_loses_less_on_every_seed():
    known, fresh = [0.5, 0.6, 0.7, 0.5, 0.4], [0.7, 0.9, 0.8, 0.8, 0.8]
    table = paired_rows(scores(rnem_rmr=known, rnem_fresh_p=fresh, rims=fresh, rnnem=fresh))
    assert list(table) == list(PAIR_ROW)
    assert set(table.against) == {"rnem_fresh_p"}
    row = table.set_index("score").loc["relative_bce"]
    assert np.isclose(row.improvement, np.mean(np.subtract(fresh, known)))
    assert row.p_better == 1 / 32
    assert row.verdict == "better"
    assert table.set_index("score").loc["ari_last"].verdict == "better"
    same = table.set_index("score").loc["relative_rollout_bce"]
    assert same.improvement == 0
    assert same.verdict == "same"
    assert row.p_better_bh > row.p_better


def test_three_seeds_are_too_few_and_families_stay_apart():
    table = paired_rows(scores(rims=[2.0] * 3, rims_rmr=[1.0, 1.5, 1.2], rnem=[3.0] * 3))
    assert set(table.model + " " + table.against) == {"rims_rmr rims"}
    assert not set(table.verdict) & {"better", "worse"}
    assert table.set_index("score").loc["ari_last"].pairs == 0


def test_nothing_to_compare():
    assert paired_rows(scores(rnem=[1.0], rnem_rmr=[1.0])).shape == (3, len(PAIR_ROW))
    assert paired_rows(scores(rnem=[1.0], rnnem=[1.0])).empty
