"""`rmr-gym world-model`: train models of whole worlds on frames, score them, watch them imagine."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, progress_bars
from rmr_gym.commands.tasks import Flat, many_files
from rmr_gym.commands.world_data import find_data
from rmr_gym.commands.world_runs import (
    Settings,
    WorldRuns,
    make_task,
    print_table,
    report_run,
)
from rmr_gym.commands.world_views import views
from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import check_seed

app = SubcommandApp()
app.command(views)
Preset_ = Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")]
Model_ = Annotated[
    str,
    tyro.conf.arg(
        metavar="{rnem,rnem_no_attention,rnnem,nem,rnn,lstm,rims,rims_lstm,memoryless,s2gru,s2rmc,"
        "crops_lstm,crops_rims,crops_rmc,crops_oracle,rnem_rmr,rims_rmr,...}"
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


@app.command
def train(
    data: Path,
    model: Model_ = "rnem",
    seed: int = 0,
    groups: int | None = None,
    processor: Path | None = None,
    preset: Preset_ = "laptop",
    steps: int | None = None,
    settings: Settings = (),
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
        processor: Artifact of `rmr-gym pretrain`, for the models with a P inside: rnem_ or
            rims_ and rmr, fresh_p, random_p or shuffled_p.
        preset: Sizes and steps.
        steps: Gradient steps at most; default: the preset's.
        settings: Settings of the preset that are changed, those of sizes as sizes.NAME, for
            instance learning_rate=7e-4 sizes.rims.active=5.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.protocol.world_model_checks import check_lengths  # noqa: PLC0415
    from rmr_gym.protocol.world_model_scores import scored  # noqa: PLC0415
    from rmr_gym.protocol.world_models import trained  # noqa: PLC0415

    check_seed(seed)
    task = make_task(data, model, groups, preset, root, device, processor, steps, settings)
    check_lengths(task, [None], task.preset.horizon)
    with progress_bars() as progress_for:
        trained(task, seed, progress_for(f"{model}, seed {seed}"))
    print_table([scored(task, seed)], SHOWN)


@app.command
def evaluate(
    runs: Flat[WorldRuns],
    models: tuple[Model_, ...] = ("rnem", "rnnem", "rnn", "lstm"),
    tests: tuple[Path, ...] = (),
    groups: int | None = None,
    test_groups: tuple[int, ...] = (),
    processor: Path | None = None,
) -> None:
    """Train and score models over seeds, and write a run folder and its report.

    Run again after whatever stopped it: finished cells and trainings are kept, failed ones are
    tried again. Scores are of the validation episodes of the data and of every further test set:
    world_models.csv, simulations.csv, and pairs.csv with what is paired by seed.

    Args:
        runs: How to compute.
        models: Which models.
        tests: Other data sets, or environments, to score on too, for instance with more balls.
        groups: Number of groups (K) in training; default: the preset's.
        test_groups: Number of groups while scoring on ``tests``, for models that have several: one
            for all of them, or one for each.
        processor: Artifact of `rmr-gym pretrain`, for the models with a P inside: rnem_ or
            rims_ and rmr, fresh_p, random_p or shuffled_p.
    """
    from rmr_gym.protocol.world_model_comparison import (  # noqa: PLC0415
        Trial,
        compare_world_models,
    )

    if test_groups and len(test_groups) not in {min(1, len(tests)), len(tests)}:
        raise RMRError(
            "expected one number of --test-groups for all --tests or one for each, got "
            f"{len(test_groups)} for {len(tests)} test sets"
        )
    out, seeds = runs.run_folder("world-models"), runs.seed_range(1)
    tasks = runs.tasks(models, groups, processor)
    each = test_groups or (None,)
    counts = each * len(tests) if len(each) == 1 else each
    trials = [Trial(), *map(Trial, runs.found(tests), counts)]
    with progress_bars() as progress_for:
        problems = compare_world_models(tasks, seeds, trials, out, runs.computing(progress_for))
    report_run(out, "world_models.csv", {"test": "test"} | SHOWN, problems)


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
    steps: int | None = None,
    settings: Settings = (),
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Draw what a trained model sees, groups and predicts, first shown frames and then by itself.

    A model that is not in the store is trained first.

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
        processor: Artifact of `rmr-gym pretrain`, for the models with a P inside: rnem_ or
            rims_ and rmr, fresh_p, random_p or shuffled_p.
        preset: Sizes and steps.
        steps: Gradient steps at most; default: the preset's.
        settings: Settings of the preset that are changed, those of sizes as sizes.NAME, for
            instance learning_rate=7e-4 sizes.rims.active=5.
        root: Folder of finished stages.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.protocol.world_model_rollouts import drawn  # noqa: PLC0415
    from rmr_gym.report.charts import save_figure  # noqa: PLC0415
    from rmr_gym.report.pictures import (  # noqa: PLC0415
        film_frames,
        groups_figure,
        write_film,
    )

    check_seed(seed)
    out = many_files(out)
    task = make_task(data, model, groups, preset, root, device, processor, steps, settings)
    test = test and find_data(test, preset, root)
    with progress_bars() as progress_for:
        sheets = drawn(
            *(task, seed, sequences),
            seen=seen,
            ahead=ahead,
            test=test,
            groups=test_groups,
            progress=progress_for(f"{model}, seed {seed}"),
        )
    for row, sheet in enumerate(sheets):
        save_figure(groups_figure(*sheet), out / f"{model}_{row}.png")
        film = film_frames(sheet.truth, sheet.predicted, sheet.shares)
        write_film(out / f"{model}_{row}.gif", film, fps=8.0)
        out_console.print(
            f"written: {out / model}_{row}.png and .gif", markup=False, soft_wrap=True
        )
