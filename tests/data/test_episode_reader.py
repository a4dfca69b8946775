import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from gymnasium import spaces

from rmr_gym.core.errors import RMRError
from rmr_gym.data.reader import ColumnReader, _mapped, read_column
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
    out = np.empty((len(reader), *spec.shape), spec.dtype)
    assert reader.read(np.arange(len(reader)), out) is out
    np.testing.assert_array_equal(out, column)


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
