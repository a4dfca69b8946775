"""`rmr-gym balls`: pretrain a processor on ball positions, score rollouts, narrow the latents."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands import balls_films, balls_natural
from rmr_gym.commands.console import err_console, out_console, print_rows, progress_bars
from rmr_gym.core.errors import RMRError

if TYPE_CHECKING:
    from rmr_gym.protocol.balls import BallsTask
    from rmr_gym.protocol.store import Artifact

app = SubcommandApp()
Preset_ = Annotated[str, tyro.conf.arg(metavar="{smoke,quick,laptop,paper}")]

SCORES = (
    "mse_1", "ratio_1", "mse_10", "ratio_10", "outside", "excursion", "energy",
)  # fmt: skip
MODEL = ("model", "predict", "aggregation", "dim", "seed")
REFERENCE = "reflected"
KIND = "balls processor"

app.command(balls_films.films)
app.command(
    balls_natural.app, name="natural", help="Put P into a model of pixels, beside its controls."
)


@app.command
def pretrain(
    data: Path,
    out: Path,
    preset: Preset_ = "laptop",
    core: str | None = None,
    predict: str | None = None,
    aggregation: str | None = None,
    dim: int | None = None,
    seed: int = 0,
    root: Path = Path("runs"),
    device: str = "cpu",
    force: bool = False,
) -> None:
    """Train a processor on the positions of balls and write it as an artifact folder.

    Run again after an interruption: it goes on where it was.

    Args:
        data: Folder of a data set recorded from bouncing balls.
        out: Folder of the artifact to write.
        preset: Sizes and phases of training.
        core: Core of P: mpnn, deep_sets, mlp, interaction or none; default: the preset's.
        predict: What g gives: position (the paper), change or acceleration; default: the preset's.
        aggregation: Of messages: max, sum or mean; default: the preset's.
        dim: Width of a ball's latent vector; default: the preset's.
        seed: Fixes initial weights and batches.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        force: Overwrite an artifact that is there.
    """
    from rmr_gym.protocol.balls import pretrained  # noqa: PLC0415
    from rmr_gym.protocol.store import Artifact, write_artifact  # noqa: PLC0415

    if out.exists() and not force:
        raise RMRError(f"{out} exists already: choose another folder or add --force")
    changes = {"core": core, "predict": predict, "aggregation": aggregation, "dim": dim}
    task = _with_model(
        make_task(data, preset, root, device),
        {name: value for name, value in changes.items() if value is not None},
    )
    with progress_bars() as progress_for:
        artifact = pretrained(task, seed, progress_for("pretraining on positions"))
    described = Artifact(artifact.record | {"kind": KIND, "preset": preset}, artifact.tensors)
    write_artifact(out, described, overwrite=force)
    out_console.print(f"written: {out}", markup=False, soft_wrap=True)
    _print_scores(_score(task, [described]))


@app.command
def evaluate(
    data: Path,
    processors: tuple[Path, ...],
    out: Path | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Roll pretrained pipelines out beside baselines and the simulator, and write a table.

    Args:
        data: Folder of a data set recorded from bouncing balls.
        processors: Artifacts of `rmr-gym balls pretrain`.
        out: CSV to write; default: only print.
        preset: How many windows and instants.
        root: Folder of finished stages.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    artifacts = [read_balls_processor(folder) for folder in processors]
    rows = _score(make_task(data, preset, root, device), artifacts)
    if out is not None:
        _write(out, rows, (*MODEL, "steps", *SCORES))
    _print_scores(rows)


@app.command
def bottleneck(
    data: Path,
    out: Path,
    dims: tuple[int, ...] = (2, 4, 8, 16, 32, 64),
    seeds: int = 3,
    preset: Preset_ = "quick",
    root: Path = Path("runs"),
    device: str = "cpu",
    workers: int = os.cpu_count() or 1,
) -> None:
    """Pretrain with latents of several widths, and the interaction network; write a table.

    Args:
        data: Folder of a data set recorded from bouncing balls.
        out: CSV to write.
        dims: Widths of the latents; the preset's own is always there too.
        seeds: Number of seeds.
        preset: Sizes and phases of training.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        workers: Runs side by side, each in a process.
    """
    from rmr_gym.protocol.balls_scores import bottleneck as sweep  # noqa: PLC0415

    task = make_task(data, preset, root, device)
    with progress_bars() as progress_for:
        progress = progress_for("bottleneck sweep")
        outcomes = sweep(task, dims, range(seeds), workers=workers, progress=progress)
    rows = _with_ratios([outcome.value for outcome in outcomes if not outcome.error], task)
    columns = ("core", "dim", "seed", "training_mse", "validation_mse", *SCORES)
    _write(out, rows, columns)
    shown = ("core", "dim", "seed", "training_mse", "validation_mse", "ratio_1", "ratio_10")
    print_rows([_readable(row) for row in rows], shown)
    for outcome in outcomes:
        if outcome.error:
            err_console.print(f"note: {outcome.key}: {outcome.error}", markup=False)


def make_task(data: Path, preset: str, root: Path, device: str) -> "BallsTask":
    """Return the task of a data set; the radii are those of the world that it was recorded from."""
    from rmr_gym.data.dataset import TransitionDataset  # noqa: PLC0415
    from rmr_gym.models.rmr.pipeline import find_device  # noqa: PLC0415
    from rmr_gym.protocol.balls import BallsTask, find_balls_preset  # noqa: PLC0415
    from rmr_gym.protocol.store import Store  # noqa: PLC0415

    chosen, radii = find_balls_preset(preset), _radii(TransitionDataset(data).manifest.env_kwargs)
    find_device(device)
    return BallsTask(data, Store(root / "store").root, chosen, radii, device)


def read_balls_processor(folder: Path) -> "Artifact":
    """Read an artifact of `rmr-gym balls pretrain`.

    Raises:
        RMRError: It is another.
    """
    from rmr_gym.protocol.store import read_artifact  # noqa: PLC0415

    artifact = read_artifact(folder)
    if artifact.record.get("kind") != KIND:
        raise RMRError(f"{folder} holds no {KIND}: expected a folder from `rmr-gym balls pretrain`")
    return artifact


def _radii(env_kwargs: dict[str, Any]) -> tuple[float, ...]:
    from rmr_gym.envs.balls.config import BallsConfig, configure  # noqa: PLC0415

    names = [field.name for field in fields(BallsConfig)]
    options = {name: env_kwargs[name] for name in names if name in env_kwargs}
    config = configure(env_kwargs.get("preset", "rmr"), options)
    if config.kinds or config.fewest < config.most or config.fixed_ball:
        raise RMRError(
            "expected balls whose number and radii are the same in every episode, and no fixed "
            "ball: record rmr/BouncingBalls-v0"
        )
    return tuple(radius for radius, _ in config.all_kinds)


def _with_model(task: "BallsTask", changes: dict[str, Any]) -> "BallsTask":
    model = replace(task.preset.model, **changes)
    return replace(task, preset=replace(task.preset, model=model))


def _score(task: "BallsTask", artifacts: Sequence["Artifact"]) -> list[dict[str, Any]]:
    from rmr_gym.protocol.balls_scores import scored  # noqa: PLC0415

    rows = []
    for artifact in artifacts:
        record = artifact.record
        known = {name: record["model"][name] for name in ("predict", "aggregation", "dim")}
        known |= {"seed": record["seed"], "steps": record["step"]}
        rows += [{**known, **row} for row in scored(task, artifact)]
    return _with_ratios([*scored(task), *rows], task)


def _with_ratios(rows: Iterable[dict[str, Any]], task: "BallsTask") -> list[dict[str, Any]]:
    """Add the errors' ratios to those of linear extrapolation with reflection at the walls."""
    from rmr_gym.protocol.balls_scores import scored  # noqa: PLC0415

    reference = next(row for row in scored(task) if row["model"] == REFERENCE)
    return [
        {**row, **{f"ratio_{n}": row[f"mse_{n}"] / reference[f"mse_{n}"] for n in (1, 10)}}
        for row in rows
    ]


def _write(out: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    import pandas as pd  # noqa: PLC0415

    from rmr_gym.core.files import write_atomically  # noqa: PLC0415

    table = pd.DataFrame(rows, columns=list(columns))
    for name in {"dim", "seed", "steps"} & set(columns):
        table[name] = table[name].astype("Int64")
    write_atomically(out, table.to_csv(index=False))
    out_console.print(f"written: {out}", markup=False, soft_wrap=True)


def _print_scores(rows: list[dict[str, Any]]) -> None:
    columns = ("model", *(name for name in SCORES if name != "excursion"))
    print_rows([_readable(row) for row in rows], columns)


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """Write errors in powers of ten, which four places would hide."""
    return {name: f"{value:.2e}" if "mse" in name else value for name, value in row.items()}
