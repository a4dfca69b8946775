"""The one architecture that the abstract and the natural pipeline share, and how parts are made.

Initial weights are drawn from a generator that is passed in, never from torch's global one.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import integer_seed

ModuleType = TypeVar("ModuleType", bound=nn.Module)
Encoder = TypeVar("Encoder", bound=nn.Module)
P = TypeVar("P", bound=nn.Module)
Decoder = TypeVar("Decoder", bound=nn.Module)


class EncodeProcessDecode(nn.Module, Generic[Encoder, P, Decoder]):
    """``decoder(P(encoder(x), action))``; only encoder and decoder differ between the pipelines.

    The abstract and the natural pipelines of all worlds are of this class, and P moves over.

    Source: RMR, section 3, Figure 2.
    """

    encoder: Encoder
    processor: P
    decoder: Decoder

    def __init__(self, encoder: Encoder, processor: P, decoder: Decoder):
        super().__init__()
        self.encoder, self.processor, self.decoder = encoder, processor, decoder

    def forward(self, x: Tensor, action: Tensor | None = None) -> Any:
        """Predict the outcome of ``action`` (indices; None in a world without) in state ``x``."""
        return self.decoder(self.processor(self.encoder(x), action))


def torch_generator(seed: int) -> torch.Generator:
    """Return a CPU generator seeded with ``seed``."""
    return torch.Generator().manual_seed(seed)


def build(factory: Callable[[], ModuleType], generator: torch.Generator) -> ModuleType:
    """Construct a module and draw all its parameters from ``generator``.

    Linear layers are drawn uniformly in +-1/sqrt(fan_in) (torch's own default); convolutions are
    orthogonal with gain sqrt(2) and zero bias (Anand et al. 2019; decisions page, 11a). A module
    with parameters of its own has a method ``initialise(generator)``.

    Args:
        factory: Makes the module; what it draws from torch's global generator is put back.
        generator: Source of every initial weight.

    Returns:
        The module; equal generators give equal bytes.
    """
    with torch.random.fork_rng(devices=[]):
        module = factory()
    for part in module.modules():
        _initialise(part, generator)
    return module


def build_seeded(factory: Callable[[], ModuleType], seed: int, stream: str) -> ModuleType:
    """Construct a module with initial weights from (seed, name of a stream); see `build`."""
    return build(factory, torch_generator(integer_seed(seed, stream)))


@torch.no_grad()
def _initialise(part: nn.Module, generator: torch.Generator) -> None:
    if isinstance(part, nn.Linear):
        bound = part.in_features**-0.5
        for parameter in part.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    elif isinstance(part, nn.Conv2d):
        nn.init.orthogonal_(part.weight, gain=2**0.5, generator=generator)
        if part.bias is not None:
            part.bias.zero_()
    else:
        initialise = getattr(part, "initialise", None)
        if initialise is not None:
            initialise(generator)


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
