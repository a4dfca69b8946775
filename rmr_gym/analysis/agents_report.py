"""The page of a comparison of agents."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rmr_gym.analysis import html, text
from rmr_gym.analysis.agents import (
    ALL,
    MEASURES,
    agent_tables,
    feature_label,
    load_results,
    pooled_worlds,
    scores,
)
from rmr_gym.analysis.agents_figure import ALGORITHM_LABELS, agents_figure
from rmr_gym.analysis.html import Entry, Group, Row
from rmr_gym.analysis.interquartile import RESAMPLES
from rmr_gym.analysis.page import Drawing, Page, chart_kind, pictures
from rmr_gym.analysis.reading import Finding, unfinished
from rmr_gym.analysis.run import Run, in_order, read_run
from rmr_gym.analysis.sections import description_section, run_summary, verdict_entry
from rmr_gym.analysis.statistics import MIN_PAIRS

MEASURE_LABELS = {"final": "final score", "efficiency": "sample efficiency"}

NOTES = (
    "The score of an agent is its return, 0 for random play in the same episodes, 1 for the best "
    "last measurement of any agent of that world: it compares agents of this run, and no others.",
    "The final score is that of the last checkpoint. Sample efficiency is the mean score along "
    "training, from 0 at the start.",
    "Interquartile means leave out a quarter of the runs at either end. Intervals are 95% "
    f"percentile bootstraps of {RESAMPLES:,} draws, in which runs are drawn anew within each world "
    "(Agarwal et al. 2021).",
    "A performance profile is the share of agents above each score; a curve above another one at "
    "every score is better throughout, curves that cross are not.",
    "Pairs are agents of one world and seed. p is exact, of a one-sided Wilcoxon signed-rank test, "
    "once for better and once for worse; the corrected one uses Benjamini-Hochberg over all tests "
    "of its direction. Verdicts go by the raw p; 'same' is no proof of equality, and under "
    f"{MIN_PAIRS} pairs nothing is claimed.",
    "RAM bits, positions and velocities are what the encoders try to recover: an upper reference, "
    "no competitor.",
    "'all' pools the worlds in which the same kinds of agents play.",
)
"""How to read a comparison of agents."""


def agents_page(folder: Path, saved: Path) -> Page:
    """Return the page of a comparison of agents; one that has only begun says so.

    Args:
        folder: The run folder.
        saved: Where figures are saved as files.

    Raises:
        RMRError: A file of the folder is damaged, or a figure cannot be saved.
    """
    run, table = read_run(folder), load_results(folder)
    found = scores(table)
    tables = agent_tables(found)
    rows, tests = ([*each.to_dict("records")] for each in tables.values())
    said = [*_reading(tests), *unfinished(run)]
    drawing = Drawing(
        "agents",
        chart_kind(len({each.env for each in found}) + 2),
        "Return along training in each world; then the score along training and the performance "
        f"profile over {text.listing(pooled_worlds(found) or ['no world'])}. Lines are "
        "interquartile means over runs (in the profile: shares), bands their 95% bootstrap "
        "intervals, the dotted line random play.",
        lambda: agents_figure(table),
    )
    missing = "No agent of this run has learnt to the end yet."
    sections = {
        "Unfinished": "" if found else html.paragraph(missing),
        "What the numbers say": html.definitions(said),
        "Learning curves and profile": pictures([drawing], saved) if found else "",
        "Final score and sample efficiency": _summary_section(rows),
        "Paired tests": _tests_section(tests),
        "What was run": description_section(run),
        "How to read this": html.bullets(NOTES),
    }
    return Page(
        title=f"Agents: {_worlds(run)}",
        lead=html.paragraph(run_summary(run)),
        sections=sections,
        tables=tables if found else {},
        text="\n".join(map(str, said)) or missing,
    )


def _worlds(run: Run) -> str:
    worlds = run.info.get("games")
    listed = list(map(str, worlds)) if isinstance(worlds, list) else []
    return text.listing(listed) if 0 < len(listed) <= 4 else f"{len(listed)} worlds"


def _reading(tests: Sequence[dict[Any, Any]]) -> Iterator[Finding]:
    """Say of every two kinds of agents where the first is better, the same or worse."""
    kinds: dict[tuple[str, str, str], list[dict[Any, Any]]] = {}
    for row in tests:
        kinds.setdefault(_compared(row), []).append(row)
    for (first, second, alike), rows in kinds.items():
        said = []
        for measure in MEASURES:
            verdicts: dict[str, list[str]] = {}
            for row in rows:
                if row["measure"] == measure:
                    world = "all together" if row["env"] == ALL else row["env"]
                    verdicts.setdefault(row["verdict"], []).append(world)
            order = in_order(verdicts, ("better", "worse", "same"))
            parts = [f"{verdict} in {text.listing(verdicts[verdict])}" for verdict in order]
            said.append(f"{MEASURE_LABELS[measure]} {', '.join(parts)}")
        yield Finding(f"{first} against {second}, {alike}", f"{'; '.join(said)}.")


def _summary_section(rows: Sequence[dict[Any, Any]]) -> str:
    header = (
        *("features", "algorithm", "runs", "return (IQM)", "final score (IQM)", "95% interval"),
        *("sample efficiency (IQM)", "95% interval"),
    )
    shown: list[Row] = []
    for env, block in _by_world(rows):
        shown.append(Group(env))
        shown += [
            [
                feature_label(row["features"]),
                _algorithm(row["algorithm"]),
                str(row["runs"]),
                text.number(row["return_iqm"], 2),
                *(
                    entry
                    for measure in MEASURES
                    for entry in (
                        text.number(row[measure]),
                        Entry(
                            text.interval(row[f"{measure}_low"], row[f"{measure}_high"]), "quiet"
                        ),
                    )
                ),
            ]
            for row in block
        ]
    return html.table(header, shown, "Agents that learnt to the end") if shown else ""


def _tests_section(tests: Sequence[dict[Any, Any]]) -> str:
    header = (
        *("agents", "against", "both with", "measure", "pairs", "difference", "95% interval"),
        *("p better", "p worse", "verdict", "corrected p better", "corrected p worse"),
    )
    shown: list[Row] = []
    for env, block in _by_world(tests):
        shown.append(Group(env))
        shown += [
            [
                *_compared(row),
                MEASURE_LABELS[row["measure"]],
                str(row["pairs"]),
                text.signed(row["mean"]),
                Entry(text.interval(row["low"], row["high"]), "quiet"),
                text.p_value(row["p_better"]),
                text.p_value(row["p_worse"]),
                verdict_entry(row["verdict"]),
                text.p_value(row["adjusted_better"]),
                text.p_value(row["adjusted_worse"]),
            ]
            for row in block
        ]
    return (
        html.table(header, shown, "Differences of scores, paired by world and seed")
        if shown
        else ""
    )


def _by_world(rows: Sequence[dict[Any, Any]]) -> Iterator[tuple[str, list[dict[Any, Any]]]]:
    for env in dict.fromkeys(row["env"] for row in rows):
        yield str(env), [row for row in rows if row["env"] == env]


def _compared(row: dict[Any, Any]) -> tuple[str, str, str]:
    """Return in what two kinds of agents differ, and what they have in common."""
    features = [feature_label(row[name]) for name in ("first", "second")]
    algorithms = [_algorithm(row[name]) for name in ("algorithm", "second_algorithm")]
    alike = algorithms[0] == algorithms[1]
    (first, second), (both, _) = (features, algorithms) if alike else (algorithms, features)
    return first, second, both


def _algorithm(name: str) -> str:
    return ALGORITHM_LABELS.get(name, name)
