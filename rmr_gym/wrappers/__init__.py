"""What changes or watches a step."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmr_gym.wrappers.crops import RandomCrops, VectorRandomCrops
    from rmr_gym.wrappers.features import RMRObservationWrapper, RMRVectorObservation
    from rmr_gym.wrappers.occlusion import Curtain
    from rmr_gym.wrappers.paired import PairedObservation
    from rmr_gym.wrappers.record import RecordTransitions, RecordVectorTransitions

__all__ = [
    "Curtain",
    "PairedObservation",
    "RMRObservationWrapper",
    "RMRVectorObservation",
    "RandomCrops",
    "RecordTransitions",
    "RecordVectorTransitions",
    "VectorRandomCrops",
]

_LAZY = {
    "Curtain": "rmr_gym.wrappers.occlusion",
    "PairedObservation": "rmr_gym.wrappers.paired",
    "RMRObservationWrapper": "rmr_gym.wrappers.features",
    "RMRVectorObservation": "rmr_gym.wrappers.features",
    "RandomCrops": "rmr_gym.wrappers.crops",
    "RecordTransitions": "rmr_gym.wrappers.record",
    "RecordVectorTransitions": "rmr_gym.wrappers.record",
    "VectorRandomCrops": "rmr_gym.wrappers.crops",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
