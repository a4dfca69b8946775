import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.analysis.policy_figure import policy_heat_map, policy_summary

HEADS = ("high-e00-h00", "uniform-1", "middle-e00-h00", "low-e00-h00")


def a_table() -> pd.DataFrame:
    scores = {"Pong": (5.0, -20.0, -10.0, -15.0), "Pitfall": (0.0, 0.0, 0.0, 0.0)}
    rows = [
        {"game": game, "head": head, "mean_return": score}
        for game, of_game in scores.items()
        for head, score in zip(HEADS, of_game, strict=True)
    ]
    return pd.DataFrame(rows)


def test_summary_by_hand():
    references = pd.DataFrame(
        {"game": ["Pong", "Pitfall"], "random": [-20.7, -229.4], "human": [14.6, 6463.7]}
    )
    summary = policy_summary(a_table(), references).set_index("game")
    assert summary.loc["Pong"].tolist() == [
        *(-20.0, -15.0, -10.0, 5.0),
        *(5.0, "high-e00-h00", -20.7, 14.6),
    ]
    assert summary.loc["Pitfall", "published human"] == 6463.7


def test_heat_map_scales_each_game():
    figure = policy_heat_map(a_table())
    assert isinstance(figure, Figure)
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    assert shown[1].tolist() == [1.0, 0.0, 0.4, 0.2]
    assert shown.mask[0].all(), "a game whose heads all score the same has no scale"
