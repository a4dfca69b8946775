"""Draw the pictures of the documentation from committed run folders.

Run it as ``python docs/make_pictures.py results/laptop-cswm``, from the root of the repository.
The transfer matrix is that of the folder of the same name with "-transfer" at its end, Table 2 that
of results/laptop-table2, the bottleneck that of results/laptop-bottleneck, the agents are those of
results/agents-balls and results/agents-games, the world models those of results/world-models-seeds
and results/world-views-balls.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from rmr_gym.analysis.abstract_comparison import abstract_dots
from rmr_gym.analysis.figures import (
    checkpoint_curves,
    difference_dots,
    frames_beside_ram,
    save_figure,
)

from rmr_gym.analysis.agents import load_results
from rmr_gym.analysis.agents_figure import agents_figure
from rmr_gym.analysis.bottleneck_figures import size_curves
from rmr_gym.analysis.canvas import COLOURS, new_figure, styled
from rmr_gym.analysis.policy_figure import policy_heat_map, policy_summary
from rmr_gym.analysis.run import ARM_LABELS, where
from rmr_gym.analysis.sweep_run import load_sweep_run
from rmr_gym.analysis.tables import load_run
from rmr_gym.analysis.transfer import read_matrix
from rmr_gym.analysis.transfer_figures import heat_map
from rmr_gym.analysis.transfer_overview import summarise_transfer
from rmr_gym.analysis.views import read_views
from rmr_gym.analysis.views_figures import views_figure
from rmr_gym.analysis.world_model_charts import score_dots, simulation_curves
from rmr_gym.analysis.world_models import read_world_models

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
RESULTS = HERE.parent / "results"
RETURNS = RESULTS / "policies.csv"
GAINS = RESULTS / "processor_gain.csv"
REFERENCES = HERE.parent / "rmr_gym" / "agents" / "weights" / "references.csv"


def main(folder: str) -> None:
    """Draw every picture that the pages of Atari, the players and the stages show."""
    run, returns = load_run(folder), pd.read_csv(RETURNS)
    summary = policy_summary(returns, pd.read_csv(REFERENCES))
    summary.to_csv(HERE / "policies_summary.csv", index=False, lineterminator="\n")
    matrix = read_matrix(load_sweep_run(Path(f"{folder}-transfer")))
    cells = where(summarise_transfer(matrix).cells, against="cswm")
    worlds = read_world_models(RESULTS / "world-models-seeds")
    scores = ("relative_bce", "relative_relational_bce")
    pictures = {
        "table2": abstract_dots(load_run(RESULTS / "laptop-table2")),
        "transfer": heat_map(cells),
        "bottleneck": size_curves(load_sweep_run(RESULTS / "laptop-bottleneck"), "ridge"),
        "gain_and_lead": gain_and_lead(cells, pd.read_csv(GAINS)),
        "agents_balls": agents_figure(load_results(RESULTS / "agents-balls")),
        "agents_games": agents_figure(load_results(RESULTS / "agents-games")),
        "atari_frames": frames_beside_ram(run, "Pong"),
        "differences": difference_dots(run),
        "checkpoints": checkpoint_curves(run),
        "longer": checkpoint_curves(load_run(RESULTS / "laptop-longer")),
        "policies": policy_heat_map(returns),
        "world_models/scores": score_dots(worlds["world_models"], scores, 1.0),
        "world_models/simulations": simulation_curves(worlds["simulations"], "f1"),
        "world_models/views": views_figure(read_views(RESULTS / "world-views-balls"), 3),
    }
    for name, figure in pictures.items():
        save_figure(figure, PICTURES / f"{name}.png")


@styled
def gain_and_lead(cells: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """Draw how much a P improves on C-SWM against how loud it is, a dot a P."""
    figure = new_figure(6.5, 3.6)
    axes = figure.subplots()
    leads = cells.groupby("source")["relative"].mean()
    for name, gain in gains.groupby("p")["gain"].mean().items():
        role = cells.loc[cells["source"] == name, "role"].iloc[0]
        colour = COLOURS[{"game": "rmr", "other": "random_p", "control": "cswm"}[role]]
        label = ARM_LABELS.get(str(name), str(name)).replace("_", " ")
        axes.plot(gain, leads[name], "o", color=colour)
        axes.annotate(label, (gain, leads[name]), (5, 3), textcoords="offset points", fontsize=8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("gain of P's core: difference between outputs over difference between inputs")
    axes.set_ylabel("bit F1 above C-SWM, mean %")
    return figure


if __name__ == "__main__":
    main(*sys.argv[1:])
