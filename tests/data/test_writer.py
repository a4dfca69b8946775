import errno
import itertools
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import FORMAT_VERSION, ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.writer import DatasetWriter, EpisodeWriter

MANIFEST = Manifest(
    observations=(
        ColumnSpec("pixels", "uint8", (70, 60)),
        ColumnSpec("state", "float32", (3,)),
        ColumnSpec("door", "int64", ()),
    ),
    steps=step_columns(spaces.Discrete(5)),
)


def made(index: int = 0, length: int = 10, seed: int | None = 4) -> Episode:
    rng = np.random.default_rng(index)
    ended = np.arange(length) == length - 1
    return Episode(
        index=index,
        seed=seed,
        head="tester",
        observations={
            "pixels": rng.integers(0, 256, (length + 1, 70, 60), dtype=np.uint8),
            "state": rng.normal(size=(length + 1, 3)).astype(np.float32),
            "door": rng.integers(0, 9, length + 1),
        },
        actions=rng.integers(0, 5, length),
        rewards=rng.normal(size=length),
        terminated=ended,
        truncated=np.zeros(length, dtype=bool),
    )


def written(path: Path, *episodes: Episode) -> Path:
    with DatasetWriter(path, MANIFEST) as writer:
        for episode in episodes:
            writer.write(episode)
    return path


def files(path: Path) -> dict[str, bytes]:
    found = (entry for entry in path.rglob("*") if entry.is_file())
    return {str(entry.relative_to(path)): entry.read_bytes() for entry in found}


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 7, 8, 63, 64, 200])
def test_what_was_written_is_read(tmp_path, length):
    episode = made(length=length)
    dataset = TransitionDataset(written(tmp_path / "d", episode), verify=True)
    loaded = dataset.load(columns=tuple(MANIFEST.columns))
    for name, column in episode.observations.items():
        assert loaded[name].dtype == column.dtype
        np.testing.assert_array_equal(loaded[name], column)
    np.testing.assert_array_equal(loaded["action"], episode.actions)
    np.testing.assert_array_equal(loaded["reward"], episode.rewards)
    np.testing.assert_array_equal(loaded["terminated"], episode.terminated)
    assert not loaded["truncated"].any()


def test_every_type_of_number_survives(tmp_path):
    dtypes = ["int8", "uint16", "int32", "float16", "float32", "float64", "bool"]
    columns = tuple(ColumnSpec(name, name, (2, 2)) for name in dtypes)
    manifest = replace(MANIFEST, observations=columns)
    values = {name: np.random.default_rng(0).normal(size=(5, 2, 2)).astype(name) for name in dtypes}
    episode = replace(made(length=4), observations=values)
    with DatasetWriter(tmp_path, manifest) as writer:
        writer.write(episode)
    loaded = TransitionDataset(tmp_path, verify=True).load(columns=dtypes)
    for name in dtypes:
        np.testing.assert_array_equal(loaded[name], values[name])


def test_the_same_episode_gives_the_same_bytes(tmp_path):
    here = files(written(tmp_path / "here", made(0, 150), made(1, 3)))
    assert here == files(written(tmp_path / "there", made(1, 3), made(0, 150)))
    assert sorted(here) == [".lock", "episodes/000000.h5", "episodes/000001.h5", "manifest.json"]
    assert here != files(written(tmp_path / "other", made(0, 150), made(1, 4)))


def test_the_bytes_do_not_depend_on_the_process(tmp_path):
    here = files(written(tmp_path / "here", made(0, 150)))
    code = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_writer as t
        t.written(Path({str(tmp_path / "there")!r}), t.made(0, 150))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=root())
    assert files(tmp_path / "there") == here


def root() -> Path:
    return Path(__file__).parents[2]


@pytest.mark.parametrize("seed", [4, None])
def test_the_format_page_tells_how_to_read_it(tmp_path, seed):
    """Run the page's reader, which knows nothing of this package, and its checksum."""
    page = (root() / "docs" / "dataset_format.md").read_text(encoding="utf-8")
    reader = page.split("```python")[-1].split("```")[0]
    assert "rmr_gym" not in reader
    names: dict[str, Any] = {}
    exec(compile(reader, "dataset_format.md", "exec"), names)
    episode = made(index=3, length=70, seed=seed)
    path = written(tmp_path, episode) / "episodes" / "000003.h5"
    about, columns = names["read_episode"](path)
    assert (about["index"], about["length"], about["head"]) == (3, 70, "tester")
    assert about.get("seed") == seed
    np.testing.assert_array_equal(columns["pixels"], episode.observations["pixels"])
    np.testing.assert_array_equal(columns["terminated"], episode.terminated)


def test_frames_are_compressed_four_to_a_chunk(tmp_path):
    still = replace(
        made(length=100),
        observations={
            **made(length=100).observations,
            "pixels": np.zeros((101, 70, 60), dtype=np.uint8),
        },
    )
    path = written(tmp_path, still) / "episodes" / "000000.h5"
    with h5py.File(path) as file:
        assert file["pixels"].chunks == (4, 70, 60)
    assert path.stat().st_size < 101 * 70 * 60 / 10


def test_an_episode_is_never_overwritten(tmp_path):
    before = files(written(tmp_path, made()))
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        with pytest.raises(RMRError, match=r"000000\.h5 exists already"):
            writer.write(made(length=3))
        assert writer.finished() == [0]
    assert files(tmp_path) == before


def test_overwrite_deletes_what_was_there(tmp_path):
    written(tmp_path, made(0), made(1))
    other = replace(MANIFEST, settings={"seed": 1})
    with DatasetWriter(tmp_path, other, overwrite=True) as writer:
        assert writer.finished() == []
    assert TransitionDataset(tmp_path).manifest == other


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_is_left_alone(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("my only copy")
    before = files(tmp_path)
    with pytest.raises(RMRError, match=r"not an rmr_gym data set: .* found 'thesis\.tex' in it"):
        DatasetWriter(tmp_path, MANIFEST, overwrite=overwrite)
    assert files(tmp_path) == before


def test_episodes_without_a_manifest_are_left_alone(tmp_path):
    written(tmp_path, made())
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(RMRError, match="found episodes without a manifest"):
        DatasetWriter(tmp_path, MANIFEST)


def test_another_manifest_is_refused_with_what_differs(tmp_path):
    before = files(written(tmp_path, made()))
    other = replace(MANIFEST, game="Pong", env_kwargs={"frameskip": 2})
    with pytest.raises(RMRError, match=r"env_kwargs frameskip: None .*; game: None .*'Pong'"):
        DatasetWriter(tmp_path, other)
    assert files(tmp_path) == before


def test_leftovers_of_a_killed_run_are_dropped_and_told(tmp_path, caplog):
    before = files(written(tmp_path, made()))
    assert not caplog.messages
    leftovers = [tmp_path / ".manifest.json-1.tmp", tmp_path / "episodes" / ".000001.h5-2.tmp"]
    for leftover in leftovers:
        leftover.write_bytes(b"half of a")
    assert len(TransitionDataset(tmp_path, verify=True).episodes) == 1
    with DatasetWriter(tmp_path, MANIFEST):
        assert files(tmp_path) == before
    assert [message.split(",")[0] for message in caplog.messages] == [
        f"dropped {leftover}" for leftover in leftovers
    ]


def test_a_run_killed_before_its_manifest_was_there(tmp_path):
    (tmp_path / "episodes").mkdir()
    (tmp_path / ".lock").touch()
    (tmp_path / ".manifest.json-1.tmp").write_text("{")
    written(tmp_path, made())
    TransitionDataset(tmp_path, verify=True)


def test_writers_side_by_side_spare_each_others_temporary_files(tmp_path):
    with DatasetWriter(tmp_path, MANIFEST) as first:
        temporary = tmp_path / "episodes" / ".000001.h5-3.tmp"
        temporary.write_bytes(b"being written")
        with DatasetWriter(tmp_path, MANIFEST, beside=True) as second:
            assert temporary.exists()
            first.write(made(0))
            second.write(made(2))
    assert [episode.index for episode in TransitionDataset(tmp_path).episodes] == [0, 2]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_recorder_is_told_of_the_first(tmp_path, overwrite):
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        writer.write(made(0))
        with DatasetWriter(tmp_path, MANIFEST, beside=True):
            pass
        with pytest.raises(RMRError, match="being written by another recorder"):
            DatasetWriter(tmp_path, MANIFEST, overwrite=overwrite)
        assert writer.finished() == [0]
    DatasetWriter(tmp_path, MANIFEST, overwrite=overwrite).close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": np.zeros(9)}, "expected 10 rows a step column and 11 an observation"),
        ({"actions": np.zeros(11, int)}, "expected 11 rows a step column"),
        ({"actions": np.full(10, "left")}, "expected int64 in column 'action'"),
        ({"observations": {"pixels": made().observations["pixels"]}}, "expected observations"),
        (
            {"observations": {**made().observations, "state": np.zeros((11, 3))}},
            "expected float32 in column 'state', found float64",
        ),
        (
            {"observations": {**made().observations, "state": np.zeros((11, 4), np.float32)}},
            r"expected shape \(3,\) in column 'state', found \(4,\)",
        ),
    ],
)
def test_an_episode_that_does_not_fit_leaves_nothing(tmp_path, change, message):
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        with pytest.raises(RMRError, match=message):
            writer.write(replace(made(), **change))
        assert writer.finished() == []
    assert sorted(files(tmp_path)) == [".lock", "manifest.json"]


def test_a_step_that_fails_leaves_the_episode_as_it_was(tmp_path):
    episode = made(length=80)
    rows = [{name: column[i] for name, column in episode.observations.items()} for i in range(81)]
    with DatasetWriter(tmp_path / "d", MANIFEST) as writer:
        growing = writer.episode(0, 4, "tester")
        growing.begin(rows[0])
        for i in range(80):
            if i in (0, 2, 3, 4, 78, 79):
                with pytest.raises(RMRError, match="column 'state'"):
                    growing.append(0, 9.0, True, True, {**rows[3], "state": np.zeros(9)})
            flags = bool(episode.terminated[i]), bool(episode.truncated[i])
            growing.append(episode.actions[i], float(episode.rewards[i]), *flags, rows[i + 1])
        with pytest.raises(RMRError, match="column 'state'"):
            growing.append(0, 9.0, True, True, {**rows[3], "state": np.zeros(9)})
        growing.finish()
    assert files(tmp_path / "d") == files(written(tmp_path / "whole", episode))


def test_ctrl_c_at_any_line_loses_nothing(tmp_path):
    """Cut `append` at lines drawn at random, and take the step again if it was not taken."""
    episode, lines, cuts = made(length=200), itertools.count(), []
    rng, at = np.random.default_rng(0), [70]

    def cut(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith("data/writer.py"):
            return None
        if event == "line" and next(lines) == at[0]:
            at[0] += int(rng.integers(70, 140))
            cuts.append(frame.f_lineno)
            raise KeyboardInterrupt
        return cut

    rows = [{name: column[i] for name, column in episode.observations.items()} for i in range(201)]
    with DatasetWriter(tmp_path / "d", MANIFEST) as writer:
        growing = writer.episode(0, 4, "tester")
        growing.begin(rows[0])
        while (i := growing.length) < 200:
            flags = bool(episode.terminated[i]), bool(episode.truncated[i])
            step = episode.actions[i], float(episode.rewards[i]), *flags, rows[i + 1]
            before = sys.gettrace()
            sys.settrace(cut)
            try:
                with suppress(KeyboardInterrupt):
                    growing.append(*step)
            finally:
                sys.settrace(before)
        growing.finish()
    assert len(set(cuts)) > 8, "hardly anything was cut"
    assert files(tmp_path / "d") == files(written(tmp_path / "whole", episode))


def test_an_episode_needs_a_step(tmp_path):
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        episode = writer.episode(0, None, "tester")
        with pytest.raises(RMRError, match="at least one step"):
            episode.finish()
        episode.abandon()
        episode.abandon()
        assert writer.finished() == []


@pytest.mark.parametrize("inside", ["", "data"])
def test_a_folder_that_cannot_be_made(tmp_path, inside):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RMRError, match=r"cannot write .*Not a directory"):
        DatasetWriter(tmp_path / "file" / inside, MANIFEST)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RMRError, match=r"cannot write .*Permission denied"):
        DatasetWriter(tmp_path / "d", MANIFEST)


def test_a_full_disk_harms_nothing_that_was_finished(tmp_path):
    resource = pytest.importorskip("resource")
    before = files(written(tmp_path, made(0)))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))
        try:
            with pytest.raises(RMRError, match=r"cannot write .*000001\.h5.*unharmed"):
                writer.write(made(1, length=100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert files(tmp_path) == before
        writer.write(made(1, length=100))
    TransitionDataset(tmp_path, verify=True)


def test_a_disk_that_fills_up_later_is_the_same(tmp_path, monkeypatch):
    """Some systems find out that there is no room only when a file is flushed."""
    before = files(written(tmp_path, made(0)))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with DatasetWriter(tmp_path, MANIFEST) as writer:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(RMRError, match=r"000001\.h5: No space left .*make room"):
                writer.write(made(1))
        assert files(tmp_path) == before
        writer.write(made(1))
    TransitionDataset(tmp_path, verify=True)


def test_a_data_set_from_before_the_first_release(tmp_path):
    written(tmp_path, made())
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 1'))
    with pytest.raises(RMRError, match=r"has format version 1, .*record again"):
        DatasetWriter(tmp_path, MANIFEST)
    with DatasetWriter(tmp_path, MANIFEST, overwrite=True) as writer:
        writer.write(made())
    TransitionDataset(tmp_path, verify=True)


def test_a_first_file_that_cannot_be_read_back_is_told(tmp_path, monkeypatch):
    """Some releases of h5py write a wrong checksum into the first bytes of a file."""
    image = EpisodeWriter._file_image

    def damaged(self, interrupted):
        content = bytearray(image(self, interrupted))
        content[45] ^= 1
        return bytes(content)

    monkeypatch.setattr("rmr_gym.data.writer._proven", Event())
    with monkeypatch.context() as patched, DatasetWriter(tmp_path, MANIFEST) as writer:
        patched.setattr(EpisodeWriter, "_file_image", damaged)
        with pytest.raises(RMRError, match=r"h5py .* wrote a damaged file, .* upgrade h5py"):
            writer.write(made())
        assert writer.finished() == []
    TransitionDataset(written(tmp_path, made()), verify=True)


@pytest.mark.parametrize(
    ("rewards", "total"),
    [
        ([np.nan, 1.0], np.nan),
        ([np.inf, 1.0], np.inf),
        ([np.inf, -np.inf], np.nan),
        ([1e308, 1e308], np.inf),
    ],
)
def test_rewards_that_are_not_finite_are_kept(tmp_path, rewards, total):
    episode = replace(made(length=2), rewards=np.array(rewards))
    dataset = TransitionDataset(written(tmp_path, episode), verify=True)
    np.testing.assert_array_equal(dataset.load(("reward",))["reward"], rewards)
    np.testing.assert_equal(dataset.episodes[0].total_reward, total)
