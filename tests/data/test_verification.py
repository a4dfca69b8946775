import json

import numpy as np
import pytest
from gymnasium import spaces

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import FORMAT_VERSION, ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.verify import being_written, find_problems
from rmr_gym.data.writer import DatasetWriter

MANIFEST = Manifest(
    observations=(ColumnSpec("pixels", "uint8", (70, 60)),),
    steps=step_columns(spaces.Discrete(5)),
    heads=("tester",),
)


def made(index: int) -> Episode:
    rng = np.random.default_rng(index)
    return Episode(
        index=index,
        seed=index,
        head="tester",
        observations={"pixels": rng.integers(0, 256, (13, 70, 60), dtype=np.uint8)},
        actions=rng.integers(0, 5, 12),
        rewards=rng.normal(size=12),
        terminated=np.zeros(12, bool),
        truncated=np.arange(12) == 11,
    )


@pytest.fixture
def recorded(tmp_path):
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        for index in range(5):
            writer.write(made(index))
    return tmp_path


def shard(root, index):
    return root / "episodes" / f"{index:06d}.h5"


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_nothing_is_wrong(recorded):
    seen = []
    assert find_problems(recorded, lambda done, total: seen.append((done, total))) == []
    assert seen == [(done, 5) for done in range(1, 6)]


def test_every_problem_is_named_with_its_episode(recorded):
    flip(shard(recorded, 0), shard(recorded, 0).stat().st_size // 2)
    shard(recorded, 1).unlink()
    flip(shard(recorded, 2), shard(recorded, 2).read_bytes().index(b"tester"))
    shard(recorded, 3).write_bytes(shard(recorded, 3).read_bytes()[:4000])
    corrupt, missing, checksum, truncated = find_problems(recorded)
    assert corrupt.startswith("episode 0: ")
    assert "000000.h5 is truncated, damaged or foreign (chunk" in corrupt
    assert "000001.h5 is missing: episode 1 was not recorded" in missing
    assert checksum.startswith("episode 2: ")
    assert "000002.h5 is truncated, damaged or foreign (it does not match its checksum)" in checksum
    assert truncated.startswith("episode 3: ")
    assert "000003.h5 is truncated" in truncated


def test_several_missing_episodes(recorded):
    for index in (0, 2, 3):
        shard(recorded, index).unlink()
    assert ["00000" + problem.split("00000")[1][:4] for problem in find_problems(recorded)] == [
        "000000.h5",
        "000002.h5",
        "000003.h5",
    ]


def test_a_newer_format(recorded):
    path = recorded / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 99}))
    for read in (find_problems, TransitionDataset):
        with pytest.raises(RMRError, match=rf"version 99, expected .*{FORMAT_VERSION}.*upgrade"):
            read(recorded)


def test_no_data_set(tmp_path):
    with pytest.raises(RMRError, match="expected a recorded data set in"):
        find_problems(tmp_path / "nowhere")


def test_an_empty_data_set(tmp_path):
    DatasetWriter(tmp_path, MANIFEST).close()
    assert find_problems(tmp_path) == []


@pytest.mark.parametrize("exclusive", [True, False])
def test_whether_a_recorder_writes(recorded, exclusive):
    pytest.importorskip("fcntl")
    assert not being_written(recorded)
    with DatasetWriter(recorded, MANIFEST, exclusive=exclusive) as writer:
        assert being_written(recorded)
        writer.write(made(5))
        assert find_problems(recorded) == []
    assert not being_written(recorded)
    DatasetWriter(recorded, MANIFEST, exclusive=True).close()


def test_asking_who_writes_changes_nothing(tmp_path):
    assert not being_written(tmp_path / "nowhere")
    assert not being_written(tmp_path)
    assert list(tmp_path.iterdir()) == []
