"""What every command shares: options, two consoles, tables, progress with the time left."""

import codecs
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


_PLAIN = {"−": "-", "–": "-", "±": "+/-", "▲": "^", "▼": "v", "…": "..."}


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for signs that an output cannot write, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in signs), error.end


codecs.register_error("rmr_gym_plain", _in_plain)


def write_any_sign() -> None:
    """Let outputs write in plain letters what their encoding has no sign for, as in latin-1."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="rmr_gym_plain")


Options = TypeVar("Options")

out_console, err_console = _Console(), _Console(stderr=True)
ProgressFor = Callable[[str], Callable[[int, int], None]]
QUIET_SECONDS = 10.0


def carry_out(command: Any, arguments: Sequence[str], prog: str) -> None:
    """Carry a command out.

    Args:
        command: A function of options; a dataclass of options with a method ``execute``; or several
            of these by name, of which the first argument names one.
        arguments: What was typed behind the command.
        prog: What the command is called in its help.

    Raises:
        RMRError: Something that was typed cannot be done.
        SystemExit: After help, or what does not parse.
    """
    if isinstance(command, Mapping):
        if arguments and arguments[0] in command:
            name, *rest = arguments
            carry_out(command[name], rest, f"{prog} {name}")
        else:
            tyro.extras.subcommand_cli_from_dict(dict(command), prog=prog, args=arguments)
    elif isinstance(command, type):
        options: Any = parsed(command, arguments, prog)
        options.execute()
    else:
        tyro.cli(command, prog=prog, args=arguments)


def parsed(options: Callable[..., Options], arguments: Sequence[str], prog: str) -> Options:
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


def say(*lines: object) -> None:
    """Print lines as they are."""
    for line in lines:
        out_console.print(str(line), markup=False, highlight=False, soft_wrap=True)


def warn(text: str, style: str = "yellow") -> None:
    """Print a line in colour where errors go."""
    err_console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Print the named columns of rows, or all; floats to four places, errors in powers of ten.

    Where a table is wider than the terminal, each row becomes a line of text that wraps.
    """
    from rich.table import Table  # noqa: PLC0415

    columns = tuple(rows[0]) if columns is None else columns
    table = Table(*columns)
    cells = [[_cell(name, row[name]) for name in columns] for row in rows]
    for texts in cells:
        table.add_row(*texts)
    unbounded = out_console.options.update(max_width=sys.maxsize)
    if out_console.measure(table, options=unbounded).maximum > out_console.width:
        say(*(", ".join(map(" ".join, zip(columns, texts, strict=True))) for texts in cells))
    else:
        out_console.print(table)


def _cell(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2e}" if "mse" in name else f"{value:.4f}"


@contextmanager
def progress_bars() -> Iterator[ProgressFor]:
    """Give progress callbacks by title: bars with time left on a terminal, lines elsewhere."""
    if not err_console.is_terminal:
        yield _progress_lines
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn  # noqa: PLC0415

    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err_console) as bars:

        def progress_for(title: str) -> Callable[[int, int], None]:
            task = bars.add_task(title, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield progress_for


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give one progress callback, see `progress_bars`."""
    with progress_bars() as progress_for:
        yield progress_for(title)


def _progress_lines(title: str) -> Callable[[int, int], None]:
    """Print a line now and then; what is left goes as fast as all after what ended first."""
    started = spoken = time.monotonic()
    first: tuple[float, int] | None = None

    def progress(done: int, total: int) -> None:
        nonlocal spoken, first
        now = time.monotonic()
        since, before = first = first or (now, done)
        if done < total and now - spoken < QUIET_SECONDS:
            return
        spoken, left = now, ""
        if done > before:
            left = f", {(now - since) / (done - before) * (total - done):.0f} s left"
        err_console.print(f"{title}: {done}/{total}, {now - started:.0f} s{left}", highlight=False)

    return progress
