import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils.data import DataLoader, Dataset

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.windows import WindowDataset
from rmr_gym.data.writer import DatasetWriter

COLUMNS = ("pixels", "action", "terminated")
MANIFEST = Manifest((ColumnSpec("pixels", "uint8", (6, 5)),), step_columns(spaces.Discrete(5)))


def made(index: int, length: int) -> Episode:
    rng = np.random.default_rng(index)
    return Episode(
        index,
        seed=index,
        head="tester",
        observations={"pixels": rng.integers(0, 256, (length + 1, 6, 5), dtype=np.uint8)},
        actions=rng.integers(0, 5, length),
        rewards=rng.normal(size=length),
        terminated=np.arange(length) == length - 1,
        truncated=np.zeros(length, bool),
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> TransitionDataset:
    path = tmp_path_factory.mktemp("recorded")
    with DatasetWriter(path, MANIFEST) as writer:
        for index, length in enumerate((9, 1, 30)):
            writer.write(made(index, length))
    return TransitionDataset(path)


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (2, 1), (4, 1), (4, 3), (40, 1)])
def test_windows_are_those_of_what_is_loaded(recorded, length, stride):
    dataset = WindowDataset(recorded.reader(COLUMNS, [2, 0]), length, stride)
    loaded = recorded.load(COLUMNS, [2, 0])
    windows = loaded.windows(length, stride)
    assert isinstance(dataset, Dataset)
    assert len(dataset) == len(windows)
    for item, rows in zip(dataset, windows, strict=True):
        np.testing.assert_array_equal(item["pixels"], loaded["pixels"][rows])
        for name in COLUMNS[1:]:
            np.testing.assert_array_equal(item[name], loaded[name][loaded.steps(rows[:-1])])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_a_window_of_two_is_a_transition(recorded):
    reader = recorded.reader(COLUMNS)
    batch = reader.batch(np.arange(len(reader)))
    columns = reader.read(reader.windows(2))
    np.testing.assert_array_equal(columns["pixels"][:, 0], batch.before["pixels"])
    np.testing.assert_array_equal(columns["pixels"][:, 1], batch.after["pixels"])
    np.testing.assert_array_equal(columns["action"][:, 0], batch.steps["action"])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("start", [None, "fork", "spawn"])
def test_workers(recorded, start):
    dataset, loaded = WindowDataset(recorded.reader(COLUMNS), 3), recorded.load(COLUMNS)
    dataset[0]  # a file is open before there are workers
    workers = 0 if start is None else 2
    loader = DataLoader(dataset, batch_size=7, num_workers=workers, multiprocessing_context=start)
    batches = list(loader)
    windows = loaded.windows(3)
    assert {name: batches[0][name].dtype for name in COLUMNS} == {
        "pixels": torch.uint8,
        "action": torch.int64,
        "terminated": torch.bool,
    }
    pixels = torch.cat([batch["pixels"] for batch in batches])
    np.testing.assert_array_equal(pixels, loaded["pixels"][windows])
    action = torch.cat([batch["action"] for batch in batches])
    np.testing.assert_array_equal(action, loaded["action"][loaded.steps(windows[:, :-1])])


def test_wrong_lengths(recorded):
    with pytest.raises(RMRError, match="at least 1 as length of windows, found 0"):
        WindowDataset(recorded.reader(COLUMNS), 0)


def test_reading_data_does_not_load_torch():
    code = (
        "import sys, rmr_gym.data.dataset, rmr_gym.data.minari; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
