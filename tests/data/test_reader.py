import multiprocessing
import os
import pickle
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils.data import DataLoader, Dataset

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.reader import MEMORY, ColumnReader, _mapped, read_column, read_info
from rmr_gym.data.sampling import batch_indices
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest, episode_path, step_columns
from rmr_gym.data.writer import DatasetWriter

FRAMES = ColumnSpec("frames", "uint8", (80, 64))
STATE = ColumnSpec("state", "float32", (2000,))
MANIFEST = Manifest((FRAMES, STATE), step_columns(spaces.Discrete(3)))
LENGTHS = (2, 4, 10, 34)


def made(index: int, rows: int) -> Episode:
    rng = np.random.default_rng(index)
    steps = rows - 1
    return Episode(
        index=index,
        seed=index,
        head="tester",
        observations={
            "frames": rng.integers(0, 256, (rows, *FRAMES.shape), dtype=np.uint8),
            "state": rng.normal(size=(rows, *STATE.shape)).astype(np.float32),
        },
        actions=rng.integers(0, 3, steps),
        rewards=rng.normal(size=steps),
        terminated=np.zeros(steps, bool),
        truncated=np.zeros(steps, bool),
    )


@pytest.fixture
def paths(tmp_path):
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        for index, rows in enumerate(LENGTHS):
            writer.write(made(index, rows))
    return [episode_path(tmp_path, index) for index in range(len(LENGTHS))]


def whole(name: str) -> np.ndarray:
    return np.concatenate([made(i, rows).observations[name] for i, rows in enumerate(LENGTHS)])


@pytest.mark.parametrize("spec", [FRAMES, STATE])
def test_any_rows_are_those_of_the_whole_column(paths, spec):
    reader, column = ColumnReader(paths, spec, LENGTHS), whole(spec.name)
    assert len(reader) == len(column) == sum(LENGTHS)
    rng = np.random.default_rng(0)
    for count in (0, 1, 7, 200):
        rows = rng.integers(0, len(reader), count)
        found = reader.read(rows)
        assert found.dtype == column.dtype
        np.testing.assert_array_equal(found, column[rows])
    np.testing.assert_array_equal(reader.read(np.arange(len(reader))), column)


def test_columns_of_steps(paths):
    spec = MANIFEST.columns["action"]
    lengths = [rows - 1 for rows in LENGTHS]
    column = np.concatenate([made(i, rows).actions for i, rows in enumerate(LENGTHS)])
    rows = np.random.default_rng(0).permutation(len(column))
    np.testing.assert_array_equal(ColumnReader(paths, spec, lengths).read(rows), column[rows])
    np.testing.assert_array_equal(read_column(paths[3], spec, 33), made(3, 34).actions)


@pytest.mark.parametrize("row", [-1, sum(LENGTHS)])
def test_a_row_that_is_not_there(paths, row):
    with pytest.raises(RMRError, match="expected rows from 0 to 49"):
        ColumnReader(paths, FRAMES, LENGTHS).read(np.array([0, row]))


def test_no_episodes():
    reader = ColumnReader([], FRAMES, [])
    assert len(reader) == 0
    assert reader.read(np.array([], dtype=np.int64)).shape == (0, *FRAMES.shape)


def read_some(reader: ColumnReader) -> bytes:
    return reader.read(np.array([49, 3, 3, 20])).tobytes()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers_may_read(paths, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    reader = ColumnReader(paths, FRAMES, LENGTHS)
    expected = read_some(reader)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_some, [reader] * 4) == [expected] * 4
    assert read_some(pickle.loads(pickle.dumps(reader))) == expected


def few_changes(spec: ColumnSpec, rows: int, seed: int) -> np.ndarray:
    """Return frames that differ little from the ones before, but for a new scene now and then."""
    rng = np.random.default_rng(seed)
    frames = np.empty((rows, np.prod(spec.shape) * spec.stored.itemsize), np.uint8)
    for row, frame in enumerate(frames):
        frame[:] = rng.integers(0, 256) if rng.random() < 0.1 or row == 0 else frames[row - 1]
        frame[rng.integers(0, len(frame), 20)] = rng.integers(0, 256, 20)
    return frames.view(spec.stored).reshape(rows, *spec.shape)


@pytest.fixture(params=[("uint8", (80, 64)), ("uint8", (71, 61)), ("float32", (25, 45, 1))])
def game(request, tmp_path):
    """A column of frames, its files, and all its rows."""
    spec = ColumnSpec("frames", *request.param)
    columns = [few_changes(spec, rows, index) for index, rows in enumerate(LENGTHS)]
    with DatasetWriter(tmp_path, Manifest((spec,), step_columns(spaces.Discrete(3)))) as writer:
        for index, frames in enumerate(columns):
            episode = made(index, len(frames))
            writer.write(replace(episode, observations={"frames": frames}))
    paths = [episode_path(tmp_path, index) for index in range(len(LENGTHS))]
    return spec, paths, np.concatenate(columns)


@pytest.mark.parametrize("memory", [0, 50_000, MEMORY])
def test_what_stays_in_memory_is_what_was_read(game, memory):
    spec, paths, column = game
    reader, rng = ColumnReader(paths, spec, LENGTHS, memory), np.random.default_rng(0)
    for count in (1, 3, 7, 50, 200, 200):
        rows = rng.integers(0, len(reader), count)
        assert reader.read(rows).tobytes() == column[rows].tobytes()


def test_frames_that_were_read_need_no_file(game):
    spec, paths, column = game
    reader = ColumnReader(paths, spec, LENGTHS)
    reader.read(np.arange(0, len(reader), 4))
    for chunks in reader._chunks.values():
        chunks.sums[:] = [0] * len(chunks.sums)
    rows = np.arange(16, 16 + 34)
    np.testing.assert_array_equal(reader.read(rows), column[rows])
    forgetful = ColumnReader(paths, spec, LENGTHS, memory=0)
    forgetful.read(rows)
    forgetful._chunks[3].sums[:] = [0] * 9
    with pytest.raises(RMRError, match="has changed"):
        forgetful.read(rows)


def test_an_interrupt_is_not_lost_in_h5py(paths, monkeypatch):
    ended = []

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))  # instructions between which an interrupt would come
        ended.append(True)
        return read_attributes(*arguments)

    read_attributes = h5py.File.attrs.fget
    monkeypatch.setattr(h5py.File, "attrs", property(interrupted))
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        read_info(paths[0])
    assert ended
    assert signal.getsignal(signal.SIGINT) is handler


def test_threads_may_read(paths):
    reader, column = ColumnReader(paths, FRAMES, LENGTHS), whole("frames")
    draws = [np.random.default_rng(i).integers(0, 50, 20) for i in range(100)]
    with ThreadPoolExecutor(4) as pool:
        for rows, found in zip(draws, pool.map(reader.read, draws), strict=True):
            np.testing.assert_array_equal(found, column[rows])


def test_more_files_than_stay_open(paths, monkeypatch):
    monkeypatch.setattr("rmr_gym.data.reader._mapped", lru_cache(1)(_mapped.__wrapped__))
    reader, column = ColumnReader(paths, FRAMES, LENGTHS), whole("frames")
    rows = np.array([0, 49, 1, 5, 20, 2])
    for _ in range(2):
        np.testing.assert_array_equal(reader.read(rows), column[rows])


def test_a_changed_chunk_is_noticed_where_it_is_read(paths):
    reader = ColumnReader(paths, FRAMES, LENGTHS)
    reader.read(np.array([49]))
    content, place = paths[3].read_bytes(), reader._chunks[3]
    at = place.places[5].start + 100
    with paths[3].open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))
    rows = np.array([16 + 19, 16 + 24])
    np.testing.assert_array_equal(reader.read(rows), whole("frames")[rows])
    message = r"000003\.h5 is truncated, .*chunk 5 of column 'frames' has changed"
    for read in (
        lambda: reader.read(np.array([16 + 20])),
        lambda: read_column(paths[3], FRAMES, 34),
    ):
        with pytest.raises(RMRError, match=message):
            read()


def test_a_column_that_is_not_as_the_manifest_says(paths):
    other = replace(FRAMES, shape=(64, 80))
    with pytest.raises(RMRError, match=r"column 'frames' is uint8\[2, 80, 64\], expected"):
        ColumnReader(paths, other, LENGTHS).read(np.array([0]))
    with pytest.raises(RMRError, match=r"000000\.h5 .*has no column 'ram'"):
        ColumnReader(paths, replace(FRAMES, name="ram"), LENGTHS).read(np.array([0]))


STEPS = (5, 30, 1, 17)
COLUMNS = ("pixels", "state", "action", "reward", "terminated", "truncated")
PLAYED = Manifest(
    observations=(ColumnSpec("pixels", "uint8", (70, 60)), ColumnSpec("state", "float32", (3,))),
    steps=step_columns(spaces.Discrete(5)),
)


def played(index: int, length: int) -> Episode:
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
    with DatasetWriter(path, PLAYED) as writer:
        for index, length in enumerate(STEPS):
            writer.write(played(index, length))
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


@pytest.mark.parametrize("outside", [-1, sum(STEPS)])
def test_wrong_transitions_and_columns(recorded, outside):
    with pytest.raises(RMRError, match=f"expected transitions from 0 to 52, found {outside}"):
        recorded.batch(np.array([0, outside]), ("state",))
    with pytest.raises(RMRError, match="unknown column 'pixel': did you mean 'pixels'"):
        recorded.batch(np.array([0]), ("pixel",))


def test_damage_is_named(tmp_path):
    with DatasetWriter(tmp_path, PLAYED) as writer:
        writer.write(played(0, 30))
        writer.write(replace(played(1, 30), actions=np.arange(30) % 5))
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


def test_a_mask_of_transitions_means_what_it_means_in_numpy(recorded):
    loaded, mask = recorded.load(COLUMNS), np.zeros(sum(STEPS), bool)
    mask[[3, 40]] = True
    agrees(recorded.reader(COLUMNS).batch(mask), loaded, np.array([3, 40]))
    agrees(recorded.batch(mask, COLUMNS), loaded, np.array([3, 40]))
    with pytest.raises(RMRError, match="expected a mask of 53 transitions, found one of 2"):
        recorded.batch(mask[:2], COLUMNS)


def test_more_episodes_than_a_process_may_open(tmp_path):
    resource = pytest.importorskip("resource")
    with DatasetWriter(tmp_path, PLAYED) as writer:
        for index in range(180):
            writer.write(replace(played(index % 3, 2), index=index))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 140, limits[1])
    )
    try:
        dataset = TransitionDataset(tmp_path)
        for columns in (("pixels", "action"), ("state", "reward")):
            dataset.batch(np.arange(len(dataset)), columns)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_the_system_refuses_is_not_called_damage(tmp_path):
    with pytest.raises(RMRError, match=r"cannot read .*000001\.h5: No such file or directory"):
        read_info(episode_path(tmp_path, 1))
