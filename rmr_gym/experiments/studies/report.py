"""Pages of studies: objectives, abstract models (Table 2), other measures, narrow latents.

Source: RMR, Appendix B, Table 2; Appendix C, Figure 5.
"""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts
from rmr_gym.report.arms import beside, last_steps, ordered
from rmr_gym.report.page import Page
from rmr_gym.report.runs import Run, Schema, groups, in_order, load_run, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, draws_by, means, paired
from rmr_gym.report.tables import (
    ARM_LABELS,
    MODEL_LABELS,
    OBJECTIVE_LABELS,
    called,
    labels_of,
    objective_label,
)

METRICS = {"slot_accuracy": "slot accuracy", "bit_f1": "bit F1"}
"""Scores of abstract models beside the paper's."""

ABSTRACT_SCORES = {"bit_f1": "bit F1"} | METRICS | {"mask_accuracy": "mask accuracy"}
ALL_LABELS = "all_labels"
"""Category of the mean over all labels of a game."""

BASELINES = ("cswm", "shuffled_p", "untrained")
"""What the other arms are compared with."""

PARTS = {"labels": "category", "ranking": "ahead"}
"""What the scores of each table are apart by, beside game and arm."""

SCORES = {name: labels_of(name) for name in PARTS}
"""Scores of each table; arms are compared by the first."""

_RUN = ("game", "objective", "arm", "seed", "step")
MEASURED = {
    "labels": Schema((*_RUN, "category", "label"), (*SCORES["labels"],)),
    "ranking": Schema((*_RUN, "ahead"), ("similarity", *SCORES["ranking"])),
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
    tables["above_untrained"] = above_untrained(run)
    trained = in_order({*run["natural"]["arm"]} - {"untrained"}, ARM_LABELS)
    figures = {f"objectives_{arm}": partial(objective_curves, run, arm) for arm in trained}
    return Page(run, tables, figures, {"pairs": pairs, "trained": trained})


def above_untrained(run: Run, probe: str = "ridge") -> pd.DataFrame:
    """Return micro F1 less that of the untrained encoder of the same seed, at every checkpoint.

    Columns: game, objective, arm, seed, step, above.
    """
    rows, key = where(run["natural"], probe=probe), ["game", "objective", "seed"]
    untrained = where(rows, arm="untrained")[[*key, "micro_f1"]]
    joined = rows.merge(untrained, on=key, suffixes=("", "_untrained"))
    joined["above"] = joined["micro_f1"] - joined["micro_f1_untrained"]
    columns = ["game", "objective", "arm", "seed", "step", "above"]
    return pd.DataFrame(where(joined, joined["arm"] != "untrained"), columns=columns)


def objective_curves(run: Run, arm: str = "rmr", probe: str = "ridge") -> Figure:
    """Draw what training adds to the untrained encoder's F1 or takes from it, a panel a game.

    Lines are objectives, means over seeds; bands the range of seeds.

    Raises:
        RMRError: The run has no such arm beside an untrained encoder.
    """
    rows = where(above_untrained(run, probe), arm=arm)
    level = rows.assign(objective="untrained", above=0.0)
    rows = ordered(pd.concat([rows, level]) if len(rows) else rows, game=run.games)
    known = in_order({*rows["objective"]} - {"untrained"}, OBJECTIVE_LABELS)
    names = {name: objective_label(name) for name in known} | {"untrained": "untrained encoder"}
    axes, file = ("game", "step", "above", "objective"), "natural.csv"
    titles: Any = {"across": "gradient steps", "up": "bit F1 above untrained"}
    return charts.seed_lines(rows, *axes, names, file, 2, **titles)


def table2(folder: Path) -> Page:
    """Return the page of a run that trained abstract models alone.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, arms.ABSTRACT, "table2")
    abstract = arms.abstract_table(run)
    table = beside_paper(abstract)
    figures = {
        "abstract_beside_paper": partial(abstract_dots, run),
        "abstract_loss": partial(arms.abstract_curves, run),
    }
    tables = {"table2": table, "table2_summary": model_summary(table), "abstract_summary": abstract}
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
    return ordered(summary.reset_index(), model=MODEL_LABELS)


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
    panels = [
        charts.Panel(
            title, charts.Dots.of(shown.assign(mean=table[name], hollow=table[f"paper_{name}"]))
        )
        for name, title in METRICS.items()
    ]
    games = list(dict.fromkeys(table["game"]))
    return charts.dots(panels, games, most=len(METRICS), file="abstract.csv")


def measures(folder: Path) -> Page:
    """Return the page of measures; what is missing is left out.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, MEASURED)
    rows = {"labels": where(run["labels"], label="average"), "ranking": run["ranking"]}
    pairs = {name: measure_pairs(table, name) for name, table in rows.items()}
    tables = {f"{name}_summary": measure_table(rows[name], pairs[name], name) for name in rows}
    figures = {
        "labels": partial(label_dots, rows["labels"]),
        "ranking": partial(ranking_curves, rows["ranking"]),
    }
    return Page(run, tables, figures, {"pairs": pairs}, pd.concat(tables.values()))


def measure_pairs(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return every arm's first score less that of each baseline, at the last checkpoint.

    Args:
        rows: Means over labels, or ranks.
        name: "labels" or "ranking".

    Returns:
        The columns of `rmr_gym.report.statistics.paired`; Benjamini-Hochberg is over the games of
        one category (or ``ahead``).
    """
    part = PARTS[name]
    place = ("game", "objective", part)
    rows = ordered(last_steps(rows, "game", "objective", "arm"), arm=ARM_LABELS)
    family, draws = (part, "against"), draws_by(*place, "arm", "against")
    score = next(iter(SCORES[name]))
    return paired(rows, score, "arm", BASELINES, place, family=family, draws=draws)


def measure_table(rows: pd.DataFrame, pairs: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return means over seeds at the last checkpoint, and paired differences to the baselines.

    Args:
        rows: Means over labels, or ranks.
        pairs: `measure_pairs` of them.
        name: "labels" or "ranking".

    Returns:
        One row a game, objective, category (or ``ahead``) and arm. Columns: these, label (of the
        arm), step, of ranks similarity (by which they are made), seeds; ``_mean`` and ``_std`` of
        each of `SCORES`; and for each of `BASELINES` the columns of a test.
    """
    part = PARTS[name]
    rows = ordered(last_steps(rows, "game", "objective", "arm"), arm=ARM_LABELS)
    more = ["similarity"] if name == "ranking" else []
    key = ["game", "objective", part, "arm", "step", *more]
    table = means(rows, key, [*SCORES[name]])
    table.insert(4, "label", called(table["arm"], ARM_LABELS))
    order = {part: list(dict.fromkeys(rows[part])), "game": list(dict.fromkeys(rows["game"]))}
    return beside(ordered(table, **order), pairs, ("game", "objective", part, "arm"), BASELINES)


def label_dots(rows: pd.DataFrame, score: str = "macro_f1") -> Figure:
    """Draw the mean over labels of every arm and seed, a panel a game.

    Raises:
        RMRError: There are no labels.
    """
    rows = last_steps(where(rows, category=ALL_LABELS), "game", "objective", "arm")
    shown = groups(rows, "game", "arm")[score].agg(points=list, mean="mean").reset_index()
    shown = shown.assign(row=called(shown["arm"], ARM_LABELS), color=charts.colours(shown["arm"]))
    panels = charts.faceted(shown, "game", charts.Dots.of, across=SCORES["labels"][score])
    names = [*called(in_order(rows["arm"], ARM_LABELS), ARM_LABELS)]
    return charts.dots(panels, names, file="labels.csv")


def ranking_curves(rows: pd.DataFrame, score: str = "mrr") -> Figure:
    """Draw ranks against the number of predicted steps, a panel a game.

    Raises:
        RMRError: There are no ranks.
    """
    rows = last_steps(rows, "game", "objective", "arm")
    axes, file = ("game", "ahead", score, "arm"), "ranking.csv"
    titles: Any = {"across": "predicted steps", "up": SCORES["ranking"][score]}
    return charts.seed_lines(rows, *axes, ARM_LABELS, file, **titles)


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
    last = last_steps(rows, "game", "dim").sort_values(["game", "dim"]).reset_index(drop=True)
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
    return ordered(compared.drop_duplicates(["game", "arm"]), arm=ARM_LABELS)
