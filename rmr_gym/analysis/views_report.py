"""The page of models of crops that see less."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from rmr_gym.analysis import html, text
from rmr_gym.analysis.html import Entry, Row
from rmr_gym.analysis.page import Drawing, Page, pictures
from rmr_gym.analysis.reading import Finding, unfinished
from rmr_gym.analysis.run import Run, blocks, read_run, where
from rmr_gym.analysis.run_files import read_arrays
from rmr_gym.analysis.sections import description_section, run_summary
from rmr_gym.analysis.views import (
    CONDITION,
    DROPS,
    QUESTIONS,
    SCORES,
    cost_pairs,
    costs,
    read_views,
    view_table,
)
from rmr_gym.analysis.views_figures import enclaves_figure, views_figure
from rmr_gym.analysis.world_model_charts import validation_curves
from rmr_gym.analysis.world_model_pairs import PRIVILEGED
from rmr_gym.analysis.world_model_sections import (
    PAIRED,
    SHARED,
    VALIDATION,
    pairs_section,
    spoken_verdict,
)
from rmr_gym.analysis.world_models import names, read_world_models
from rmr_gym.core.errors import RMRError

NOTES = (
    "F1 and balanced accuracy (the mean of recall and specificity) are of the pixels of the crops "
    "that a model is asked about, one step ahead, over all frames but the first of each sequence; "
    "it sees other crops, at other places.",
    "Where balls, crops or modules vary, the other two stay as in training. The number of crops "
    "that are asked about never varies.",
    "Which modules are taken out is drawn once: those that go first are gone too when more go.",
    "The relative drop is the part that is lost of the F1 in training's condition: a model that is "
    "worse to begin with can lose less of it in absolute terms.",
    "crops_oracle is shown crops of the very frame that it is asked about: a privileged reference, "
    "no competitor.",
    "Enclaves: how much each module attends to each pixel, and which modules can hear which.",
    "Models have different numbers of modules: to lose five is more to one that has six.",
    f"What degrades least is said of means over seeds; the tests are of relative drops. {PAIRED} "
    "Correction is over the rows of one question.",
    VALIDATION,
    SHARED,
)
"""How to read a run of models of crops."""

BARE = "No model was scored with all crops and all modules."


def views_page(folder: Path, saved: Path) -> Page:
    """Return the page of a run of `rmr-gym world-model views`; what is missing is left out.

    Args:
        folder: The run folder.
        saved: Where figures are saved as files.

    Raises:
        RMRError: A file of the folder is damaged, or a figure cannot be saved.
    """
    run, rows = read_run(folder), read_views(folder)
    trained_on = _trained_on(run)
    table, lost = view_table(rows), costs(rows, trained_on)
    pairs = cost_pairs(rows, trained_on)
    said = [*_best(table), *_reading(lost), *_compared(pairs), *unfinished(run)]
    missing = "This run has no results yet."
    sections = {
        "Unfinished": html.paragraph(missing) if rows.empty else "",
        "What the numbers say": html.definitions(said),
        "Pictures": pictures(_drawings(folder, rows, trained_on), saved),
        "What less sight costs": _costs_section(lost),
        "Paired differences": pairs_section(pairs, "question", DROPS, QUESTIONS),
        **{f"Scores: {SCORES[score]}": _scores_section(table, score) for score in SCORES},
        "What was run": description_section(run),
        "How to read this": html.bullets(NOTES),
    }
    models = names(rows, "model")
    tables = {"views_summary.csv": table, "views_costs.csv": lost, "views_pairs.csv": pairs}
    return Page(
        title=f"Models of crops: {text.listing(models) if models else 'no models yet'}",
        lead=html.paragraph(run_summary(run)),
        sections=sections,
        tables={name: each for name, each in tables.items() if not each.empty},
        text="\n".join(map(str, said)) or (missing if rows.empty else BARE),
    )


def _trained_on(run: Run) -> int | None:
    data = run.info.get("data")
    balls = data.get("balls") if isinstance(data, dict) else None
    return balls if isinstance(balls, int) else None


def _drawings(folder: Path, rows: pd.DataFrame, trained_on: int | None) -> Iterator[Drawing]:
    if not rows.empty:
        yield Drawing(
            "views",
            "svg",
            "F1 against the number of balls, of crops and of modules taken out; means over seeds.",
            partial(views_figure, rows, trained_on),
        )
    for path in sorted(folder.glob("enclaves_*.npz")):
        arrays = read_arrays(path)
        if not {"attended", "heard"} <= {*arrays}:
            raise RMRError(
                f"{path} lacks attended or heard: expected what `rmr-gym world-model views` wrote; "
                "delete it"
            )
        model, _, seed = path.stem.removeprefix("enclaves_").rpartition("_")
        yield Drawing(
            path.stem,
            "png",
            f"{model}, seed {seed}: how much each module attends to each pixel, and which modules "
            "can hear which.",
            partial(enclaves_figure, arrays["attended"], arrays["heard"]),
        )
    yield Drawing(
        "validation",
        "svg",
        "Loss on validation sequences along training. Lines are means over seeds, bands their "
        "range.",
        partial(validation_curves, read_world_models(folder)["world_model_curves"]),
    )


def _reading(lost: pd.DataFrame) -> Iterator[Finding]:
    """Say what each model loses, and which loses least."""
    for (question,), rows in blocks(lost, "question").items():
        between = f"from {rows[0]['usual']:.0f} to {rows[0]['hardest']:.0f} {QUESTIONS[question]}"
        told = [
            f"{_named(row['model'])} {text.number(row['f1'])} to {text.number(row['f1_hardest'])} "
            f"({text.signed(-row['drop'])}, {text.signed(-100 * row['relative'], 1)} %)"
            for row in rows
        ]
        yield Finding(f"F1 {between}", f"{', '.join(told)}.")
        fair = [row for row in rows if row["model"] not in PRIVILEGED]
        if len(fair) > 1:
            share, points = (min(fair, key=lambda row: row[by]) for by in ("relative", "drop"))
            yield Finding(
                f"Degrades least {between}",
                f"{share['model']} relative to where it stood, {points['model']} in F1 (means; not "
                "tested).",
            )


def _compared(pairs: pd.DataFrame) -> Iterator[Finding]:
    """Say of each model by how much less it loses than what it is compared with."""
    for (question, model), rows in blocks(pairs, "question", "model").items():
        told = [
            f"{abs(100 * row['improvement']):.1f} points "
            f"{'less' if row['improvement'] >= 0 else 'more'} than {row['against']} "
            f"({spoken_verdict(row)})"
            for row in rows
        ]
        subject = f"Relative drop of {model} by {QUESTIONS[question]}, paired by seed"
        yield Finding(subject, f"{', '.join(told)}.")


def _best(table: pd.DataFrame) -> Iterator[Finding]:
    """Say how good each model is on each test set, with all crops and all modules."""
    whole = where(table, views=table["views"].max(), dropped=0)
    for (test,), rows in blocks(whole.dropna(subset="f1_mean"), "test").items():
        ranked = sorted(rows, key=lambda row: (row["model"] in PRIVILEGED, -row["f1_mean"]))
        told = [f"{_named(row['model'])} {text.number(row['f1_mean'])}" for row in ranked]
        yield Finding(f"F1 on {test}", f"{', '.join(told)}.")


def _named(model: str) -> str:
    return f"{model} (privileged)" if model in PRIVILEGED else model


def _costs_section(lost: pd.DataFrame) -> str:
    header = ("model", "what varies", "seeds", "from", "to", "F1", "F1 then", "lost", "relative")
    rows: list[Row] = [
        [
            _named(row["model"]),
            QUESTIONS[row["question"]],
            str(row["seeds"]),
            f"{row['usual']:.0f}",
            f"{row['hardest']:.0f}",
            text.number(row["f1"]),
            text.number(row["f1_hardest"]),
            text.number(row["drop"]),
            f"{text.number(100 * row['relative'], 1)} %",
        ]
        for row in lost.to_dict("records")
    ]
    return html.table(header, rows, "Means over the seeds that have both scores") if rows else ""


def _scores_section(table: pd.DataFrame, score: str) -> str:
    if table.empty:
        return ""
    models = names(table, "model")
    header = ("test set", "balls", "crops", "modules out", *map(_named, models))
    shown: list[Row] = []
    for (test, balls, views, dropped), rows in blocks(
        table.fillna({"balls": -1}), *CONDITION
    ).items():
        means = {
            row["model"]: text.spread(row[f"{score}_mean"], row[f"{score}_std"]) for row in rows
        }
        shown.append(
            [
                test,
                text.MISSING if balls < 0 else f"{balls:.0f}",
                f"{views:.0f}",
                f"{dropped:.0f}",
                *(Entry(means.get(model, text.MISSING)) for model in models),
            ]
        )
    return html.table(header, shown, "Mean ± deviation over seeds")
