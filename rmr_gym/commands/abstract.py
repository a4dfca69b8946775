"""`rmr-gym abstract`: the paper's Table 2, RAM transition models beside the copy baseline."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import err_console, out_console, print_rows, progress_bars
from rmr_gym.commands.tasks import game_tasks, worker_count
from rmr_gym.errors import RMRError

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
    preset: Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")] = "laptop",
    models: tuple[str, ...] = (),
    seeds: int = 1,
    data: Path | None = None,
    out: Path | None = None,
    root: Path = Path("runs"),
    device: str = "cpu",
    stack: int | None = None,
    workers: int | None = None,
) -> None:
    """Train MLP, Deep Sets and MPNN on the RAM of games, and write Table 2 beside the paper's.

    What `rmr-gym pretrain` or `rmr-gym compare` left under ROOT is found again.

    Args:
        games: Names of games, or "all" for the paper's 24.
        preset: Sizes, steps and episodes.
        models: mlp, deep_sets, mpnn; default: all three.
        seeds: Number of seeds.
        data: Folder of data sets, called GAME or GAME-EPISODESxSTEPS; default: ROOT/data. What is
            not there is recorded.
        out: Run folder; default: ROOT/PRESET-table2.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        stack: Pretrainings that run as one model; default: 40 on a GPU, 1 elsewhere.
        workers: Processes that work side by side; default: one a core, 1 with a GPU.
    """
    from rmr_gym.analysis.abstract_comparison import (  # noqa: PLC0415
        abstract_comparison,
        write_abstract_comparison,
    )
    from rmr_gym.analysis.run import load_run  # noqa: PLC0415
    from rmr_gym.protocol.abstract_table import MODELS, abstract_table  # noqa: PLC0415
    from rmr_gym.protocol.config import find_preset  # noqa: PLC0415

    if seeds < 1:
        raise RMRError(f"seeds must be 1 or more, got {seeds}")
    out = out or root / f"{preset}-table2"
    chosen, workers = find_preset(preset), worker_count(workers, device)
    with progress_bars() as progress_for:
        tasks = game_tasks(
            *(games, chosen, root),
            **{"data": data, "device": device, "workers": workers, "progress_for": progress_for},
        )
        problems = abstract_table(
            tasks,
            range(seeds),
            out,
            command=shlex.join(["rmr-gym", *sys.argv[1:]]),
            models=models or MODELS,
            stack=stack,
            workers=workers,
            progress_for=progress_for,
        )
    run = load_run(out)
    rows = abstract_comparison(run).to_dict("records")
    print_rows([{name: row[column] for name, column in SHOWN.items()} for row in rows], (*SHOWN,))
    for path in write_abstract_comparison(run, out):
        out_console.print(f"written: {path}", markup=False, soft_wrap=True)
    for problem in problems:
        err_console.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)
