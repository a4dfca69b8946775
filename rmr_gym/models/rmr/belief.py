r"""Belief over RAM: what a transition predicts of it, corrected by what the frame shows.

.. math:: b_t = \mathrm{correct}(P(b_{t-1}, a_{t-1}), f(x_t))

The belief holds a probability a bit. The transition gives the log-odds of the bits that follow, of
the belief and, in its youth, of a second track that no frame ever corrects; the reader gives the
evidence of the frame; seven numbers a bit and two an age join them.

Source: none in the paper; it carries RMR's P (section 3) from step to step as the transition of a
filter.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr import pipeline as parts
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, Latents, RamLogits, draw_uniformly

Bits = Float[Tensor, "batch slots bits"]
Gray = UInt8[Tensor, "rows height width"]
Numbers = Int[Tensor, " batch"]
Actions = Sequence[Numbers]
Transition = Callable[[Bits, Numbers], Bits]
"""From the belief (probabilities) and the actions to the log-odds of the bits that follow."""

LEAST = 1e-4
"""No bit that P predicts is surer than this."""
COPIED = 1e-2
"""How unsure a bit is that is only remembered; the fusion learns what that is worth."""
JOINED = torch.tensor([0.0, 1.0])
"""The trust that leaves what the weights join as it is."""
PENALTIES = tuple(10.0**power for power in range(-4, 1))
AGES = (1, 2, 4, 8, 16, 32)
"""Steps since the start; beliefs between two of these are of one age."""
RARE = 0.05
"""Terms that are smaller on the mean count no more than if they were as large as this: the weight
of a bit that hardly ever changes would be all noise."""
YOUTH, OPENED = 16.0, 64
"""Steps in which what counts in a belief's youth falls by a factor e, and after which it is 0."""
SURE = 4.0
"""Log-odds that a GRU gives the bits at its start."""
PIXELS = 64.0
"""Gray levels that count as 1 for the reader."""


def log_odds(probability: Tensor, least: float = LEAST) -> Tensor:
    """Return the log-odds of probabilities, none of them surer than ``least``."""
    return torch.logit(probability.clamp(least, 1 - least))


def remembered(belief: Bits, action: Tensor) -> Bits:
    """Say that nothing changes: the transition of the control "copy"."""
    del action
    return log_odds(belief, COPIED)


def unknown(belief: Bits, action: Tensor) -> Bits:
    """Say nothing: the transition of the control "none", a reader of single frames."""
    del action
    return torch.zeros_like(belief)


@torch.no_grad()
def predicted(
    pipeline: EncodeProcessDecode, belief: Bits, action: Numbers, batch: int = 128
) -> Bits:
    """Say what P says, between the abstract encoder and decoder.

    A bit is what P writes where the byte is overwritten, and the belief elsewhere: equation 5 with
    probabilities in place of decisions.

    Args:
        pipeline: The abstract pipeline; it is not trained any more.
        belief: Probabilities.
        action: That is taken.
        batch: Beliefs that are computed at once.
    """
    parts = zip(belief.split(batch), action.split(batch), strict=True)
    return torch.cat([log_odds(following_bits(pipeline, *part)) for part in parts])


def following_bits(pipeline: EncodeProcessDecode, belief: Bits, action: Numbers) -> Bits:
    """Return the probabilities of the bits that follow: equation 5, without decisions."""
    logits = pipeline(belief, action)
    assert isinstance(logits, RamLogits)
    written = torch.sigmoid(logits.mask)[..., None]
    return written * torch.sigmoid(logits.bits) + (1 - written) * belief


class Fusion(nn.Module):
    r"""Joins priors and evidence: seven numbers a bit, and two an age that all bits share.

    .. math::
        j &= w_0 l + w_1 x + w_2 + w_3 |l| x + y(t) (w_4 l + w_5 x + w_6 m) \\
        z &= u_0(t) l + u_1(t) j, \qquad y(t) = e^{(1 - t) / 16}, \quad 0 \text{ for } t > 64

    l are the log-odds of the prior, m those that the transition alone carries on from the start, x
    is the evidence: a reader's estimate of the bit minus the bit's mean. With the fourth term
    evidence counts for more or for less where the prior is sure; the last three are of the youth
    of a belief, t steps after its start. u says how far its prior is trusted then (`AGES`).

    Args:
        slots: RAM bytes.
        bits: Bits of a byte.
    """

    weight: Tensor
    trust: Tensor
    ages: Tensor

    def __init__(self, slots: int = 128, bits: int = 8):
        super().__init__()
        start = torch.tensor([1.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        self.register_buffer("weight", start.repeat(slots, bits, 1))
        self.register_buffer("trust", JOINED.repeat(len(AGES) + 1, 1))
        self.register_buffer("ages", torch.tensor(AGES), persistent=False)

    def forward(self, prior: Bits, alone: Bits, evidence: Bits, age: Numbers) -> Bits:
        """Return the log-odds of the belief.

        Args:
            prior: Log-odds that the transition gave.
            alone: Log-odds that it gives without frames, see `opened`.
            evidence: The reader's, of the frame.
            age: Steps since each belief's start, 1 for the first frame after it.
        """
        joined = (_terms(prior, alone, evidence, age) * self.weight).sum(-1)
        kept, used = self.trust[torch.bucketize(age, self.ages)].T[..., None, None]
        fitted = (self.weight[..., :2] != 0).any(-1)  # others never varied and keep their value
        return torch.where(fitted, kept * prior + used * joined, joined)

    @torch.no_grad()
    def fit(
        self,
        prior: Bits,
        alone: Bits,
        evidence: Bits,
        bits: Bits,
        age: Int[Tensor, " rows"],
        steps: int = 20,
    ) -> None:
        """Fit the weights, then the trust, to the truth by penalised logistic regression.

        A bit that never varies among the rows keeps its value.

        Args:
            prior: Log-odds that the transition gave, a row a labelled frame.
            alone: Those without frames.
            evidence: The reader's, of the same frames.
            bits: The truth, 0 or 1.
            age: Steps since the start of the belief.
            steps: Of Newton's method.
        """
        varying = bits.std(0, correction=0) > 0
        self.weight.zero_()
        self.weight[..., 2] = log_odds(bits.mean(0))
        given = prior[:, varying], alone[:, varying], evidence[:, varying]
        terms, truth = _terms(*given, age), bits[:, varying]
        scale = terms.square().mean(0).sqrt().clamp(min=RARE)
        scaled = rearrange(terms / scale, "rows varying terms -> varying rows terms").contiguous()
        weight = _regressed(scaled, truth.T, torch.zeros(scaled.shape[-1]), steps) / scale
        self.weight[varying] = weight
        joined = torch.stack([terms[..., 0], (terms * weight).sum(-1)], -1).clamp(-30, 30)
        group = torch.bucketize(age, self.ages)
        for number in range(len(self.trust)):
            chosen = group == number
            met = joined[chosen].flatten(0, 1), truth[chosen].flatten()
            self.trust[number] = _regressed(met[0][None], met[1][None], JOINED, steps)[0]


def _regressed(
    terms: Float[Tensor, "each rows terms"],
    truth: Float[Tensor, "each rows"],
    drawn_to: Float[Tensor, " terms"],
    steps: int,
) -> Float[Tensor, "each terms"]:
    """Return the weights of logistic regressions, each drawn to the same weights, by Newton."""
    weight, penalty = drawn_to.repeat(len(terms), 1), torch.eye(terms.shape[-1])
    for _ in range(steps):
        chance = torch.sigmoid(terms @ weight[..., None])[..., 0]
        slope = ((chance - truth)[:, None] @ terms)[:, 0] + weight - drawn_to
        spread = (chance * (1 - chance)).clamp(min=1e-6)
        curvature = terms.transpose(1, 2) @ (spread[..., None] * terms) + penalty
        weight = weight - torch.linalg.solve(curvature, slope).clamp(-3, 3)
    return weight


def _terms(prior: Tensor, alone: Tensor, evidence: Tensor, age: Numbers) -> Tensor:
    fresh = torch.exp((1 - age) / YOUTH) * (age <= OPENED)
    young = fresh.view(-1, *[1] * (prior.dim() - 1)).expand_as(prior)
    at_any_age = [prior, evidence, torch.ones_like(prior), prior.abs() * evidence]
    return torch.stack([*at_any_age, young * prior, young * evidence, young * alone], -1)


class PixelReader(nn.Module):
    """A linear reader of single frames: the estimate of every bit, minus the bit's mean.

    Args:
        height: Rows of the gray frames.
        width: Columns of them.
        slots: RAM bytes.
        bits: Bits of a byte.
    """

    middle: Tensor
    weight: Tensor
    mean: Tensor

    def __init__(self, height: int, width: int, slots: int = 128, bits: int = 8):
        super().__init__()
        self.register_buffer("middle", torch.zeros(height * width))
        self.register_buffer("weight", torch.zeros(height * width, slots * bits))
        self.register_buffer("mean", torch.zeros(slots, bits))

    @torch.no_grad()
    def forward(self, frames: Gray, chunk: int = 2048) -> Bits:
        """Return the evidence of frames."""
        parts = [self._scaled(part) @ self.weight for part in frames.split(chunk)]
        return torch.cat(parts).unflatten(1, self.mean.shape)

    def _scaled(self, frames: Tensor) -> Tensor:
        return (frames.flatten(1).float() - self.middle) / PIXELS

    @torch.no_grad()
    def fit(self, frames: Gray, bits: Bits, penalty: float) -> "PixelReader":
        """Fit by ridge regression in its dual form.

        Args:
            frames: Labelled gray frames.
            bits: Their bits, 0 or 1.
            penalty: As a share of the mean squared length of a frame.
        """
        self.middle.copy_(frames.flatten(1).float().mean(0))
        self.mean.copy_(bits.mean(0))
        rows = self._scaled(frames)
        factor, failed = _ridge_factor((rows @ rows.T).double(), penalty)
        if failed:  # frames so alike that single precision does not tell them apart
            factor, _ = _ridge_factor(rows.double() @ rows.double().T, penalty)
        shifted = (bits - self.mean).flatten(1).double()
        self.weight.copy_(rows.T @ torch.cholesky_solve(shifted, factor).float())
        return self


def _ridge_factor(gram: Float[Tensor, "rows rows"], penalty: float) -> tuple[Tensor, Tensor]:
    """Return the Cholesky factor of a Gram matrix with its penalty, and whether there is none."""
    gram.diagonal().add_(penalty * (float(gram.diagonal().mean()) or 1.0))
    return torch.linalg.cholesky_ex(gram)


class CompactReader(nn.Module):
    r"""A `PixelReader` in few small numbers: of low rank, a whole number from -127 to 127 a pixel.

    .. math:: x = \frac{p}{64} \frac{A}{127} B - c

    p are the frame's gray levels; c is the mean frame's reading.

    Args:
        pixels: Of a frame.
        rank: Directions of a frame that are looked along.
        slots: RAM bytes.
        bits: Bits of a byte.
    """

    pixels: Tensor
    along: Tensor
    offset: Tensor
    mean: Tensor

    def __init__(self, pixels: int, rank: int, slots: int = 128, bits: int = 8):
        super().__init__()
        self.register_buffer("pixels", torch.zeros(pixels, rank, dtype=torch.int8))
        self.register_buffer("along", torch.zeros(rank, slots * bits, dtype=torch.float16))
        self.register_buffer("offset", torch.zeros(slots, bits))
        self.register_buffer("mean", torch.zeros(slots, bits))
        self._scaled: tuple[object, Tensor] = None, self.pixels

    @torch.no_grad()
    def forward(self, frames: Gray) -> Bits:
        """Return the evidence of frames."""
        return self._read(frames.flatten(1).float()) - self.offset

    def _read(self, gray: Float[Tensor, "rows pixels"]) -> Bits:
        if self._scaled[0] != (state := (self.pixels.data_ptr(), self.pixels._version)):
            self._scaled = state, self.pixels.float() / 127  # takes longer than its use
        looked = gray / PIXELS @ self._scaled[1]
        return (looked @ self.along.float()).unflatten(1, self.mean.shape)

    @classmethod
    def of(cls, reader: PixelReader, frames: Gray, lost: float) -> "CompactReader":
        """Return a reader of the lowest rank that keeps another's evidence of these frames.

        What rounding does to a pixel is made good at the next one (error diffusion), so that it
        does not add up where a whole screen differs from those that were learned from.

        Source: reduced-rank regression; the directions are the evidence's principal ones.

        Args:
            reader: The other.
            frames: Of which the evidence is kept.
            lost: Root of the share of the evidence's squares that may be lost.
        """
        evidence = reader(frames).flatten(1).double()
        sizes, directions = torch.linalg.eigh(evidence.T @ evidence)
        kept = directions[:, sizes.cumsum(0) > lost**2 * sizes.sum()].float()
        weight = reader.weight @ kept
        scale = weight.abs().amax(0).clamp(min=1e-12) * 127 / 126
        made = cls(len(weight), kept.shape[1], *reader.mean.shape)
        whole = (127 * weight / scale).double().cumsum(0).round()
        pixels = whole.diff(dim=0, prepend=torch.zeros_like(whole[:1]))
        found = {"pixels": pixels, "along": (kept * scale).T}
        made.load_state_dict(found | {"offset": made.offset, "mean": reader.mean})
        made.offset.copy_(made._read(reader.middle[None])[0])
        return made


class Filter(nn.Module):
    """Carries beliefs on from step to step: P, then the fusion with what the frames show.

    Args:
        processor: P.
        slots: RAM bytes.
        bits: Bits of a byte.
        dim: Width of P's slots.
    """

    def __init__(self, processor: nn.Module, slots: int, bits: int, dim: int):
        super().__init__()
        encoder, decoder = parts.RamEncoder(slots, bits, dim), parts.RamDecoder(dim, bits)
        self.pipeline = EncodeProcessDecode(encoder, processor, decoder)
        self.fusion = Fusion(slots, bits)

    def forward(
        self, belief: Bits, alone: Bits, action: Numbers, evidence: Bits, age: Numbers
    ) -> tuple[Bits, Bits]:
        """Return the log-odds of the belief after an action, and those of P without frames.

        Args:
            belief: Log-odds before.
            alone: Those of P without frames; at the start the same.
            action: That led to the frame.
            evidence: The reader's, of the frame.
            age: Steps since each belief's start, this one among them.
        """
        prior = predicted(self.pipeline, (belief > 0).float(), action)
        if (age <= OPENED).any():
            alone = predicted(self.pipeline, (alone > 0).float(), action)
        return self.fusion(prior, alone, evidence, age), alone


def opened(transition: Transition, start: Bits, actions: Actions) -> list[Bits]:
    """Return the log-odds that a transition alone carries on; they are 0 after `OPENED` steps."""
    found, bits = [], start
    for action in actions[:OPENED]:
        found.append(transition(bits, action))
        bits = (found[-1] > 0).float()
    return found + [torch.zeros_like(start)] * (len(actions) - len(found))


def follow(
    transition: Transition,
    fusion: Fusion,
    start: Bits,
    actions: Actions,
    evidence: Sequence[Bits],
    alone: Sequence[Bits],
) -> tuple[list[Bits], list[Bits]]:
    """Carry beliefs on, from their own past, over as many steps as there are actions.

    The belief is cut to bits before each step: P was trained on bits.

    Args:
        transition: Gives the prior.
        fusion: Corrects it.
        start: Bits at the start.
        actions: One tensor a step, the action that led to the frame.
        evidence: The reader's, of the frame after each action.
        alone: What `opened` gives.

    Returns:
        Log-odds before each frame was seen, and afterwards.

    Raises:
        RMRError: Actions and evidence are of different lengths.
    """
    if len(actions) != len(evidence):
        raise RMRError(
            f"a belief needs an action before each frame, got {len(actions)} actions and "
            f"{len(evidence)} frames"
        )
    priors, beliefs, bits = [], [], start
    for age, (action, seen, unseen) in enumerate(zip(actions, evidence, alone, strict=True), 1):
        priors.append(transition(bits, action))
        beliefs.append(fusion(priors[-1], unseen, seen, torch.full((len(start),), age)))
        bits = (beliefs[-1] > 0).float()
    return priors, beliefs


class Recurrent(nn.Module):
    r"""A GRU in the place of transition and fusion.

    .. math::
        h_t &= \mathrm{GRU}([4 x_t, \sigma(z_{t-1}), a_{t-1}], h_{t-1}) \\
        z_t &= w_0 z_{t-1} + w_1 x_t + w_2 + U h_t

    z are the log-odds of the belief, x is the evidence. Before training U is 0, and the belief is
    copied and corrected, three numbers a bit. The belief is not cut to bits.

    Args:
        varying: Numbers of the bits that it follows.
        rest: Log-odds of all bits [slots bits], for those that it does not.
        width: Of the state.
        actions: Number of actions.
    """

    varying: Tensor
    rest: Tensor

    def __init__(self, varying: Int[Tensor, " varying"], rest: Tensor, width: int, actions: int):
        super().__init__()
        self.register_buffer("varying", varying)
        self.register_buffer("rest", rest)
        count = len(varying)
        self.start, self.actions = nn.Linear(count, width), actions
        self.cell = nn.GRUCell(2 * count + actions, width)
        self.read_out = nn.Parameter(torch.zeros(width, count))
        self.weight = nn.Parameter(torch.tensor([[0.7], [4.0], [0.0]]).repeat(1, count))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights of the cell as torch does."""
        draw_uniformly(self.cell.parameters(), self.cell.hidden_size, generator)

    def forward(
        self, start: Bits, actions: Actions, evidence: Sequence[Bits], learned: int | None = None
    ) -> list[Bits]:
        """Return the log-odds after each step.

        Args:
            start: Bits at the start.
            actions: One tensor a step, the action that led to the frame.
            evidence: The reader's, of the frame after each action.
            learned: Gradients flow through the last so many steps; None: through all.
        """
        signs = 2 * start.flatten(1)[:, self.varying] - 1
        state, belief, found = torch.tanh(self.start(signs)), SURE * signs, []
        unlearned = len(actions) - (len(actions) if learned is None else learned)
        copied, shown, offset = self.weight
        graded = torch.is_grad_enabled()
        for ahead, (action, frame) in enumerate(zip(actions, evidence, strict=True)):
            with torch.set_grad_enabled(graded and ahead >= unlearned):
                seen = frame.flatten(1)[:, self.varying]
                pressed = F.one_hot(action, self.actions).float()
                state = self.cell(torch.cat([4 * seen, torch.sigmoid(belief), pressed], 1), state)
                before = copied * belief.clamp(-2 * SURE, 2 * SURE)
                belief = before + shown * seen + offset + state @ self.read_out
                whole = self.rest.flatten().repeat(len(start), 1)
                found.append(whole.index_copy(1, self.varying, belief).view_as(start))
        return found


def hidden_bytes(evidence: Bits, mean: Tensor, bits: Bits, bound: float) -> Bool[Tensor, " slots"]:
    """Tell which bytes a single frame does not show: those that the reader reads below a bound.

    Args:
        evidence: Of held-out frames.
        mean: Of the bits, as the reader has it.
        bits: The truth.
        bound: Of the bit F1 of a byte.
    """
    guess, truth = evidence + mean > 0.5, bits > 0.5
    hits = 2.0 * (guess & truth).sum((0, 2))
    return hits / (hits + (guess != truth).sum((0, 2))).clamp(min=1) < bound


class LatentTransition(nn.Module):
    r"""P as a transition from latents to latents, those of the abstract encoder.

    .. math:: P(b, a) = f(\hat y), \qquad \hat y = g(P(f(\lfloor f^{-1}(b) \rceil), a))

    f is the abstract encoder, and its inverse the bits whose latents are nearest; they are cut,
    since P was trained on bits. Gradients go through the cut as if it were not there.

    Args:
        pipeline: The abstract pipeline.
    """

    inverse: Tensor

    def __init__(self, pipeline: EncodeProcessDecode):
        super().__init__()
        self.pipeline = pipeline
        content: nn.Linear = pipeline.encoder.content
        self.register_buffer("inverse", torch.linalg.pinv(content.weight.detach()))

    def forward(self, belief: Latents, action: Numbers) -> Latents:
        """Return the latents that follow."""
        encoder = self.pipeline.encoder
        soft = ((belief - encoder.slot - encoder.content.bias) @ self.inverse.T).clamp(0, 1)
        bits = soft + ((soft > 0.5).float() - soft).detach()
        return encoder(following_bits(self.pipeline, bits, action))


class LatentCopy(nn.Module):
    """The control that says that nothing changes."""

    def forward(self, belief: Latents, action: Numbers) -> Latents:
        """Return the latents as they are."""
        del action
        return belief


class LatentGRU(nn.Module):
    """A GRU in the place of P, as wide as a slot; the slots share its weights.

    It reads the action and the mean of all slots.

    Args:
        actions: Number of actions.
        dim: Width of a slot.
    """

    def __init__(self, actions: int, dim: int):
        super().__init__()
        self.pressed, self.cell = nn.Linear(actions, dim), nn.GRUCell(dim, dim)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights of the cell as torch does."""
        draw_uniformly(self.cell.parameters(), self.cell.hidden_size, generator)

    def forward(self, belief: Latents, action: Numbers) -> Latents:
        """Return the latents that follow."""
        heard = self.pressed.weight.T[action] + self.pressed.bias + belief.mean(1)
        inputs = heard[:, None].expand_as(belief)
        return self.cell(inputs.flatten(0, 1), belief.flatten(0, 1)).view_as(belief)


class LatentFilter(nn.Module):
    r"""Carries latents on: the transition predicts, the frame corrects, with a gate a slot.

    .. math:: b_t = \hat b_t + \gamma_t (f(x_t) - \hat b_t), \qquad
              \gamma_t = \sigma(w [\hat b_t, f(x_t)] + \beta), \qquad
              \hat b_t = P(b_{t-1}, a_{t-1})

    Args:
        encoder: f, of frames.
        transition: P, or what stands in its place.
        start: Latents of a start that is not known, before they are learned [slots dim].
        spread: Squared distance of latents that differ as successive instants do.
    """

    gate: float | None = None
    """Of every slot at all times; None: it is learned."""

    def __init__(self, encoder: nn.Module, transition: nn.Module, start: Tensor, spread: float):
        super().__init__()
        self.encoder, self.transition = encoder, transition
        self.start = nn.Parameter(start.clone())
        self.weight = nn.Parameter(torch.zeros(2 * start.shape[1]))
        self.offset = nn.Parameter(torch.zeros(len(start)))
        self.log_spread = nn.Parameter(torch.tensor(spread).log())

    def correct(self, prior: Latents, seen: Latents) -> Latents:
        """Return the belief, between what was predicted and what a frame shows."""
        weighed = torch.cat([prior, seen], -1) @ self.weight + self.offset
        gate = torch.sigmoid(weighed)[..., None] if self.gate is None else self.gate
        return torch.lerp(prior, seen, gate)

    def begin(self, frames: UInt8[Tensor, "batch height width"]) -> Latents:
        """Return beliefs that start from what is learned of all starts, and these frames."""
        return self.correct(self.start.expand(len(frames), -1, -1), self.encoder(frames))

    def forward(
        self,
        belief: Latents,
        actions: Int[Tensor, "time batch"],
        frames: UInt8[Tensor, "instants batch height width"],
        ahead: int,
    ) -> tuple[Float[Tensor, ""], Latents]:
        """Carry beliefs on; tell the frame that comes from all others, some steps ahead.

        Predictions of two and more steps are carried on without a frame. The present frame and the
        others of the same track are among those that the right one is told from.

        Source: van den Oord et al. 2018, eq. 4.
        Differs: the similarity is minus the squared distance of all latents over a spread that is
        learned, so that what a frame shows is of the size of what is predicted.

        Args:
            belief: At the start.
            actions: Before each frame but that of the start.
            frames: That of the start and those that follow.
            ahead: Steps that are predicted, at most those that there are.

        Returns:
            The loss, mean over the steps ahead, and the beliefs after the last frame.
        """
        seen, priors = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]), []
        for action, latents in zip(actions, seen[1:], strict=True):
            priors.append(self.transition(belief, action))
            belief = self.correct(priors[-1], latents)
        middle = seen.detach().mean((0, 1)).flatten()
        others, predicted, losses = seen.flatten(2).flatten(0, 1) - middle, torch.stack(priors), []
        for step in range(1, ahead + 1):
            if step > 1:
                before, pressed = predicted[:-1], actions[step - 1 :]
                after = self.transition(before.flatten(0, 1), pressed.flatten())
                predicted = after.view_as(before)
            near = 2 * (predicted.flatten(2).flatten(0, 1) - middle) @ others.T
            near = (near - others.square().sum(1)) / self.log_spread.exp()
            own = torch.arange(step * frames.shape[1], len(others))
            losses.append(F.cross_entropy(near, own))
        return torch.stack(losses).mean(), belief
