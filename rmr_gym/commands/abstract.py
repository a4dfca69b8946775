"""`rmr-gym abstract`: the paper's Table 2, RAM transition models beside the copy baseline."""

from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, print_rows, progress_bars
from rmr_gym.commands.tasks import Flat, StackedRuns, conclude

app = SubcommandApp()
SHOWN = {
    "game": "game",
    "model": "label",
    "accuracy": "slot_accuracy",
    "paper": "paper_slot_accuracy",
    "F1": "bit_f1",
    "paper's": "paper_bit_f1",
}
"""Headings of the printed table, and what stands under them."""


@app.command
def table(
    games: tuple[str, ...] = ("all",),
    models: tuple[str, ...] = (),
    runs: Flat[StackedRuns] = StackedRuns(seeds=1),
) -> None:
    """Train MLP, Deep Sets and MPNN on the RAM of games, and write Table 2 beside the paper's.

    What `rmr-gym pretrain` or `rmr-gym compare` left under ROOT is found again.

    Args:
        games: Names of games, or "all" for the paper's 24.
        models: mlp, deep_sets, mpnn; default: all three.
        runs: How to compute.
    """
    from rmr_gym.experiments.reports import write_report  # noqa: PLC0415
    from rmr_gym.experiments.table2.report import report  # noqa: PLC0415
    from rmr_gym.protocol.abstract_table import MODELS, abstract_table  # noqa: PLC0415

    seeds, out, chosen = runs.seed_range(1), runs.folder("table2"), runs.chosen()
    with progress_bars() as progress_for:
        tasks = runs.tasks(games, chosen, progress_for)
        problems = abstract_table(
            *(tasks, seeds, out, runs.computing(progress_for)),
            models=models or MODELS,
        )
    rows = report(out).tables["table2"].to_dict("records")
    print_rows([{name: row[column] for name, column in SHOWN.items()} for row in rows], (*SHOWN,))
    out_console.print(f"report: {write_report(out)[0]}", markup=False, soft_wrap=True)
    conclude(None, problems)
