"""References that see RAM: the memory behind the probe's frames, and a probe of its features."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from rmr_gym.core.seeding import generator
from rmr_gym.data.verify import duplicate_rows
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
    """Load the memory behind the probe's training and test frames."""
    episodes, probing = stages.open_episodes(task), task.preset.probing
    training = _memory(task, episodes.training, probing.train_rows)
    test = _memory(task, episodes.validation, probing.test_rows)
    model = task.preset.model
    frames = atari.load_probe(
        *(episodes.dataset, episodes.validation, model, episodes.slots, probing.test_rows),
        stages.PROBE_SEED,
    ).frames
    seen = stages.probe_sets(task).training.frames
    keep = ~duplicate_rows(seen.numpy(), frames.numpy())
    return MemorySets(training, Memory(test.ram[keep], test.before[keep]))


def _memory(task: GameTask, chosen: list[int], rows: int) -> Memory:
    """Load RAM at the rows that `rmr_gym.domains.atari.load_probe` draws."""
    dataset = stages.open_episodes(task).dataset
    ram = dataset.load(columns=("ram",), episodes=chosen)["ram"]
    rng = generator(stages.PROBE_SEED, "probe rows")
    picked = np.sort(rng.choice(len(ram), size=min(rows, len(ram)), replace=False))
    lengths = [dataset.episodes[index].length + 1 for index in chosen]
    starts = np.cumsum([0, *lengths[:-1]])
    before = np.where(np.isin(picked, starts), picked, picked - 1)
    return Memory(ram[picked], ram[before])


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
