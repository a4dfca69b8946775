"""World models that see crops, with less sight and more balls: a run folder of kind "views"."""

import io
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import write_atomically
from rmr_gym.models.world.s2rm import S2RM_MODELS
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.sweep import Cell
from rmr_gym.protocol.world_model_checks import check_lengths
from rmr_gym.protocol.world_model_rollouts import data_name
from rmr_gym.protocol.world_model_runs import (
    CURVES,
    run_world_models,
    summaries,
    training_cell,
)
from rmr_gym.protocol.world_model_views import (
    VIEW_ROW,
    Condition,
    enclaves,
    parts_of,
    view_key,
    view_scores,
)
from rmr_gym.protocol.world_models import WorldTask, training_key

KIND = "views"
TABLES = {"views": VIEW_ROW, **CURVES}


def compare_views(
    tasks: Sequence[WorldTask],
    seeds: Sequence[int],
    conditions: Sequence[Condition],
    out: Path,
    computing: Computing,
) -> list[str]:
    """Train models of crops and score them; what is finished, here or in the store, is found again.

    The folder gets ``views.csv``, ``world_model_curves.csv``, ``run.json``, ``jobs.csv`` and, for
    each S2RM, ``enclaves_MODEL_SEED.npz`` with ``attended`` and ``heard``, see
    `rmr_gym.protocol.world_model_views.Enclaves`.

    Args:
        tasks: One a model, all on the same data.
        seeds: Of every model.
        conditions: Under which they are scored; a model is left out where more of its modules
            should go than it has. A condition that comes twice, all crops once by their number and
            once as None, is scored once.
        out: Run folder.
        computing: How; world models know no stacks.

    Returns:
        One sentence for every cell that failed.

    Raises:
        RMRError: Nothing to compare, a model that does not see crops, more crops than in training
            or none, more modules to take out than any model has, equal models, data that cannot be
            scored, results of other settings in the folder, or every cell failed.
    """
    wrong = [task.model for task in tasks if task.model not in S2RM_MODELS]
    if wrong:
        raise RMRError(
            f"expected models of crops out of {', '.join(S2RM_MODELS)}, got {', '.join(wrong)}"
        )
    if not tasks or not seeds or not conditions:
        raise RMRError("a comparison of models of crops needs a model, a seed and a condition")
    crops = min(task.sizes.views for task in tasks)
    parts = [max(1, parts_of(task)) for task in tasks]
    _check_counts(conditions, crops, max(parts) - 1)
    chosen = _distinct(conditions, crops)
    sets = list(dict.fromkeys(each.test for each in chosen))
    tests = summaries(tasks[0], sets)
    for task in tasks:
        check_lengths(task, sets, task.preset.length + 1)
    prints = {name: each["fingerprint"] for name, each in tests.items()}
    cells = [
        cell
        for task, count in zip(tasks, parts, strict=True)
        for cell in _cells(task, seeds, [e for e in chosen if e.dropped < count], prints, out)
    ]
    return run_world_models(
        *(KIND, tasks, seeds, cells, out, computing), tables=TABLES, tests=tests
    )


def conditions_of(
    tests: Sequence[Path], seen: Sequence[int], dropped: Sequence[int]
) -> list[Condition]:
    """Return every test set with all modules and each number of crops, and with fewer modules.

    All crops and all modules, as in training, are always among them: all else is compared with it.

    Args:
        tests: Data sets that are scored on beside the validation episodes.
        seen: Further numbers of crops that are seen.
        dropped: Numbers of modules to take out, with all crops.
    """
    where = (None, *tests)
    whole = [Condition(test, count) for test, count in product(where, (*seen, None))]
    return whole + [
        Condition(test, None, count) for test, count in product(where, dropped) if count
    ]


def _check_counts(conditions: Sequence[Condition], crops: int, most: int) -> None:
    """Make sure that models have so many crops to see and so many modules to take out.

    Raises:
        RMRError: They have not.
    """
    for each in conditions:
        if each.views is not None and not 1 <= each.views <= crops:
            raise RMRError(
                f"expected 1 to {crops} crops that are seen, all in training, got {each.views}: "
                "choose another number or leave it out"
            )
        if not 0 <= each.dropped <= most:
            raise RMRError(
                f"expected 0 to {most} modules to take out, all that these models can spare, got "
                f"{each.dropped}: choose another number or leave it out"
            )


def _distinct(conditions: Sequence[Condition], crops: int) -> list[Condition]:
    found: dict[tuple[Path | None, int, int], Condition] = {}
    for each in conditions:
        found.setdefault((each.test, each.views or crops, each.dropped), each)
    return list(found.values())


def view_cell(task: WorldTask, seed: int, condition: Condition) -> dict[str, Any]:
    """Score a trained model under a condition."""
    return {"views": [view_scores(task, seed, condition)]}


def enclaves_cell(task: WorldTask, seed: int, path: Path) -> dict[str, Any]:
    """Write where the modules of a trained S2RM are; nothing for a model without places."""
    found = enclaves(task, seed)
    if found is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **found._asdict())
        write_atomically(path, buffer.getvalue())
    return {}


def _cells(
    task: WorldTask,
    seeds: Sequence[int],
    conditions: Sequence[Condition],
    prints: dict[str, str],
    out: Path,
) -> Iterator[Cell]:
    for seed in seeds:
        named = f"{task.model} {seed}"
        yield (first := training_cell(task, seed))
        for each in conditions:
            name = data_name(each.test)
            crops = "all" if each.views is None else each.views
            yield Cell(
                f"score {named} {name}, {crops} crops, {each.dropped} dropped",
                view_cell,
                (task, seed, each),
                after=(first.key,),
                inputs=view_key(task, seed, prints.get(name), each),
            )
        path = out / f"enclaves_{task.model}_{seed}.npz"
        yield Cell(
            f"enclaves {named}",
            enclaves_cell,
            (task, seed, path),
            after=(first.key,),
            inputs=training_key(task, seed),
        )
