"""S2RMs, their ablations and baselines by name, and their sizes."""

from collections.abc import Callable
from dataclasses import replace

from rmr_gym.models.world.rims import RIMSizes
from rmr_gym.models.world.s2rm import S2RM, LocalWorld
from rmr_gym.models.world.s2rm_attention import AttentionSizes
from rmr_gym.models.world.s2rm_baselines import CropLSTM, CropOracle, CropRIMs, CropRMC
from rmr_gym.models.world.s2rm_memory import MemoryModules
from rmr_gym.models.world.s2rm_sizes import MemorySizes, S2RMSizes

Maker = Callable[[S2RMSizes, tuple[int, int, int], int], LocalWorld]


def _with_memories(sizes: S2RMSizes, shape: tuple[int, int, int], actions: int) -> S2RM:
    cores = MemoryModules(sizes.modules, sizes.units, sizes.module_memory)
    return S2RM(shape, sizes, actions, cores)


def _ablated(attention: str, terms: str) -> Maker:
    def make(sizes: S2RMSizes, shape: tuple[int, int, int], actions: int) -> S2RM:
        left = replace(getattr(sizes, attention), terms=terms)
        return S2RM(shape, replace(sizes, **{attention: left}), actions)

    return make


S2RM_MODELS: dict[str, Maker] = {
    "s2gru": lambda sizes, shape, actions: S2RM(shape, sizes, actions),
    "s2rmc": _with_memories,
    "s2gru_input_local": _ablated("input_attention", "local"),
    "s2gru_input_nonlocal": _ablated("input_attention", "nonlocal"),
    "s2gru_cells_local": _ablated("cell_attention", "local"),
    "s2gru_cells_nonlocal": _ablated("cell_attention", "nonlocal"),
    "crops_lstm": lambda sizes, shape, actions: CropLSTM(shape, sizes, actions),
    "crops_rims": lambda sizes, shape, actions: CropRIMs(shape, sizes, actions),
    "crops_rmc": lambda sizes, shape, actions: CropRMC(shape, sizes, actions),
    "crops_oracle": lambda sizes, shape, actions: CropOracle(shape, sizes, actions),
}
"""Makers by name, of (sizes, shape of a frame, number of actions)."""

S2RM_SIZES = {
    "smoke": S2RMSizes(
        views=4,
        size=5,
        channels=4,
        modules=3,
        units=8,
        place=8,
        input_attention=AttentionSizes(2, 4, 4),
        cell_attention=AttentionSizes(2, 4, 4),
        module_memory=MemorySizes(2, 2, 4, 4),
        summary=16,
        lstm_units=16,
        rims=RIMSizes(rims=3, active=2, units=6, keys=4, heads=2, message=4),
        memory=MemorySizes(1, 2, 8, 4),
        oracle=16,
    ),
    "laptop": S2RMSizes(
        channels=8,
        units=64,
        input_attention=AttentionSizes(2, 16, 64),
        cell_attention=AttentionSizes(4, 16, 64),
        module_memory=MemorySizes(4, 4, 16, 16),
        summary=256,
        lstm_units=256,
        rims=RIMSizes(rims=6, active=5, units=42, keys=32),
        memory=MemorySizes(1, 4, 64, 64),
        oracle=256,
    ),
    "paper": S2RMSizes(),
}
"""Sizes by the name of the preset."""
