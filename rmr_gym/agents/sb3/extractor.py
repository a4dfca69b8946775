"""A pretrained encoder inside an agent of Stable-Baselines3: frozen, fine-tuned or from scratch."""

from collections.abc import Callable
from copy import deepcopy
from math import prod
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import freeze
from rmr_gym.wrappers.features import NO_OPERATION, Encoder

MODES = ("frozen", "fine_tuned", "from_scratch")


class RMRFeaturesExtractor(BaseFeaturesExtractor):
    """Slots of frames as an agent's features; frames stay bytes in its buffer.

    The environment shows frames ``Box[history, height, width]`` of bytes, channels first (of balls
    ``Box[history * 9, height, width]``, three frames in colour for each of the history):
    `rmr_gym.wrappers.features.RMRObservationWrapper` with ``output="frames"`` makes them. Every
    frame of the history is encoded by itself, and all slots stand in one row, oldest first.

    Encoder and P are saved and loaded with the agent. A path or name as ``encoder`` must be found
    again when the agent is loaded; a `PretrainedEncoder` travels inside the agent's file.

    - ``"frozen"``: weights are buffers: no gradient, no optimizer and no averaging of target
      networks can reach them.
    - ``"fine_tuned"``: the encoder learns with the agent; P stays frozen.
    - ``"from_scratch"``: sizes, P and input statistics of the artifact, the encoder's weights drawn
      anew from torch's generator (which the agent's seed sets), and learnt.

    SB3's policies re-draw the weights of every layer in their extractor (``ortho_init``); this one
    does not let them.

    Args:
        observation_space: Of the environment.
        encoder: Folder of an artifact, name of a shipped one, or a `PretrainedEncoder`.
        mode: ``"frozen"``, ``"fine_tuned"`` or ``"from_scratch"``.
        processed: Apply P, with no operation as action: where the world goes by itself.
        scaled: Whether the policy divides bytes by 255 before (SB3's default); False for a policy
            with ``normalize_images=False``.

    Raises:
        RMRError: Frames of another size or type, an unknown mode, ``processed`` without P, or an
            artifact that cannot be read.

    Example:
        >>> from stable_baselines3 import DQN
        >>> from rmr_gym.agents.sb3.extractor import RMRFeaturesExtractor
        >>> policy = {
        ...     "features_extractor_class": RMRFeaturesExtractor,
        ...     "features_extractor_kwargs": {"encoder": "pong", "mode": "fine_tuned"},
        ... }
        >>> agent = DQN("CnnPolicy", env, policy_kwargs=policy)  # doctest: +SKIP
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        encoder: Encoder,
        mode: str = "frozen",
        processed: bool = False,
        scaled: bool = True,
    ):
        known_name("mode", mode, MODES)
        if not isinstance(encoder, PretrainedEncoder):
            encoder = PretrainedEncoder.from_pretrained(encoder)
        config = encoder.config
        self._frame_shape = config.frame_shape
        frames = _number_of_frames(observation_space, self._frame_shape)
        super().__init__(observation_space, frames * config.slots * config.dim)
        self._mode, self._factor = mode, 255.0 if scaled else 1.0
        self.encoder = deepcopy(encoder.encoder)
        if mode == "from_scratch":
            self.encoder = _drawn_anew(encoder)
        elif mode == "frozen":
            freeze_as_buffers(self.encoder)
        if mode != "frozen":
            self.encoder.requires_grad_(requires_grad=True)
        self.processor = deepcopy(encoder.processor) if processed else None
        if self.processor is not None:
            freeze_as_buffers(self.processor)
        elif processed:
            raise RMRError(
                "expected an encoder with P for processed=True, found one without: export it with "
                "its processor"
            )

    def forward(self, observations: Tensor) -> Tensor:
        """Return features [batch, features] of frames [batch, frames, height, width]."""
        pixels = (observations * self._factor).round().to(torch.uint8)
        pixels = pixels.reshape(-1, *self._frame_shape)
        with torch.set_grad_enabled(self._mode != "frozen" and torch.is_grad_enabled()):
            latents = self.encoder(pixels)
            if self.processor is not None:
                action = torch.full((len(latents),), NO_OPERATION, device=latents.device)
                latents = self.processor(latents, action)
        return latents.reshape(len(observations), -1)

    def train(self, mode: bool = True) -> "RMRFeaturesExtractor":
        """Set training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self._mode == "frozen":
            self.encoder.eval()
        if self.processor is not None:
            self.processor.eval()
        return self

    def apply(self, fn: Callable[[nn.Module], None]) -> "RMRFeaturesExtractor":
        """Change nothing: the policy would draw all weights anew here."""
        del fn
        return self


def freeze_as_buffers(module: nn.Module) -> None:
    """Freeze a module for good: its parameters become buffers of the same names.

    They are saved and moved like parameters, but nothing that asks a module for its parameters
    (optimizers, clipping of gradients, averaging of target networks) finds them.
    """
    freeze(module)
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())


def _number_of_frames(space: spaces.Space[Any], frame_shape: tuple[int, ...]) -> int:
    *channels, height, width = frame_shape
    shape, depth = space.shape or (), prod(channels)
    bytes_ = isinstance(space, spaces.Box) and str(space.dtype) == "uint8"
    if not bytes_ or len(shape) != 3 or shape[1:] != (height, width) or shape[0] % depth:
        several = f"{depth} x " if depth > 1 else ""
        raise RMRError(
            f"expected frames of bytes, [{several}frames, {height}, {width}], as the encoder was "
            f"trained on, found {space}: put RMRObservationWrapper with output='frames' around the "
            "environment"
        )
    return shape[0] // depth


def _drawn_anew(encoder: PretrainedEncoder) -> nn.Module:
    """Return an encoder of the same sizes and input statistics (its buffers), else drawn anew."""
    seed = int(torch.randint(2**62, ()).item())
    fresh = build(encoder.config.encoder, torch_generator(seed))
    given = dict(encoder.encoder.named_buffers())
    for name, buffer in fresh.named_buffers():
        buffer.copy_(given[name])
    return fresh
