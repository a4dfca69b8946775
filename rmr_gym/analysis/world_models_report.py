"""The page of a comparison of world models."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rmr_gym.analysis import html, text
from rmr_gym.analysis.html import Group, Row
from rmr_gym.analysis.page import Drawing, Page, chart_kind, pictures
from rmr_gym.analysis.reading import Finding, unfinished
from rmr_gym.analysis.run import blocks, read_run
from rmr_gym.analysis.sections import description_section, run_summary
from rmr_gym.analysis.world_model_charts import score_dots, simulation_curves, validation_curves
from rmr_gym.analysis.world_model_pairs import PRIVILEGED
from rmr_gym.analysis.world_model_sections import (
    PAIRED,
    SHARED,
    VALIDATION,
    pairs_section,
    spoken_verdict,
)
from rmr_gym.analysis.world_models import SCORES, names, pair_table, read_world_models, score_table

NOTES = (
    "BCE is in nats a frame, over the last predictions of each test sequence, every frame being "
    "shown. Relative BCE divides it by that of copying the frame before: below 1 is better than "
    "copying. A wrong pixel of a copied frame costs 13.8 nats, the clipping of R-NEM's code, so "
    "that the ratio hangs on that convention; orders of models do not.",
    "N-EM, RNN-EM, R-NEM, rnn and lstm see frames with flipped pixels, as in R-NEM's code, while "
    "they are scored too (a fifth of the pixels; 2 % in worlds with actions); RIMs and models of "
    "crops see clean ones. Orders across that line are not orders of the models alone.",
    "memoryless is a control, not a model of a world: two layers that see the 7 x 7 pixels around "
    "each one in the last frame, without noise. It cannot know what moves where.",
    VALIDATION,
    SHARED,
    "Relational BCE counts the pixels of balls that collide; it is there where the data tell radii "
    "and velocities.",
    "Simulated scores are of frames that a model predicts from its own predictions, after some "
    "that it was shown; relative ones divide by copying the last frame shown. A sharp frame whose "
    "balls are a little off costs more BCE than a gray cloud; F1, of the pixels that are predicted "
    "to be lit (above .5), gives the cloud nothing.",
    "ARI compares the groups of a model with the balls, on the pixels that balls own: 1 is the "
    "same grouping, 0 chance. The first frame does not count.",
    "Models that see crops cannot copy what they do not see, so that a relative BCE above 1 is no "
    "sign of failure there. crops_oracle is shown what it is asked about: a privileged reference, "
    "compared with nothing.",
    f"{PAIRED} Correction is over the rows of a test set.",
    "Validation losses are what training minimises: those of models with groups hold a term for "
    "the pixels that a group does not own, and do not compare with others.",
)
"""How to read a comparison of world models."""


def world_models_page(folder: Path, saved: Path) -> Page:
    """Return the page of a run of `rmr-gym world-model evaluate`; what is missing is left out.

    Args:
        folder: The run folder.
        saved: Where figures are saved as files.

    Raises:
        RMRError: A file of the folder is damaged, or a figure cannot be saved.
    """
    run, tables = read_run(folder), read_world_models(folder)
    rows = tables["world_models"]
    scores, pairs = score_table(rows), pair_table(rows)
    said = [*_best(scores), *_groups(scores), *_pairs(pairs), *unfinished(run)]
    missing = "This run has no results yet."
    sections = {
        "Unfinished": html.paragraph(missing) if rows.empty else "",
        "What the numbers say": html.definitions(said),
        "Pictures": pictures(_drawings(tables), saved),
        "Scores": _scores_section(scores),
        "Paired differences": pairs_section(pairs, "test", SCORES),
        "What was run": description_section(run),
        "How to read this": html.bullets(NOTES),
    }
    models = names(rows, "model")
    written = {"world_models_summary.csv": scores, "pairs.csv": pairs}
    return Page(
        title=f"World models: {text.listing(models) if models else 'no models yet'}",
        lead=html.paragraph(run_summary(run)),
        sections=sections,
        tables={name: table for name, table in written.items() if not table.empty},
        text="\n".join(map(str, said)) or missing,
    )


def _drawings(tables: dict[str, pd.DataFrame]) -> Iterator[Drawing]:
    rows = tables["world_models"]
    kind = chart_kind(len(names(rows, "test")))
    seeds = "Strokes are seeds, dots their means."
    yield Drawing(
        "relative_bce",
        kind,
        f"BCE relative to copying the frame before; left of the dotted line is better. {seeds}",
        partial(score_dots, rows, ("relative_bce", "relative_relational_bce"), 1.0),
    )
    yield Drawing(
        "simulations",
        kind,
        "BCE of frames that a model predicts from its own predictions. Lines are means over seeds, "
        "bands their range.",
        partial(simulation_curves, tables["simulations"]),
    )
    yield Drawing(
        "simulations_f1",
        kind,
        "F1 (harmonic mean of precision and recall) of the pixels of the same frames that are "
        "predicted to be lit. 1 is best.",
        partial(simulation_curves, tables["simulations"], "f1"),
    )
    yield Drawing(
        "ari",
        kind,
        f"Adjusted Rand index of the groups against the balls. {seeds}",
        partial(score_dots, rows, ("ari", "ari_last")),
    )
    yield Drawing(
        "validation",
        "svg",
        "Loss on validation sequences along training. Lines are means over seeds, bands their "
        "range.",
        partial(validation_curves, tables["world_model_curves"]),
    )


def _best(scores: pd.DataFrame) -> Iterator[Finding]:
    """Say of each test set which model has the least BCE, and who beats copying."""
    for (test,), rows in blocks(scores.dropna(subset="relative_bce_mean"), "test").items():
        fair = sorted(
            (row for row in rows if row["model"] not in PRIVILEGED),
            key=lambda row: row["relative_bce_mean"],
        )
        if not fair:
            continue
        told = [f"{row['model']} {text.number(row['relative_bce_mean'])}" for row in fair]
        said = f"{told[0]} is the least" if len(told) > 1 else told[0]
        said += f", then {text.listing(told[1:])}" if len(told) > 1 else ""
        below = [row["model"] for row in fair if row["relative_bce_mean"] < 1]
        said += f". Better than copying: {text.listing(below) if below else 'none'}."
        for row in rows:
            if row["model"] in PRIVILEGED:
                mean = text.number(row["relative_bce_mean"])
                said += f" Privileged: {row['model']} {mean}."
        yield Finding(f"Relative BCE on {test}, mean over {_seeds(fair)}", said)


def _groups(scores: pd.DataFrame) -> Iterator[Finding]:
    """Say how well the groups are the balls."""
    for (test,), rows in blocks(scores.dropna(subset="ari_mean"), "test").items():
        best_first = sorted(rows, key=lambda row: -row["ari_mean"])
        told = [
            f"{row['model']} {text.number(row['ari_mean'])} (last frames "
            f"{text.number(row['ari_last_mean'])})"
            for row in best_first
        ]
        yield Finding(f"ARI on {test}, mean over {_seeds(rows)}", f"{', '.join(told)}.")


def _pairs(pairs: pd.DataFrame) -> Iterator[Finding]:
    """Say of each model by how much it improves on each of its opponents."""
    for (test, model), block in blocks(pairs, "test", "model").items():
        said = []
        for (against,), rows in blocks(pd.DataFrame(block), "against").items():
            told = [
                f"{SCORES[row['score']]} {text.signed(row['improvement'])} ({spoken_verdict(row)})"
                for row in rows
            ]
            said.append(f"over {against}: {', '.join(told)}")
        yield Finding(f"What {model} improves on {test}", f"{'; '.join(said)}.")


def _seeds(rows: list[dict[Any, Any]]) -> str:
    counts = sorted({row["seeds"] for row in rows})
    listed = text.listing(list(map(str, counts)))
    return f"{listed} seed{'' if counts == [1] else 's'}"


def _scores_section(scores: pd.DataFrame) -> str:
    header = ("model", "groups", "seeds", *SCORES.values())
    shown: list[Row] = []
    for (test,), rows in blocks(scores, "test").items():
        balls = rows[0]["balls"]
        shown.append(Group(test if pd.isna(balls) else f"{test}: {balls:.0f} balls"))
        shown += [
            [
                f"{row['model']}{' (privileged)' if row['model'] in PRIVILEGED else ''}",
                text.number(row["groups"], 0),
                str(row["seeds"]),
                *(text.spread(row[f"{score}_mean"], row[f"{score}_std"]) for score in SCORES),
            ]
            for row in rows
        ]
    return html.table(header, shown, "Mean ± deviation over seeds") if shown else ""
