"""The page of a comparison: every arm beside C-SWM, the controls and the paper (Table 1)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmr_gym.report import arms, charts, findings
from rmr_gym.report.arms import (
    ARM_LABELS,
    OBJECTIVE_LABELS,
    REFERENCES,
    label,
    objective_label,
)
from rmr_gym.report.findings import Finding, counted, spoken
from rmr_gym.report.page import Page, about
from rmr_gym.report.paper import paper_natural, paper_verdict
from rmr_gym.report.pictures import frames_beside_ram
from rmr_gym.report.runs import Row, Run, blocks, in_order, load_run, parts, read_frames, where
from rmr_gym.report.statistics import TOO_FEW
from rmr_gym.report.tables import (
    MISSING,
    Column,
    Table,
    by,
    compared_columns,
    grouped,
    number,
    signed,
    spreads,
    whole,
)

COMPARED = (("rmr", "cswm"), ("rmr", "untrained"), ("cswm", "untrained"))
HARDLY = 0.95
"""Energy of right over that of wrong next states above which an arm hardly tells them apart."""

SLOTS = 128
"""RAM bytes, and so slots, of the machine."""


def report(folder: Path) -> Page:
    """Return the page of a comparison.

    Raises:
        RMRError: If the folder is no such run, or a file in it is damaged.
    """
    run = load_run(folder, arms.NATURAL | arms.ABSTRACT, "compare")
    natural = run["natural"]
    probe = arms.headline_probe(natural)
    rows = arms.standing(natural, run.games, probe)
    pairs, contrast = arms.arm_pairs(rows), arms.contrast_table(rows)
    tables = {
        "natural_summary": arms.natural_table(rows, pairs),
        "contrast_summary": contrast,
        "checkpoint_summary": arms.checkpoint_table(natural, run.games),
        "abstract_summary": arms.abstract_table(run),
    }
    table, _, checkpoints, abstract = tables.values()
    preset = f", preset {run.info['preset']}" if "preset" in run.info else ""
    return Page(
        run,
        f"RMR against C-SWM: {about(run.games, 'game')}{preset}",
        reading(run, pairs, contrast, table, checkpoints, abstract),
        {
            "missing": "This run has no natural results yet.",
            "headline": headline(table),
            "natural": arms.scores_shown(table),
            "tests": arms.tests_shown(pairs, contrast),
            "checkpoints": _checkpoints(checkpoints),
            "abstract": arms.abstract_shown(abstract),
            "probe": label(probe),
            "probes": {name: label(name) for name in arms.probes(natural)},
        },
        dict(_figures(run)),
        tables,
        len(natural) > 0,
    )


def _figures(run: Run) -> Iterator[charts.Named]:
    yield "abstract_loss", partial(arms.abstract_curves, run)
    yield "natural_loss", partial(natural_curves, run)
    yield "natural_negative_energy", partial(natural_curves, run, "negative_energy")
    both = ("micro_f1", "effective_rank")
    for probe in arms.probes(run["natural"]):
        course = partial(arms.checkpoint_curves, run["natural"], run.games, probe, both)
        yield f"differences_{probe}", partial(difference_dots, run, probe)
        yield f"f1_and_rank_{probe}", course
    frames = read_frames(run.folder)
    for game in run.games:
        yield f"frames_{game}", partial(frames_beside_ram, frames, game)


def headline(natural: pd.DataFrame) -> Table:
    """Return a natural table as short as a terminal needs it: 80 columns wide."""
    most = natural.groupby(["game", "objective"])["seeds"].transform("max")
    columns = [
        Column("label", "arm", _named),
        Column("micro_f1", "bit F1", lambda row, key: spreads(row, key).replace(" ", "")),
        Column("slot_accuracy_mean", "slots", by(number)),
        Column("effective_rank_mean", "rank", by(number, 1)),
        Column("cswm_", "to C-SWM", _compared),
        Column("untrained_", "to untrained", _compared),
    ]
    return Table(natural.assign(most=most), columns, _heading)


def _heading(row: Row) -> str:
    paper = paper_natural(row["game"])
    beside = "\n  the paper: RMR {rmr_mean:.3f}, C-SWM {cswm_mean:.3f}" if paper else ""
    return (
        f"{row['game']}: {objective_label(row['objective'])}, step {row['checkpoint']}, "
        f"{row['probe']} probe, {counted(row['most'], 'seed')}{beside.format(**paper)}"
    )


def _named(row: Row, key: str) -> str:
    name = "supervised (ceiling)" if row["arm"] == "supervised" else row[key]
    return name if row["seeds"] == row["most"] else f"{name} (n={row['seeds']})"


def _compared(row: Row, prefix: str) -> str:
    pairs, verdict = row[f"{prefix}pairs"], row[f"{prefix}verdict"]
    words = f"(n={pairs})" if verdict == TOO_FEW else verdict
    return f"{signed(row[f'{prefix}difference'])} {words}" if pairs else MISSING


def _checkpoints(table: pd.DataFrame) -> Table:
    """Show mean F1 of every arm at every checkpoint under every probe."""
    keys, tests = [*arms.PLACE], ["cswm_difference", "cswm_verdict", "cswm_verdict_bh"]
    wide = table.pivot(index=keys, columns="arm", values="micro_f1_mean").reset_index()
    rows = table[keys].drop_duplicates().merge(wide, "left", keys)
    rows = rows.merge(where(table, arm="rmr")[[*keys, *tests]], "left", keys)
    columns = [
        Column("probe", "probe", by(label)),
        Column("checkpoint", "step", whole),
        *(Column(arm, label(arm), by(number)) for arm in in_order(table["arm"], ARM_LABELS)),
        *compared_columns("cswm_", "RMR to C-SWM", corrected=True),
    ]
    rows = rows.fillna(dict.fromkeys(tests[1:], ""))
    return Table(grouped(rows, "game", "objective"), columns, arms.titled)


def natural_curves(run: Run, column: str = "loss") -> Figure:
    """Draw a training curve of the arms: a panel a game, a colour an arm, a thin line a seed.

    The supervised ceiling is left out: its loss is another one.

    Args:
        run: The run.
        column: "loss", "positive_energy" or "negative_energy".

    Raises:
        RMRError: If the run has no such curves.
    """
    rows = run["natural_curves"].dropna(subset=[column])
    rows = pd.DataFrame(rows[~rows["arm"].isin(REFERENCES)])
    several = rows["objective"].nunique() > 1
    rows = arms.ordered(rows, game=run.games, objective=OBJECTIVE_LABELS)
    axes = ("gradient step", column.replace("_", " "), (), 20.0)
    panels = [
        charts.Panel(
            arms.panel_title(*place, several), charts.curves(own, column, "arm", ARM_LABELS), *axes
        )
        for place, own in parts(rows, "game", "objective").items()
    ]
    return charts.lines(panels, file="natural_curves.csv")


def difference_dots(run: Run, probe: str = "ridge", step: int | None = None) -> Figure:
    """Draw each arm's bit F1 minus C-SWM's: dots are seeds, diamonds above their mean.

    The bar through a diamond is the 95% bootstrap interval of the mean (two seeds or more).

    Args:
        run: The run.
        probe: Which probe's scores.
        step: Checkpoint; None for the last.

    Raises:
        RMRError: If no arm can be paired with C-SWM.
    """
    pairs = arms.arm_pairs(arms.standing(run["natural"], run.games, probe, step), ("cswm",))
    pairs = pd.DataFrame(pairs[pairs["pairs"] > 0])
    several = pairs["objective"].nunique() > 1
    panels = []
    for (*place, at), tests in blocks(pairs, "game", "objective", "checkpoint").items():
        marks = [
            charts.Dots(
                label(test["arm"]),
                *(test[name] for name in ("gaps", "difference", "low", "high")),
                style={"color": charts.look(test["arm"])["color"]},
            )
            for test in tests
        ]
        title = f"{arms.panel_title(*place, several)}, step {at}"
        panels.append(charts.Panel(title, marks, f"bit F1 minus that of {label('cswm')}"))
    names = [label(arm) for arm in in_order(pairs["arm"], ARM_LABELS)]
    return charts.dots(panels, names, 0.0, file="natural.csv")


def reading(
    run: Run,
    pairs: pd.DataFrame,
    contrast: pd.DataFrame,
    natural: pd.DataFrame,
    checkpoints: pd.DataFrame,
    abstract: pd.DataFrame,
) -> list[Finding]:
    """Return the findings that the page opens with, good news and bad news in one form.

    Args:
        run: The run; whatever it lacks is not spoken of.
        pairs: `arm_pairs` at the last checkpoint under the headline probe.
        contrast: `contrast_table` there.
        natural: `natural_table` there.
        checkpoints: `checkpoint_table`.
        abstract: `abstract_table`.
    """
    objectives = in_order(natural["objective"], OBJECTIVE_LABELS)
    found = []
    for objective in objectives:
        ours, tests = (where(table, objective=objective) for table in (natural, pairs))
        own = [
            *_tested(tests, where(contrast, objective=objective)),
            *_signs(where(checkpoints, objective=objective, arm="rmr")),
            *_highest(ours),
            *_ranks(ours),
            *_separation(where(run["natural_curves"], objective=objective)),
            *_beside_the_paper(where(tests, arm="rmr", against="cswm")),
        ]
        found += findings.led(f"{objective_label(objective)}, " if len(objectives) > 1 else "", own)
    return [*found, *_missing(natural), *_collapses(run["natural"]), *arms.above_copying(abstract)]


def _tested(pairs: pd.DataFrame, contrast: pd.DataFrame) -> Iterator[Finding]:
    for arm, baseline in COMPARED:
        rows = where(pairs, arm=arm, against=baseline).to_dict("records")
        yield from findings.against(rows, f"{label(arm)} against {label(baseline)}")
    for (control,), rows in blocks(contrast, "label").items():
        yield from findings.against(rows, f"{label('rmr')} against {control}")


def _signs(rows: pd.DataFrame) -> Iterator[Finding]:
    """Say where the sign of RMR minus C-SWM hangs on the probe or the checkpoint."""
    gaps = rows.dropna(subset=["cswm_difference"])
    if len(gaps[["probe", "checkpoint"]].drop_duplicates()) < 2:
        return
    signs: dict[str, list[str]] = {"always above 0": [], "always below 0": [], "of either sign": []}
    for (game,), block in parts(gaps, "game").items():
        above, below = ((sign * block["cswm_difference"] > 0).sum() for sign in (1, -1))
        if len(block) in (above, below):
            signs["always above 0" if above else "always below 0"].append(game)
        else:
            signs["of either sign"].append(f"{game}: above 0 in {above} of {len(block)}")
    yield Finding(
        f"{label('rmr')} minus {label('cswm')} over all probes and checkpoints",
        f"of {counted(gaps['game'].nunique())} the mean difference is {spoken(signs)}.",
    )


def _highest(natural: pd.DataFrame) -> Iterator[Finding]:
    scored = natural[natural["arm"] != "supervised"].dropna(subset=["micro_f1_mean"])
    first: dict[str, list[str]] = {}
    for (game,), rows in blocks(scored, "game").items():
        best = max(rows, key=lambda row: row["micro_f1_mean"])
        first.setdefault(best["label"], []).append(f"{game} {best['micro_f1_mean']:.3f}")
    if first:
        yield Finding("Highest mean bit F1 of what never reads RAM", f"{spoken(first)}.")


def _ranks(natural: pd.DataFrame) -> Iterator[Finding]:
    ranks = natural.pivot(index="game", columns="arm", values="effective_rank_mean")
    for arm in [arm for arm in ("rmr", "cswm") if {arm, "untrained"} <= {*ranks}]:
        both = ranks[[arm, "untrained"]].dropna()
        if len(both):
            lower = (both[arm] < both["untrained"]).sum()
            yield Finding(
                f"Effective rank of {label(arm)}",
                f"mean {both[arm].mean():.1f}, untrained encoder {both['untrained'].mean():.1f}; "
                f"lower than untrained on {lower} of {counted(both)}.",
            )


def _separation(curves: pd.DataFrame) -> Iterator[Finding]:
    """Say how far each arm has learnt its objective, and where it hardly has."""
    rows = curves[curves["negative_energy"] > 0].dropna(subset=["positive_energy"])
    rows = arms.last_steps(rows, "game", "arm", "seed")
    rows["ratio"] = rows["positive_energy"] / rows["negative_energy"]
    clauses = []
    for arm in in_order(rows["arm"], ARM_LABELS):
        own = where(rows, arm=arm).groupby("game", sort=False)["ratio"].mean()
        hardly = list(own.index[own > HARDLY])
        clauses.append(
            f"{label(arm)} {own.mean():.2f}, above {HARDLY} on {len(hardly)} of {len(own)}"
            f"{findings.named(hardly)}"
        )
    if clauses:
        lead = "energy of the right next state over that of a wrong one, 1 where they are alike"
        yield Finding("How far the objective is learnt", f"{lead}: {'; '.join(clauses)}.")


def _beside_the_paper(tests: pd.DataFrame) -> Iterator[Finding]:
    rows = [row | {"paper": paper_verdict(row["game"])} for row in tests.to_dict("records")]
    known = [row for row in rows if row["paper"] and row["pairs"]]
    judged = [row for row in known if row["verdict"] != TOO_FEW]
    agreeing = sum(row["verdict"] == row["paper"] for row in judged)
    ours = f"this run's verdict is the same on {agreeing} of {counted(judged)}"
    if known:
        yield Finding(
            "The paper on RMR against C-SWM (20 seeds, other data and budgets)",
            f"{findings.tally(known, 'paper', lambda row: row['game'])}; "
            f"{ours if judged else 'this run has too few seeds for a verdict'}.",
        )


def _missing(natural: pd.DataFrame) -> Iterator[Finding]:
    for row in where(natural, seeds=0).to_dict("records"):
        yield Finding(row["label"], f"no score on {row['game']} at step {row['checkpoint']}.")


def _collapses(natural: pd.DataFrame) -> Iterator[Finding]:
    """Name every encoder of which more than half the slots were dead."""
    health = natural[~natural["arm"].isin(REFERENCES)].dropna(subset=["dead_slots"])
    bad = health[health["dead_slots"] > SLOTS / 2]
    bad = bad.drop_duplicates(["game", "objective", "arm", "seed"])
    clauses = [
        f"{label(row['arm'])} on {row['game']}, seed {row['seed']}, step {row['step']} "
        f"({row['dead_slots']:.0f} dead)"
        for row in bad.to_dict("records")
    ]
    if len(health):
        yield Finding(
            f"Collapse (more than half of the {SLOTS} slots dead at a checkpoint)",
            f"{'; '.join(clauses) or 'none'}.",
        )
