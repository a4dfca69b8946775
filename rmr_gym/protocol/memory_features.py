"""References that see RAM: the memory behind the probe's frames, and a probe of its features."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from rmr_gym.domains import atari
from rmr_gym.protocol import stages
from rmr_gym.protocol.labels_probe import features_hash
from rmr_gym.protocol.probe import Features, score_features
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import Artifact, Scratch, Store


class Memory(NamedTuple):
    """RAM of some frames, and of the observation before each (the same at an episode's start)."""

    ram: UInt8[np.ndarray, "rows slots"]
    before: UInt8[np.ndarray, "rows slots"]


class MemorySets(NamedTuple):
    """The memory behind the frames of `rmr_gym.protocol.stages.probe_sets`, row by row."""

    training: Memory
    test: Memory


@lru_cache(maxsize=1)
def memory_sets(task: GameTask) -> MemorySets:
    """Return the memory behind the probe's training and test frames."""
    training, test, _ = stages.probe_sets(task)
    return MemorySets(Memory(training.ram, training.before), Memory(test.ram, test.before))


def probed_features(
    task: GameTask,
    train: Float[np.ndarray, "rows width"],
    test: Float[np.ndarray, "others width"],
) -> Artifact:
    """Return the bit probe's rows for features from elsewhere; found again by their bytes.

    Args:
        task: The game.
        train: A row for each of the probe's training frames.
        test: A row for each of its test frames.
    """

    def run(scratch: Scratch) -> Artifact:
        del scratch
        sets = stages.probe_sets(task)
        fitted, scored = _features(train, sets.training), _features(test, sets.test)
        probes = task.preset.probing.probes
        return Artifact({"rows": score_features(fitted, scored, probes, slots=0)})

    key = stages.probe_key(task) | {"features": features_hash(train, test)}
    return Store(task.store).get_or_run("memory_probe", key, run)


def _features(values: Float[np.ndarray, "rows width"], data: atari.ProbeData) -> Features:
    bits = torch.from_numpy(data.bits).flatten(1).float()
    return Features(torch.from_numpy(values).float(), bits, data.episode)
