"""The one architecture that the abstract and the natural pipeline share."""

from typing import Any

import torch
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.processors import Processor


def find_device(name: str) -> torch.device:
    """Return the device that ``name`` stands for, for instance "cpu", "cuda" or "cuda:1".

    Raises:
        RMRError: There is no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise RMRError(f"device {name!r} is not there: choose one of {', '.join(there)}") from error
    return device


class EncodeProcessDecode(nn.Module):
    """``decoder(P(encoder(x), action))``; only encoder and decoder differ between the pipelines.

    Source: RMR, section 3, Figure 2.
    """

    def __init__(self, encoder: nn.Module, processor: Processor, decoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.processor = processor
        self.decoder = decoder

    def forward(self, x: Tensor, action: Tensor) -> Any:
        """Predict the outcome of ``action`` (indices) in state ``x``."""
        return self.decoder(self.processor(self.encoder(x), action))
