"""Options by name: texts NAME=VALUE, and configurations of which single options are overridden."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from rmr_gym.core.errors import RMRError, known_name


def read_options(texts: Sequence[str], instance: str) -> dict[str, Any]:
    """Return the values of options ``name=value`` by name, as JSON or, failing that, as text.

    Args:
        texts: The options; parts of a name may be separated by dots.
        instance: One as it should be, for the error.

    Raises:
        RMRError: One is written otherwise, or comes twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name in options or not all(map(str.isidentifier, name.split("."))):
            raise RMRError(
                f"expected each option once, as name=value, for instance {instance}, found {text!r}"
            )
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def overridden(config: Any, overrides: Mapping[str, Any], before: str = "") -> Any:
    """Return a configuration with some options overridden.

    Args:
        config: A frozen dataclass; an option of a dataclass inside it is called ``outer.inner``.
        overrides: New values by the name of the option: numbers, text, or a list for a tuple.
        before: What names begin with in messages, for instance "sizes.".

    Raises:
        RMRError: There is no such option, the value is of another kind, or the configuration does
            not allow it.
    """
    known = _options(config)
    inside: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for path, value in overrides.items():
        name, dot, rest = path.partition(".")
        known_name("option", before + name, [before + option for option in known])
        if not dot:
            values[name] = _like(known[name], value, before + name)
        elif is_dataclass(known[name]):
            inside.setdefault(name, {})[rest] = value
        else:
            raise RMRError(f"expected {before + name} to be set as a whole, got {before + path}")
    for name, deeper in inside.items():
        values[name] = overridden(known[name], deeper, f"{before}{name}.")
    return replace(config, **values)


def has_option(config: Any, path: str) -> bool:
    """Tell whether a configuration has an option of that name, see `overridden`."""
    name, dot, rest = path.partition(".")
    known = _options(config)
    return name in known and (not dot or has_option(known[name], rest))


def _options(config: Any) -> dict[str, Any]:
    names = [option.name for option in fields(config)] if is_dataclass(config) else []
    return {name: getattr(config, name) for name in names}


def _like(now: Any, value: Any, path: str) -> Any:
    if isinstance(now, tuple) and now and isinstance(value, list | tuple) and value:
        return tuple(_like(now[0], part, path) for part in value)
    if isinstance(now, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < 1e300:
            raise RMRError(f"expected a finite number for {path}, got {value}")
        return float(value)
    if isinstance(now, bool | int | str) and type(value) is type(now):
        return value
    if is_dataclass(now):
        inner = ", ".join(f"{path}.{option}" for option in _options(now))
        raise RMRError(f"expected one option of {path}, got {path} itself: choose one of {inner}")
    if now is None:
        raise RMRError(f"expected an option that has a value, got {path}, which has none")
    kind = type(now).__name__
    kind = "a list of its kind" if isinstance(now, tuple) else f"a value of type {kind}"
    raise RMRError(f"expected {kind} for {path}, which is {now!r}, got {value!r}")
