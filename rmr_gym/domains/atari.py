"""What ties Atari games to the models: pipelines, batches, scores, alignment, labels of RAM."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from rmr_gym.core import metrics
from rmr_gym.core.actions import ale_actions
from rmr_gym.core.errors import Checked, RMRError, known_name
from rmr_gym.core.palette import palette_to_gray
from rmr_gym.core.seeding import generator
from rmr_gym.data.dataset import FrameTransform, TransitionDataset, duplicate_rows
from rmr_gym.data.sampling import ram_to_bits
from rmr_gym.data.schema import Manifest
from rmr_gym.models.rmr import pipeline as models
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode, build_seeded
from rmr_gym.models.rmr.processors import Processor, make_processor

SLOTS, BITS, ACTIONS = 128, 8, 18


Chosen = Int[np.ndarray, " chosen"]
"""Addresses of RAM bytes."""
AbstractPipeline = EncodeProcessDecode[models.RamEncoder, Processor, models.RamDecoder]
NaturalPipeline = EncodeProcessDecode[models.SlotCNN, Processor, models.LatentDecoder]
GrayFrames = UInt8[Tensor, "rows height width"]
Predicted = Bool[np.ndarray, "rows bytes bits"]
Bits = UInt8[np.ndarray, "rows bytes bits"]


@dataclass(frozen=True)
class AtariModel(Checked):
    """Sizes of the Atari pipelines.

    Attributes:
        dim: Width of a slot's latent vector (the paper: 64).
        core: Processor core: mpnn, deep_sets, mlp or none.
        aggregation: Aggregation of messages: max, sum or mean.
        maps: Feature maps a slot of the pixel encoder (the paper's m).
        trunk: Convolutional trunk: anand2019 (210 x 160) or nature (84 x 84).
        height: Rows of the gray frame that the encoder sees; 210 is the console's own.
        width: Columns of that frame; 160 is the console's own.
        precision: Arithmetic of the message passing: fp32 or bf16 (fp32 sums).
    """

    dim: int = 64
    core: str = "mpnn"
    aggregation: str = "max"
    maps: int = 1
    trunk: str = "anand2019"
    height: int = 210
    width: int = 160
    precision: str = "fp32"

    @property
    def label(self) -> str:
        """What tells it from others in titles."""
        return f"{self.core} dim {self.dim}"


def make_core(model: AtariModel, core: str, seed: int, slots: int = SLOTS) -> Processor:
    """Make a processor with initial weights from (seed, "processor")."""
    options = {"aggregation": model.aggregation, "precision": model.precision}
    factory = partial(make_processor, core, slots=slots, actions=ACTIONS, dim=model.dim, **options)
    return build_seeded(factory, seed, "processor")


def abstract_pipeline(model: AtariModel, seed: int, slots: int = SLOTS) -> AbstractPipeline:
    """Make the RAM pipeline: linear encoder and decoders around the processor."""
    encoder = build_seeded(
        lambda: models.RamEncoder(slots, BITS, model.dim), seed, "abstract encoder"
    )
    decoder = build_seeded(lambda: models.RamDecoder(model.dim, BITS), seed, "abstract decoder")
    return EncodeProcessDecode(encoder, make_core(model, model.core, seed, slots), decoder)


def pixel_encoder(model: AtariModel, seed: int, *, affine: bool = False) -> models.SlotCNN:
    """Make the pixel encoder with initial weights from (seed, "natural encoder")."""
    sizes = {"slots": SLOTS, "maps": model.maps, "dim": model.dim, "trunk": model.trunk}
    factory = partial(models.SlotCNN, model.height, model.width, **sizes, affine=affine)
    return build_seeded(factory, seed, "natural encoder")


def natural_pipeline(model: AtariModel, processor: Processor, seed: int) -> NaturalPipeline:
    """Make the pixel pipeline around ``processor``; equal seeds give equal encoders, decoders."""
    decoder = build_seeded(lambda: models.LatentDecoder(model.dim), seed, "natural decoder")
    return EncodeProcessDecode(pixel_encoder(model, seed), processor, decoder)


class AbstractData(NamedTuple):
    """RAM transitions: every observation once, and where each transition starts."""

    bits: Bits
    action: Int[np.ndarray, " transitions"]
    current: Int[np.ndarray, " transitions"]
    ram: UInt8[np.ndarray, "rows bytes"]


class NaturalData(NamedTuple):
    """Gray frames and actions; no RAM is ever loaded for it."""

    frames: GrayFrames
    action: Int[Tensor, " transitions"]
    current: Int[np.ndarray, " transitions"]
    episode: Int[np.ndarray, " transitions"]
    mean_frame: Float[Tensor, "height width"]
    deviation: float


class ProbeData(NamedTuple):
    """Frames with the RAM of the same instant; read by the probes alone.

    Attributes:
        frames: Gray frames.
        bits: Those of the chosen RAM bytes.
        episode: Number of the episode of each row.
        ram: All of RAM.
        before: RAM one observation earlier; the same at the start of an episode.
    """

    frames: GrayFrames
    bits: UInt8[np.ndarray, "rows chosen bits"]
    episode: Int[np.ndarray, " rows"]
    ram: UInt8[np.ndarray, "rows bytes"]
    before: UInt8[np.ndarray, "rows bytes"]


def load_abstract(dataset: TransitionDataset, episodes: Sequence[int]) -> AbstractData:
    """Load RAM and actions of some episodes."""
    loaded = dataset.load(columns=("ram", "action"), episodes=episodes)
    ram, action = loaded["ram"], pressed_actions(dataset.manifest)[loaded["action"]]
    return AbstractData(ram_to_bits(ram), action, loaded.current, ram)


def load_natural(
    dataset: TransitionDataset, episodes: Sequence[int], height: int, width: int
) -> NaturalData:
    """Load frames and actions of some episodes, frames at the encoder's size."""
    shrunk = frame_transform(height, width)
    loaded = dataset.load(columns=("pixels", "action"), episodes=episodes, transform=shrunk)
    frames = torch.from_numpy(loaded["pixels"])
    mean_frame, deviation = frame_statistics(frames)
    action = torch.from_numpy(pressed_actions(dataset.manifest)[loaded["action"]])
    return NaturalData(frames, action, loaded.current, loaded.episode, mean_frame, deviation)


def pressed_actions(manifest: Manifest) -> Int[np.ndarray, " actions"]:
    """Return which of ALE's actions, which are P's, each action of a data set is."""
    advice = "record the game again, without what hides from the recorder what its actions press"
    return ale_actions(manifest.action_names, advice)


def load_probe(
    dataset: TransitionDataset,
    episodes: Sequence[int],
    height: int,
    width: int,
    scored: Chosen,
    rows: int,
    seed: int,
) -> ProbeData:
    """Load ``rows`` frames, drawn without replacement, with the bits of the chosen RAM bytes.

    The draw depends on the data set's seed alone, so that every encoder is probed on the same rows.
    """
    shrunk = frame_transform(height, width)
    loaded = dataset.load(columns=("pixels", "ram"), episodes=episodes, transform=shrunk)
    ram = loaded["ram"]
    rng = generator(seed, "probe rows")
    picked = np.sort(rng.choice(len(ram), size=min(rows, len(ram)), replace=False))
    follows = np.zeros(len(ram), int)
    follows[loaded.current + 1] = 1
    episode = np.cumsum(1 - follows) - 1
    frames, bits = torch.from_numpy(loaded["pixels"][picked]), ram_to_bits(ram[picked])[:, scored]
    before = ram[picked - follows[picked]]
    return ProbeData(frames, bits, episode[picked], ram[picked], before)


def without_duplicates(train: ProbeData, test: ProbeData) -> tuple[ProbeData, int]:
    """Drop test rows whose frame is byte-equal to a training frame; return how many fell.

    Source: Anand et al. 2019 (their code); decisions page, 5.

    Raises:
        RMRError: If no row is left.
    """
    keep = ~duplicate_rows(train.frames.numpy(), test.frames.numpy())
    if not keep.any():
        raise RMRError(
            f"all {len(keep)} test frames also occur in the training episodes: record more or "
            "longer episodes with more varied heads, or with sticky actions where a policy of "
            "yours always plays the same"
        )
    index = np.flatnonzero(keep)
    frames, *others = test
    kept = ProbeData(frames[index], *(part[index] for part in others))
    return kept, int((~keep).sum())


def frame_statistics(frames: GrayFrames) -> tuple[Float[Tensor, "height width"], float]:
    """Return the mean frame and the root mean square deviation from it, in gray levels."""
    mean = sum(part.double().sum(0) for part in frames.split(2048)) / len(frames)
    assert isinstance(mean, Tensor)
    squares = sum((part.double() - mean).square().sum().item() for part in frames.split(2048))
    return mean.to(torch.float32), float((squares / frames.numel()) ** 0.5)


def frame_transform(height: int, width: int) -> FrameTransform:
    """Return the function from palette indices [time 210 160] to gray frames of a size.

    Shrinking averages areas: each output pixel is the mean gray level of the part of the screen
    that it covers. Sums are of whole numbers and exact, and halves are rounded up, so that the
    bytes are the same on every machine.
    """
    return partial(_to_gray, height=height, width=width)


def _to_gray(
    indices: UInt8[np.ndarray, "time rows columns"], height: int, width: int
) -> UInt8[np.ndarray, "time height width"]:
    gray = palette_to_gray(indices)
    if gray.shape[1:] == (height, width):
        return gray
    rows, columns = area_overlaps(gray.shape[1], height), area_overlaps(gray.shape[2], width)
    total = rows @ gray.astype(np.float32) @ columns.T
    return rounded_means(total, gray.shape[1] * gray.shape[2])


def rounded_means(total: Float[np.ndarray, "*shape"], count: int) -> UInt8[np.ndarray, "*shape"]:
    """Return sums over so many parts as bytes; the sums are overwritten."""
    total /= np.float32(count)
    total += np.float32(0.5)
    return total.astype(np.uint8)


def area_overlaps(size: int, target: int) -> Float[np.ndarray, "target size"]:
    """Return of how many parts of each of ``size`` pixels each of ``target`` pixels is made.

    A pixel of the source has ``target`` parts, one of the target ``size``. Sums of bytes weighted
    so along both sides of a screen stay below 2^24, where float32 is exact in any order.

    Raises:
        RMRError: If the target is larger than the source.
    """
    if not 1 <= target <= size:
        raise RMRError(f"frames of {size} pixels can be shrunk to 1..{size}, not to {target}")
    top, left = np.arange(target)[:, None] * size, np.arange(size) * target
    overlap = np.minimum(top + size, left + target) - np.maximum(top, left)
    return np.clip(overlap, 0, None).astype(np.float32)


class RamScores(NamedTuple):
    """Scores of predicted next RAM on the bytes of high entropy."""

    slot_accuracy: float
    bit_f1: float
    bit_accuracy: float
    mask_accuracy: float


def ram_scores(predicted: Predicted, bits: Bits, next_bits: Bits, scored: Chosen) -> RamScores:
    """Score predicted next bits; the mask counts as the bytes where prediction and input differ."""
    scores = metrics.bit_f1(predicted[:, scored], next_bits[:, scored].astype(bool))
    changed = (bits != next_bits).any(-1)[:, scored]
    claimed = (bits.astype(bool) != predicted).any(-1)[:, scored]
    mask = float((changed == claimed).mean())
    return RamScores(scores.slot_accuracy, scores.micro_f1, scores.bit_accuracy, mask)


@torch.no_grad()
def predict_ram(pipeline: EncodeProcessDecode, data: AbstractData) -> Predicted:
    """Predict the bits after every transition of ``data``."""
    parts, device = [], next(pipeline.parameters()).device
    whole = torch.from_numpy(data.current), torch.from_numpy(data.action)
    for rows, action in zip(*(part.split(250) for part in whole), strict=True):
        bits = torch.from_numpy(data.bits[rows]).float().to(device)
        parts.append(models.predicted_bits(pipeline(bits, action.to(device)), bits).cpu().numpy())
    return np.concatenate(parts)


ROWS = 2000
FLOOR = 0.01
"""Share of the mean variance below which no direction of a slot falls; else most slots are dead."""


class AbstractLatents(NamedTuple):
    """Abstract latents before and after the action, of transitions drawn at random."""

    current: Float[Tensor, "rows slots dim"]
    following: Float[Tensor, "rows slots dim"]


@torch.no_grad()
def abstract_latents(encoder: nn.Module, data: AbstractData, rows: int = ROWS) -> AbstractLatents:
    """Encode ``rows`` transitions of RAM, drawn without replacement, in random order."""
    index = generator(0, "abstract latents").permutation(len(data.current))[:rows]
    both = (data.bits[data.current[index] + ahead] for ahead in (0, 1))
    return AbstractLatents(*(encoder(torch.from_numpy(bits).float()) for bits in both))


@torch.no_grad()
def match_moments(encoder: models.SlotCNN, frames: GrayFrames, latents: AbstractLatents) -> None:
    r"""Set the encoder's affine map so that each slot has the abstract mean and covariance.

    .. math:: A_i = N_i^{-1/2} (N_i^{1/2} C_i N_i^{1/2})^{1/2} N_i^{-1/2}

    the optimal transport between Gaussians, N the natural and C the abstract covariance; both are
    raised to a floor, so that RAM bytes that never change leave their slots alive.

    Source: none in the paper; Peyré and Cuturi 2019, Computational Optimal Transport, remark 2.31.

    Args:
        encoder: With an affine map a slot (``affine=True``) and its input statistics set.
        frames: Spread evenly over these, the natural moments are taken.
        latents: Of the abstract encoder.
    """
    assert encoder.affine is not None
    encoder.affine.reset()
    rows = np.linspace(0, len(frames) - 1, min(ROWS, len(frames))).astype(int)
    natural = torch.cat([encoder(part) for part in frames[torch.from_numpy(rows)].split(250)])
    mean, covariance = _moments(natural)
    target_mean, target = _moments(latents.current)
    root, inverse = _roots(covariance)
    middle, _ = _roots(root @ target @ root)
    weight = inverse @ middle @ inverse
    encoder.affine.weight.copy_(weight)
    offset = target_mean - torch.einsum("si,sij->sj", mean, weight)
    encoder.affine.bias.copy_(offset)


def _moments(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return means [slots dim] and floored covariances [slots dim dim], in double precision."""
    slots = latents.double().transpose(0, 1)
    mean = slots.mean(1)
    centred = slots - mean[:, None]
    covariance = centred.transpose(1, 2) @ centred / slots.shape[1]
    floor = FLOOR * covariance.diagonal(dim1=1, dim2=2).mean()
    return mean, covariance + floor * torch.eye(slots.shape[2], dtype=slots.dtype)


def _roots(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square roots of symmetric positive matrices, and their inverses."""
    values, vectors = torch.linalg.eigh(matrices)
    root = values.clamp(min=0).sqrt()
    inverse = torch.where(root > 0, 1 / root, 0)
    roots, inverses = (vectors * part[:, None] @ vectors.mT for part in (root, inverse))
    return roots, inverses


CATEGORIES = (
    "agent_localisation", "small_object_localisation", "other_localisation",
    "score_clock_lives_display", "misc",
)  # fmt: skip
"""The categories of Anand et al. 2019, Table 2."""


@dataclass(frozen=True)
class Label:
    """A state variable of a game: which RAM byte holds it, and to what category it belongs.

    Source: AtariARI, Anand et al. 2019 (the annotations and the five categories of their code).
    Differs, where that table is at fault:

    - Asteroids, 60: lives and direction share the byte; they are two labels here, of 4 bits each.
    - Battlezone, 59 and 60: the treads' positions run modulo 8, as noted there; the upper bits are
      masked away.
    - Berzerk, 64: held to be the height of a ninth robot, it never changes; 8 robots are left.
    - Breakout: 77 is the score in binary coded decimal, and was called the number of blocks hit; 84
      is five times the score modulo 50, and was called the score.
    - Categories: theirs are found by parts of a name, so that a label can count twice (lives and
      direction) or never (angles, treads, colours); here each label has one.

    Attributes:
        name: AtariARI's name, numbered where it stands for several bytes.
        ram: Address of the RAM byte, 0 to 127.
        mask: Bits of the byte that hold the variable.
        category: One of `CATEGORIES`.
    """

    name: str
    ram: int
    mask: int
    category: str


@cache
def _table() -> dict[str, tuple[Label, ...]]:
    games = defaultdict[str, list[Label]](list)
    with (files("rmr_gym.domains") / "atari_labels.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            label = Label(row["label"], int(row["ram"]), int(row["mask"]), row["category"])
            games[row["game"]].append(label)
    return {game: tuple(labels) for game, labels in games.items()}


def ram_labels(game: str) -> tuple[Label, ...]:
    """Return the labels of a game, by its name here (for instance ``Pong``).

    Raises:
        RMRError: The table has no such game.
    """
    return _table()[known_name("game with labels", game, _table())]


def label_values(
    ram: UInt8[np.ndarray, "rows bytes"], labels: tuple[Label, ...]
) -> UInt8[np.ndarray, "rows labels"]:
    """Return the value of each label in each row: its bits of its byte, shifted down."""
    masks = np.array([label.mask for label in labels], np.uint8)
    lowest = (masks.astype(int) & -masks.astype(int)).tolist()
    shifts = np.array([bit.bit_length() - 1 for bit in lowest], np.uint8)
    return (ram[:, [label.ram for label in labels]] & masks) >> shifts
