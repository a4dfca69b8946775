"""Pages of studies: objectives, abstract models (Table 2), other measures, narrow latents.

Source: RMR, Appendix B, Table 2; Appendix C, Figure 5.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Run, Schema, groups, in_order, load_run, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, draws_by, means, paired
from rmr_gym.report.tables import ARM_LABELS, MODEL_LABELS, called, labels_of

METRICS = {"slot_accuracy": "slot accuracy", "bit_f1": "bit F1"}
"""Scores of abstract models beside the paper's."""

HORIZON_AXES = ("game", "k", "bit_f1", "model", MODEL_LABELS, "abstract_horizons.csv")
HORIZON_BASELINES = ("copy", "mlp", "mpnn")
ABSTRACT_SCORES = {"bit_f1": "bit F1"} | METRICS | {"mask_accuracy": "mask accuracy"}
ALL_LABELS = "all_labels"
"""Category of the mean over all labels of a game."""

BASELINES = ("cswm", "shuffled_p", "untrained")
"""What the other arms are compared with."""

SCORES = {name: labels_of(name) for name in ("labels", "ranking")}
"""Scores of each table; arms are compared by the first."""

RANKING_AXES = ("game", "ahead", "mrr", "arm", ARM_LABELS, "ranking.csv")

_RUN = ("game", "objective", "arm", "seed", "step")
MEASURED = {
    "labels": Schema((*_RUN, "category", "label"), (*SCORES["labels"],)),
    "ranking": Schema((*_RUN, "ahead"), ("similarity", *SCORES["ranking"])),
    "headroom": arms.HEADROOM,
}
NARROWED = {
    "bottleneck": Schema(("game", "dim", "objective", "arm", "seed", "step", "probe"), arms.SCORES),
    "bottleneck_abstract": Schema(("game", "dim", "step"), (*arms.ABSTRACT_SCORES, "loss")),
}
"""Tables of a run of measures, and of a bottleneck."""

PLACE = (*arms.PLACE, "dim")
WIDTH = "latent size, dim z"


def objectives(folder: Path) -> Page:
    """Return the page of a study of objectives.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, arms.NATURAL, "objectives")
    pairs, tables = arms.summarise(run)
    probe = arms.headline_probe(run["natural"])
    curves = partial(arms.checkpoint_curves, run["natural"], run.games, probe)
    return Page(run, tables, {"objectives": curves}, {"pairs": pairs})


def table2(folder: Path) -> Page:
    """Return the page of a run that trained abstract models alone.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, arms.ABSTRACT, "table2")
    abstract = arms.abstract_table(run)
    table = beside_paper(abstract)
    horizons = arms.ordered(run["abstract_horizons"], game=run.games, model=MODEL_LABELS)
    figures = {
        "abstract_beside_paper": partial(abstract_dots, run),
        "abstract_loss": partial(arms.abstract_curves, run),
        "abstract_horizons": partial(
            charts.seed_lines, horizons, *HORIZON_AXES, across="predicted steps", up="bit F1"
        ),
    }
    tables = {"table2": table, "table2_summary": model_summary(table), "abstract_summary": abstract}
    tables["horizon_summary"] = horizon_table(horizons)
    return Page(run, tables, figures)


def beside_paper(abstract: pd.DataFrame) -> pd.DataFrame:
    """Return one row a game and model at its last step: ours, the paper's, and both over copying.

    Source: RMR, Appendix B, Table 2.

    Args:
        abstract: `rmr_gym.report.arms.abstract_table`.

    Returns:
        Columns: game, model, label, step, seeds; for slot_accuracy and bit_f1: ``<metric>`` (mean
        over seeds), ``<metric>_std``, ``paper_<metric>``, ``<metric>_over_copy`` and
        ``paper_<metric>_over_copy`` (the model's minus the copy baseline's; NaN without it).
    """
    table = pd.DataFrame(abstract[["game", "model", "label", "step", "seeds"]])
    copied = where(abstract, model="copy").set_index("game")
    for metric in METRICS:
        ours, paper = f"{metric}_mean", f"paper_{metric}"
        table[metric], table[f"{metric}_std"] = abstract[ours], abstract[f"{metric}_std"]
        table[paper] = abstract[paper]
        for name in (ours, paper):
            over = abstract[name].to_numpy() - copied[name].reindex(abstract["game"]).to_numpy()
            table[f"{name.removesuffix('_mean')}_over_copy"] = over
    return table


def horizon_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return bit F1 by number of predicted steps over the games, with tests.

    Args:
        rows: As in abstract_horizons.csv.

    Returns:
        One row a model and k: mean over games (of their means over seeds) and, for copying, the MLP
        and the MPNN, a paired test across games, corrected over its models and numbers of steps.
    """
    games = groups(rows, "game", "model", "k")["bit_f1"].mean().reset_index()
    draws = draws_by("model", "k", "against")
    pairs = paired(games, "bit_f1", "model", HORIZON_BASELINES, ("k",), ("game",), draws=draws)
    table = means(games, ("model", "k"), ["bit_f1"]).rename(columns={"seeds": "games"})
    table.insert(1, "label", called(table["model"], MODEL_LABELS))
    return arms.beside(table, pairs, ("model", "k"), HORIZON_BASELINES)


def model_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a model: means over the games that both we and the paper have.

    Args:
        table: See `beside_paper`.

    Returns:
        Columns: model, label, games; ``<metric>`` and ``paper_<metric>`` (means); ``beats_copy``
        and ``paper_beats_copy`` (games in which bit F1 is above the copy baseline's); ``best`` and
        ``paper_best`` (games in which its bit F1 is the highest of the models that are there).
    """
    known = table.dropna(subset=["bit_f1", "paper_bit_f1"]).reset_index(drop=True)
    several = where(known, groups(known, "game")["model"].transform("size") > 1)
    for source in ("", "paper_"):
        best = groups(several, "game")[f"{source}bit_f1"].idxmax()
        known[f"{source}best"] = known.index.isin(best)
        known[f"{source}beats_copy"] = known[f"{source}bit_f1_over_copy"] > 0
    kinds = dict.fromkeys(METRICS, "mean") | {"beats_copy": "sum", "best": "sum"}
    found = {f"{s}{name}": (f"{s}{name}", kinds[name]) for s in ("", "paper_") for name in kinds}
    summary = groups(known, "model", "label").agg(games=("game", "size"), **found)
    return arms.ordered(summary.reset_index(), model=MODEL_LABELS)


def abstract_dots(run: Run) -> Figure:
    """Draw ours (filled) and the paper's (hollow) scores of every model: a row a game.

    Raises:
        RMRError: If the run has no abstract scores.
    """
    table = beside_paper(arms.abstract_table(run))
    models = in_order(table["model"], MODEL_LABELS)
    places = table["model"].map(models.index).astype(float)
    shown = table.assign(
        row=table["game"],
        shift=(places + 0.5) / (len(models) + 1) - 0.4,
        color=charts.colours(table["model"]),
        marker="o",
    )
    panels = []
    for name, title in METRICS.items():
        both = shown.assign(mean=table[name], hollow=table[f"paper_{name}"])
        panels.append(charts.Panel(title, charts.Dots.of(both)))
    games = list(dict.fromkeys(table["game"]))
    return charts.dots(panels, games, most=len(METRICS), file="abstract.csv")


def measures(folder: Path) -> Page:
    """Return the page of measures; what is missing is left out.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, MEASURED)
    labels, ranking = where(run["labels"], label="average"), run["ranking"]
    pairs, tables = arms.headroom_tables(run["headroom"])
    for name, rows, part in (("labels", labels, "category"), ("ranking", ranking, "ahead")):
        found = arms.measure_table(rows, (part,), SCORES[name], BASELINES)
        pairs[name], tables[f"{name}_summary"] = found
    last = arms.last_steps(ranking, "game", "objective", "arm")
    curves = partial(charts.seed_lines, last, *RANKING_AXES, across="predicted steps", up="MRR")
    figures = {"labels": partial(label_dots, labels), "ranking": curves}
    figures |= arms.headroom_figures(run["headroom"])
    return Page(run, tables, figures, {"pairs": pairs}, pd.concat(tables.values()))


def label_dots(rows: pd.DataFrame, score: str = "macro_f1") -> Figure:
    """Draw the mean over labels of every arm and seed, a panel a game.

    Raises:
        RMRError: There are no labels.
    """
    rows = arms.last_steps(where(rows, category=ALL_LABELS), "game", "objective", "arm")
    shown = groups(rows, "game", "arm")[score].agg(points=list, mean="mean").reset_index()
    shown = shown.assign(row=called(shown["arm"], ARM_LABELS), color=charts.colours(shown["arm"]))
    panels = charts.faceted(shown, "game", charts.Dots.of, across=SCORES["labels"][score])
    names = [*called(in_order(rows["arm"], ARM_LABELS), ARM_LABELS)]
    return charts.dots(panels, names, file="labels.csv")


def bottleneck(folder: Path) -> Page:
    """Return the page of a bottleneck run; what is missing is said.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, NARROWED, "bottleneck")
    rows = at_sizes(run, arms.headline_probe(run["bottleneck"]))
    tables = {
        "bottleneck_summary": size_table(rows),
        "bottleneck_narrowing": narrowing_table(rows),
        "bottleneck_abstract_summary": abstract_sizes(run["bottleneck_abstract"]),
    }
    probes = arms.probes(run["bottleneck"])
    figures = {f"bottleneck_{probe}": partial(size_curves, run, probe) for probe in probes}
    figures["bottleneck_abstract"] = partial(abstract_size_curves, run)
    return Page(run, tables, figures)


def sizes(run: Run) -> list[int]:
    """Return the latent sizes of the run, rising, those without scores too."""
    return sorted(map(int, run.named("dims", table="bottleneck", column="dim")))


def at_sizes(run: Run, probe: str) -> pd.DataFrame:
    """Return the scores of every arm at its last checkpoint, latent size by latent size.

    Args:
        run: A bottleneck run.
        probe: Which probe's scores.
    """
    scored = where(run["bottleneck"], probe=probe)
    found = [
        arms.standing(where(scored, dim=dim), run.games, probe).assign(dim=dim)
        for dim in sizes(run)
    ]
    return pd.concat(found) if found else arms.standing(scored, (), probe)


def size_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the natural table of every latent size, one under the other.

    Source: RMR, appendix C, Figure 5. Differs: C-SWM and every control beside RMR.

    Args:
        rows: See `at_sizes`.

    Returns:
        The columns of `rmr_gym.report.arms.natural_table`, at the last checkpoint, and dim;
        Benjamini-Hochberg is over all sizes and games.
    """
    return arms.natural_table(rows, arms.arm_pairs(rows, place=PLACE), PLACE)


def narrowing_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what a smaller latent costs an arm: its bit F1 less that at the widest size.

    The untrained encoder's row says what a smaller latent costs the probe alone.

    Args:
        rows: See `at_sizes`.

    Returns:
        One row a game, objective, arm and size but the widest. Columns: game, objective, probe,
        arm, label, dim, widest, relative (mean over seeds, per cent of the widest); a test, with
        Benjamini-Hochberg over the table.
    """
    found = paired(
        *(rows, "micro_f1", "dim", lambda dim, dims: dims[-1:] if dim != dims[-1] else ()),
        *((*arms.PLACE, "arm"), ("seed",), (), draws_by(*arms.PLACE, "dim", "against")),
    )
    found = found.rename(columns={"against": "widest"})
    found["label"] = called(found["arm"], ARM_LABELS)
    columns = ["game", "objective", "probe", "arm", "label", "dim", "widest", "relative"]
    return pd.DataFrame(found[[*columns, *DIFFERENCE, *CORRECTED]])


def abstract_sizes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of each P that was pretrained on RAM, at its last step, by game and size.

    Args:
        rows: Of bottleneck_abstract.csv.

    Returns:
        Its columns, and relative: bit F1 above that of the game's widest size, in per cent.
    """
    last = arms.last_steps(rows, "game", "dim").sort_values(["game", "dim"]).reset_index(drop=True)
    widest = last.groupby("game")["bit_f1"].transform("last")
    return last.assign(relative=100 * (last["bit_f1"] / widest - 1))


def missing_sizes(run: Run, table: pd.DataFrame) -> list[str]:
    """Return the games and sizes that the run names but that RMR has no score of."""
    scored = where(table, table["seeds"] > 0, arm="rmr")
    there = {*zip(scored["game"], scored["dim"], strict=True)}
    games = run.named("games", table="bottleneck", column="game")
    named = [(game, dim) for game in games for dim in sizes(run)]
    return [f"{game} at dim {dim}" for game, dim in named if (game, dim) not in there]


def size_curves(run: Run, probe: str = "ridge") -> Figure:
    """Draw bit F1 of every arm against the latent size: lines are means, bands the seeds' range.

    Source: RMR, Figure 5.

    Args:
        run: A bottleneck run.
        probe: Which probe's scores, at the last checkpoint.

    Raises:
        RMRError: If there are none.
    """
    axes, rows = ("panel", "dim", "micro_f1", "arm"), arms.titled(at_sizes(run, probe))
    titles: Any = {"across": WIDTH, "up": "bit F1 (micro)", "ticks": sizes(run)}
    return charts.seed_lines(rows, *axes, ARM_LABELS, "bottleneck.csv", **titles)


def abstract_size_curves(run: Run) -> Figure:
    """Draw what each pretrained P itself scores on RAM against its latent size.

    Args:
        run: A bottleneck run.

    Raises:
        RMRError: If it has no scores of this.
    """
    table = abstract_sizes(run["bottleneck_abstract"])
    long = table.melt(["game", "dim"], [*ABSTRACT_SCORES], "score")
    axes, file = ("game", "dim", "value", "score"), "bottleneck_abstract.csv"
    titles: Any = {"across": WIDTH, "up": "P on RAM, next step", "ticks": sizes(run)}
    return charts.seed_lines(long, *axes, ABSTRACT_SCORES, file, **titles)


def narrowest(narrowing: pd.DataFrame) -> pd.DataFrame:
    """Return the narrowest size that each game has of an arm, where there is a pair."""
    compared = where(narrowing, narrowing["pairs"] > 0).sort_values("dim", kind="stable")
    return arms.ordered(compared.drop_duplicates(["game", "arm"]), arm=ARM_LABELS)
