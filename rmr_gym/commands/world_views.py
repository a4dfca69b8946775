"""`rmr-gym world-model views`: models of crops with fewer crops, fewer modules, more balls."""

from pathlib import Path

from tyro.extras import SubcommandApp

from rmr_gym.commands.console import progress_bars
from rmr_gym.commands.tasks import Flat
from rmr_gym.commands.world_runs import WorldRuns, report_run

app = SubcommandApp()
SHOWN = {
    "model": "model",
    "seed": "seed",
    "test": "test",
    "balls": "balls",
    "views": "crops",
    "dropped": "gone",
    "balanced_accuracy": "accuracy",
    "f1": "f1",
}
"""Columns that are printed, and what they are called there."""


@app.command
def views(
    runs: Flat[WorldRuns],
    models: tuple[str, ...] = ("s2gru", "crops_rims", "crops_rmc", "crops_lstm", "crops_oracle"),
    tests: tuple[Path, ...] = (),
    seen: tuple[int, ...] = (),
    dropped: tuple[int, ...] = (),
) -> None:
    """Train models of crops, score them where they see less, and write a run folder and its report.

    Run again after whatever stopped it: finished cells and trainings are kept, failed ones are
    tried again. views.csv has a row a model, seed, test set, number of crops and number of dropped
    modules; enclaves_MODEL_SEED.npz, of each S2RM, which pixels its modules attend to (attended),
    which modules can hear which (heard).

    Args:
        runs: How to compute.
        models: s2gru, s2rmc, s2gru_input_local, s2gru_input_nonlocal, s2gru_cells_local,
            s2gru_cells_nonlocal, crops_lstm, crops_rims, crops_rmc, crops_oracle.
        tests: Other data sets, or environments, to score on beside the validation episodes of the
            data, for instance with more balls.
        seen: Numbers of crops that are seen, beside as many as in training, which is always scored.
        dropped: Numbers of modules to take out, with all crops, beside none; models without so many
            have no such rows.
    """
    from rmr_gym.protocol.world_views_comparison import (  # noqa: PLC0415
        compare_views,
        conditions_of,
    )

    out, seeds = runs.run_folder("world-views"), runs.seed_range(1)
    tasks, conditions = runs.tasks(models), conditions_of(runs.found(tests), seen, dropped)
    with progress_bars() as progress_for:
        problems = compare_views(tasks, seeds, conditions, out, runs.computing(progress_for))
    report_run(out, "views.csv", SHOWN, problems)
