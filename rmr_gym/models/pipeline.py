"""The one architecture that the abstract and the natural pipeline share."""

from typing import Any

from torch import Tensor, nn

from rmr_gym.models.processors import Processor


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
