"""What every command shares: options, two consoles, tables, progress with the time left."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from itertools import pairwise
from typing import Any, TypeVar

import tyro
from rich.console import Console


class _Console(Console):
    """Leaves an output that its reader closed to `rmr_gym.cli.main`; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


Options = TypeVar("Options")

out_console, err_console = _Console(), _Console(stderr=True)
ProgressFor = Callable[[str], Callable[[int, int], None]]
QUIET_SECONDS = 10.0


def parsed(options: type[Options], arguments: Sequence[str], prog: str) -> Options:
    """Return a command's options: what a preset proposes, overridden by what was typed.

    Args:
        options: Dataclass of the options; with a method ``proposals`` where there are presets, of
            which the field ``preset`` has the default.
        arguments: What was typed.
        prog: What the command is called in its help.

    Raises:
        RMRError: There is no such preset.
        SystemExit: After help, or what does not parse.
    """
    default = None
    if hasattr(options, "proposals"):
        default = _untouched(options, value_of("--preset", arguments))
    parse: Any = tyro.cli
    return parse(options, args=list(arguments), prog=prog, default=default)


def _untouched(options: Any, preset: str | None) -> Any:
    """Return options as a preset proposes them; those that must be typed are missing in them."""
    values = {}
    for field in fields(options):
        value = field.default if field.default_factory is MISSING else field.default_factory()
        values[field.name] = tyro.MISSING if value is MISSING else value
    values |= options.proposals(preset or values["preset"])
    untouched = object.__new__(options)  # its own constructor may refuse what is missing
    for name, value in values.items():
        object.__setattr__(untouched, name, value)
    return untouched


def value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Return what was typed after an option, or None."""
    for word, following in pairwise([*arguments, ""]):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def print_rows(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print the named columns of ``rows``; floats to four places."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(*columns)
    for row in rows:
        table.add_row(
            *(
                f"{row[key]:.4f}" if isinstance(row[key], float) else str(row[key])
                for key in columns
            )
        )
    out_console.print(table)


@contextmanager
def progress_bars() -> Iterator[ProgressFor]:
    """Give progress callbacks by title: bars with time left on a terminal, lines elsewhere."""
    if not err_console.is_terminal:
        yield _progress_lines
        return
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err_console) as bars:

        def progress_for(title: str) -> Callable[[int, int], None]:
            task = bars.add_task(title, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield progress_for


def _progress_lines(title: str) -> Callable[[int, int], None]:
    started = time.monotonic()
    spoken = started

    def progress(done: int, total: int) -> None:
        nonlocal spoken
        now = time.monotonic()
        if done < total and now - spoken < QUIET_SECONDS:
            return
        spoken = now
        left = (now - started) / max(done, 1) * (total - done)
        err_console.print(
            f"{title}: {done}/{total}, {now - started:.0f} s, {left:.0f} s left", highlight=False
        )

    return progress
