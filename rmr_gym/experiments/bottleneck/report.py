"""The page of a bottleneck: scores by latent size, and what narrowing costs (Figure 5)."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts
from rmr_gym.report.names import ARM_LABELS, called, label
from rmr_gym.report.page import Page, about
from rmr_gym.report.runs import Run, Schema, load_run, where
from rmr_gym.report.statistics import CORRECTED, DIFFERENCE, draws_by, paired
from rmr_gym.report.tables import grouped

TABLES = {
    "bottleneck": Schema(("game", "dim", "objective", "arm", "seed", "step", "probe"), arms.SCORES),
    "bottleneck_abstract": Schema(("game", "dim", "step"), (*arms.BITS, "loss")),
}
ABSTRACT_SCORES = {
    "bit_f1": "bit F1",
    "slot_accuracy": "slot accuracy",
    "mask_accuracy": "mask accuracy",
}
PLACE = (*arms.PLACE, "dim")


def report(folder: Path) -> Page:
    """Return the page of a bottleneck run; what is missing is said.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, TABLES, "bottleneck")
    games = run.named("games", table="bottleneck", column="game")
    rows = at_sizes(run, arms.headline_probe(run["bottleneck"]))
    tables = {
        "bottleneck_summary": size_table(rows),
        "bottleneck_narrowing": narrowing_table(rows),
        "bottleneck_abstract_summary": abstract_sizes(run["bottleneck_abstract"]),
    }
    summary, narrowing, abstract = tables.values()
    probes = arms.probes(run["bottleneck"])
    curves = {f"bottleneck_{probe}": partial(size_curves, run, probe) for probe in probes}
    return Page(
        run,
        f"Bottleneck: {about(games, 'game')}",
        {
            "probes": {probe: label(probe) for probe in probes},
            "missing_sizes": missing_sizes(run, summary),
            "narrowest": narrowest(narrowing),
            "narrowing": grouped(narrowing, "game", "objective"),
            "sizes": grouped(summary, "game", "objective"),
            "abstract": abstract,
        },
        curves | {"bottleneck_abstract": partial(abstract_size_curves, run)},
        tables,
        len(run["bottleneck"]) > 0,
    )


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
    draw = partial(charts.over_seeds, x="dim", y="micro_f1", by="arm", labels=ARM_LABELS)
    axes: Any = {"across": "latent size, dim z", "up": "bit F1 (micro)", "ticks": sizes(run)}
    panels = charts.faceted(arms.titled(at_sizes(run, probe)), "panel", draw, **axes)
    return charts.lines(panels, file="bottleneck.csv")


def abstract_size_curves(run: Run) -> Figure:
    """Draw what each pretrained P itself scores on RAM against its latent size.

    Args:
        run: A bottleneck run.

    Raises:
        RMRError: If it has no scores of this.
    """
    table = abstract_sizes(run["bottleneck_abstract"])
    long = table.melt(["game", "dim"], [*ABSTRACT_SCORES], "score")
    draw = partial(charts.over_seeds, x="dim", y="value", by="score", labels=ABSTRACT_SCORES)
    axes: Any = {"across": "latent size, dim z", "up": "P on RAM, next step", "ticks": sizes(run)}
    return charts.lines(charts.faceted(long, "game", draw, **axes), file="bottleneck_abstract.csv")


def narrowest(narrowing: pd.DataFrame) -> pd.DataFrame:
    """Return the narrowest size that each game has of an arm, where there is a pair."""
    compared = where(narrowing, narrowing["pairs"] > 0).sort_values("dim", kind="stable")
    return arms.ordered(compared.drop_duplicates(["game", "arm"]), arm=ARM_LABELS)
