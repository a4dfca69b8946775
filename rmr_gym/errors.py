"""Errors that a user can mend: what was expected, what came, what to do, in one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


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
    known = list(choices)
    by_lower = {choice.lower(): choice for choice in known}
    close = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.4)
    hint = f"did you mean {by_lower[close[0]]!r}? " if close else ""
    return RMRError(f"unknown {kind} {name!r}: {hint}choose one of {', '.join(known)}")
