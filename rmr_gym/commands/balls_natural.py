"""`rmr-gym balls natural`: P of ball positions inside a video model, against its controls."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import err_console, out_console, print_rows, progress_bars

if TYPE_CHECKING:
    from pandas import DataFrame

    from rmr_gym.protocol.balls_natural import PixelTask
    from rmr_gym.protocol.sweep import Outcome

app = SubcommandApp()
Preset_ = Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")]
Arm_ = Annotated[
    str, tyro.conf.arg(metavar="{rmr,baseline,random_p,shuffled_p,no_p,tuned_p}[_aligned]")
]


@app.command
def train(
    data: Path,
    arm: Arm_ = "rmr",
    seed: int = 0,
    processor: Path | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Train one arm on frames of bouncing balls and print its scores.

    P of the arms that need one is trained on the positions of the same data set. Run again after
    an interruption: it goes on where it was.

    Args:
        data: Folder of a data set recorded from bouncing balls.
        arm: rmr (frozen pretrained P), baseline (P trained end to end), random_p, shuffled_p, no_p,
            tuned_p (pretrained, then trained); with _aligned, the abstract encoder and decoder are
            handed over too.
        seed: Shared by paired arms.
        processor: Artifact of `rmr-gym balls pretrain` in the same world, of the preset's sizes; by
            default P is trained on the positions of this data set.
        preset: Sizes and phases of training.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.protocol import balls_natural  # noqa: PLC0415
    from rmr_gym.protocol.balls_natural_scores import ROW, scored  # noqa: PLC0415

    task = make_task(data, processor, preset, root, device)
    balls_natural.find_arm(arm)
    with progress_bars() as progress_for:
        balls_natural.donor(task, progress_for("abstract P"))
        balls_natural.warm_started(task, seed, progress_for(f"warm start, seed {seed}"))
        balls_natural.trained(task, arm, seed, progress_for(f"{arm}, seed {seed}"))
    _print([scored(task, which, seed) for which in (None, arm)], ROW)


@app.command
def compare(
    data: Path,
    out: Path,
    seeds: int = 3,
    arms: tuple[Arm_, ...] = ("rmr", "baseline", "random_p", "shuffled_p"),
    processor: Path | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
    workers: int = 1,
) -> None:
    """Train every arm with every seed, write a table, and compare where that means anything.

    Ratios between arms are written, to NAME_ratios.csv, only where every arm beats copying the last
    frame.

    Args:
        data: Folder of a data set recorded from bouncing balls.
        out: CSV to write.
        seeds: Number of paired seeds.
        arms: Arms to compare.
        processor: Artifact of `rmr-gym balls pretrain` in the same world, of the preset's sizes; by
            default P is trained on the positions of this data set.
        preset: Sizes and phases of training.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        workers: Runs side by side, each in a process.
    """
    from rmr_gym.protocol import balls_natural_scores as scores  # noqa: PLC0415

    task = make_task(data, processor, preset, root, device)
    with progress_bars() as progress_for:
        progress = progress_for("arms and seeds")
        outcomes = scores.compare(task, range(seeds), arms, workers=workers, progress=progress)
    _report(out, outcomes, scores.ROW)


@app.command
def bottleneck(
    data: Path,
    out: Path,
    dims: tuple[int, ...] = (2, 4, 8, 16, 32, 64),
    seeds: int = 3,
    arms: tuple[Arm_, ...] = ("rmr", "baseline"),
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
    workers: int = 1,
) -> None:
    """Compare arms with latents of several widths, and with the interaction network as P.

    Args:
        data: Folder of a data set recorded from bouncing balls.
        out: CSV to write; ratios go to NAME_ratios.csv as in `compare`.
        dims: Widths of the latents; the preset's own is always there too.
        seeds: Number of paired seeds.
        arms: Arms to compare.
        preset: Sizes and phases of training.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        workers: Runs side by side, each in a process.
    """
    from rmr_gym.protocol import balls_natural_scores as scores  # noqa: PLC0415

    task = make_task(data, None, preset, root, device)
    with progress_bars() as progress_for:
        outcomes = scores.bottleneck(
            task, dims, range(seeds), arms, workers=workers, progress=progress_for("bottleneck")
        )
    _report(out, outcomes, ("core", "dim", *scores.ROW))


@app.command
def pictures(
    data: Path,
    out: Path,
    arm: Arm_ = "rmr",
    seed: int = 0,
    rollouts: int = 3,
    steps: int = 8,
    processor: Path | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Draw rollouts beside the truth and the masks of the slots, as pictures and films.

    Args:
        data: Folder of a data set recorded from bouncing balls.
        out: Folder of the pictures.
        arm: The arm to draw.
        seed: Its seed.
        rollouts: Number of rollouts.
        steps: Frames of a rollout.
        processor: Artifact of `rmr-gym balls pretrain` in the same world, of the preset's sizes; by
            default P is trained on the positions of this data set.
        preset: Sizes and phases of training.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.analysis.balls_figures import (  # noqa: PLC0415
        masks_figure,
        rollout_figure,
        rollout_frames,
    )
    from rmr_gym.analysis.canvas import save_figure  # noqa: PLC0415
    from rmr_gym.analysis.films import write_film  # noqa: PLC0415
    from rmr_gym.protocol.balls_natural_scores import imagined  # noqa: PLC0415

    drawn = imagined(make_task(data, processor, preset, root, device), arm, seed, rollouts, steps)
    figures = {
        f"rollout_{arm}_{n}.png": rollout_figure(past, predicted, truth)
        for n, (past, predicted, truth) in enumerate(
            zip(drawn.past, drawn.predicted, drawn.truth, strict=True)
        )
    }
    figures[f"masks_{arm}.png"] = masks_figure(
        drawn.truth[:, 0], drawn.predicted[:, 0], drawn.masks[:, 0]
    )
    for n, parts in enumerate(
        zip(drawn.past, drawn.predicted, drawn.truth, drawn.masks, strict=True)
    ):
        path = write_film(out / f"rollout_{arm}_{n}.gif", rollout_frames(*parts), fps=4.0)
        out_console.print(f"written: {path}", markup=False, soft_wrap=True)
    for name, figure in figures.items():
        save_figure(figure, out / name)
        out_console.print(f"written: {out / name}", markup=False, soft_wrap=True)


@app.command
def export(
    data: Path,
    arm: Arm_ = "rmr_aligned",
    seed: int = 0,
    out: Path | None = None,
    processor: Path | None = None,
    preset: Preset_ = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
    force: bool = False,
) -> None:
    """Write the encoder of an arm, with its P, as a folder that wrappers and agents read.

    What `train` or `compare` left in ROOT/store is found there; what they did not is trained now.

    Args:
        data: Folder of a data set recorded from bouncing balls.
        arm: As in `train`, or untrained.
        seed: Its seed.
        out: Folder to write; default: ROOT/encoders/WORLD-ARM-SEED-STEP.
        processor: Artifact of `rmr-gym balls pretrain` in the same world, of the preset's sizes; by
            default P is trained on the positions of this data set.
        preset: Sizes and phases of training.
        root: Folder of finished stages.
        device: Where the comparison computed: cpu, cuda, cuda:1 ...
        force: Overwrite an encoder that is there.
    """
    from rmr_gym.protocol.balls_encoder import pretrained_encoder  # noqa: PLC0415

    task = make_task(data, processor, preset, root, device)
    with progress_bars() as progress_for:
        encoder = pretrained_encoder(task, arm, seed, progress_for(f"{arm}, seed {seed}"))
    name = f"{encoder.config.game}-{arm}-{seed}-{encoder.provenance['training']['step']}"
    written = encoder.save_pretrained(out or root / "encoders" / name, overwrite=force)
    out_console.print(f"written: {written}", markup=False, soft_wrap=True)


def make_task(
    data: Path, processor: Path | None, preset: str, root: Path, device: str
) -> "PixelTask":
    """Return the task of a data set; number and radii of the balls are those of its world."""
    from rmr_gym.commands import balls as abstract_commands  # noqa: PLC0415
    from rmr_gym.data.dataset import TransitionDataset  # noqa: PLC0415
    from rmr_gym.protocol.balls_natural import PixelTask  # noqa: PLC0415
    from rmr_gym.protocol.balls_natural_presets import find_pixel_preset  # noqa: PLC0415

    chosen = find_pixel_preset(preset)
    world = abstract_commands.make_task(data, preset, root, device)
    balls = TransitionDataset(data).manifest.columns["state"].shape[0]
    if processor is not None:
        abstract_commands.read_balls_processor(processor)
    abstract = replace(world.preset, validation_share=chosen.validation_share)
    return PixelTask(data, world.store, chosen, balls, world.radii, abstract, processor, device)


def _report(out: Path, outcomes: "Sequence[Outcome]", columns: Sequence[str]) -> None:
    """Write and print the rows of what was finished, then the ratios between arms."""
    import pandas as pd  # noqa: PLC0415

    from rmr_gym.analysis.balls_figures import arms_figure  # noqa: PLC0415
    from rmr_gym.analysis.balls_ratios import ratio_table, worse_than_copy  # noqa: PLC0415
    from rmr_gym.analysis.canvas import save_figure  # noqa: PLC0415

    rows = [outcome.value for outcome in outcomes if not outcome.error]
    table = pd.DataFrame(rows, columns=list(columns))
    _write(out, table)
    _print(rows, columns)
    for outcome in outcomes:
        if outcome.error:
            err_console.print(f"note: {outcome.key}: {outcome.error}", markup=False)
    if worse := worse_than_copy(table):
        out_console.print(
            f"no ratio between arms: {', '.join(worse)} no better than copying the last frame",
            markup=False,
        )
        return
    ratios = ratio_table(table)
    _write(out.with_name(f"{out.stem}_ratios.csv"), ratios)
    if "dim" not in table:
        picture = save_figure(arms_figure(table), out.with_suffix(".png"))
        out_console.print(f"written: {picture}", markup=False, soft_wrap=True)
    print_rows(ratios.to_dict("records"), tuple(ratios))


def _write(out: Path, table: "DataFrame") -> None:
    from rmr_gym.core.files import write_atomically  # noqa: PLC0415

    write_atomically(out, table.to_csv(index=False, lineterminator="\n"))
    out_console.print(f"written: {out}", markup=False, soft_wrap=True)


def _print(rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    readable = [{name: _readable(name, row.get(name, "")) for name in columns} for row in rows]
    print_rows(readable, tuple(columns))


def _readable(name: str, value: Any) -> Any:
    return f"{value:.2e}" if name.endswith("mse") and value != "" else value
