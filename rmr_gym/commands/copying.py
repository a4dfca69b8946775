"""`rmr-gym world-model copying`: RIMs against an LSTM on the copying task."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from rmr_gym.commands.console import out_console, print_rows, progress_bars
from rmr_gym.commands.tasks import many_files, read_options
from rmr_gym.commands.world_runs import Settings
from rmr_gym.core.errors import RMRError

if TYPE_CHECKING:
    from rmr_gym.protocol.copying_presets import CopyingPreset
    from rmr_gym.protocol.store import Artifact

app = SubcommandApp()


@app.command
def copying(
    out: Path,
    preset: Annotated[str, tyro.conf.arg(metavar="{smoke,laptop,paper}")] = "laptop",
    models: tuple[str, ...] = ("rims", "lstm"),
    active: int | None = None,
    settings: Settings = (),
    seeds: int = 1,
    root: Path = Path("runs"),
    device: str = "cpu",
) -> None:
    """Train RIMs and an LSTM to repeat digits after a pause, and test them after longer pauses.

    Writes copying.csv, copying_curves.csv, and a picture a seed of which RIMs are active when. Run
    again after an interruption: it goes on where it was.

    Args:
        out: Folder of tables and pictures.
        preset: Sizes, length of the task, steps.
        models: rims, lstm.
        active: Active RIMs at each step; default: the preset's.
        settings: Settings of the preset that are changed, for instance span=50
            test_spans=[50,200] sizes.units=60.
        seeds: Number of seeds.
        root: Folder of finished stages; what is found there is not trained again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """
    from rmr_gym.protocol.copying import ROW, CopyingTask, find_model, trained  # noqa: PLC0415
    from rmr_gym.protocol.copying_presets import find_copying_preset  # noqa: PLC0415
    from rmr_gym.protocol.settings import altered  # noqa: PLC0415

    if seeds < 1:
        raise RMRError(f"seeds must be 1 or more, got {seeds}")
    if not models:
        raise RMRError("expected one model or more, got none: name rims, lstm or both")
    out = many_files(out)
    for model in models:
        find_model(model)
    changes = read_options([each for some in settings for each in some], "span=50")
    task = CopyingTask(root, altered(find_copying_preset(preset, active), changes), device)
    artifacts: dict[tuple[str, int], Artifact] = {}
    with progress_bars() as progress_for:
        for seed in range(seeds):
            for model in models:
                progress = progress_for(f"{model}, seed {seed}")
                artifacts[model, seed] = trained(task, model, seed, progress)
    rows = [row for artifact in artifacts.values() for row in artifact.record["rows"]]
    _write_table(out / "copying.csv", rows, ROW)
    curves = [
        {"model": model, "seed": seed, **point}
        for (model, seed), artifact in artifacts.items()
        for point in artifact.record["curve"]
    ]
    _write_table(out / "copying_curves.csv", curves, ("model", "seed", "step", "loss"))
    for (model, seed), artifact in artifacts.items():
        if artifact.part("activity"):
            _draw(out / f"active_{model}_{seed}.png", artifact, task.preset)
    print_rows([row for row in rows if row["dropped"] < 0], ROW)


def _draw(path: Path, artifact: "Artifact", preset: "CopyingPreset") -> None:
    from rmr_gym.analysis.canvas import save_figure  # noqa: PLC0415
    from rmr_gym.analysis.rims_figures import activation_figure  # noqa: PLC0415

    span = max(preset.test_spans)
    pattern, share = (
        artifact.tensors[f"{name}.{span}"].float().numpy() for name in ("pattern", "activity")
    )
    patterns = {"one sequence": pattern, f"share of {preset.sequences} sequences": share}
    phases = {"digits": 0, "blanks": preset.digits, "recall": preset.digits + span}
    save_figure(activation_figure(patterns, phases), path)
    out_console.print(f"written: {path}", markup=False, soft_wrap=True)


def _write_table(path: Path, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    from rmr_gym.protocol.run_folder import write_table  # noqa: PLC0415

    write_table(path, rows, columns)
    out_console.print(f"written: {path}", markup=False, soft_wrap=True)
