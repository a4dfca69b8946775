"""Loaded transitions as torch tensors on one device."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.data.transitions import Transitions


@dataclass(frozen=True)
class TensorTransitions:
    """What `Transitions` holds, as tensors of one device.

    Attributes:
        columns: The columns that were loaded.
        current: For each transition, the row of the observation before it.
        episode: For each transition, the position of its episode.
    """

    columns: Mapping[str, torch.Tensor]
    current: torch.Tensor
    episode: torch.Tensor

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.columns:
            raise RMRError(
                f"column {name!r} was not loaded, only {', '.join(self.columns)}: name it in "
                "load(columns=...)"
            )
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.current)


def to_device(transitions: Transitions, device: str) -> TensorTransitions:
    """Move loaded transitions to a device, one column after another.

    Raises:
        RMRError: PyTorch cannot use the device.
    """
    try:
        where = torch.device(device)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise RMRError(
            f"expected a device that PyTorch can use, found {device!r} ({reason}): choose cpu, or "
            "cuda where there is one"
        ) from error

    def moved(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(where)

    return TensorTransitions(
        {name: moved(array) for name, array in transitions.columns.items()},
        moved(transitions.current),
        moved(transitions.episode),
    )
