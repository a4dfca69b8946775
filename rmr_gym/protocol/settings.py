"""Changing single settings of nested configurations by name, with checks."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from rmr_gym.core.errors import RMRError, unknown_name

Config = TypeVar("Config")
_LARGEST = 1e300


def altered(config: Config, changes: Mapping[str, Any], before: str = "") -> Config:
    """Return a configuration with some settings changed.

    Args:
        config: A frozen dataclass; a setting of a dataclass inside it is called ``outer.inner``.
        changes: New values by the name of the setting: numbers, text, or a list for a tuple. The
            field ``name`` of a preset cannot be changed.
        before: What names begin with in messages, for instance "sizes.".

    Raises:
        RMRError: There is no such setting, the value is of another kind, or the configuration does
            not allow it.
    """
    known = _settings(config)
    inside: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for path, value in changes.items():
        name, dot, rest = path.partition(".")
        if name not in known:
            raise unknown_name("setting", before + name, (before + each for each in known))
        if not dot:
            values[name] = _like(known[name], value, before + name)
        elif is_dataclass(known[name]):
            inside.setdefault(name, {})[rest] = value
        else:
            raise RMRError(f"expected {before + name} to be set as a whole, got {before + path}")
    for name, deeper in inside.items():
        values[name] = altered(known[name], deeper, f"{before}{name}.")
    before_changes: Any = config
    return replace(before_changes, **values)


def has_setting(config: Any, path: str) -> bool:
    """Return whether a configuration has a setting of that name, see `altered`."""
    name, dot, rest = path.partition(".")
    known = _settings(config)
    return name in known and (not dot or has_setting(known[name], rest))


def _settings(config: Any) -> dict[str, Any]:
    names = [each.name for each in fields(config)] if is_dataclass(config) else []
    return {name: getattr(config, name) for name in names if name != "name"}


def _like(now: Any, value: Any, path: str) -> Any:
    if isinstance(now, tuple) and now and isinstance(value, list | tuple) and value:
        return tuple(_like(now[0], each, path) for each in value)
    if isinstance(now, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) < _LARGEST:
            raise RMRError(f"expected a finite number for {path}, got {value}")
        return float(value)
    if isinstance(now, bool | int | str) and type(value) is type(now):
        return value
    if is_dataclass(now):
        inner = ", ".join(f"{path}.{each.name}" for each in fields(now))
        raise RMRError(f"expected one setting of {path}, got {path} itself: choose one of {inner}")
    if now is None:
        raise RMRError(f"expected a setting that has a value, got {path}, which has none")
    kind = type(now).__name__
    kind = "a list of its kind" if isinstance(now, tuple) else f"a value of type {kind}"
    raise RMRError(f"expected {kind} for {path}, which is {now!r}, got {value!r}")
