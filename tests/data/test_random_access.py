import multiprocessing
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils.data import DataLoader, Dataset

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.sampling import batch_indices
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.writer import DatasetWriter

LENGTHS = (5, 30, 1, 17)
COLUMNS = ("pixels", "state", "action", "reward", "terminated", "truncated")
MANIFEST = Manifest(
    observations=(ColumnSpec("pixels", "uint8", (70, 60)), ColumnSpec("state", "float32", (3,))),
    steps=step_columns(spaces.Discrete(5)),
)


def made(index: int, length: int) -> Episode:
    rng = np.random.default_rng(index)
    return Episode(
        index=index,
        seed=index,
        head="tester",
        observations={
            "pixels": rng.integers(0, 256, (length + 1, 70, 60), dtype=np.uint8),
            "state": rng.normal(size=(length + 1, 3)).astype(np.float32),
        },
        actions=rng.integers(0, 5, length),
        rewards=rng.normal(size=length),
        terminated=np.arange(length) == length - 1,
        truncated=rng.random(length) < 0.5,
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> TransitionDataset:
    path = tmp_path_factory.mktemp("recorded")
    with DatasetWriter(path, MANIFEST) as writer:
        for index, length in enumerate(LENGTHS):
            writer.write(made(index, length))
    return TransitionDataset(path)


def agrees(batch, loaded, indices):
    rows = loaded.current[indices]
    for name in ("pixels", "state"):
        np.testing.assert_array_equal(batch.before[name], loaded[name][rows])
        np.testing.assert_array_equal(batch.after[name], loaded[name][rows + 1])
    for name in COLUMNS[2:]:
        np.testing.assert_array_equal(batch.steps[name], loaded[name][indices])


def test_a_batch_is_what_loading_everything_gives(recorded):
    loaded = recorded.load(COLUMNS)
    rng = np.random.default_rng(0)
    for size in (1, 7, 50, 200):
        indices = rng.integers(0, len(recorded), size)
        agrees(recorded.batch(indices, COLUMNS), loaded, indices)
    agrees(recorded.batch(np.arange(len(recorded)), COLUMNS), loaded, np.arange(len(recorded)))


def test_types_survive(recorded):
    batch = recorded.batch(np.array([3]), COLUMNS)
    assert batch.before["pixels"].dtype == np.uint8
    assert batch.steps["terminated"].dtype == bool
    assert batch.steps["reward"].dtype == np.float64


def test_only_what_was_asked_for_is_there(recorded):
    batch = recorded.batch(np.array([3, 3]), ("state", "action"))
    assert (list(batch.before), list(batch.after), list(batch.steps)) == (
        ["state"],
        ["state"],
        ["action"],
    )
    assert len(recorded.batch(np.empty(0, int), ("state",)).before["state"]) == 0


def test_some_episodes_and_drawn_batches(recorded):
    chosen = [3, 1]
    reader, loaded = recorded.reader(COLUMNS, chosen), recorded.load(COLUMNS, chosen)
    assert len(reader) == len(loaded) == 47
    np.testing.assert_array_equal(reader.current, loaded.current)
    np.testing.assert_array_equal(reader.episode, loaded.episode)
    for kind in ("uniform", "window"):
        indices = batch_indices(reader, 9, seed=0, stream="test", step=1, kind=kind)
        agrees(reader.batch(indices), loaded, indices)


@pytest.mark.parametrize("outside", [-1, sum(LENGTHS)])
def test_wrong_transitions_and_columns(recorded, outside):
    with pytest.raises(RMRError, match=f"expected transitions from 0 to 52, found {outside}"):
        recorded.batch(np.array([0, outside]), ("state",))
    with pytest.raises(RMRError, match="unknown column 'pixel': did you mean 'pixels'"):
        recorded.batch(np.array([0]), ("pixel",))


def test_damage_is_named(tmp_path):
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        writer.write(made(0, 30))
        writer.write(replace(made(1, 30), actions=np.arange(30) % 5))
    path = tmp_path / "episodes" / "000001.h5"
    content = bytearray(path.read_bytes())
    for at in range(20_000, 100_000, 500):
        content[at] ^= 1
    path.write_bytes(content)
    dataset = TransitionDataset(tmp_path)
    dataset.batch(np.arange(30), ("pixels",))
    with pytest.raises(RMRError, match=r"000001\.h5 is truncated, damaged or foreign"):
        dataset.batch(np.arange(30, 60), ("pixels",))


class Pairs(Dataset):
    def __init__(self, dataset: TransitionDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.dataset.batch(np.array([index]), ("state",)).after["state"])


def read_all(dataset: TransitionDataset) -> np.ndarray:
    return dataset.batch(np.arange(len(dataset)), ("pixels",)).after["pixels"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_workers_of_a_data_loader(recorded):
    """Files are open in this process already when its workers are forked."""
    loaded = recorded.load(("state",))
    expected = loaded["state"][loaded.current + 1]
    recorded.batch(np.arange(len(recorded)), ("state",))
    loader = DataLoader(
        Pairs(recorded), batch_size=8, num_workers=2, multiprocessing_context="fork"
    )
    np.testing.assert_array_equal(torch.cat(list(loader))[:, 0].numpy(), expected)


def test_after_pickling(recorded):
    expected = read_all(recorded)
    assert len(pickle.dumps(recorded)) < 50_000
    np.testing.assert_array_equal(read_all(pickle.loads(pickle.dumps(recorded))), expected)
    reader = pickle.loads(pickle.dumps(recorded.reader(("pixels",))))
    np.testing.assert_array_equal(reader.batch(np.arange(len(reader))).after["pixels"], expected)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork(recorded):
    expected = read_all(recorded)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map(read_all, [recorded] * 4):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_all(recorded), expected)
