"""What every part of the suite may import, and the one glossary of axis names.

Axes, by the names that signatures use:
    batch: Elements drawn for one step of training.
    time: Successive instants of one episode; T actions lie between T + 1 of them.
    rows: Observations of one or more episodes, one after another.
    transitions: Steps of one or more episodes, one after another.
    slots: Latent vectors, one for each of the 128 RAM bytes of an Atari or for each ball.
    bytes: The 128 bytes of an Atari's RAM, or those that are scored.
    bits: The 8 bits of a RAM byte, most significant first.
    dim: Width of a latent vector.
    height, width, channels: Of a picture, in this order.
    actions: The 18 actions of an Atari.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Progress = Callable[[int, int], None]
"""Called as progress(done, total)."""


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package whose names are found in its modules.

    Args:
        package: Its ``__name__``.
        modules: The names that each of its modules holds, separated by spaces.
    """
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
