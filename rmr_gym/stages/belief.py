"""Belief over RAM from pixels and actions: the evidence of frames, and filters that carry it on.

Few pairs: of all training frames only some are labelled with their RAM; the readers and the fusion
learn from those. Tracks start where RAM is known: at a reset, which the simulator gives, or at a
labelled frame.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rmr_gym.core import metrics
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import ram_to_bits
from rmr_gym.domains.atari import (
    BITS,
    SLOTS,
    AtariModel,
    abstract_pipeline,
    frame_transform,
    make_core,
)
from rmr_gym.models.rmr.belief import (
    PENALTIES,
    Fusion,
    PixelReader,
    Predicted,
    Track,
    Transition,
    follow,
    hidden_bytes,
    remembered,
    unknown,
)
from rmr_gym.models.rmr.processors import load_weights, shuffle_weights
from rmr_gym.runs.store import NOWHERE, Artifact, Room, stage
from rmr_gym.stages.games import PRETRAIN_SEED, GameData

FOLDS = 4
"""Parts of the training episodes; a training frame is read by a reader that did not learn it."""

BELIEFS = ("rmr", "shuffled_p", "random_p", "foreign_p", "copy", "pixels", "open_loop")
"""What carries a belief on: P; a control in its place; P without frames (``open_loop``)."""


@dataclass(frozen=True)
class Believing:
    """How beliefs are learned and scored.

    Attributes:
        horizon: Steps that a belief is carried on.
        tracks: Tracks that the fusion learns from; from resets first, then from labelled frames.
        rounds: Times that the filter is run and fitted to what it met in all of them.
        starts: Steps of the validation episodes at which scored tracks start; 0 is the reset.
        scored: Steps since the start at which beliefs are scored.
        hidden: A byte whose bit F1 a reader of single frames keeps below this is not shown.
    """

    horizon: int = 200
    tracks: int = 96
    rounds: int = 3
    starts: tuple[int, ...] = (0, 250)
    scored: tuple[int, ...] = (1, 4, 8, 16, 32, 59, 100, 200)
    hidden: float = 0.9

    def __post_init__(self) -> None:
        counts = (self.horizon, self.tracks, self.rounds, *self.scored)
        if min(counts) < 1 or max(self.scored) > self.horizon or min(self.starts) < 0:
            raise RMRError(
                "a belief needs a horizon, tracks, rounds and scored steps of 1 or more, scored "
                f"steps up to the horizon and starts from 0, got {self}"
            )


class Episodes(NamedTuple):
    """Frames, RAM and actions of some episodes, row after row.

    Attributes:
        frames: Gray.
        bits: Of all RAM.
        action: Before each row; none before a first row, where it is 0.
        first: First row of each episode.
        length: Transitions of each episode.
    """

    frames: UInt8[Tensor, "rows height width"]
    bits: UInt8[np.ndarray, "rows slots bits"]
    action: Int[np.ndarray, " rows"]
    first: Int[np.ndarray, " episodes"]
    length: Int[np.ndarray, " episodes"]

    @property
    def episode(self) -> Int[np.ndarray, " rows"]:
        """Number of the episode of each row."""
        return np.repeat(np.arange(len(self.length)), self.length + 1)

    def followed_by(self, rows: np.ndarray, horizon: int) -> np.ndarray:
        """Return those of the rows that so many steps follow in their episode.

        Raises:
            RMRError: There is none.
        """
        last = (self.first + self.length)[self.episode[rows]]
        followed = rows[rows + horizon <= last]
        if not len(followed):
            raise RMRError(
                f"a belief over {horizon} steps needs episodes of so many after each start, the "
                f"longest here has {self.length.max()}: record longer ones, lower the horizon or "
                "start earlier"
            )
        return followed


@lru_cache(maxsize=2)
def recorded_episodes(data: GameData, part: str, height: int, width: int) -> Episodes:
    """Return the "training" or the "validation" episodes, frames at the reader's size."""
    opened = data.open()
    chosen = getattr(opened, part)
    loaded = opened.dataset.load(
        columns=("pixels", "ram", "action"),
        episodes=chosen,
        transform=frame_transform(height, width),
    )
    length = np.array([opened.dataset.episodes[index].length for index in chosen])
    first = np.cumsum(length + 1) - length - 1
    action = np.zeros(len(loaded["ram"]), np.int64)
    action[loaded.current + 1] = loaded["action"]
    frames = torch.from_numpy(loaded["pixels"])
    return Episodes(frames, ram_to_bits(loaded["ram"]), action, first, length)


def labelled_rows(episodes: Episodes, labels: int, seed: int) -> Int[np.ndarray, " labels"]:
    """Draw the labelled frames; those of fewer labels are among those of more.

    Raises:
        RMRError: Fewer than a reader needs, or more than there are.
    """
    rows = len(episodes.bits)
    if not 2 * FOLDS <= labels <= rows:
        raise RMRError(
            f"expected {2 * FOLDS} labelled frames or more, at most the {rows} of the training "
            f"episodes, got {labels}"
        )
    return np.sort(generator(seed, "labelled frames").permutation(rows)[:labels])


@stage(version=1)
def evidence(
    data: GameData, model: AtariModel, config: Believing, labels: int, seed: int
) -> Artifact:
    """Fit linear readers to the labelled frames and read all frames with them.

    Training frames are read by readers that saw no label of their part of the episodes, so that
    the fusion learns what evidence is worth on frames that are new.

    Args:
        data: Its training and validation episodes.
        model: Size of the frames.
        config: What counts as hidden.
        labels: Labelled frames of the training episodes.
        seed: Which frames are labelled.

    Returns:
        Tensors ``training`` and ``validation`` [rows, bits that vary], in half precision, and
        ``varying``, the numbers of those bits; ``mean`` of all bits; ``hidden``, the bytes that a
        frame does not show; the record holds the penalty and the F1 of held-out labelled frames.
    """
    training = recorded_episodes(data, "training", model.height, model.width)
    rows = labelled_rows(training, labels, seed)
    bits = torch.from_numpy(training.bits[rows]).float()
    fold = training.episode % FOLDS

    def reader(kept: Bool[np.ndarray, " labels"], penalty: float) -> PixelReader:
        made = PixelReader(model.height, model.width, SLOTS, BITS)
        return made.fit(training.frames[rows[kept]], bits[kept], penalty)

    def held_out(penalty: float) -> tuple[Tensor, float]:
        read = torch.zeros_like(bits)
        for part in np.unique(fold[rows]):
            apart = fold[rows] == part
            fitted = reader(~apart, penalty)
            read[apart] = fitted(training.frames[rows[apart]]) + fitted.mean
        guess, truth = (part.numpy()[:, data.scored_bytes] > 0.5 for part in (read, bits))
        return read, metrics.bit_f1(guess, truth).micro_f1

    scores = {penalty: held_out(penalty) for penalty in PENALTIES}
    best = max(scores, key=lambda penalty: scores[penalty][1])
    varying = torch.from_numpy(np.flatnonzero(bits.flatten(1).std(0).numpy() > 0))
    read = torch.zeros(len(fold), len(varying), dtype=torch.float16)
    for part in range(FOLDS):
        chosen = fold == part
        if chosen.any():
            fitted = reader(fold[rows] != part, best)
            read[chosen] = fitted(training.frames[chosen]).flatten(1)[:, varying].half()
    everything = reader(np.ones(len(rows), bool), best)
    validation = recorded_episodes(data, "validation", model.height, model.width)
    hidden = hidden_bytes(scores[best][0], torch.zeros(()), bits, config.hidden)
    tensors = {
        "training": read,
        "validation": everything(validation.frames).flatten(1)[:, varying].half(),
        "varying": varying,
        "mean": everything.mean,
        "hidden": hidden,
    }
    return Artifact({"penalty": best, "micro_f1": scores[best][1]}, tensors)


@stage(version=3)
def belief(
    data: GameData,
    model: AtariModel,
    config: Believing,
    labels: int,
    arm: str,
    seed: int,
    read: Artifact,
    donor: Artifact | None = None,
    foreign: Artifact | None = None,
    room: Room = NOWHERE,
) -> Artifact:
    """Fit the fusion of a filter over RAM and score the filter on validation episodes.

    Args:
        data: Its training and validation episodes.
        model: Sizes.
        config: Tracks and scored steps.
        labels: Labelled frames of the training episodes.
        arm: A name in `BELIEFS`.
        seed: Which frames are labelled; fixes a random P and the permutation of a shuffled one.
        read: What `evidence` left, of the same labels and seed.
        donor: The game's own abstract pipeline, for the arms with a P.
        foreign: That of another game, whose P stands between the own encoder and decoder.
        room: Whom to tell of progress.

    Returns:
        Tensor ``weight`` of the fusion; the record holds ``rows``: micro bit F1 by start, steps
        since the start and kind of bytes (all that are scored, those that a frame shows or hides).

    Raises:
        RMRError: Unknown arm, missing or misfitting P, episodes shorter than the horizon.
    """
    transition = _transition(arm, model, seed, donor, foreign)
    training = recorded_episodes(data, "training", model.height, model.width)
    labelled = labelled_rows(training, labels, seed)
    seen = _expanded(read, "training")
    starts = np.concatenate([training.first, labelled])
    starts = training.followed_by(starts, config.horizon)[: config.tracks]
    if arm == "open_loop":
        seen = torch.zeros_like(seen)
    fusion, priors, rows = Fusion(SLOTS, BITS), [], []
    known = np.isin(np.arange(len(training.bits)), labelled)
    for number in range(config.rounds):
        track = _follow(transition, fusion, training, seen, starts, config.horizon)
        for ahead, prior in enumerate(track.prior, 1):
            told = known[starts + ahead]
            priors.append(prior[torch.from_numpy(told)])
            rows.append((starts + ahead)[told])
        index = np.concatenate(rows)
        truth = torch.from_numpy(training.bits[index]).float()
        fusion.fit(torch.cat(priors), seen[index], truth)
        if room.progress is not None:
            room.progress(number + 1, config.rounds + 1)
    record = {"rows": _scores(data, model, config, transition, fusion, read)}
    return Artifact(record, {"weight": fusion.weight})


def _transition(
    arm: str, model: AtariModel, seed: int, donor: Artifact | None, foreign: Artifact | None
) -> Transition:
    known_name("belief", arm, BELIEFS)
    if arm == "copy":
        return remembered
    if arm == "pixels":
        return unknown
    if donor is None or (arm == "foreign_p" and foreign is None):
        raise RMRError(f"the belief {arm!r} needs a pretrained P: pretrain one first")
    pipeline = abstract_pipeline(model, PRETRAIN_SEED)
    load_weights(pipeline.encoder, donor.part("encoder"), "the game's abstract encoder")
    load_weights(pipeline.decoder, donor.part("decoder"), "the game's abstract decoder")
    if arm == "random_p":
        pipeline.processor = make_core(model, model.core, seed)
    else:
        source = foreign if arm == "foreign_p" else donor
        assert source is not None
        load_weights(pipeline.processor, source.part("processor"), "the donor's processor")
    if arm == "shuffled_p":
        shuffle_weights(pipeline.processor, generator(seed, "shuffled P"))
    return Predicted(pipeline)


def _expanded(read: Artifact, part: str) -> Float[Tensor, "rows slots bits"]:
    """Return the evidence of every bit; that of bits which never vary is 0."""
    values, varying = read.tensors[part], read.tensors["varying"]
    evidence = torch.zeros(len(values), SLOTS * BITS)
    evidence[:, varying] = values.float()
    return evidence.unflatten(1, (SLOTS, BITS))


def _follow(
    transition: Transition,
    fusion: Fusion,
    episodes: Episodes,
    seen: Tensor,
    starts: np.ndarray,
    horizon: int,
) -> Track:
    rows = [starts + ahead for ahead in range(1, horizon + 1)]
    actions = [torch.from_numpy(episodes.action[row]) for row in rows]
    start = torch.from_numpy(episodes.bits[starts]).float()
    return follow(transition, fusion, start, actions, [seen[row] for row in rows])


def _scores(
    data: GameData,
    model: AtariModel,
    config: Believing,
    transition: Transition,
    fusion: Fusion,
    read: Artifact,
) -> list[dict[str, Any]]:
    """Score beliefs and the copied start, by start, step and kind of bytes."""
    validation = recorded_episodes(data, "validation", model.height, model.width)
    seen, scored = _expanded(read, "validation"), data.scored_bytes
    hidden = read.tensors["hidden"].numpy()[scored]
    kinds = {"all": scored, "hidden": scored[hidden], "shown": scored[~hidden]}
    rows = []
    for step in config.starts:
        begun = (validation.first + step)[validation.length >= step]
        starts = validation.followed_by(begun, config.horizon)
        track = _follow(transition, fusion, validation, seen, starts, config.horizon)
        for ahead in config.scored:
            truth = validation.bits[starts + ahead] > 0
            guess = (track.belief[ahead - 1] > 0).numpy()
            for kind, chosen in kinds.items():
                if len(chosen):
                    score = metrics.bit_f1(guess[:, chosen], truth[:, chosen]).micro_f1
                    found = {"start": step, "k": ahead, "bytes": kind, "count": len(chosen)}
                    rows.append(found | {"tracks": len(starts), "micro_f1": score})
    return rows
