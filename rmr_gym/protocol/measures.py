"""Measures beside the bit probe: named labels and ranking of predictions, arm by arm."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.protocol import stages
from rmr_gym.protocol.arms import ARMS, REFERENCES
from rmr_gym.protocol.compare import NATURAL_COLUMNS, TIMING_COLUMNS, cell_inputs
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.labels_probe import labelled, labelled_pixels
from rmr_gym.protocol.natural import collapse_message
from rmr_gym.protocol.pipelines import kept_pipeline, trained_pipelines
from rmr_gym.protocol.ranking import ranked
from rmr_gym.protocol.run_folder import natural_facts, run_sweep, write_table
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import Artifact
from rmr_gym.protocol.sweep import Cell, Outcome

KIND = "measures"
LABEL_COLUMNS = (
    "game", "objective", "arm", "seed", "step", "label", "category", "macro_f1", "weighted_f1",
    "accuracy", "classes",
)  # fmt: skip
RANKING_COLUMNS = (
    "game", "objective", "arm", "seed", "step", "ahead", "hits_at_1", "mrr", "tied", "rows",
)  # fmt: skip

MEASURES = ("labels", "ranking")

Extra = Callable[[GameTask], dict[str, Any]]
"""A cell of a reference without seeds: gives rows by table, for instance labels and references."""


UNTRAINED: dict[str, Callable[[GameTask, int], Artifact]] = {
    "untrained": lambda task, seed: labelled(task, stages.untrained_encoder(task, seed)),
    "pca": lambda task, seed: labelled_pixels(task),
}
"""References that nothing is trained for."""


def measure_cell(task: GameTask, arm: str, seed: int, chosen: tuple[str, ...]) -> dict[str, Any]:
    """Measure one arm of one seed at every checkpoint and return rows for the tables."""
    if arm in UNTRAINED:
        found = UNTRAINED[arm](task, seed).record
        rows = [{"step": 0, **row} for row in found["rows"]]
        return {"labels": rows, "seconds": found["seconds"]}
    value: dict[str, Any] = {"labels": [], "ranking": [], "seconds": 0.0}
    if "ranking" in chosen and arm in ARMS:
        _add_ranking(value, task, arm, seed)
    encoders = stages.trained_encoders(task, arm, seed)
    for step in stages.kept_steps(encoders) if "labels" in chosen else []:
        found = labelled(task, stages.kept_encoder(task, seed, encoders, step)).record
        value["labels"] += [{"step": step, **row} for row in found["rows"]]
        value["seconds"] += found["seconds"]
    return value | {"collapsed": collapse_message(encoders.record)}


def _add_ranking(value: dict[str, Any], task: GameTask, arm: str, seed: int) -> None:
    pipelines = trained_pipelines(task, arm, seed)
    value["seconds"] += pipelines.record["seconds"]
    for step in stages.kept_steps(pipelines):
        found = ranked(task, kept_pipeline(task, arm, seed, pipelines, step)).record
        value["ranking"] += [{"step": step, **row} for row in found["rows"]]
        value["seconds"] += found["seconds"]


def measure(
    tasks: Sequence[GameTask],
    seeds: Sequence[int],
    out: Path,
    computing: Computing,
    *,
    arms: Sequence[str] = (*ARMS, *REFERENCES),
    measures: Sequence[str] = MEASURES,
    extra: dict[str, Extra] | None = None,
) -> list[str]:
    """Measure arms and write a run folder of kind "measures".

    Arms that are not in the store are trained; what is there is found.

    Args:
        tasks: One a game.
        seeds: Paired seeds of the arms.
        out: Run folder; what is finished there is not computed again.
        computing: How; measures know no stacks.
        arms: Names of arms and references; references are not ranked, having no P.
        measures: Names in `MEASURES`.
        extra: Cells of further references without seeds, by the name of their arm.

    Returns:
        One sentence for every cell that failed or collapsed.

    Raises:
        RMRError: Nothing to measure, an unknown name, bad data, or every cell failed.
    """
    if not tasks or not seeds or not arms:
        raise RMRError("measures need at least one game, one seed and one arm")
    _refuse_unknown("arm", arms, (*ARMS, *REFERENCES))
    _refuse_unknown("measure", measures, MEASURES)
    chosen = tuple(measures)
    ours = {
        f"measure {task.game} {arm} {seed}": (task, arm, seed)
        for task in tasks
        for seed in seeds
        for arm in arms
        if _has_something(arm, chosen) and (arm != "pca" or seed == seeds[0])
    }
    others = {
        f"measure {task.game} {arm}": (task, arm, seeds[0]) for task in tasks for arm in extra or {}
    }
    cells = [
        Cell(
            key,
            measure_cell,
            (*which, chosen),
            inputs=cell_inputs(which[0]) | {"measures": list(chosen)},
        )
        for key, which in ours.items()
    ]
    cells += [
        Cell(key, extra[arm], (task,), inputs=cell_inputs(task))
        for key, (task, arm, _) in others.items()
        if extra
    ]
    names = ours | others

    def write(outcomes: list[Outcome]) -> None:
        _write(out, {names[each.key]: each.value for each in outcomes if each.error is None})

    return run_sweep(
        *(KIND, cells, tasks, seeds, out, computing),
        grown=write,
        **natural_facts(tasks[0]),
        arms=[*arms, *(extra or {})],
        measures=list(chosen),
    )


def _has_something(arm: str, measures: tuple[str, ...]) -> bool:
    """Say whether an arm has one of the measures; references have no P to rank."""
    return "labels" in measures or arm not in REFERENCES


def _refuse_unknown(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)


def _write(out: Path, values: dict[tuple[GameTask, str, int], dict[str, Any]]) -> None:
    tables: dict[str, list[dict[str, Any]]] = {"labels": [], "ranking": [], "references": []}
    timings = []
    for (task, arm, seed), value in values.items():
        objective = task.preset.natural.objective
        base = {"game": task.game, "objective": objective, "arm": arm, "seed": seed}
        for name, rows in tables.items():
            rows += [base | row for row in value.get(name, [])]
        timed = {"game": task.game, "stage": "measure", "arm": arm, "seed": seed}
        timings.append(timed | {"seconds": round(value["seconds"], 2)})
    write_table(out / "labels.csv", tables["labels"], LABEL_COLUMNS)
    write_table(out / "ranking.csv", tables["ranking"], RANKING_COLUMNS)
    write_table(out / "references.csv", tables["references"], NATURAL_COLUMNS)
    write_table(out / "timings.csv", timings, TIMING_COLUMNS)
