"""Neural expectation maximisation: a frame as a spatial mixture of groups that are learned."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rmr_gym.core.errors import Checked, RMRError
from rmr_gym.models.rmr.processors import ProcessorSizes
from rmr_gym.models.world import frames as world

ACTION = 10
"""Width of the embedding of an action."""
UNCERTAIN = 1e-6
"""Added to each pixel's probability in the E-step, so that no group is ruled out."""
LEAST = 1e-12
"""No group's first share of a pixel is less before shares are normalised: draws can be 0."""
VISIBLE = 0.1
"""Above this a predicted pixel counts as lit where no frame is seen."""

Pictures = Float[Tensor, "batch slots height width channels"]
Shares = Float[Tensor, "batch slots height width"]
Memory = Float[Tensor, "batch slots memory"]
Seen = Float[Tensor, "batch slots seen"]
Encoded = Float[Tensor, "batch slots width"]
Attention = Float[Tensor, "batch slots slots"]
Action = Float[Tensor, "batch slots action"]
Updated = tuple[Memory, Float[Tensor, "batch slots dim"], Attention]
"""The new memory, what the decoder is shown, and who attends to whom."""


@dataclass(frozen=True)
class NEMSizes(Checked):
    """Sizes of a model of this family; the defaults are those of R-NEM, Appendix A.1.

    Attributes:
        groups: K in training; 1 for the models rnn and lstm, whatever stands here.
        channels: Of the encoder's convolutions; the decoder has them the other way round.
        hidden: Width of the layers before and after the recurrence.
        dim: Width of theta.
        width: Of the interaction's MLPs.
        attention: Hidden width of the attention's MLP.
        noise: Probability that an input pixel is flipped, in [0, 1/2], in a world without actions.
        processor: Groups of R-NEM act on each other through a P of these sizes; None: in pairs.

    Raises:
        RMRError: Counts below 1, no such probability.
    """

    ranges: ClassVar = {"noise": "[0, 0.5]"}

    groups: int = 5
    channels: tuple[int, ...] = (16, 32, 64)
    hidden: int = 512
    dim: int = 250
    width: int = 250
    attention: int = 100
    noise: float = world.NOISE
    processor: ProcessorSizes | None = None

    def with_processor(self, processor: ProcessorSizes) -> "NEMSizes":
        """Return the same sizes, with groups that act on each other through a P."""
        return replace(self, processor=processor)

    def fitted(self, shape: tuple[int, int, int], actions: int) -> "NEMSizes":
        """Return the sizes for frames of a shape, in a world of so many actions (0: none).

        The coder is that of `rmr_gym.models.world.frames.fitted_coder`; with actions the noise is
        `WITH_ACTIONS`.
        """
        noise = world.WITH_ACTIONS if actions else self.noise
        coder = world.fitted_coder(shape, self.channels, self.hidden)
        return replace(self, noise=noise, **coder)


class Update(nn.Module, ABC):
    """One step of the recurrence; the memory of a group is what is handed to the next step.

    From each group's memory, its encoded input and the embedded action (the same for all groups, of
    width 0 in a world without) ``forward`` returns the new memory, what the decoder is shown, and
    who attends to whom.

    Attributes:
        vectors: Width of the memory in vectors as wide as theta.
    """

    vectors = 1


class RecurrentUpdate(Update):
    r"""Groups that know nothing of each other, and with one group a plain recurrent network.

    .. math:: r_k = W \tilde x_k + R\, \theta_k, \quad \theta_k \leftarrow \sigma(r_k), \quad
              o_k = \sigma(\mathrm{LN}(r_k))

    Source: R-NEM, eq. 4 with Upsilon^RNN-EM; layer norm on the output alone (Appendix A.1).
    Differs: none.

    Args:
        sizes: Of the model.
        action: Width of the embedding of an action; 0 in a world without.
    """

    def __init__(self, sizes: NEMSizes, action: int = 0):
        super().__init__()
        self.recurrence = world.GlorotLinear(sizes.dim + sizes.hidden + action, sizes.dim)
        self.norm = nn.LayerNorm(sizes.dim)

    def forward(self, memory: Memory, seen: Seen, action: Action) -> Updated:
        """See `Update`."""
        raw = self.recurrence(torch.cat([memory, seen, action], dim=-1))
        return raw.sigmoid(), self.norm(raw).sigmoid(), nobody(memory)


class LSTMUpdate(Update):
    r"""An LSTM with layer norm on its gates and on its cell.

    Source: R-NEM, Appendix A.1 (LSTM instead of the recurrent layer); its code uses TensorFlow's
    LayerNormBasicLSTMCell, whose arithmetic this is: gates without bias, one norm a gate, 1 added
    to the forget gate, the normalised cell kept.
    Differs: none.

    Args:
        sizes: Of the model.
        action: Width of the embedding of an action; 0 in a world without.
    """

    vectors = 2

    def __init__(self, sizes: NEMSizes, action: int = 0):
        super().__init__()
        self.gates = world.GlorotLinear(
            sizes.dim + sizes.hidden + action, 4 * sizes.dim, bias=False
        )
        self.norms = nn.ModuleList(nn.LayerNorm(sizes.dim) for _ in range(5))

    def forward(self, memory: Memory, seen: Seen, action: Action) -> Updated:
        """See `Update`."""
        cell, output = memory.chunk(2, dim=-1)
        gates = self.gates(torch.cat([output, seen, action], dim=-1))
        enter, value, keep, show = (
            norm(gate) for norm, gate in zip(self.norms, gates.chunk(4, dim=-1), strict=False)
        )
        cell = cell * (keep + 1).sigmoid() + enter.sigmoid() * value.tanh()
        cell = self.norms[4](cell)
        output = cell.tanh() * show.sigmoid()
        return torch.cat([cell, output], dim=-1), output, nobody(memory)


class InteractingUpdate(Update):
    r"""Groups that act on each other.

    .. math::
        \hat\theta_k = \mathrm{MLP}^{enc}(\theta_k), \quad
        r_k = W \tilde x_k + R\, [\hat\theta_k; E_k(\hat\theta)]

    and from r_k as `RecurrentUpdate`; what E is, the kinds of it say.

    Source: R-NEM, eq. 4 and 5, Appendix A.1; with actions A.2.
    Differs: none from the code. In the paper's text the action is joined to the hidden state; in
    the code, and here, to the input of the recurrent layer too.

    Args:
        sizes: Of the model.
        action: Width of the embedding of an action; 0 in a world without.
    """

    def __init__(self, sizes: NEMSizes, action: int = 0):
        super().__init__()
        self.encode = _layer(sizes.dim + action, sizes.width, nn.ReLU())
        self.recurrence = world.GlorotLinear(2 * sizes.width + sizes.hidden + action, sizes.dim)
        self.norm = nn.LayerNorm(sizes.dim)

    def forward(self, memory: Memory, seen: Seen, action: Action) -> Updated:
        """See `Update`; ``attention[b, k, i]`` is what k takes of i, 0 for k = i.

        Raises:
            RMRError: There are fewer than two groups.
        """
        if memory.shape[1] < 2:
            raise RMRError(
                f"expected 2 groups or more that act on each other, got {memory.shape[1]}: for one "
                "group choose the model rnn"
            )
        encoded = self.encode(torch.cat([memory, action], dim=-1))
        effect, attention = self.interact(encoded)
        raw = self.recurrence(torch.cat([encoded, effect, seen, action], dim=-1))
        return raw.sigmoid(), self.norm(raw).sigmoid(), attention

    @abstractmethod
    def interact(self, encoded: Encoded) -> tuple[Encoded, Attention]:
        """Return the total effect on each group, and the attention."""


class RelationalUpdate(InteractingUpdate):
    r"""Groups that act on each other in pairs.

    .. math::
        \xi_{k,i} = \mathrm{MLP}^{emb}([\hat\theta_k; \hat\theta_i]) \\
        e_{k,i} &= \mathrm{MLP}^{eff}(\xi_{k,i}), \quad \alpha_{k,i} = \mathrm{MLP}^{att}(\xi_{k,i})
        \\ E_k &= \textstyle\sum_{i \neq k} \alpha_{k,i}\, e_{k,i}

    All pairs go through the layers at once; the first layer of
    MLP^emb is applied to k and i apart, before they are paired.

    Source: R-NEM, eq. 5, Appendix A.1.
    Differs: see `InteractingUpdate`.

    Args:
        sizes: Of the model.
        action: Width of the embedding of an action; 0 in a world without.
        attentive: Whether pairs are weighed; else alpha = 1.
    """

    def __init__(self, sizes: NEMSizes, action: int = 0, *, attentive: bool = True):
        super().__init__(sizes, action)
        width, hidden = sizes.width, sizes.attention
        self.focus = world.GlorotLinear(width, width)
        self.context = world.GlorotLinear(width, width, bias=False)
        self.embedding = nn.Sequential(nn.LayerNorm(width), nn.ReLU())
        self.effect = _layer(width, width, nn.ReLU())
        self.attend: nn.Sequential | None = None
        if attentive:
            layer = _layer(width, hidden, nn.Tanh())
            self.attend = nn.Sequential(layer, world.GlorotLinear(hidden, 1), nn.Sigmoid())

    def interact(self, encoded: Encoded) -> tuple[Encoded, Attention]:
        """Return the total effect on each group, and the attention."""
        pairs = self.embedding(self.focus(encoded)[:, :, None] + self.context(encoded)[:, None])
        others = 1 - torch.eye(encoded.shape[1], dtype=encoded.dtype, device=encoded.device)
        attention = others.expand(len(encoded), -1, -1)
        if self.attend is not None:
            attention = attention * self.attend(pairs).squeeze(-1)
        return torch.einsum("bki,bkid->bkd", attention, self.effect(pairs)), attention


class ProcessorUpdate(InteractingUpdate):
    r"""Groups that act on each other as a processor P says.

    .. math:: E_k = B\,\bigl(P(A \hat\theta)_k - A \hat\theta_k\bigr)

    A maps to the latents that P was trained on, B maps what P changes in them back. P may have
    been pretrained on the states of a world and stay frozen: RMR inside R-NEM.

    Source: none; after RMR, section 5, and R-NEM, eq. 4, whose interaction function P replaces.
    Differs: P's skip is taken off, so that without interaction the effect is that of P alone.

    Args:
        sizes: Of the model.
        action: Width of the embedding of an action; 0 in a world without.
    """

    def __init__(self, sizes: NEMSizes, action: int = 0):
        super().__init__(sizes, action)
        processor = sizes.processor or ProcessorSizes()
        self.enter = world.GlorotLinear(sizes.width, processor.dim)
        self.leave = world.GlorotLinear(processor.dim, sizes.width, bias=False)
        self.processor = processor.make()

    def interact(self, encoded: Encoded) -> tuple[Encoded, Attention]:
        """Return what P changes in each group; it attends to nobody in particular."""
        latents = self.enter(encoded)
        return self.leave(self.processor(latents) - latents), nobody(encoded)


def nobody(memory: Memory) -> Attention:
    """Return the attention of groups that do not attend to each other."""
    batch, slots, _ = memory.shape
    return memory.new_zeros(batch, slots, slots)


def _layer(before: int, after: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(world.GlorotLinear(before, after), nn.LayerNorm(after), activation)


class NEMState(NamedTuple):
    """What is kept between frames.

    Attributes:
        memory: Of every group: theta, or cell and output of an LSTM.
        pictures: psi, what every group predicts of the next frame.
        groups: gamma, the share of every group in each pixel of the last frame.
        attention: alpha of the last step, what group k takes of group i.
        noisy: The last frame as the groups saw it.
        generator: Source of the noise.
        started: Whether there was a frame yet.
    """

    memory: Memory
    pictures: Pictures
    groups: Shares
    attention: Attention
    noisy: world.Frame
    generator: torch.Generator
    started: bool = False


class SpatialMixture(nn.Module, ABC):
    r"""What N-EM, RNN-EM and R-NEM share: E-step, noise, loss; the M-step is a subclass's.

    The pixels of a frame are modelled as a mixture of K groups with Bernoulli means psi,

    .. math:: \gamma_{i,k} = \frac{P(x_i | \psi_{i,k})}{\sum_j P(x_i | \psi_{i,j})}, \quad
              L = \sum_{i,k} \gamma_{i,k} H(x_i, \psi_{i,k})
              + (1 - \gamma_{i,k}) D_{KL}[0 \,\|\, \psi_{i,k}]

    No gradient goes through gamma. Before the first frame gamma is \|N(0, 1)\|, normalised over K,
    and psi is 0. K may be changed at any time (``model.groups = 8``): no weight depends on it.

    Source: R-NEM, eq. 1 to 3, Appendix A.1 (Bernoulli prior 0).
    Differs: the signs of eq. 3 are those of a loss. As in the code, the loss of x_t+1 uses the
    gamma of x_t+1 itself; there that E-step ends step t, here it begins step t + 1, which is the
    same and needs no frame from the future. Noise is added to every input, in evaluation and in
    simulation too, as the code does. Without a frame, the input is sum_k gamma_k psi_k and gamma
    that of max_k psi cut at 0.1, as in the code; but that input is cut too, at ``cut``: groups
    learn from binary frames, and simulations that are fed probabilities fade in a few steps.
    ``cut = 0`` is the code.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of the model.
        vectors: Width of a group's memory, in vectors as wide as theta.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: NEMSizes, vectors: int = 1):
        super().__init__()
        self.groups, self.shape, self.noise, self.cut = sizes.groups, shape, sizes.noise, world.CUT
        self.memory = vectors * sizes.dim

    def init_state(self, batch: int, generator: torch.Generator) -> NEMState:
        """Return the state before the first frame; see `WorldModel.init_state`."""
        height, width, channels = self.shape
        grid = (batch, self.groups, height, width)
        kind = {"dtype": torch.float32, "device": generator.device}
        shares = torch.randn(*grid, generator=generator, **kind).abs().clamp(min=LEAST)
        memory = torch.zeros(batch, self.groups, self.memory, **kind)
        return NEMState(
            memory=memory,
            pictures=memory.new_zeros(batch, self.groups, height, width, channels),
            groups=shares / shares.sum(dim=1, keepdim=True),
            attention=nobody(memory),
            noisy=memory.new_zeros(batch, height, width, channels),
            generator=generator,
        )

    def step(
        self, state: NEMState, observation: world.Frame | None, action: world.Actions | None
    ) -> NEMState:
        """Do one E-step and one M-step; see `WorldModel.step`."""
        if observation is None:
            lit = (state.pictures.amax(dim=1) > VISIBLE).float()
            state = state._replace(groups=responsibilities(state.pictures, lit))
            observation = world.taken_in(mixed(state), self.cut)
        elif state.started:
            state = state._replace(groups=responsibilities(state.pictures, observation))
        noisy = world.flipped(observation, self.noise, state.generator)
        return self.m_step(state._replace(noisy=noisy, started=True), action)

    @abstractmethod
    def m_step(self, state: NEMState, action: world.Actions | None) -> NEMState:
        """Return the state with new memory, pictures and attention."""

    def decode(self, state: NEMState) -> world.Prediction:
        """Return max_k psi, and where there is more than one group gamma, psi and alpha."""
        more = (state.groups, state.pictures, state.attention) if self.groups > 1 else ()
        return world.Prediction(state.pictures.amax(dim=1), *more)

    def losses(
        self, frames: world.Sequences, actions: world.Played, generator: torch.Generator
    ) -> world.Losses:
        """Return intra- plus inter-cluster losses, summed over pixels and groups.

        Together they are the cross-entropy of psi and gamma x, the part of the frame that a group
        owns; the gamma of the next frame is that which the next step begins with.
        """
        states = list(world.unroll(self, frames[:, :-1], actions, generator))
        last = responsibilities(states[-1].pictures, frames[:, -1])
        shares = torch.stack([*(state.groups for state in states[1:]), last], dim=1)
        pictures = torch.stack([state.pictures for state in states], dim=1)
        owned = shares[..., None] * frames[:, 1:, None]
        return world.frame_bce(pictures, owned).sum(dim=-1)


class RecurrentMixture(SpatialMixture):
    r"""RNN-EM and R-NEM: the M-step is a recurrent network shared by the groups.

    Each group sees :math:`\gamma_k (x - \psi_k)` through an encoder, is updated, and decoded to its
    picture of the next frame.

    Source: R-NEM, sections 2.1 and 2.2, Appendix A.1, and A.2 for games.
    Differs: the input is x - psi as in the code, psi - x in Appendix A.1; the embedding of an
    action has no layer norm, as in the text, which the code has.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions; 0 for a world without.
        make_update: Makes the recurrence from sizes and the width of an action's embedding.
        groups: K; None for that of the sizes.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        sizes: NEMSizes,
        actions: int = 0,
        *,
        make_update: Callable[[NEMSizes, int], Update],
        groups: int | None = None,
    ):
        update = make_update(sizes, ACTION if actions else 0)
        super().__init__(shape, replace(sizes, groups=groups or sizes.groups), update.vectors)
        self.encoder = world.FrameEncoder(shape, sizes.channels, sizes.hidden)
        self.update = update
        self.decoder = world.FrameDecoder(sizes.dim, shape, sizes.channels, sizes.hidden)
        self.action = world.GlorotLinear(actions, ACTION) if actions else None

    def m_step(self, state: NEMState, action: world.Actions | None) -> NEMState:
        """Show every group its part of the error, and update and decode it."""
        error = state.groups[..., None] * (state.noisy[:, None] - state.pictures)
        embedded = self.embed(action, state.memory)
        memory, output, attention = self.update(state.memory, self.encoder(error), embedded)
        return state._replace(memory=memory, pictures=self.decoder(output), attention=attention)

    def embed(self, action: world.Actions | None, memory: Memory) -> Action:
        """Return the embedding of the actions for every group, of width 0 in a world without.

        Raises:
            RMRError: Actions are missing.
        """
        if self.action is None:
            return memory[..., :0]
        embedded = torch.relu(self.action.weight.T[world.need_actions(action)] + self.action.bias)
        return embedded[:, None].expand(-1, memory.shape[1], -1)


class GradientMixture(SpatialMixture):
    r"""N-EM: the M-step follows the gradient of the expected log likelihood.

    .. math:: \theta_k \leftarrow \theta_k + \eta\, \partial Q / \partial \theta_k, \quad
              Q = \textstyle\sum_{i,k} \gamma_{i,k} \log P(x_i | \psi_{i,k})

    It has no dynamics: it expects of the next frame what it has made of this one. Actions are not
    used.

    Source: R-NEM, eq. 2 and section 2.1; Greff et al. 2017.
    Differs: eta is learned, starting at 0.1; Q is divided by the square root of the number of
    pixels, so that eta has about the same size at every resolution. theta begins as standard
    normal, since layers without bias have no gradient at 0.

    Args:
        shape: Height, width and channels of a frame.
        sizes: Of all parts.
        actions: Number of actions, which are not used.
    """

    def __init__(self, shape: tuple[int, int, int], sizes: NEMSizes, actions: int = 0):
        super().__init__(shape, sizes)
        self.decoder = world.FrameDecoder(sizes.dim, shape, sizes.channels, sizes.hidden)
        self.rate = nn.Parameter(torch.tensor(0.1))

    def init_state(self, batch: int, generator: torch.Generator) -> NEMState:
        """Return the state before the first frame; theta is drawn."""
        state = super().init_state(batch, generator)
        return state._replace(memory=torch.empty_like(state.memory).normal_(generator=generator))

    def m_step(self, state: NEMState, action: world.Actions | None) -> NEMState:
        """Take one step of gradient ascent, and decode."""
        memory = state.memory + self.rate * self.slope(state)
        return state._replace(memory=memory, pictures=self.decoder(memory))

    def slope(self, state: NEMState) -> Float[Tensor, "batch slots dim"]:
        """Return the gradient of Q in theta; it can itself be differentiated in training."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            theta = state.memory
            theta = theta if theta.requires_grad else theta.detach().requires_grad_()
            pictures, weight = self.decoder(theta), state.groups[..., None]
            target = state.noisy[:, None].expand_as(pictures)
            likelihood = -world.frame_bce(pictures, target, weight).sum()
            expected = likelihood / pictures[0, 0].numel() ** 0.5
            (slope,) = torch.autograd.grad(expected, theta, create_graph=differentiable)
        return slope


def responsibilities(pictures: Pictures, frame: world.Frame) -> Shares:
    """Return gamma, the E-step: how well each group explains each pixel, 1 in sum over groups.

    Source: R-NEM, section 2.1. Differs: 1e-6 is added to each probability, as in the code; channels
    are summed. No gradient goes through it.
    """
    means, target = pictures.detach(), frame[:, None]
    likely = (target * means + (1 - target) * (1 - means)).sum(dim=-1) + UNCERTAIN
    return likely / likely.sum(dim=1, keepdim=True)


def mixed(state: NEMState) -> world.Frame:
    """Return the prediction of all groups together, sum_k gamma_k psi_k."""
    return (state.groups[..., None] * state.pictures).sum(dim=1)


no_attention = partial(RelationalUpdate, attentive=False)
"""Makes the update of groups that act on each other in pairs, all pairs alike."""


def relational(sizes: NEMSizes, action: int) -> InteractingUpdate:
    """Make the update of R-NEM: groups act on each other through a P where there is one."""
    return (ProcessorUpdate if sizes.processor else RelationalUpdate)(sizes, action)


NEM_MODELS: dict[str, Callable[[tuple[int, int, int], NEMSizes, int], SpatialMixture]] = {
    "rnem": partial(RecurrentMixture, make_update=relational),
    "rnem_no_attention": partial(RecurrentMixture, make_update=no_attention),
    "rnnem": partial(RecurrentMixture, make_update=RecurrentUpdate),
    "nem": GradientMixture,
    "rnn": partial(RecurrentMixture, make_update=RecurrentUpdate, groups=1),
    "lstm": partial(RecurrentMixture, make_update=LSTMUpdate, groups=1),
}
"""Models by name, made from (shape of a frame, sizes, number of actions)."""
