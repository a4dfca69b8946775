import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import (
    TransitionDataset,
    being_written,
    duplicate_report,
    duplicate_rows,
    find_problems,
    merge_datasets,
)
from rmr_gym.data.schema import FORMAT_VERSION, ColumnSpec, Episode, Manifest, step_columns
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


def test_whether_a_recorder_writes(recorded):
    pytest.importorskip("fcntl")
    assert not being_written(recorded)
    with DatasetWriter(recorded, MANIFEST) as writer:
        assert being_written(recorded)
        writer.write(made(5))
        assert find_problems(recorded) == []
    assert not being_written(recorded)
    DatasetWriter(recorded, MANIFEST).close()


def test_asking_who_writes_changes_nothing(tmp_path):
    assert not being_written(tmp_path / "nowhere")
    assert not being_written(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_report_by_hand():
    first = np.array([[1, 2], [1, 2], [3, 4], [1, 2]])
    second = np.array([[3, 4], [5, 6], [5, 6], [3, 4]])
    counts = {"rows": 8, "repeated": 5, "within an episode": 4, "across episodes": 2}
    assert duplicate_report([first, second]) == counts
    assert duplicate_report([]) == dict.fromkeys(counts, 0)


def test_duplicate_rows_by_hand():
    reference = np.array([[[1, 2]], [[3, 4]]], dtype=np.uint8)
    frames = np.array([[[3, 4]], [[4, 3]], [[1, 2]], [[1, 3]]], dtype=np.uint8)
    assert duplicate_rows(reference, frames).tolist() == [True, False, True, False]
    assert duplicate_rows(reference[:0], frames).tolist() == [False] * 4
    strided = np.repeat(frames, 2, axis=2)[:, :, ::2]
    assert duplicate_rows(reference, strided).tolist() == [True, False, True, False]


def test_duplicates_of_another_size():
    with pytest.raises(RMRError, match=r"found uint8\[2, 2\] and uint8\[2, 3\]"):
        duplicate_rows(np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 3), np.uint8))


LEFT = Manifest(
    observations=(ColumnSpec("state", "float32", (2,)),),
    steps=step_columns(spaces.Discrete(3)),
    env_id="rmr/Nowhere-v0",
    actions=3,
    heads=("left",),
    settings={"recorder": "collect", "seed": 0, "max_steps": 9},
    versions={"mujoco": "4.0.0", "numpy": "2.4.6"},
)
RIGHT = replace(
    LEFT,
    heads=("right", "left"),
    settings={**LEFT.settings, "seed": 1},
    versions={"mujoco": "4.0.0", "numpy": "2.0.0"},
)


def part(number: int, index: int) -> Episode:
    rng = np.random.default_rng(number)
    return Episode(
        index=index,
        seed=number,
        head="left" if number < 10 else "right",
        observations={"state": rng.normal(size=(number + 2, 2)).astype(np.float32)},
        actions=rng.integers(0, 3, number + 1),
        rewards=rng.normal(size=number + 1),
        terminated=np.zeros(number + 1, bool),
        truncated=np.arange(number + 1) == number,
    )


def parts(path: Path, manifest: Manifest, *numbers: int, first: int = 0) -> Path:
    with DatasetWriter(path, manifest) as writer:
        for index, number in enumerate(numbers, first):
            writer.write(part(number, index))
    return path


@pytest.fixture
def sources(tmp_path) -> list[Path]:
    return [
        parts(tmp_path / "one", LEFT, 1, 2),
        parts(tmp_path / "two", RIGHT, 11, 12, 3, first=4),
    ]


def test_episodes_follow_one_another_with_new_numbers(tmp_path, sources):
    seen = []
    merged = merge_datasets(
        tmp_path / "out", sources, progress=lambda done, total: seen.append((done, total))
    )
    merged.verify()
    assert seen == [(done, 5) for done in range(1, 6)]
    assert [e.index for e in merged.episodes] == [0, 1, 2, 3, 4]
    assert [e.seed for e in merged.episodes] == [1, 2, 11, 12, 3]
    assert [e.head for e in merged.episodes] == ["left", "left", "right", "right", "left"]
    assert merged.manifest.heads == ("left", "right")
    for position, number in enumerate((1, 2, 11, 12, 3)):
        episode, expected = merged.episode(position), part(number, position)
        np.testing.assert_array_equal(episode.observations["state"], expected.observations["state"])
        np.testing.assert_array_equal(episode.actions, expected.actions)
        np.testing.assert_array_equal(episode.rewards, expected.rewards)
        np.testing.assert_array_equal(episode.truncated, expected.truncated)


def test_the_manifest_says_what_was_merged(tmp_path, sources):
    settings = merge_datasets(tmp_path / "out", sources).manifest.settings
    assert settings["max_steps"] == 9
    assert "seed" not in settings
    assert [(part["seed"], part["episodes"]) for part in settings["merged"]] == [(0, 2), (1, 3)]
    assert settings["merged"][0]["fingerprint"] == TransitionDataset(sources[0]).fingerprint


def test_a_merged_data_set_is_not_recorded_into_but_merged_again(tmp_path, sources):
    merge_datasets(tmp_path / "out", sources)
    with pytest.raises(RMRError, match="holds another data set"):
        DatasetWriter(tmp_path / "out", LEFT)
    third = parts(tmp_path / "three", LEFT, 7)
    assert len(merge_datasets(tmp_path / "more", [tmp_path / "out", third]).episodes) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_id": "rmr/Elsewhere-v0"}, "env_id: 'rmr/Nowhere-v0' .* 'rmr/Elsewhere-v0'"),
        ({"versions": {"mujoco": "3.9.0"}}, "version of mujoco: '4.0.0'"),
        ({"settings": {"recorder": "collect", "seed": 1, "max_steps": 8}}, "settings max_steps: 9"),
        ({"env_kwargs": {"n": 2}}, "env_kwargs n"),
    ],
)
def test_what_is_not_alike_is_kept_apart(tmp_path, change, message):
    one = parts(tmp_path / "one", LEFT, 1)
    two = parts(tmp_path / "two", replace(LEFT, **change), 2)
    with pytest.raises(RMRError, match=rf"two differs from .*one \(.*{message}.*keep them apart"):
        merge_datasets(tmp_path / "out", [one, two])
    assert not (tmp_path / "out").exists()


def test_the_same_episode_twice(tmp_path, sources):
    copy = parts(tmp_path / "copy", LEFT, 9, 2)
    with pytest.raises(RMRError, match=r"found episode 1 in both .*one and .*copy: record one"):
        merge_datasets(tmp_path / "out", [*sources, copy])
    assert not (tmp_path / "out").exists()


def test_too_few_and_itself(tmp_path, sources):
    with pytest.raises(RMRError, match="at least two data sets to merge, found 1"):
        merge_datasets(tmp_path / "out", sources[:1])
    before = TransitionDataset(sources[0]).fingerprint
    detour = sources[1] / ".." / "one"
    with pytest.raises(RMRError, match="which is a source"):
        merge_datasets(detour, sources, overwrite=True)
    assert TransitionDataset(sources[0]).fingerprint == before


def test_a_damaged_source_is_named_and_not_copied(tmp_path, sources):
    path = sources[1] / "episodes" / "000005.h5"
    content = bytearray(path.read_bytes())
    content[content.index(b"right")] ^= 1
    path.write_bytes(content)
    with pytest.raises(RMRError, match=r"two/episodes/000005\.h5 is truncated, damaged or foreign"):
        merge_datasets(tmp_path / "out", sources)
    merged = TransitionDataset(tmp_path / "out", verify=True)
    assert [e.seed for e in merged.episodes] == [1, 2, 11]


def test_an_interrupted_merge_ends_equal_to_an_unbroken_one(tmp_path, sources):
    whole = merge_datasets(tmp_path / "whole", sources)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_datasets(tmp_path / "out", sources, progress=stop)
    kept = tmp_path / "out" / "episodes" / "000000.h5"
    written_at = kept.stat().st_mtime_ns
    assert len(TransitionDataset(tmp_path / "out", verify=True).episodes) == 3
    assert merge_datasets(tmp_path / "out", sources).fingerprint == whole.fingerprint
    assert kept.stat().st_mtime_ns == written_at
    for path in sorted(whole.path.rglob("*.h5")):
        assert path.read_bytes() == (kept.parent / path.name).read_bytes()


def test_nothing_is_overwritten_without_being_asked(tmp_path, sources):
    out = parts(tmp_path / "out", LEFT, 8)
    before = TransitionDataset(out).fingerprint
    with pytest.raises(RMRError, match="holds another data set"):
        merge_datasets(out, sources)
    assert TransitionDataset(out).fingerprint == before
    assert len(merge_datasets(out, sources, overwrite=True).episodes) == 5


@pytest.mark.parametrize("index", [1, 9])
def test_an_episode_that_does_not_belong(tmp_path, sources, index):
    out = merge_datasets(tmp_path / "out", sources)
    (out.path / "episodes" / "000001.h5").unlink()
    with DatasetWriter(out.path, out.manifest) as writer:
        writer.write(part(8, index))
    with pytest.raises(RMRError, match=rf"holds another episode {index} than would be written"):
        merge_datasets(out.path, sources)


def test_a_folder_that_is_being_written(tmp_path, sources):
    out = merge_datasets(tmp_path / "out", sources)
    with (
        DatasetWriter(out.path, out.manifest),
        pytest.raises(RMRError, match="being written by another recorder"),
    ):
        merge_datasets(out.path, sources)
