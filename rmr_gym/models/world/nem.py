"""Neural expectation maximisation: a frame as a spatial mixture of groups that are learned."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rmr_gym.core.errors import RMRError
from rmr_gym.models.world.base import CUT, SURE, Prediction, taken_in
from rmr_gym.models.world.nem_dynamics import ACTION, Update, nobody
from rmr_gym.models.world.nem_frames import FrameDecoder, FrameEncoder

UNCERTAIN = 1e-6
"""Added to each pixel's probability in the E-step, so that no group is ruled out."""
LEAST = 1e-12
"""No group's first share of a pixel is less before shares are normalised: draws can be 0."""
VISIBLE = 0.1
"""Above this a predicted pixel counts as lit where no frame is seen."""

Frame = Float[Tensor, "batch height width channels"]
Frames = Float[Tensor, "batch slots height width channels"]
Shares = Float[Tensor, "batch slots height width"]


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

    memory: Float[Tensor, "batch slots memory"]
    pictures: Frames
    groups: Shares
    attention: Float[Tensor, "batch slots slots"]
    noisy: Frame
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
        groups: K, 1 or more.
        shape: Height, width and channels of a frame.
        memory: Width of a group's memory.
        noise: Probability that a pixel is flipped, in [0, 1/2].

    Raises:
        RMRError: No group, or no such probability.
    """

    def __init__(self, groups: int, shape: tuple[int, int, int], memory: int, noise: float):
        super().__init__()
        if groups < 1 or not 0 <= noise <= 0.5:
            raise RMRError(
                f"expected one group or more and noise from 0 to 0.5, got {groups} and {noise}"
            )
        self.groups, self.shape, self.memory, self.noise = groups, shape, memory, noise
        self.cut = CUT

    def init_state(self, batch: int, generator: torch.Generator) -> NEMState:
        """Return the state before the first frame; see `WorldModel.init_state`."""
        place, (height, width, channels) = generator.device, self.shape
        shares = torch.randn(
            batch, self.groups, height, width, generator=generator, device=place
        ).abs()
        shares = shares.clamp(min=LEAST)
        memory = torch.zeros(batch, self.groups, self.memory, device=place)
        return NEMState(
            memory=memory,
            pictures=memory.new_zeros(batch, self.groups, height, width, channels),
            groups=shares / shares.sum(dim=1, keepdim=True),
            attention=nobody(memory),
            noisy=memory.new_zeros(batch, height, width, channels),
            generator=generator,
        )

    def step(
        self, state: NEMState, observation: Frame | None, action: Int[Tensor, " batch"] | None
    ) -> NEMState:
        """Do one E-step and one M-step; see `WorldModel.step`."""
        if observation is None:
            lit = (state.pictures.amax(dim=1) > VISIBLE).float()
            state = state._replace(groups=responsibilities(state.pictures, lit))
            observation = taken_in(mixed(state), self.cut)
        elif state.started:
            state = state._replace(groups=responsibilities(state.pictures, observation))
        noisy = flipped(observation, self.noise, state.generator)
        return self.m_step(state._replace(noisy=noisy, started=True), action)

    @abstractmethod
    def m_step(self, state: NEMState, action: Int[Tensor, " batch"] | None) -> NEMState:
        """Return the state with new memory, pictures and attention."""

    def decode(self, state: NEMState) -> Prediction:
        """Return max_k psi, and gamma where there is more than one group."""
        groups = state.groups if state.groups.shape[1] > 1 else None
        return Prediction(state.pictures.amax(dim=1), groups)

    def loss(self, state: NEMState, following: Frame) -> Float[Tensor, " batch"]:
        """Return intra- plus inter-cluster loss of each sequence, summed over pixels and groups."""
        shares = responsibilities(state.pictures, following)[..., None]
        pictures = state.pictures.clamp(SURE, 1 - SURE)
        target = following[:, None].expand_as(pictures)
        within = shares * F.binary_cross_entropy(pictures, target, reduction="none")
        between = (1 - shares) * -torch.log1p(-pictures)
        return reduce(within + between, "batch k h w c -> batch", "sum")


class RecurrentMixture(SpatialMixture):
    r"""RNN-EM and R-NEM: the M-step is a recurrent network shared by the groups.

    Each group sees :math:`\gamma_k (x - \psi_k)` through an encoder, is updated, and decoded to its
    picture of the next frame.

    Source: R-NEM, sections 2.1 and 2.2, Appendix A.1.
    Differs: the input is x - psi as in the code, psi - x in Appendix A.1.

    Args:
        groups: K.
        shape: Height, width and channels of a frame.
        encoder: From frames to vectors.
        update: The recurrence.
        decoder: From vectors to frames.
        noise: Probability that a pixel is flipped.
        actions: Number of actions; 0 for a world without.
    """

    def __init__(
        self,
        groups: int,
        shape: tuple[int, int, int],
        encoder: FrameEncoder,
        update: Update,
        decoder: FrameDecoder,
        noise: float,
        actions: int = 0,
    ):
        super().__init__(groups, shape, update.memory, noise)
        self.encoder, self.update, self.decoder = encoder, update, decoder
        self.action = nn.Linear(actions, ACTION) if actions else None

    def m_step(self, state: NEMState, action: Int[Tensor, " batch"] | None) -> NEMState:
        """Show every group its part of the error, and update and decode it."""
        error = state.groups[..., None] * (state.noisy[:, None] - state.pictures)
        told = self.embed(action, state.memory)
        memory, shown, attention = self.update(state.memory, self.encoder(error), told)
        return state._replace(memory=memory, pictures=self.decoder(shown), attention=attention)

    def embed(self, action: Int[Tensor, " batch"] | None, memory: Tensor) -> Tensor:
        """Return the embedding of the actions, of width 0 in a world without actions.

        Raises:
            RMRError: Actions are missing.
        """
        if self.action is None:
            return memory.new_zeros(len(memory), 0)
        if action is None:
            raise RMRError("expected an action a sequence, as in training, got none")
        return torch.relu(self.action.weight.T[action] + self.action.bias)


class GradientMixture(SpatialMixture):
    r"""N-EM: the M-step follows the gradient of the expected log likelihood.

    .. math:: \theta_k \leftarrow \theta_k + \eta\, \partial Q / \partial \theta_k, \quad
              Q = \textstyle\sum_{i,k} \gamma_{i,k} \log P(x_i | \psi_{i,k})

    It has no dynamics: it expects of the next frame what it has made of this one. Actions are not
    used.

    Source: R-NEM, eq. 2 and section 2.1; Greff et al. 2017.
    Differs: eta is learned, starting at 0.1; Q is divided by the square root of the number of
    pixels, so that eta has about the same size at every resolution.

    Args:
        groups: K.
        shape: Height, width and channels of a frame.
        dim: Width of theta.
        decoder: From theta to frames.
        noise: Probability that a pixel is flipped.
    """

    def __init__(
        self,
        groups: int,
        shape: tuple[int, int, int],
        dim: int,
        decoder: FrameDecoder,
        noise: float,
    ):
        super().__init__(groups, shape, dim, noise)
        self.decoder = decoder
        self.rate = nn.Parameter(torch.tensor(0.1))

    def m_step(self, state: NEMState, action: Int[Tensor, " batch"] | None) -> NEMState:
        """Take one step of gradient ascent, and decode."""
        del action
        memory = state.memory + self.rate * self.slope(state)
        return state._replace(memory=memory, pictures=self.decoder(memory))

    def slope(self, state: NEMState) -> Float[Tensor, "batch slots dim"]:
        """Return the gradient of Q in theta; it can itself be differentiated in training."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            theta = state.memory
            theta = theta if theta.requires_grad else theta.detach().requires_grad_()
            pictures = self.decoder(theta).clamp(SURE, 1 - SURE)
            target = state.noisy[:, None].expand_as(pictures)
            likelihood = -F.binary_cross_entropy(pictures, target, reduction="none")
            expected = (state.groups[..., None] * likelihood).sum() / pictures[0, 0].numel() ** 0.5
            (slope,) = torch.autograd.grad(expected, theta, create_graph=differentiable)
        return slope


def responsibilities(pictures: Frames, frame: Frame) -> Shares:
    """Return gamma, the E-step: how well each group explains each pixel, 1 in sum over groups.

    Source: R-NEM, section 2.1. Differs: 1e-6 is added to each probability, as in the code; channels
    are summed. No gradient goes through it.
    """
    means, target = pictures.detach(), frame[:, None]
    likely = (target * means + (1 - target) * (1 - means)).sum(dim=-1) + UNCERTAIN
    return likely / likely.sum(dim=1, keepdim=True)


def mixed(state: NEMState) -> Frame:
    """Return the prediction of all groups together, sum_k gamma_k psi_k."""
    return (state.groups[..., None] * state.pictures).sum(dim=1)


def flipped(frame: Frame, probability: float, generator: torch.Generator) -> Frame:
    """Return the frame with some pixels x turned into 1 - x."""
    if not probability:
        return frame
    drawn = torch.rand(frame.shape, generator=generator, device=generator.device)
    return torch.where(drawn < probability, 1 - frame, frame)
