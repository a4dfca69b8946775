"""What a run's numbers say in plain sentences; every word of a result is derived from the run."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rmr_gym.analysis import text
from rmr_gym.analysis.paper import paper_verdict
from rmr_gym.analysis.run import (
    ARM_LABELS,
    CELL_STATES,
    MODEL_LABELS,
    OBJECTIVE_LABELS,
    REFERENCE_ARMS,
    SLOTS,
    Run,
    blocks,
    in_order,
    values,
    where,
)
from rmr_gym.analysis.statistics import MIN_PAIRS, TOO_FEW
from rmr_gym.analysis.tables import Summary

Rows = list[dict[Any, Any]]

COMPARISONS = (("rmr", "cswm"), ("rmr", "untrained"), ("cswm", "untrained"))
READS_RAM = ("supervised",)
HARDLY = 0.95
"""Energy of right over that of wrong next states above which an arm hardly tells them apart."""


class Finding(NamedTuple):
    """One thing that a run shows."""

    subject: str
    statement: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.statement}"


def reading(run: Run, summary: Summary) -> list[Finding]:
    """Return the findings that a report opens with, good news and bad news in one form.

    Args:
        run: The run; whatever it lacks is not spoken of.
        summary: Its tables, see `rmr_gym.analysis.tables.summarise`.
    """
    natural, contrast = summary.natural, summary.contrast
    objectives = in_order(values(natural, "objective"), OBJECTIVE_LABELS)
    findings = []
    for objective in objectives:
        ours = where(natural, objective=objective)
        found = [
            *_against_baselines(ours),
            *_against_controls(where(contrast, objective=objective)),
            *_over_checkpoints(where(summary.checkpoints, objective=objective, arm="rmr")),
            *_highest(ours),
            *_ranks(ours),
            *_separation(where(run.natural_curves, objective=objective)),
            *_beside_the_paper(where(ours, arm="rmr")),
        ]
        lead = f"{OBJECTIVE_LABELS.get(objective, objective)}, " if len(objectives) > 1 else ""
        findings += [each._replace(subject=lead + each.subject) for each in found]
    return [
        *findings,
        *_missing(natural),
        *_collapses(run),
        *_abstract(summary.abstract),
        *unfinished(run),
    ]


def _against_baselines(natural: pd.DataFrame) -> Iterator[Finding]:
    for arm, baseline in COMPARISONS:
        rows = where(natural, arm=arm).to_dict("records")
        yield from _comparison(arm, baseline, rows, f"{baseline}_")


def _against_controls(contrast: pd.DataFrame) -> Iterator[Finding]:
    for (control,), rows in blocks(contrast, "control").items():
        yield from _comparison("rmr", control, rows, "")


def _comparison(arm: str, baseline: str, rows: Rows, prefix: str) -> Iterator[Finding]:
    """Say on how many games the arm is better, worse, neither, or not to be judged."""
    rows = [row for row in rows if row[f"{prefix}pairs"]]
    if not rows:
        return
    judged = [row for row in rows if row[f"{prefix}verdict"] != TOO_FEW]
    unjudged = [row for row in rows if row[f"{prefix}verdict"] == TOO_FEW]
    said = []
    if judged:
        said.append(f"of {_games(judged)} {_counts(judged, f'{prefix}verdict', named=True)}")
        corrected = _counts(judged, f"{prefix}verdict_bh", named=False)
        said.append(f"after correction for the number of tests {corrected}")
    if unjudged:
        said.append(_unjudged([row[f"{prefix}difference"] for row in unjudged]))
    mean = np.mean([row[f"{prefix}difference"] for row in rows])
    said.append(f"mean difference in bit F1 {text.signed(float(mean))}")
    subject = f"{ARM_LABELS[arm]} against {ARM_LABELS.get(baseline, baseline)}"
    yield Finding(subject, f"{'; '.join(said)}.")


def _separation(curves: pd.DataFrame) -> Iterator[Finding]:
    """Say how far each arm has learnt its objective, and where it hardly has."""
    rows = curves.dropna(subset=["positive_energy", "negative_energy"])
    rows = pd.DataFrame(rows[rows["negative_energy"] > 0])
    latest = rows.groupby(["game", "arm", "seed"])["step"].transform("max")
    last = pd.DataFrame(rows[rows["step"] == latest])
    last["ratio"] = last["positive_energy"] / last["negative_energy"]
    said = []
    for arm in in_order(values(last, "arm"), ARM_LABELS):
        ratios = {
            str(game): float(np.mean([row["ratio"] for row in rows]))
            for (game,), rows in blocks(where(last, arm=arm), "game").items()
        }
        hardly = [game for game, ratio in ratios.items() if ratio > HARDLY]
        mean = sum(ratios.values()) / len(ratios)
        said.append(
            f"{ARM_LABELS.get(arm, arm)} {mean:.2f}, above {HARDLY} on {len(hardly)} of "
            f"{len(ratios)}{text.named(hardly)}"
        )
    if said:
        lead = "energy of the right next state over that of a wrong one, 1 where they are alike"
        yield Finding("How far the objective is learnt", f"{lead}: {'; '.join(said)}.")


def _counts(rows: Rows, column: str, *, named: bool) -> str:
    """Return ``better on 1 (Pong), worse on 0, neither on 2 (...)``."""
    said = []
    for verdict, word in {"better": "better", "worse": "worse", "same": "neither"}.items():
        games = [row["game"] for row in rows if row[column] == verdict]
        said.append(f"{word} on {len(games)}{text.named(games) if named else ''}")
    return ", ".join(said)


def _unjudged(differences: list[float]) -> str:
    above, below = (sum(sign * each > 0 for each in differences) for sign in (1, -1))
    return (
        f"no significance is claimed on {_games(differences)} with fewer than {MIN_PAIRS} paired "
        f"seeds, where the mean difference is above 0 on {above} and below 0 on {below}"
    )


def _over_checkpoints(rows: pd.DataFrame) -> Iterator[Finding]:
    """Say where the sign of RMR minus C-SWM hangs on the probe or the checkpoint."""
    differences = rows.dropna(subset=["cswm_difference"])
    if len(differences.drop_duplicates(subset=["probe", "checkpoint"])) < 2:
        return
    signs: dict[str, list[str]] = {"always above 0": [], "always below 0": [], "of either sign": []}
    for (game,), block in blocks(differences, "game").items():
        positive = sum(row["cswm_difference"] > 0 for row in block)
        negative = sum(row["cswm_difference"] < 0 for row in block)
        if positive == len(block):
            signs["always above 0"].append(game)
        elif negative == len(block):
            signs["always below 0"].append(game)
        else:
            signs["of either sign"].append(f"{game}: above 0 in {positive} of {len(block)}")
    said = [f"{sign} on {len(games)}{text.named(games)}" for sign, games in signs.items()]
    subject = f"{ARM_LABELS['rmr']} minus {ARM_LABELS['cswm']} over all probes and checkpoints"
    count = _games([game for games in signs.values() for game in games])
    yield Finding(subject, f"of {count} the mean difference is {', '.join(said)}.")


def _highest(natural: pd.DataFrame) -> Iterator[Finding]:
    scored = natural.dropna(subset=["micro_f1_mean"])
    scored = scored[~scored["arm"].isin(list(READS_RAM))]
    first: dict[str, list[str]] = {}
    for (game,), rows in blocks(pd.DataFrame(scored), "game").items():
        best = max(rows, key=lambda row: row["micro_f1_mean"])
        first.setdefault(best["label"], []).append(f"{game} {best['micro_f1_mean']:.3f}")
    if first:
        said = [f"{label} on {len(games)}{text.named(games)}" for label, games in first.items()]
        yield Finding("Highest mean bit F1 of what never reads RAM", f"{'; '.join(said)}.")


def _ranks(natural: pd.DataFrame) -> Iterator[Finding]:
    scored = natural.dropna(subset=["effective_rank_mean"])
    by_game = {
        game: {row["arm"]: row["effective_rank_mean"] for row in rows}
        for (game,), rows in blocks(scored, "game").items()
    }
    arms = [arm for arm in ("rmr", "cswm") if any(arm in ranks for ranks in by_game.values())]
    for arm in arms:
        pairs = [(r[arm], r["untrained"]) for r in by_game.values() if {arm, "untrained"} <= set(r)]
        if pairs:
            own, untrained = np.mean(pairs, axis=0)
            lower = [pair for pair in pairs if pair[0] < pair[1]]
            yield Finding(
                f"Effective rank of {ARM_LABELS[arm]}",
                f"mean {own:.1f}, untrained encoder {untrained:.1f}; lower than untrained on "
                f"{len(lower)} of {_games(pairs)}.",
            )


def _beside_the_paper(rows: pd.DataFrame) -> Iterator[Finding]:
    records = [row for row in rows.to_dict("records") if row["cswm_pairs"]]
    known = [row | {"there": paper_verdict(row["game"])} for row in records]
    known = [row for row in known if row["there"]]
    if not known:
        return
    judged = [row for row in known if row["cswm_verdict"] != TOO_FEW]
    agreeing = sum(row["cswm_verdict"] == row["there"] for row in judged)
    ours = (
        f"this run's verdict is the same on {agreeing} of {_games(judged)}"
        if judged
        else "this run has too few seeds for a verdict"
    )
    yield Finding(
        "The paper on RMR against C-SWM (20 seeds, other data and budgets)",
        f"{_counts(known, 'there', named=True)}; {ours}.",
    )


def _missing(natural: pd.DataFrame) -> Iterator[Finding]:
    for row in natural.to_dict("records"):
        if row["seeds"] == 0:
            yield Finding(row["label"], f"no score on {row['game']} at step {row['checkpoint']}.")


def _collapses(run: Run) -> Iterator[Finding]:
    """Name every encoder of which more than half the slots were dead."""
    trained = run.natural[~run.natural["arm"].isin(list(REFERENCE_ARMS))]
    health = pd.DataFrame(trained).dropna(subset=["dead_slots"])
    if health.empty:
        return
    bad = pd.DataFrame(health[values(health, "dead_slots") > SLOTS / 2])
    bad = bad.drop_duplicates(subset=["game", "objective", "arm", "seed"])
    said = [
        f"{ARM_LABELS.get(row['arm'], row['arm'])} on {row['game']}, seed {row['seed']}, step "
        f"{row['step']} ({row['dead_slots']:.0f} dead)"
        for row in bad.to_dict("records")
    ]
    yield Finding(
        f"Collapse (more than half of the {SLOTS} slots dead at a checkpoint)",
        f"{'; '.join(said) or 'none'}.",
    )


def _abstract(table: pd.DataFrame) -> Iterator[Finding]:
    scored = table.dropna(subset=["bit_f1_mean"])
    copies = {
        row["game"]: row["bit_f1_mean"] for row in where(scored, model="copy").to_dict("records")
    }
    said = []
    for (model,), rows in blocks(scored, "model").items():
        beside = [row for row in rows if row["game"] in copies and model != "copy"]
        above = [row for row in beside if row["bit_f1_mean"] > copies[row["game"]]]
        if beside:
            said.append(f"{MODEL_LABELS.get(model, model)} on {len(above)} of {_games(beside)}")
    if said:
        yield Finding(
            "Abstract models with a mean bit F1 above the copy baseline's", f"{'; '.join(said)}."
        )


def unfinished(run: Run) -> Iterator[Finding]:
    """Say what failed, and how many cells of a sweep are not done."""
    problems = run.info.get("problems")
    if isinstance(problems, list) and problems:
        yield Finding("What failed on the way", f"{'; '.join(map(str, problems))}.")
    states = list(values(run.cells, "state"))
    if states and states.count("done") < len(states):
        counts = [f"{states.count(state)} {state}" for state in in_order(states, CELL_STATES)]
        yield Finding("Unfinished", f"of {len(states)} cells of the sweep {', '.join(counts)}.")


def _games(rows: list[Any]) -> str:
    return f"{len(rows)} game{'' if len(rows) == 1 else 's'}"
