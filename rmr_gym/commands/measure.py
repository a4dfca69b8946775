"""`rmr-gym measure`: probes on named labels, and ranking of predictions, of a comparison's arms."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import err_console, out_console, print_rows, progress_bars
from rmr_gym.commands.tasks import game_tasks
from rmr_gym.errors import RMRError

app = SubcommandApp()


@app.command
def measure(
    games: tuple[str, ...] = (),
    preset: Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")] = "laptop",
    objective: str | None = None,
    seeds: int | None = None,
    arms: tuple[str, ...] = (),
    measures: tuple[str, ...] = (),
    data: Path | None = None,
    out: Path | None = None,
    root: Path = Path("runs"),
    device: str = "cpu",
    workers: int = os.cpu_count() or 1,
) -> None:
    """Probe arms for the labels of Anand et al. 2019 and rank what they predict, as C-SWM does.

    Writes labels.csv, ranking.csv and references.csv. Arms that `rmr-gym compare` trained under
    ROOT are found; ranking needs their P and decoder, which are trained again if they were not
    kept.

    Args:
        games: Names of games, or "all" for the paper's 24; default: the preset's.
        preset: Sizes, steps, checkpoints and the number of seeds.
        objective: Objective of the arms; default: the preset's.
        seeds: Number of paired seeds; default: the preset's.
        arms: Arms and references, and player (the hidden layer of the trained player that sees
            RAM); default: all.
        measures: labels, ranking or both; default: both.
        data: Folder of data sets, called GAME or GAME-EPISODESxSTEPS; default: ROOT/data. What is
            not there is recorded.
        out: Run folder; default: ROOT/PRESET-OBJECTIVE-measures.
        root: Folder of finished stages; what is found there is not done again.
        device: Where to compute: cpu, cuda, cuda:1 ...
        workers: Processes that work side by side.
    """
    from rmr_gym.agents.player_features import PLAYER, player_cell  # noqa: PLC0415
    from rmr_gym.protocol.arms import ARMS, REFERENCES  # noqa: PLC0415
    from rmr_gym.protocol.config import find_preset  # noqa: PLC0415
    from rmr_gym.protocol.measures import MEASURES  # noqa: PLC0415
    from rmr_gym.protocol.measures import measure as run_measures  # noqa: PLC0415

    chosen = find_preset(preset).with_objective(objective)
    if seeds is not None and seeds < 1:
        raise RMRError(f"seeds must be 1 or more, got {seeds}")
    out = out or root / f"{preset}-{chosen.natural.objective}-measures"
    named = arms or (*ARMS, *REFERENCES, PLAYER)
    wanted = measures or MEASURES
    with progress_bars() as progress_for:
        tasks = game_tasks(
            *(games, chosen, root),
            **{"data": data, "device": device, "workers": workers, "progress_for": progress_for},
        )
        problems = run_measures(
            tasks,
            range(seeds or chosen.seeds),
            out,
            command=shlex.join(["rmr-gym", *sys.argv[1:]]),
            arms=[arm for arm in named if arm != PLAYER],
            measures=wanted,
            extra={PLAYER: player_cell} if PLAYER in named and "labels" in wanted else {},
            workers=workers,
            progress_for=progress_for,
        )
    _print(out)
    for problem in problems:
        err_console.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)


def _print(out: Path) -> None:
    """Print means over seeds: of all labels, and of the ranks, at each arm's last step."""
    import pandas as pd  # noqa: PLC0415

    from rmr_gym.protocol.labels_probe import ALL_LABELS  # noqa: PLC0415

    labels, ranking = (pd.read_csv(out / f"{name}.csv") for name in ("labels", "ranking"))
    labels = labels[labels["category"] == ALL_LABELS]
    for table, keys, scores in (
        (labels, ["game", "arm", "step"], ["macro_f1", "weighted_f1", "accuracy"]),
        (ranking, ["game", "arm", "step", "ahead"], ["hits_at_1", "mrr", "tied"]),
    ):
        if len(table):
            means = pd.DataFrame(table).pivot_table(scores, keys, sort=False).reset_index()
            rows = [
                {str(name): value for name, value in row.items()}
                for row in means.to_dict("records")
            ]
            print_rows(rows, (*keys, *scores))
    for name in ("labels", "ranking", "references"):
        out_console.print(f"written: {out / name}.csv", markup=False, soft_wrap=True)
