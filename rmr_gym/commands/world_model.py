"""`rmr-gym world-model`: train models of whole worlds on frames, score them, watch them imagine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.balls import read_balls_processor
from rmr_gym.commands.console import out_console, print_rows, progress_bars
from rmr_gym.commands.copying import copying
from rmr_gym.commands.world_data import find_data
from rmr_gym.commands.world_views import views

if TYPE_CHECKING:
    import pandas as pd

    from rmr_gym.protocol.world_models import WorldTask

app = SubcommandApp()
app.command(copying)
app.command(views)
Preset_ = Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")]
Model_ = Annotated[
    str,
    tyro.conf.arg(
        metavar="{rnem,rnem_no_attention,rnnem,nem,rnn,lstm,rims,rims_lstm,s2gru,s2rmc,crops_lstm,"
        "crops_rims,crops_rmc,crops_oracle,rnem_rmr,rims_rmr,...}"
    ),
]
SHOWN = {
    "model": "model",
    "groups": "K",
    "seed": "seed",
    "relative_bce": "bce/copy",
    "relative_relational_bce": "relational",
    "relative_rollout_bce": "simulated",
    "ari": "ari",
    "ari_last": "ari last",
}
"""Columns that are printed, and what they are called there; losses are relative to copying."""
COMPARED = {
    "model": "model",
    "against": "against",
    "score": "score",
    "improvement": "better by",
    "p_better": "p",
    "verdict_bh": "corrected",
}
"""Columns of the comparison by seed that are printed, and what they are called there."""


@app.command
def train(
    data: Path,
    model: Model_ = "rnem",
    seed: int = 0,
    groups: int | None = None,
    processor: Path | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Train a world model on frames of one channel, and print its scores.

    Run again after an interruption: it goes on where it was.

    Args:
        data: Folder of a data set, or an environment that is played now, for instance
            rmr/RNEMBalls4-v0. Groups and collisions are scored where it was recorded with
            observe=["radii","velocities"].
        model: Which model.
        seed: Fixes initial weights, batches and noise.
        groups: Number of groups (K) in training; default: the preset's.
        processor: Artifact of `rmr-gym balls pretrain`, for the models with a P inside: rnem_ or
            rims_ and rmr, fresh_p, random_p or shuffled_p.
        preset: Sizes and steps.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.protocol.world_model_scores import scored  # noqa: PLC0415
    from rmr_gym.protocol.world_models import trained  # noqa: PLC0415

    task = make_task(data, model, groups, preset, root, device, processor)
    with progress_bars() as progress_for:
        trained(task, seed, progress_for(f"{model}, seed {seed}"))
    _print([scored(task, seed)])


@app.command
def evaluate(
    data: Path,
    models: tuple[Model_, ...] = ("rnem", "rnnem", "rnn", "lstm"),
    out: Path | None = None,
    test: Path | None = None,
    seeds: int = 1,
    groups: int | None = None,
    test_groups: int | None = None,
    processor: Path | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Score trained models, those that are missing are trained, and write a table and a figure.

    Where there is a model with a pretrained P inside (rnem_rmr, rims_rmr), NAME_pairs.csv compares
    it by seed with the others of its family.

    Args:
        data: Folder of the data set that they are trained on, or an environment.
        models: Which models.
        out: CSV to write; the figure of the simulations goes to NAME_simulation.png.
        test: Another data set, or environment, to score on, for instance with more balls;
            default: the validation episodes of ``data``.
        seeds: Number of seeds.
        groups: Number of groups (K) in training; default: the preset's.
        test_groups: Number of groups while scoring, for models that have several.
        processor: Artifact of `rmr-gym balls pretrain`, for the models with a P inside: rnem_ or
            rims_ and rmr, fresh_p, random_p or shuffled_p.
        preset: Sizes and steps.
        root: Folder of finished stages.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.protocol.world_model_presets import find_world_model  # noqa: PLC0415
    from rmr_gym.protocol.world_model_scores import scored  # noqa: PLC0415
    from rmr_gym.protocol.world_models import trained  # noqa: PLC0415

    rows = []
    test = test and find_data(test, preset, root)
    grouped = [find_world_model(model).grouped for model in models]
    tasks = [
        make_task(data, model, groups if several else None, preset, root, device, processor)
        for model, several in zip(models, grouped, strict=True)
    ]
    with progress_bars() as progress_for:
        for task, several in zip(tasks, grouped, strict=True):
            for seed in range(seeds):
                trained(task, seed, progress_for(f"{task.model}, seed {seed}"))
                rows.append(scored(task, seed, test, test_groups if several else None))
    _print(rows)
    if out is not None:
        _write(out, rows)


@app.command
def rollout(
    data: Path,
    out: Path,
    model: Model_ = "rnem",
    seed: int = 0,
    sequences: int = 3,
    seen: int = 10,
    ahead: int = 10,
    test: Path | None = None,
    groups: int | None = None,
    test_groups: int | None = None,
    processor: Path | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Draw what a trained model sees, groups and predicts, first shown frames and then by itself.

    Args:
        data: Folder of the data set that it was trained on, or the environment.
        out: Folder of MODEL_N.png and MODEL_N.gif.
        model: Which model.
        seed: Its seed.
        sequences: Number of sequences.
        seen: Frames that are shown.
        ahead: Frames that it predicts from its own predictions.
        test: Another data set, or environment, to take the sequences from.
        groups: Number of groups (K) in training; default: the preset's.
        test_groups: Number of groups now.
        processor: Artifact of `rmr-gym balls pretrain`, for the models with a P inside: rnem_ or
            rims_ and rmr, fresh_p, random_p or shuffled_p.
        preset: Sizes and steps.
        root: Folder of finished stages.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.analysis.canvas import save_figure  # noqa: PLC0415
    from rmr_gym.analysis.films import write_film  # noqa: PLC0415
    from rmr_gym.analysis.world_model_figures import film_frames, groups_figure  # noqa: PLC0415
    from rmr_gym.protocol.world_model_rollouts import drawn  # noqa: PLC0415

    task = make_task(data, model, groups, preset, root, device, processor)
    test = test and find_data(test, preset, root)
    sheets = drawn(task, seed, sequences, seen=seen, ahead=ahead, test=test, groups=test_groups)
    for row, sheet in enumerate(sheets):
        save_figure(groups_figure(*sheet), out / f"{model}_{row}.png")
        film = film_frames(sheet.truth, sheet.predicted, sheet.shares)
        write_film(out / f"{model}_{row}.gif", film, fps=8.0)
        out_console.print(
            f"written: {out / model}_{row}.png and .gif", markup=False, soft_wrap=True
        )


def make_task(
    data: Path,
    model: str,
    groups: int | None,
    preset: str,
    root: Path,
    device: str,
    processor: Path | None = None,
) -> "WorldTask":
    """Return the task of some data; the processor is for models with a P inside alone."""
    from rmr_gym.models.pipeline import find_device  # noqa: PLC0415
    from rmr_gym.protocol.store import Store  # noqa: PLC0415
    from rmr_gym.protocol.world_model_presets import (  # noqa: PLC0415
        find_world_model,
        find_world_preset,
    )
    from rmr_gym.protocol.world_models import WorldTask  # noqa: PLC0415

    chosen = find_world_preset(preset, model)
    find_device(device)
    if find_world_model(model).arm is None:
        processor = None
    elif processor is not None:
        read_balls_processor(processor)
    store = Store(root / "store").root
    data = find_data(data, preset, root)
    return WorldTask(data, store, model, chosen, groups, device, processor)


def _write(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pandas as pd  # noqa: PLC0415

    from rmr_gym.analysis.canvas import save_figure  # noqa: PLC0415
    from rmr_gym.analysis.world_model_figures import simulation_figure  # noqa: PLC0415
    from rmr_gym.analysis.world_model_pairs import paired_rows  # noqa: PLC0415
    from rmr_gym.atomic import write_atomically  # noqa: PLC0415
    from rmr_gym.protocol.world_model_scores import ROW  # noqa: PLC0415

    table = pd.DataFrame(rows, columns=list(ROW))
    write_atomically(out, table.to_csv(index=False, lineterminator="\n"))
    curves = {f"{row['model']} {row['seed']}": row["rollout"] for row in rows}
    figure = simulation_figure(curves, rows[0]["rollout_copied"])
    picture = save_figure(figure, out.with_name(f"{out.stem}_simulation.png"))
    written = [out, picture]
    pairs = paired_rows(table)
    if len(pairs):
        written.append(out.with_name(f"{out.stem}_pairs.csv"))
        write_atomically(written[-1], pairs.to_csv(index=False, lineterminator="\n"))
        print_rows(_compared(pairs), tuple(COMPARED.values()))
    for path in written:
        out_console.print(f"written: {path}", markup=False, soft_wrap=True)


def _compared(pairs: "pd.DataFrame") -> list[dict[str, Any]]:
    rows = [
        {label: pairs[name].iloc[row] for name, label in COMPARED.items()}
        for row in range(len(pairs))
    ]
    return [row | {"score": SHOWN[row["score"]]} for row in rows]


def _print(rows: Sequence[dict[str, Any]]) -> None:
    readable = [
        {label: "" if row[name] is None else row[name] for name, label in SHOWN.items()}
        for row in rows
    ]
    print_rows(readable, tuple(SHOWN.values()))
