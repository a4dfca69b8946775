"""`rmr-gym measure`: probes on named labels, and ranking of predictions, of a comparison's arms."""

from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, progress_bars
from rmr_gym.commands.tasks import Flat, Runs, conclude

app = SubcommandApp()


@app.command
def measure(
    games: tuple[str, ...] = (),
    objective: str | None = None,
    arms: tuple[str, ...] = (),
    measures: tuple[str, ...] = (),
    runs: Flat[Runs] = Runs(),
) -> None:
    """Probe arms for the labels of Anand et al. 2019 and rank what they predict, as C-SWM does.

    Writes labels.csv, ranking.csv, references.csv and a report. Arms that `rmr-gym compare` trained
    under ROOT are found; ranking needs their P and decoder, which are trained again if they were
    not kept.

    Args:
        games: Names of games, or "all" for the paper's 24; default: the preset's.
        objective: Objective of the arms; default: the preset's.
        arms: Arms and references, and player (the hidden layer of the trained player that sees
            RAM); default: all.
        measures: labels, ranking or both; default: both.
        runs: How to compute.
    """
    from rmr_gym.agents.players.player_features import PLAYER, player_cell  # noqa: PLC0415
    from rmr_gym.experiments.reports import write_report  # noqa: PLC0415
    from rmr_gym.protocol.arms import ARMS, REFERENCES  # noqa: PLC0415
    from rmr_gym.protocol.measures import MEASURES  # noqa: PLC0415
    from rmr_gym.protocol.measures import measure as run_measures  # noqa: PLC0415

    chosen = runs.chosen(objective)
    seeds, out = runs.seed_range(chosen.seeds), runs.folder(chosen.natural.objective, "measures")
    named = arms or (*ARMS, *REFERENCES, PLAYER)
    wanted = measures or MEASURES
    with progress_bars() as progress_for:
        tasks = runs.tasks(games, chosen, progress_for)
        problems = run_measures(
            *(tasks, seeds, out, runs.computing(progress_for)),
            arms=[arm for arm in named if arm != PLAYER],
            measures=wanted,
            extra={PLAYER: player_cell} if PLAYER in named and "labels" in wanted else {},
        )
    report, said = write_report(out)
    out_console.print(said, markup=False, soft_wrap=True)
    for path in (*(out / f"{name}.csv" for name in ("labels", "ranking", "references")), report):
        out_console.print(f"written: {path}", markup=False, soft_wrap=True)
    conclude(None, problems)
