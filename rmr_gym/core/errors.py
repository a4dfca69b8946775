"""Errors that a user can mend: what was expected, what came, what to do, in one sentence."""

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from typing import Any, ClassVar, TypeVar

Made = TypeVar("Made")

SHOWN = 24
"""Names of a long list that an error counts up."""


class RMRError(ValueError):
    """Bad input; the message says what was expected, what was found and how to mend it.

    The command line prints the message alone and exits with code 2.
    """


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> RMRError:
    """Build the error for a name that is not in a table, with the closest match first.

    Args:
        kind: What the name stands for, for instance ``"game"``.
        name: The name that was given.
        choices: The names that exist.

    Returns:
        The error, to be raised by the caller.
    """
    known, given = list(choices), name.lower()
    by_lower = {choice.lower(): choice for choice in known}
    longer = [lower for lower in by_lower if given and lower.startswith(given)]
    shorter = [lower for lower in by_lower if given.startswith(lower)]
    close = get_close_matches(given, by_lower, n=1, cutoff=0.65) or longer or shorter
    hint = f"did you mean {by_lower[close[0]]!r}? " if close else ""
    named = known if len(known) <= 2 * SHOWN else [*known[:SHOWN], f"and {len(known) - SHOWN} more"]
    return RMRError(f"unknown {kind} {name!r}: {hint}choose one of {', '.join(named)}")


def known_name(kind: str, name: Any, choices: Iterable[str]) -> str:
    """Return a name that is in a table.

    Args:
        kind: What the name stands for.
        name: The name that was given.
        choices: The names that exist.

    Raises:
        RMRError: It is none of them; the closest is named.
    """
    known = list(choices)
    if name not in known:
        raise unknown_name(kind, str(name), known)
    return name


def from_options(kind: type[Made], options: Mapping[str, Any]) -> Made:
    """Return a dataclass made of options by their names.

    Args:
        kind: The dataclass.
        options: Its fields.

    Raises:
        RMRError: One is no field of it; the closest is named.
    """
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    return kind(**{known_name("option", name, names): value for name, value in options.items()})


def whole_number(name: str, value: Any, at_least: int = 0) -> int:
    """Return a whole number.

    Raises:
        RMRError: It is none, or too small.
    """
    number = whole(value)
    if number < at_least:
        raise RMRError(f"expected a whole number of at least {at_least} as {name}, found {value!r}")
    return number


def limit(name: str, value: Any) -> int | None:
    """Return a whole number of at least 1, or None for no limit.

    Raises:
        RMRError: It is neither.
    """
    return None if value is None else whole_number(name, value, at_least=1)


def whole(value: Any) -> int:
    """Return a whole number as Python's own, -1 for what is none."""
    try:
        return -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return -1


def letters(text: str) -> str:
    """Return what all spellings of a name share: its letters and digits, in lower case."""
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def optional(module: str, extra: str = "", install: str = "") -> Any:
    """Import what is installed by an extra of this package, or apart from it.

    Args:
        module: Its name.
        extra: Name of the extra; default: that of the module.
        install: What pip is told in place of an extra.

    Raises:
        RMRError: It cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        command = install or f'"rmr-gym[{extra or module}]"'
        raise RMRError(
            f"expected the package {module.partition('.')[0]}, found that it cannot be imported "
            f"({error}): install it with `pip install {command}`"
        ) from error


class Checked:
    """Dataclasses whose values are checked as they are made.

    Whole numbers, alone or in a tuple, are 1 or more, and no tuple is empty.

    Raises:
        RMRError: A value is none of these, outside its interval, or names nothing that there is.
    """

    ranges: ClassVar[Mapping[str, str]] = {}
    """Intervals of numbers that are other ones, by field, for instance ``"[0, 1)"``."""

    choices: ClassVar[Mapping[str, tuple[str, Iterable[str]]]] = {}
    """What a name stands for, and the names that there are, by field."""

    def __post_init__(self) -> None:
        kind = type(self).__name__
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if name in self.choices:
                known_name(self.choices[name][0], value, self.choices[name][1])
                continue
            interval = self.ranges.get(name)
            bounded = [number for number in numbers if interval or isinstance(number, int)]
            if not numbers or not all(within(number, interval or "[1, inf)") for number in bounded):
                wanted = f"{name} in {interval}" if interval else "counts of 1 or more"
                raise RMRError(f"expected {wanted} in {kind}, got {name}={value}")


def within(number: float | int, interval: str) -> bool:
    """Tell whether a number lies in an interval, for instance ``"[0, 1)"``."""
    low, high = map(float, interval[1:-1].split(","))
    above = low <= number if interval.startswith("[") else low < number
    return above and (number <= high if interval.endswith("]") else number < high)
