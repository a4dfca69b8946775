"""A study of objectives: the arms of a comparison under several losses and amounts of data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.arms import find_arm
from rmr_gym.protocol.compare import (
    NATURAL_COLUMNS,
    NATURAL_CURVE_COLUMNS,
    TIMING_COLUMNS,
    arm_cell,
    cell_inputs,
    member_of,
)
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.run_folder import natural_facts, run_sweep, write_table
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.sweep import Cell, Outcome

KIND = "objectives"
ARMS = ("rmr", "cswm", "random_p", "shuffled_p", "no_p", "untrained")


def variants(
    task: GameTask, objectives: Sequence[str], episodes: Sequence[int | None]
) -> dict[str, GameTask]:
    """Return the task under each objective and number of natural episodes, by its label.

    The label is the objective, followed by ``/episodes`` where natural data are scarce.
    """
    found = {}
    for objective in objectives:
        for count in episodes:
            natural = replace(task.preset.natural, objective=objective, episodes=count)
            label = objective if count is None else f"{objective}/{count}"
            found[label] = replace(task, preset=replace(task.preset, natural=natural))
    return found


def study_objectives(
    tasks: Sequence[GameTask],
    objectives: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    computing: Computing,
    *,
    arms: Sequence[str] = ARMS,
    episodes: Sequence[int | None] = (None,),
) -> list[str]:
    """Train and probe arms under several objectives; a run folder of kind "objectives".

    Its tables are those of a comparison. Finished cells are kept and never computed again.

    Source: none in the paper, which has one objective; RMR, section 1, argues from scarce data.

    Args:
        tasks: One a game, under one preset.
        objectives: Names in `rmr_gym.protocol.natural.OBJECTIVES`.
        seeds: Paired seeds.
        out: Run folder.
        computing: How.
        arms: Names of arms, and "untrained".
        episodes: Numbers of natural episodes to train on; None stands for all.

    Returns:
        One sentence for every cell that failed or collapsed.

    Raises:
        RMRError: Nothing to do, an unknown name, one that comes twice, results of other settings
            in the folder, or every cell failed.
    """
    if not (tasks and objectives and seeds and arms and episodes):
        raise RMRError("a study needs at least one game, one objective, one arm and one seed")
    for arm in set(arms) - {"untrained"}:
        find_arm(arm)
    for name in (*objectives, *arms, *episodes):
        if max(list(each).count(name) for each in (objectives, arms, episodes)) > 1:
            raise RMRError(f"{name!r} stands twice: name every objective, arm and number once")
    names: dict[str, dict[str, Any]] = {}
    cells = []
    for task in tasks:
        for label, variant in variants(task, objectives, episodes).items():
            for seed in seeds:
                for arm in arms:
                    key = f"{label} {task.game} {arm} {seed}"
                    base = {"game": task.game, "objective": label, "arm": arm, "seed": seed}
                    names[key] = base
                    inputs = cell_inputs(variant)
                    cells.append(Cell(key, arm_cell, (variant, arm, seed), inputs=inputs))
    return run_sweep(
        *(KIND, cells, tasks, seeds, out, computing),
        grown=lambda outcomes: _write(out, names, outcomes),
        member_of=member_of,
        **natural_facts(tasks[0]) | {"objective": ", ".join(objectives)},
        arms=list(arms),
        natural_episodes=list(episodes),
    )


def _write(out: Path, names: dict[str, dict[str, Any]], outcomes: Sequence[Outcome]) -> None:
    done = [(names[each.key], each.value) for each in outcomes if each.error is None]
    for path, part, columns in (
        ("natural.csv", "rows", NATURAL_COLUMNS),
        ("natural_curves.csv", "curve", NATURAL_CURVE_COLUMNS),
    ):
        write_table(out / path, [name | row for name, v in done for row in v[part]], columns)
    timings = [
        name | {"stage": f"natural {name['objective']}", "seconds": round(value["seconds"], 2)}
        for name, value in done
    ]
    write_table(out / "timings.csv", timings, TIMING_COLUMNS)
