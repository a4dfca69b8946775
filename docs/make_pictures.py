"""Draw the pictures of the documentation from committed run folders.

Run it as ``python docs/make_pictures.py results/laptop-cswm``, from the root of the repository.
The transfer matrix is that of the folder of the same name with "-transfer" at its end, Table 2 that
of results/laptop-table2, its predicted steps those of results/laptop-table2-fast, the bottleneck
that of results/laptop-bottleneck, the agents are those of results/agents-balls and four more, the
beliefs those of results/laptop-belief-confirm, the world models those of
results/world-models-motion, results/world-views-balls, results/world-views-battles and
results/world-views-trains.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from rmr_gym.experiments.agents.report import TABLES as AGENTS
from rmr_gym.experiments.agents.report import agents_figure, distractors_figure
from rmr_gym.experiments.belief.report import TABLES as BELIEF
from rmr_gym.experiments.belief.report import belief_curves, over_starts
from rmr_gym.experiments.compare.report import difference_dots
from rmr_gym.experiments.studies.report import (
    HORIZON_AXES,
    NARROWED,
    abstract_dots,
    size_curves,
)
from rmr_gym.experiments.transfer.report import TABLES as TRANSFER
from rmr_gym.experiments.transfer.report import matrix_map, read_matrix, transfer_table
from rmr_gym.experiments.world_models.report import (
    CROPS,
    FRAMES,
    score_dots,
    simulation_curves,
    views_figure,
)
from rmr_gym.report.arms import ABSTRACT, NATURAL, checkpoint_curves
from rmr_gym.report.charts import (
    Block,
    heat_map,
    look,
    new_figure,
    save_figure,
    seed_lines,
    styled,
)
from rmr_gym.report.pictures import frames_beside_ram
from rmr_gym.report.runs import load_run, read_frames
from rmr_gym.report.tables import label

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
RESULTS = HERE.parent / "results"
SKILLS = ("low", "middle", "high")
RETURNS = RESULTS / "policies.csv"
GAINS = RESULTS / "processor_gain.csv"
REFERENCES = HERE.parent / "rmr_gym" / "agents" / "players" / "weights" / "references.csv"


def main(folder: str) -> None:
    """Draw every picture that the pages of Atari, the players and the stages show."""
    run, returns = load_run(folder, NATURAL), pd.read_csv(RETURNS)
    longer = load_run(RESULTS / "laptop-longer", NATURAL)
    summary = policy_summary(returns, pd.read_csv(REFERENCES))
    summary.to_csv(HERE / "policies_summary.csv", index=False, lineterminator="\n")
    fields = transfer_table(read_matrix(load_run(f"{folder}-transfer", TRANSFER)))
    worlds = load_run(RESULTS / "world-models-motion", FRAMES)
    agents = {
        kind: load_run(RESULTS / f"agents-{kind}", AGENTS)["results"]
        for kind in ("balls", "belief", "four", "games", "minigrid")
    }
    pictures = {
        "table2": abstract_dots(load_run(RESULTS / "laptop-table2", ABSTRACT)),
        "horizons": seed_lines(
            load_run(RESULTS / "laptop-table2-fast", ABSTRACT)["abstract_horizons"],
            *HORIZON_AXES,
            most=6,
            across="predicted steps",
            up="bit F1",
        ),
        "transfer": matrix_map(fields),
        "belief_confirm": belief_curves(
            over_starts(load_run(RESULTS / "laptop-belief-confirm", BELIEF)), "all"
        ),
        "bottleneck": size_curves(load_run(RESULTS / "laptop-bottleneck", NARROWED), "ridge"),
        "gain_and_lead": gain_and_lead(fields, pd.read_csv(GAINS)),
        "agents_balls": agents_figure(agents["balls"]),
        "agents_belief": agents_figure(agents["belief"]),
        "agents_four": agents_figure(agents["four"]),
        "agents_games": agents_figure(agents["games"]),
        "minigrid_distractors": distractors_figure(agents["minigrid"]),
        "atari_frames": frames_beside_ram(read_frames(run.folder), "Pong"),
        "differences": difference_dots(run),
        "checkpoints": checkpoint_curves(run["natural"], run.games, "ridge"),
        "longer": checkpoint_curves(longer["natural"], longer.games, "ridge"),
        "planning_few_pixels": few_pixels(),
        "policies": policy_heat_map(returns),
        "world_models/scores": score_dots(worlds["world_models"], ("gain", "relative_bce"), 0.0),
        "world_models/simulations": simulation_curves(worlds["simulations"], "f1"),
        "world_models/views": views_figure(
            load_run(RESULTS / "world-views-balls", CROPS)["views"], 3
        ),
        "world_models/battles": agents_views(
            load_run(RESULTS / "world-views-battles", CROPS)["views"], 4
        ),
        "world_models/trains": agents_views(
            load_run(RESULTS / "world-views-trains", CROPS)["views"], 7
        ),
        "world_models/trains_enclaves": enclaves_on_rails(
            RESULTS / "world-views-trains" / "enclaves_s2gru_0.npz",
            PICTURES / "gallery" / "trains.gif",
        ),
    }
    for name, figure in pictures.items():
        save_figure(figure, PICTURES / f"{name}.png")


def agents_views(rows: pd.DataFrame, agents: int) -> Figure:
    """Draw F1 by agents, of whom there were so many in training, and by views, beside a copy's."""
    seen = rows[(rows["model"] == "s2gru") & (rows["dropped"] == 0)]
    last = seen.assign(model="last views", f1=seen["f1_copied"])
    return views_figure(pd.concat([rows, last]), agents)


@styled
def enclaves_on_rails(path: Path, film: Path) -> Figure:
    """Draw what each module attends to on the rails of a film, and which modules hear each other.

    Source: S2RM, Figure 9.

    Args:
        path: NPZ file with ``attended`` and ``heard``.
        film: Of trains, 6 pixels a cell.
    """
    arrays = np.load(path)
    attended, heard = arrays["attended"], arrays["heard"]
    with Image.open(film) as opened:
        dark = np.asarray(opened.convert("RGB"))[3::6, 3::6].max(axis=-1) < 60
    rails = np.ma.array(np.full(dark.shape, 130), mask=dark)
    figure = new_figure(10.5, 3.8)
    grid = figure.add_gridspec(2, 8)
    for module, pixels in enumerate(attended):
        axes = figure.add_subplot(grid[module // 5, module % 5])
        axes.imshow(pixels, vmin=0, vmax=1, cmap="viridis")
        axes.imshow(rails, cmap="gray", vmin=0, vmax=255, alpha=0.45)
        axes.set(xticks=[], yticks=[], title=f"module {module + 1}")
    axes = figure.add_subplot(grid[:, 5:])
    axes.imshow(rails, cmap="gray_r", vmin=0, vmax=600)
    # where each attends most: some enclaves reach over the edge to the other side
    centres = [np.unravel_index(pixels.argmax(), pixels.shape)[::-1] for pixels in attended]
    for one, other in zip(*np.nonzero(np.triu(heard, 1)), strict=True):
        ends = np.array([centres[one], centres[other]]).T
        axes.plot(*ends, color="tab:blue", linewidth=3 * heard[one, other], alpha=0.7)
    words = {"color": "white", "ha": "center", "va": "center", "fontsize": 8}
    for module, (x, y) in enumerate(centres):
        axes.plot(x, y, "o", color="tab:red", markersize=13, clip_on=False)
        axes.text(x, y, str(module + 1), words)
    axes.set(xticks=[], yticks=[], title="which can hear each other")
    return figure


def policy_summary(returns: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Return one row a game: published scores, random play, each skill, the best player.

    Args:
        returns: Columns game, head, mean_return; one row a game and player.
        references: Columns game, random, human.
    """
    table = returns.pivot(index="game", columns="head", values="mean_return")
    plain = table[["uniform-1", *(f"{skill}-e00-h00" for skill in SKILLS)]]
    plain.columns = ["uniform", *SKILLS]
    known = references.set_index("game").loc[table.index]
    best = pd.DataFrame({"best": table.max(axis=1), "best player": table.idxmax(axis=1)})
    published = known.rename(columns={"random": "published random", "human": "published human"})
    return plain.join(best).join(published).round(1).reset_index()


def policy_heat_map(returns: pd.DataFrame) -> Figure:
    """Draw what every player scores, each game scaled from its worst (0) to its best (1)."""
    order = list(dict.fromkeys(returns["head"]))
    table = returns.pivot(index="game", columns="head", values="mean_return")[order]
    low, high = table.min(axis=1), table.max(axis=1)
    span = (high - low).where(high > low)
    titles = [
        f"{game} ({worst:g} to {best:g})"
        for game, worst, best in zip(table.index, low, high, strict=True)
    ]
    block = Block(titles, table.sub(low, axis=0).div(span, axis=0).to_numpy(float))
    title = "mean return, scaled from the worst player to the best"
    return heat_map([block], order, title, inches=(0.2, 0.25))


@styled
def gain_and_lead(cells: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """Draw how much a P improves on C-SWM against how loud it is, a dot a P."""
    figure = new_figure(6.5, 3.6)
    axes = figure.subplots()
    leads = cells.groupby("source")["relative"].mean()
    for name, gain in gains.groupby("p")["gain"].mean().items():
        role = cells.loc[cells["source"] == name, "role"].iloc[0]
        colour = look({"game": "rmr", "other": "random_p", "control": "cswm"}[role])["color"]
        words = label(str(name)).replace("_", " ")
        axes.plot(gain, leads[name], "o", color=colour)
        axes.annotate(words, (gain, leads[name]), (5, 3), textcoords="offset points", fontsize=8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("gain of P's core: difference between outputs over difference between inputs")
    axes.set_ylabel("bit F1 above C-SWM, mean %")
    return figure


@styled
def few_pixels() -> Figure:
    """Draw success of a P from scratch by the transitions of pixels that it saw, beside P."""
    parts = {count: "" if count == 5 else f"-{count}" for count in (1, 5, 20)} | {86: "-all"}
    tables = {
        200 * count: pd.read_csv(RESULTS / f"planning-few-pixels{end}" / "planning.csv")
        for count, end in parts.items()
    }
    shares = {seen: table.groupby("arm")["return"].mean() for seen, table in tables.items()}
    figure = new_figure(6.0, 3.4)
    axes = figure.subplots()
    colour = look("cswm")["color"]
    scratch = [share["scratch_p"] for share in shares.values()]
    axes.plot(
        list(shares), scratch, "o-", color=colour, label="P from scratch, of places in pixels"
    )
    lines = {"rmr": "P from 17,200 transitions of states", "random_p": "random P"}
    for arm, words in (lines | {"random": "random pushes"}).items():
        style = "-" if arm == "rmr" else "--"
        shade = "grey" if arm == "random" else look(arm)["color"]
        axes.axhline(shares[1000][arm], color=shade, linestyle=style, label=words)
    axes.set(xscale="log", ylim=(0, 0.7), ylabel="success in 60 episodes")
    axes.set_xticks(list(shares), [f"{seen:,}" for seen in shares], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("transitions of pixels that the P from scratch saw")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


if __name__ == "__main__":
    main(*sys.argv[1:])
