from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.verify import merge_datasets
from rmr_gym.data.writer import DatasetWriter

MANIFEST = Manifest(
    observations=(ColumnSpec("state", "float32", (2,)),),
    steps=step_columns(spaces.Discrete(3)),
    env_id="rmr/Nowhere-v0",
    actions=3,
    heads=("left",),
    settings={"recorder": "collect", "seed": 0, "max_steps": 9},
    versions={"mujoco": "4.0.0", "numpy": "2.4.6"},
)
OTHER = replace(
    MANIFEST,
    heads=("right", "left"),
    settings={**MANIFEST.settings, "seed": 1},
    versions={"mujoco": "4.0.0", "numpy": "2.0.0"},
)


def made(number: int, index: int) -> Episode:
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


def written(path: Path, manifest: Manifest, *numbers: int, first: int = 0) -> Path:
    with DatasetWriter(path, manifest) as writer:
        for index, number in enumerate(numbers, first):
            writer.write(made(number, index))
    return path


@pytest.fixture
def sources(tmp_path) -> list[Path]:
    return [
        written(tmp_path / "one", MANIFEST, 1, 2),
        written(tmp_path / "two", OTHER, 11, 12, 3, first=4),
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
        episode, expected = merged.episode(position), made(number, position)
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
        DatasetWriter(tmp_path / "out", MANIFEST)
    third = written(tmp_path / "three", MANIFEST, 7)
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
    one = written(tmp_path / "one", MANIFEST, 1)
    two = written(tmp_path / "two", replace(MANIFEST, **change), 2)
    with pytest.raises(RMRError, match=rf"two differs from .*one \(.*{message}.*keep them apart"):
        merge_datasets(tmp_path / "out", [one, two])
    assert not (tmp_path / "out").exists()


def test_the_same_episode_twice(tmp_path, sources):
    copy = written(tmp_path / "copy", MANIFEST, 9, 2)
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
    out = written(tmp_path / "out", MANIFEST, 8)
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
        writer.write(made(8, index))
    with pytest.raises(RMRError, match=rf"holds another episode {index} than would be written"):
        merge_datasets(out.path, sources)


def test_a_folder_that_is_being_written(tmp_path, sources):
    out = merge_datasets(tmp_path / "out", sources)
    with (
        DatasetWriter(out.path, out.manifest),
        pytest.raises(RMRError, match="being written by another recorder"),
    ):
        merge_datasets(out.path, sources)
