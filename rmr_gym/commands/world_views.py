"""`rmr-gym world-model views`: models of crops with fewer crops, fewer modules, more balls."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, print_rows, progress_bars
from rmr_gym.commands.world_data import find_data
from rmr_gym.errors import RMRError

if TYPE_CHECKING:
    import pandas as pd

    from rmr_gym.protocol.world_model_views import Condition
    from rmr_gym.protocol.world_models import WorldTask

app = SubcommandApp()
SHOWN = {"balanced_accuracy": "accuracy", "dropped": "gone"}
"""Columns whose names are too long for a terminal, and what they are called there."""


@app.command
def views(
    data: Path,
    out: Path,
    models: tuple[str, ...] = ("s2gru", "crops_rims", "crops_rmc", "crops_lstm", "crops_oracle"),
    tests: tuple[Path, ...] = (),
    seen: tuple[int, ...] = (),
    dropped: tuple[int, ...] = (),
    seeds: int = 1,
    preset: Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")] = "laptop",
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Score models of crops where they see less than in training; missing ones are trained.

    Writes a table with a row a model, test set, number of views and number of dropped modules, its
    curves as NAME.png where anything varies, and beside it, for each S2RM, NAME_MODEL_SEED.npz and
    .png: which pixels its modules attend to (attended), which modules can hear which (heard).

    Args:
        data: Folder of the data set that they are trained on, or an environment, for instance
            rmr/S2RMBalls3-v0.
        out: CSV to write.
        models: s2gru, s2rmc, s2gru_input_local, s2gru_input_nonlocal, s2gru_cells_local,
            s2gru_cells_nonlocal, crops_lstm, crops_rims, crops_rmc, crops_oracle.
        tests: Other data sets, or environments, to score on, for instance with more balls;
            default: the validation episodes of ``data``.
        seen: Numbers of crops that are seen; default: as many as in training.
        dropped: Numbers of modules to take out, with all crops, beside none; models without so many
            have no such rows.
        seeds: Number of seeds.
        preset: Sizes and steps.
        root: Folder of finished stages.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    import pandas as pd  # noqa: PLC0415

    from rmr_gym.commands.world_model import make_task  # noqa: PLC0415
    from rmr_gym.models.s2rm_models import S2RM_MODELS  # noqa: PLC0415
    from rmr_gym.protocol.run_folder import write_table  # noqa: PLC0415
    from rmr_gym.protocol.world_model_views import VIEW_ROW, view_scores  # noqa: PLC0415
    from rmr_gym.protocol.world_models import trained  # noqa: PLC0415

    wrong = [model for model in models if model not in S2RM_MODELS]
    if wrong or seeds < 1:
        raise RMRError(
            f"expected models of crops out of {', '.join(S2RM_MODELS)} and 1 seed or more, got "
            f"{', '.join(wrong) or f'{seeds} seeds'}"
        )
    rows = []
    data = find_data(data, preset, root)
    tests = tuple(find_data(test, preset, root) for test in tests)
    with progress_bars() as progress_for:
        for model in models:
            task = make_task(data, model, None, preset, root, device)
            for seed in range(seeds):
                trained(task, seed, progress_for(f"{model}, seed {seed}"))
                for condition in _conditions(task, tests, seen, dropped):
                    rows.append(view_scores(task, seed, condition))
                _write_enclaves(out.with_name(f"{out.stem}_{model}_{seed}.npz"), task, seed)
    labels = [SHOWN.get(name, name) for name in VIEW_ROW]
    shown = [dict(zip(labels, (row[name] for name in VIEW_ROW), strict=True)) for row in rows]
    print_rows(shown, tuple(labels))
    write_table(out, rows, VIEW_ROW)
    _written(out)
    _draw(out, pd.DataFrame(rows), data)


def _draw(out: Path, table: "pd.DataFrame", data: Path) -> None:
    from rmr_gym.analysis.canvas import save_figure  # noqa: PLC0415
    from rmr_gym.analysis.views_figures import QUESTIONS, views_figure  # noqa: PLC0415
    from rmr_gym.protocol.world_model_views import count_balls  # noqa: PLC0415

    if any(table[name].nunique() > 1 for name in QUESTIONS):
        figure = views_figure(table, count_balls(data))
        _written(save_figure(figure, out.with_suffix(".png")))


def _written(path: Path) -> None:
    out_console.print(f"written: {path}", markup=False, soft_wrap=True)


def _conditions(
    task: "WorldTask", tests: tuple[Path, ...], seen: tuple[int, ...], dropped: tuple[int, ...]
) -> Iterator["Condition"]:
    from rmr_gym.protocol.world_model_views import Condition, parts_of  # noqa: PLC0415

    parts = parts_of(task)
    for test in tests or (None,):
        for count in seen or (None,):
            yield Condition(test, count)
        for count in dropped:
            if 0 < count < parts:
                yield Condition(test, None, count)


def _write_enclaves(path: Path, task: "WorldTask", seed: int) -> None:
    import io  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    from rmr_gym.analysis.canvas import save_figure  # noqa: PLC0415
    from rmr_gym.analysis.views_figures import enclaves_figure  # noqa: PLC0415
    from rmr_gym.atomic import write_atomically  # noqa: PLC0415
    from rmr_gym.protocol.world_model_views import enclaves  # noqa: PLC0415

    found: Any = enclaves(task, seed)
    if found is None:
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **found._asdict())
    write_atomically(path, buffer.getvalue())
    _written(path)
    picture = enclaves_figure(found.attended, found.heard)
    _written(save_figure(picture, path.with_suffix(".png")))
