"""What changes or watches a step."""

from typing import TYPE_CHECKING

from rmr_gym.core import lazy_names

if TYPE_CHECKING:
    from rmr_gym.wrappers.features import RMRBeliefWrapper as RMRBeliefWrapper
    from rmr_gym.wrappers.features import RMRObservationWrapper as RMRObservationWrapper
    from rmr_gym.wrappers.features import RMRVectorBelief as RMRVectorBelief
    from rmr_gym.wrappers.features import RMRVectorObservation as RMRVectorObservation
    from rmr_gym.wrappers.record import RecordTransitions as RecordTransitions
    from rmr_gym.wrappers.record import RecordVectorTransitions as RecordVectorTransitions
    from rmr_gym.wrappers.views import Curtain as Curtain
    from rmr_gym.wrappers.views import PairedObservation as PairedObservation
    from rmr_gym.wrappers.views import RandomCrops as RandomCrops
    from rmr_gym.wrappers.views import VectorRandomCrops as VectorRandomCrops

__getattr__ = lazy_names(
    __name__,
    {
        "features": "RMRBeliefWrapper RMRObservationWrapper RMRVectorBelief RMRVectorObservation",
        "record": "RecordTransitions RecordVectorTransitions",
        "views": "Curtain PairedObservation RandomCrops VectorRandomCrops",
    },
)
