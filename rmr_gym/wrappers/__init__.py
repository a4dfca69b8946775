"""What changes or watches a step."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmr_gym.wrappers.paired import PairedObservation
    from rmr_gym.wrappers.record import RecordTransitions

__all__ = ["PairedObservation", "RecordTransitions"]

_LAZY = {
    "PairedObservation": "rmr_gym.wrappers.paired",
    "RecordTransitions": "rmr_gym.wrappers.record",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
