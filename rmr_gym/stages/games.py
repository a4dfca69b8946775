"""A recorded game as the stages see it: opened, split and loaded once a process.

What is public here unpacks its arguments for a cache, so that two configurations that differ in
nothing that is loaded (steps, objectives, arms) share one copy in memory.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.sampling import high_entropy_bytes, split_episodes
from rmr_gym.domains import atari
from rmr_gym.stages.presets import Natural, Probing, Recording

SPLIT_SEED = PROBE_SEED = PRETRAIN_SEED = 0
"""One split, one set of probe rows and one P a game; the seeds of a comparison vary the rest."""


class Split(NamedTuple):
    """A data set split by episode."""

    dataset: TransitionDataset
    training: list[int]
    validation: list[int]


class Recorded:
    """A data set and how it is split; its key is made of its content, not of its folder."""

    path: Path

    def split(self, dataset: TransitionDataset) -> tuple[list[int], list[int]]:
        """Return the episodes to train on, and those that only scores are computed on."""
        raise AssertionError("every data set says it")

    def open(self) -> Split:
        """Open and split the data set.

        Raises:
            RMRError: It is missing, of another world, or cannot be split.
        """
        return _opened(self)

    def key(self) -> dict[str, Any]:
        """Return what decides results: the content and the split."""
        dataset, training, validation = self.open()
        return {"data": dataset.fingerprint, "split": [len(training), len(validation), SPLIT_SEED]}

    def summary(self) -> dict[str, Any]:
        """Return what run.json and cards say of the data; no frame is read for it."""
        dataset, training, _ = self.open()
        return {
            "fingerprint": dataset.fingerprint,
            "episodes": len(dataset.episodes),
            "training_episodes": len(training),
            "transitions": len(dataset),
        }


def split_by_share(dataset: TransitionDataset, validation_share: float) -> tuple[list, list]:
    """Split episodes so that at least one, and about a share of all, is not trained on.

    Raises:
        RMRError: Fewer than two episodes.
    """
    count = len(dataset.episodes)
    if count < 2:
        raise RMRError(
            f"expected 2 episodes or more in {dataset.path}, to train on one and hold out another, "
            f"found {count}: record more"
        )
    validation = max(1, round(count * validation_share))
    return split_episodes(dataset, count - validation, validation, SPLIT_SEED)


@lru_cache(maxsize=16)
def _opened(data: Recorded) -> Split:
    dataset = TransitionDataset(data.path)
    return Split(dataset, *data.split(dataset))


@dataclass(frozen=True)
class GameData(Recorded):
    """The data set of a game and how it is split.

    Attributes:
        label: Name of the game.
        path: Folder of the data set.
        train_episodes: Episodes to train on.
        validation_episodes: Episodes that only scores are computed on.
        entropy_threshold: RAM bytes above so many nats are scored.
    """

    label: str
    path: Path
    train_episodes: int
    validation_episodes: int
    entropy_threshold: float = 0.6

    @classmethod
    def of(cls, game: str, path: Path, recording: Recording) -> "GameData":
        """Return a game's data split as a preset says."""
        counts = recording.train_episodes, recording.validation_episodes
        return cls(game, path, *counts, recording.entropy_threshold)

    def split(self, dataset: TransitionDataset) -> tuple[list[int], list[int]]:
        """Return the episodes to train on, and those that only scores are computed on.

        Raises:
            RMRError: Another game, or too few episodes.
        """
        dataset.require_game(self.label)
        return split_episodes(dataset, self.train_episodes, self.validation_episodes, SPLIT_SEED)

    def key(self) -> dict[str, Any]:
        """Return what decides results: the content, the split and the scored bytes."""
        return super().key() | {"threshold": self.entropy_threshold}

    @property
    def scored_bytes(self) -> np.ndarray:
        """The RAM bytes that are scored.

        Raises:
            RMRError: None is above the entropy threshold.
        """
        return _scored(self)

    def abstract(self, part: str) -> atari.AbstractData:
        """Load RAM and actions of the "training" or the "validation" episodes."""
        episodes = self.open()
        return atari.load_abstract(episodes.dataset, getattr(episodes, part))

    def summary(self) -> dict[str, Any]:
        """Return what run.json and cards say of the data."""
        return super().summary() | {"slots": len(self.scored_bytes)}


@lru_cache(maxsize=8)
def _scored(data: GameData) -> np.ndarray:
    dataset, training, _ = data.open()
    ram = dataset.load(columns=("ram",), episodes=training)["ram"]
    return high_entropy_bytes(ram, data.entropy_threshold)


def natural_data(data: GameData, model: atari.AtariModel, config: Natural) -> atari.NaturalData:
    """Load the frames and actions of the training episodes that natural training may use."""
    return _natural(data, model.height, model.width, config.episodes)


@lru_cache(maxsize=1)
def _natural(data: GameData, height: int, width: int, allowed: int | None) -> atari.NaturalData:
    episodes = data.open()
    if allowed is not None and allowed > len(episodes.training):
        raise RMRError(
            f"natural training on {allowed} episodes of {data.label}: there are "
            f"{len(episodes.training)} for training"
        )
    return atari.load_natural(episodes.dataset, episodes.training[:allowed], height, width)


class ProbeSets(NamedTuple):
    """Frames and bits to fit probes on and to score them on; test frames seen in training fell."""

    training: atari.ProbeData
    test: atari.ProbeData
    dropped: int


def probe_sets(data: GameData, model: atari.AtariModel, config: Probing) -> ProbeSets:
    """Load what probes are fitted and scored on; test frames seen in training are dropped."""
    return _probe_sets(data, model.height, model.width, config.train_rows, config.test_rows)


@lru_cache(maxsize=1)
def _probe_sets(
    data: GameData, height: int, width: int, train_rows: int, test_rows: int
) -> ProbeSets:
    episodes = data.open()
    training, test = (
        atari.load_probe(
            episodes.dataset, chosen, height, width, data.scored_bytes, rows, PROBE_SEED
        )
        for chosen, rows in ((episodes.training, train_rows), (episodes.validation, test_rows))
    )
    kept, dropped = atari.without_duplicates(training, test)
    return ProbeSets(training, kept, dropped)
