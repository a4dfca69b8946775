"""What is inside agents of Stable-Baselines3: pretrained encoders, RIMs for an LSTM."""

from collections.abc import Callable
from copy import deepcopy
from math import prod
from typing import Any

import torch
from einops import rearrange
from gymnasium import spaces
from jaxtyping import Float
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import freeze
from rmr_gym.models.world.rims import Reading, RIMCell, RIMSizes
from rmr_gym.wrappers.features import Encoder


class RMRFeaturesExtractor(BaseFeaturesExtractor):
    """Slots of frames as an agent's features; frames stay bytes in its buffer.

    The environment shows frames ``Box[history, height, width]`` of bytes, channels first (of balls
    ``Box[history * 9, height, width]``, three frames in colour for each of the history):
    `rmr_gym.wrappers.features.RMRObservationWrapper` with ``output="frames"`` makes them. Every
    frame of the history is encoded by itself, and all slots stand in one row, oldest first.

    The encoder is saved and loaded with the agent. A path or name as ``encoder`` must be found
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
        scaled: Whether the policy divides bytes by 255 before (SB3's default); False for a policy
            with ``normalize_images=False``.

    Raises:
        RMRError: Frames of another size or type, an unknown mode, or an artifact that cannot be
            read.

    Example:
        >>> from stable_baselines3 import DQN
        >>> from rmr_gym.agents.sb3.policies import RMRFeaturesExtractor
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
        scaled: bool = True,
    ):
        known_name("mode", mode, ("frozen", "fine_tuned", "from_scratch"))
        encoder = PretrainedEncoder.of(encoder)
        config = encoder.config
        self._frame_shape = config.frame_shape
        frames = _number_of_frames(observation_space, self._frame_shape)
        super().__init__(observation_space, frames * config.slots * config.dim)
        self._mode, self._factor = mode, 255.0 if scaled else 1.0
        self.encoder = _drawn_anew(encoder) if mode == "from_scratch" else deepcopy(encoder.encoder)
        if mode == "frozen":
            freeze_as_buffers(self.encoder)
        else:
            self.encoder.requires_grad_(requires_grad=True)

    def forward(self, observations: Tensor) -> Tensor:
        """Return features [batch, features] of frames [batch, frames, height, width]."""
        pixels = (observations * self._factor).round().to(torch.uint8)
        pixels = pixels.reshape(-1, *self._frame_shape)
        with torch.set_grad_enabled(self._mode != "frozen" and torch.is_grad_enabled()):
            return self.encoder(pixels).reshape(len(observations), -1)

    def train(self, mode: bool = True) -> "RMRFeaturesExtractor":
        """Set training mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self._mode == "frozen":
            self.encoder.eval()
        return self

    def apply(self, fn: Callable[[nn.Module], None]) -> "RMRFeaturesExtractor":
        """Change nothing: the policy would draw all weights anew here."""
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


class Embedded(BaseFeaturesExtractor):
    """A layer of ReLUs on what is shown; of one-hot cells it adds their embeddings.

    Args:
        observation_space: A Box.
        features_dim: Width of the layer.
    """

    def __init__(self, observation_space: spaces.Space[Any], features_dim: int = 64):
        super().__init__(observation_space, features_dim)
        layer = nn.Linear(prod(observation_space.shape or ()), features_dim)
        self.layers = nn.Sequential(nn.Flatten(), layer, nn.ReLU())

    def forward(self, observations: Tensor) -> Tensor:
        """Return features [batch, features]."""
        return self.layers(observations)


POLICY_SIZES = RIMSizes(rims=6, active=4, units=60, dropout=0.0)
"""On 512 features a core has 3% fewer parameters than sb3-contrib's LSTM of 256 units."""

PackedState = tuple[Float[Tensor, "1 batch dim"], Float[Tensor, "1 batch dim"]]
"""What RIMs show and what they remember, each RIM after RIM, as an LSTM's hidden and cell state."""


class RIMsCore(nn.Module):
    """A layer of RIMs that is called as a `torch.nn.LSTM` of one layer is.

    What comes in is one element, beside the null element; what goes out are the states of all RIMs,
    one after another.

    Args:
        input_size: Width of what comes in at a step.
        sizes: Of the layer.

    Raises:
        RMRError: GRUs, which have no memory to pack, or dropout, with which PPO would compare
            different policies.
    """

    num_layers = 1

    def __init__(self, input_size: int, sizes: RIMSizes):
        if sizes.dynamics != "lstm" or sizes.dropout:
            raise RMRError(
                "expected RIMs of a policy to have dynamics 'lstm' and dropout 0, got "
                f"{sizes.dynamics!r} and {sizes.dropout}"
            )
        super().__init__()
        self.cell = RIMCell(input_size, sizes)
        self.input_size, self.hidden_size = input_size, sizes.rims * sizes.units

    def forward(
        self,
        sequence: Float[Tensor, "time batch features"],
        state: PackedState,
        begins: Float[Tensor, "time batch"] | None = None,
    ) -> tuple[Float[Tensor, "time batch dim"], PackedState]:
        """Return what RIMs show after each step, and their state after the last.

        Args:
            sequence: What comes in.
            state: Before the first step.
            begins: 1 where the state is set to 0 before a step; None: nowhere.

        Raises:
            RMRError: Features or states of another width.
        """
        widths = [sequence.shape[-1], *(each.shape[-1] for each in state)]
        if widths != [self.input_size, self.hidden_size, self.hidden_size]:
            raise RMRError(
                f"expected {self.input_size} features and states of {self.hidden_size}, got "
                f"{widths[0]} and {widths[1:]}: the agent was made for other features or RIMs"
            )
        kept = 1 - (sequence.new_zeros(sequence.shape[:2]) if begins is None else begins)
        read = map(Reading, *self.cell.read(sequence[:, :, None]))
        hidden, memory = (part[0].unflatten(-1, (self.cell.sizes.rims, -1)) for part in state)
        layer = self.cell.init_state(len(hidden), torch.Generator())
        layer, shown = layer._replace(hidden=hidden, memory=memory), []
        for reading, keep in zip(read, kept[:, :, None, None], strict=True):
            begun = layer._replace(hidden=keep * layer.hidden, memory=keep * layer.memory)
            layer = self.cell(reading, begun)
            shown.append(layer.hidden.flatten(1))
        return torch.stack(shown), (shown[-1][None], layer.memory.flatten(1)[None])


class RIMsPolicy(RecurrentActorCriticPolicy):
    """Actor and critic with a layer of RIMs each, for `sb3_contrib.RecurrentPPO`.

    Source: RIMs, section 4.3 and Appendix C.12: the LSTM of PPO is replaced, nothing else; 6 RIMs,
    of which 4 are active (the paper also tries 5); the policy reads the states of all of them.
    Differs: the paper states no width; 60 units a RIM make the number of parameters that of the
    LSTM. Actor and critic have a core each, as sb3-contrib's LSTMs, where the authors' share one.
    No dropout, of which the paper has 0.1. RIMs are LSTMs, as the text says. The authors' released
    Atari code has GRUs of 85 units, and as we read it actor and critic get the encoder's features
    there, not the RIMs' states. See `RIMCell` for what differs in a step.

    Args:
        observation_space: Observation space.
        action_space: Action space.
        lr_schedule: Learning rate, from the share of training that is left.
        rims: Sizes of either layer.
        **settings: Further ones of sb3-contrib's policy, but for the LSTM's sizes.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        rims: RIMSizes = POLICY_SIZES,
        **settings: Any,
    ):
        width = rims.rims * rims.units
        super().__init__(
            observation_space, action_space, lr_schedule, lstm_hidden_size=width, **settings
        )
        self.lstm_actor = self._core(rims)
        if self.enable_critic_lstm:
            self.lstm_critic = self._core(rims)
        rate: dict[str, Any] = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(self.parameters(), **rate)

    @staticmethod
    def _process_sequence(
        features: Float[Tensor, "rows features"],
        lstm_states: PackedState,
        episode_starts: Float[Tensor, " rows"],
        lstm: Any,
    ) -> tuple[Float[Tensor, "rows dim"], Any]:
        """Do what sb3-contrib does, but read a sequence at once although episodes begin in it."""
        batch = lstm_states[0].shape[1]
        sequence = rearrange(features, "(batch time) dim -> time batch dim", batch=batch)
        begins = rearrange(episode_starts, "(batch time) -> time batch", batch=batch)
        shown, state = lstm(sequence, lstm_states, begins)
        return rearrange(shown, "time batch dim -> (batch time) dim"), state

    def _core(self, sizes: RIMSizes) -> RIMsCore:
        """Return a core with weights from torch's global generator, which SB3 has seeded."""
        generator = torch_generator(int(torch.randint(2**62, ())))
        return build(lambda: RIMsCore(self.features_dim, sizes), generator)
