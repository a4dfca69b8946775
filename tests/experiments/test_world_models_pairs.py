import numpy as np
import pandas as pd
import pytest

from rmr_gym.experiments.world_models.report import model_pairs, opponents

BETTER = {"relative_bce": -1, "relative_rollout_bce": -1, "rollout_f1": 1, "ari_last": 1}
PAIR_ROW = [
    *("model", "against", "score", "pairs", "improvement", "low", "high"),
    *("p_better", "p_worse", "verdict", "p_better_bh", "p_worse_bh", "verdict_bh"),
]


def paired_rows(table):
    return model_pairs(table.assign(test="one"), "test", BETTER).drop(columns="test")


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
                    "rollout_f1": 0.9 - loss / 10,
                    "ari_last": -loss if model.startswith("rnem") else np.nan,
                }
            )
    return pd.DataFrame(rows)


def test_a_model_is_better_where_it_loses_less_on_every_seed():
    known, fresh = [0.5, 0.6, 0.7, 0.5, 0.4], [0.7, 0.9, 0.8, 0.8, 0.8]
    table = paired_rows(scores(rnem_rmr=known, rnem_fresh_p=fresh, rims=fresh))
    assert list(table) == list(PAIR_ROW)
    assert set(table.against) == {"rnem_fresh_p"}
    row = table.set_index("score").loc["relative_bce"]
    assert np.isclose(row.improvement, np.mean(np.subtract(fresh, known)))
    assert row.p_better == 1 / 32
    assert row.verdict == "better"
    assert table.set_index("score").loc["ari_last"].verdict == "better"
    assert table.set_index("score").loc["rollout_f1"].verdict == "better", "more F1 is better"
    same = table.set_index("score").loc["relative_rollout_bce"]
    assert same.improvement == 0
    assert same.verdict == "same"
    assert row.p_better_bh > row.p_better


def test_three_seeds_are_too_few_and_families_stay_apart():
    table = paired_rows(scores(rims=[2.0] * 3, rims_rmr=[1.0, 1.5, 1.2], rnem=[3.0] * 3))
    assert set(table.model + " " + table.against) == {"rims_rmr rims"}
    assert not set(table.verdict) & {"better", "worse"}
    assert "ari_last" not in set(table.score), "RIMs have no groups"
    assert {"relative_bce", "relative_rollout_bce", "rollout_f1"} == set(table.score)


@pytest.mark.parametrize(
    ("model", "others"),
    [
        ("rnem", ["rnnem", "rnn", "lstm", "memoryless"]),
        ("rnem_no_attention", ["rnem", "rnnem", "rnn", "lstm", "memoryless"]),
        ("rnnem", ["rnn", "lstm", "memoryless"]),
        ("nem", ["rnn", "lstm", "memoryless"]),
        ("rnn", ["memoryless"]),
        ("lstm", ["memoryless"]),
        ("rims", ["rims_lstm", "memoryless"]),
        ("rims_lstm", ["memoryless"]),
        ("memoryless", []),
        ("rims_rmr", ["rims_lstm", "memoryless", "rims", "rims_fresh_p"]),
        ("rnem_rmr", ["rnnem", "rnn", "lstm", "memoryless", "rnem", "rnem_no_attention"]),
        ("s2gru", ["crops_lstm", "crops_rims"]),
        ("s2gru_input_local", ["s2gru", "crops_lstm", "crops_rims"]),
        ("crops_rims", ["crops_lstm"]),
        ("crops_oracle", []),
    ],
)
def test_who_is_compared_with_whom(model, others):
    models = ["rnem", "rnem_no_attention", "rnnem", "nem", "rnn", "lstm", "rnem_rmr", "rims"]
    models += ["rims_lstm", "rims_fresh_p", "rims_rmr", "s2gru", "crops_lstm", "crops_rims"]
    models += ["s2gru_input_local", "memoryless"]
    assert opponents(model, [*models, "crops_oracle"]) == others


def test_what_is_paired_within_a_column_is_corrected_there_alone():
    one = scores(rims=[0.5 + 0.1 * seed for seed in range(5)], rims_lstm=[2.0] * 5)
    two = scores(rims=[3.0, 1.5, 2.5, 1.9, 2.1], rims_lstm=[2.0] * 5)
    both = pd.concat([one.assign(test="one"), two.assign(test="two")])
    table = model_pairs(both, "test", {"relative_bce": -1})
    assert list(table) == ["test", *PAIR_ROW]
    assert table["test"].tolist() == ["one", "two"]
    assert table["verdict_bh"].tolist() == ["better", "same"]
    assert table["p_better_bh"][0] == table["p_better"][0] == 1 / 32
    up = model_pairs(both, "test", {"relative_bce": 1})
    np.testing.assert_allclose(up["improvement"], -table["improvement"])


def test_nothing_to_compare():
    assert paired_rows(scores(rnem=[1.0], rnem_rmr=[1.0])).shape == (4, len(PAIR_ROW))
    assert paired_rows(scores(rnem=[1.0], rims=[1.0])).empty
