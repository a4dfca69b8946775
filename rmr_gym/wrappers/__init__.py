"""What changes or watches a step."""

from typing import TYPE_CHECKING

from rmr_gym.core.lazy import lazy_names

if TYPE_CHECKING:
    from rmr_gym.wrappers.crops import RandomCrops as RandomCrops
    from rmr_gym.wrappers.crops import VectorRandomCrops as VectorRandomCrops
    from rmr_gym.wrappers.features import RMRObservationWrapper as RMRObservationWrapper
    from rmr_gym.wrappers.features import RMRVectorObservation as RMRVectorObservation
    from rmr_gym.wrappers.occlusion import Curtain as Curtain
    from rmr_gym.wrappers.paired import PairedObservation as PairedObservation
    from rmr_gym.wrappers.record import RecordTransitions as RecordTransitions
    from rmr_gym.wrappers.record import RecordVectorTransitions as RecordVectorTransitions

__getattr__ = lazy_names(
    __name__,
    {
        "crops": "RandomCrops VectorRandomCrops",
        "features": "RMRObservationWrapper RMRVectorObservation",
        "occlusion": "Curtain",
        "paired": "PairedObservation",
        "record": "RecordTransitions RecordVectorTransitions",
    },
)
