import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import (
    TransitionDataset,
    Transitions,
    duplicate_report,
)
from rmr_gym.data.reader import transition_rows
from rmr_gym.data.schema import FORMAT_VERSION, ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.writer import DatasetWriter

LENGTHS = (5, 70, 1)
MANIFEST = Manifest(
    observations=(
        ColumnSpec("pixels", "uint8", (210, 160), "ale_palette"),
        ColumnSpec("ram", "uint8", (128,)),
    ),
    steps=step_columns(spaces.Discrete(18)),
    env_id="rmr/Pong-v0",
    game="Pong",
    actions=18,
    heads=("even", "odd"),
)


def made(index: int, length: int) -> Episode:
    """Make an episode whose every value tells where it comes from."""
    row = np.arange(length + 1)
    ram = np.full((length + 1, 128), index, np.uint8)
    ram[:, 1] = row
    return Episode(
        index=index,
        seed=None if index == 1 else 10 + index,
        head=MANIFEST.heads[index % 2],
        observations={
            "pixels": np.broadcast_to(ram[:, 1:2, None], (length + 1, 210, 160)),
            "ram": ram,
        },
        actions=row[:-1] % 18,
        rewards=np.full(length, 0.1),
        terminated=row[1:] == length,
        truncated=np.zeros(length, dtype=bool),
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recorded")
    with DatasetWriter(path, MANIFEST) as writer:
        for index, length in enumerate(LENGTHS):
            writer.write(made(index, length))
    return path


@pytest.fixture
def copied(recorded, tmp_path) -> Path:
    shutil.copytree(recorded, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_is_known_without_loading(recorded):
    dataset = TransitionDataset(recorded)
    assert len(dataset) == 76
    assert [e.length for e in dataset.episodes] == [5, 70, 1]
    assert [e.seed for e in dataset.episodes] == [10, None, 12]
    assert [e.head for e in dataset.episodes] == ["even", "odd", "even"]
    assert [e.index for e in dataset.episodes] == [0, 1, 2]
    assert dataset.episodes[0].total_reward == 0.5
    assert len({e.checksum for e in dataset.episodes}) == 3
    assert dataset.manifest == MANIFEST


def test_the_repr_prints_shapes(recorded):
    text = repr(TransitionDataset(recorded))
    assert "Pong, 3 episodes by 2 heads, 76 transitions" in text
    assert "pixels      uint8[T + 1, 210, 160] ale_palette" in text
    assert "action      int64[T]" in text


def test_rows_and_transitions_line_up(recorded):
    loaded = TransitionDataset(recorded).load(columns=("ram", "action"), episodes=[1, 0, 2])
    assert loaded["ram"].shape == (76 + 3, 128)
    assert len(loaded) == len(loaded["action"]) == 76
    assert loaded.episode.tolist() == [0] * 70 + [1] * 5 + [2]
    before, after = loaded["ram"][loaded.current], loaded["ram"][loaded.current + 1]
    assert (before[:, 0] == np.array([1, 0, 2])[loaded.episode]).all()
    assert (before[:, 0] == after[:, 0]).all(), "a transition never crosses episodes"
    assert (after[:, 1] == before[:, 1] + 1).all()
    assert (loaded["action"] == before[:, 1] % 18).all()


def test_all_episodes_by_default_and_none_on_request(recorded):
    dataset = TransitionDataset(recorded)
    assert len(dataset.load(columns=("action",))) == 76
    nothing = dataset.load(columns=("ram", "action"), episodes=[])
    assert (len(nothing), len(nothing["ram"])) == (0, 0)


def test_only_what_was_asked_for_is_there(recorded):
    loaded = TransitionDataset(recorded).load(columns=("pixels", "action"))
    with pytest.raises(RMRError, match="'ram' was not loaded, only pixels, action"):
        loaded["ram"]


def test_only_what_was_asked_for_is_read(copied):
    path = copied / "episodes" / "000000.h5"
    with h5py.File(path, "r+") as file:
        del file["ram"]
    poisoned = copied / "episodes" / "000001.h5"
    with h5py.File(poisoned) as file:
        chunk = file["ram"].id.get_chunk_info(0)
    content = bytearray(poisoned.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\x99" * chunk.size
    poisoned.write_bytes(content)

    dataset = TransitionDataset(copied)
    assert len(dataset.load(columns=("pixels", "action"))) == 76
    with pytest.raises(RMRError, match=r"000000\.h5 .*it has no column 'ram'"):
        dataset.load(columns=("ram",))
    with pytest.raises(RMRError, match=r"000001\.h5 is truncated, damaged or foreign"):
        dataset.load(columns=("ram",), episodes=[1])


def test_a_transform_is_applied_episode_by_episode(recorded):
    seen = []

    def shrink(frames: np.ndarray) -> np.ndarray:
        seen.append(frames.shape)
        return np.ascontiguousarray(frames[:, ::70, ::40])

    dataset = TransitionDataset(recorded)
    loaded = dataset.load(columns=("pixels", "ram"), transform=shrink)
    assert seen == [(6, 210, 160), (71, 210, 160), (2, 210, 160)]
    assert loaded["pixels"].shape == (79, 3, 4)
    assert (loaded["pixels"][:, 0, 0] == loaded["ram"][:, 1]).all()
    assert dataset.load(columns=("ram",), transform=shrink)["ram"].shape == (79, 128)


def test_a_transform_saves_memory(tmp_path):
    with DatasetWriter(tmp_path, MANIFEST) as writer:
        for index in range(6):
            writer.write(made(index, 60))
    dataset = TransitionDataset(tmp_path)
    episode_bytes = 61 * 210 * 160
    tracemalloc.start()
    try:
        loaded = dataset.load(columns=("pixels",), transform=lambda f: f[:, ::10, ::10].copy())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert loaded["pixels"].shape == (6 * 61, 21, 16)
    assert peak < 2 * episode_bytes


def test_a_transform_keeps_the_rows(recorded):
    with pytest.raises(RMRError, match="keeps the 6 frames of an episode, got 3"):
        TransitionDataset(recorded).load(columns=("pixels",), transform=lambda f: f[::2])


def test_wrong_columns_and_episodes(recorded):
    dataset = TransitionDataset(recorded)
    with pytest.raises(RMRError, match="unknown column 'pixel': did you mean 'pixels'"):
        dataset.load(columns=("pixel",))
    for wrong in (3, -1):
        with pytest.raises(RMRError, match=f"from 0 to 2, found {wrong} in "):
            dataset.load(columns=("ram",), episodes=[0, wrong])


def test_another_game(recorded):
    dataset = TransitionDataset(recorded)
    dataset.require_game("Pong")
    with pytest.raises(RMRError, match=r"expected a data set of Breakout, found one of Pong in"):
        dataset.require_game("Breakout")


def test_the_fingerprint_follows_the_content(recorded, copied):
    assert TransitionDataset(recorded).fingerprint == TransitionDataset(copied).fingerprint
    (copied / "episodes" / "000002.h5").unlink()
    fewer = TransitionDataset(copied)
    assert fewer.fingerprint != TransitionDataset(recorded).fingerprint
    with DatasetWriter(copied, MANIFEST) as writer:
        writer.write(made(2, 2))
    assert TransitionDataset(copied).fingerprint not in (
        fewer.fingerprint,
        TransitionDataset(recorded).fingerprint,
    )


def test_no_data_set(tmp_path):
    with pytest.raises(RMRError, match="expected a recorded data set in"):
        TransitionDataset(tmp_path / "nowhere")


def test_an_empty_data_set(tmp_path):
    DatasetWriter(tmp_path, MANIFEST).close()
    dataset = TransitionDataset(tmp_path, verify=True)
    assert (len(dataset), dataset.episodes) == (0, [])
    assert "0 episodes" in repr(dataset)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_file_is_named(copied, keep):
    path = copied / "episodes" / "000001.h5"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RMRError, match=r"000001\.h5 is truncated, damaged or foreign"):
        TransitionDataset(copied)


def test_a_foreign_file_is_named(copied):
    path = copied / "episodes" / "000003.h5"
    with h5py.File(path, "w") as file:
        file["pixels"] = np.zeros(3)
    with pytest.raises(RMRError, match=r"000003\.h5 is .* foreign \(it has no attribute format"):
        TransitionDataset(copied)


def test_an_episode_under_another_name(copied):
    (copied / "episodes" / "000000.h5").rename(copied / "episodes" / "000007.h5")
    with pytest.raises(RMRError, match=r"000007\.h5 .*it is episode 0 under another name"):
        TransitionDataset(copied)


def test_an_episode_of_a_newer_format(copied):
    with h5py.File(copied / "episodes" / "000000.h5", "r+") as file:
        file.attrs["format_version"] = FORMAT_VERSION + 1
    with pytest.raises(RMRError, match=r"000000\.h5 has format version .*upgrade"):
        TransitionDataset(copied)


@pytest.mark.parametrize("attribute", ["length", "head", "sha256", "total_reward"])
def test_an_episode_without_an_attribute(copied, attribute):
    with h5py.File(copied / "episodes" / "000000.h5", "r+") as file:
        del file.attrs[attribute]
    with pytest.raises(RMRError, match=rf"000000\.h5 is .*{attribute}"):
        TransitionDataset(copied)


def test_a_column_of_another_shape(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["observations"][1]["shape"] = [256]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        RMRError, match=r"column 'ram' is uint8\[6, 128\], expected uint8\[6, 256\]"
    ):
        TransitionDataset(copied).load(columns=("ram",))


@pytest.mark.parametrize("change", ["ram", "action", "reward", "head", "seed", "interrupted"])
def test_verify_notices_what_was_changed(copied, change):
    with h5py.File(copied / "episodes" / "000002.h5", "r+") as file:
        if change in ("head", "seed", "interrupted"):
            file.attrs[change] = {"head": "odd", "seed": 99, "interrupted": True}[change]
        else:
            file[change][0] = file[change][0] + 1
    dataset = TransitionDataset(copied)
    with pytest.raises(RMRError, match=r"000002\.h5 is truncated, damaged or foreign \("):
        dataset.verify()
    with pytest.raises(RMRError):
        TransitionDataset(copied, verify=True)


@pytest.mark.parametrize("changed", ["ram", "actions"])
def test_verify_notices_whole_columns_of_another_episode(copied, tmp_path, changed):
    """Every chunk agrees with its own sum, and only the episode's checksum can tell."""
    episode = made(2, 1)
    other = (
        replace(episode, actions=episode.actions + 1)
        if changed == "actions"
        else replace(
            episode, observations={**episode.observations, "ram": episode.observations["ram"] + 1}
        )
    )
    with DatasetWriter(tmp_path / "other", MANIFEST) as writer:
        writer.write(other)
    path = copied / "episodes" / "000002.h5"
    with h5py.File(path) as file:
        checksum = file.attrs["sha256"]
    shutil.copy(tmp_path / "other" / "episodes" / "000002.h5", path)
    with h5py.File(path, "r+") as file:
        file.attrs["sha256"] = checksum
    dataset = TransitionDataset(copied)
    dataset.load(columns=tuple(MANIFEST.columns))
    with pytest.raises(RMRError, match=r"000002\.h5 .*it does not match its checksum"):
        dataset.verify()


def test_damage_anywhere_is_noticed_or_harmless(copied):
    """Flip bytes all over a file: nothing but an RMRError, and never wrong data."""
    path = copied / "episodes" / "000001.h5"
    content = path.read_bytes()
    whole = TransitionDataset(copied).load(columns=tuple(MANIFEST.columns))
    noticed = 0
    for at in np.random.default_rng(0).choice(len(content), size=40, replace=False):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            dataset = TransitionDataset(copied, verify=True)
        except RMRError as error:
            noticed += "000001.h5" in str(error)
            continue
        loaded = dataset.load(columns=tuple(MANIFEST.columns))
        for name in MANIFEST.columns:
            np.testing.assert_array_equal(loaded[name], whole[name])
    assert noticed > 15


def test_a_whole_episode(recorded):
    episode, expected = TransitionDataset(recorded).episode(1), made(1, 70)
    assert (episode.index, episode.seed, episode.head) == (1, None, "odd")
    assert not episode.interrupted
    for name in ("pixels", "ram"):
        np.testing.assert_array_equal(episode.observations[name], expected.observations[name])
    np.testing.assert_array_equal(episode.actions, expected.actions)
    np.testing.assert_array_equal(episode.rewards, expected.rewards)
    np.testing.assert_array_equal(episode.terminated, expected.terminated)
    np.testing.assert_array_equal(episode.truncated, expected.truncated)
    with pytest.raises(RMRError, match=r"from 0 to 2, found 3 in "):
        TransitionDataset(recorded).episode(3)


def test_sizes(recorded):
    dataset = TransitionDataset(recorded)
    files = (recorded / "episodes").glob("*.h5")
    assert dataset.stored_bytes() == sum(file.stat().st_size for file in files)
    assert dataset.raw_bytes() == 79 * (210 * 160 + 128) + 76 * (8 + 8 + 1 + 1)


def test_duplicates_within_and_across_episodes(recorded):
    dataset = TransitionDataset(recorded)
    report = duplicate_report(dataset.by_episode("pixels"))
    assert [*report.values()] == [79, 6 + 2, 0, 6 + 2]
    assert [*duplicate_report(dataset.by_episode("ram")).values()] == [79, 0, 0, 0]
    assert duplicate_report(dataset.by_episode("pixels", [1, 0, 2])) == report
    assert duplicate_report(dataset.by_episode("pixels", [1]))["repeated"] == 0
    with pytest.raises(RMRError, match="unknown column 'pixel'"):
        dataset.by_episode("pixel")


def test_opening_beside_a_writer(copied):
    """Episodes that were finished are read; later ones and half of one are not seen."""
    before = TransitionDataset(copied)
    with DatasetWriter(copied, MANIFEST) as writer:
        growing = writer.episode(3, None, "odd")
        growing.begin({"pixels": np.zeros((210, 160), np.uint8), "ram": np.zeros(128, np.uint8)})
        assert TransitionDataset(copied, verify=True).fingerprint == before.fingerprint
        growing.abandon()
        writer.write(made(3, 4))
        assert len(TransitionDataset(copied, verify=True)) == 80
        assert len(before) == len(before.load(columns=("ram",))) == 76


def transitions_of(lengths) -> Transitions:
    """Transitions whose state names its episode and time, and whose action names its step."""
    state = [(e, t) for e, length in enumerate(lengths) for t in range(length + 1)]
    action = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    columns = {
        "state": np.array(state, np.float32).reshape(-1, 2),
        "action": np.array(action, np.int64).reshape(-1, 2),
        "terminated": np.zeros(len(action), bool),
    }
    return Transitions(columns, *transition_rows(lengths))


def test_windows_by_hand():
    windows = transitions_of([3, 1, 2]).windows(3)
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [6, 7, 8]]
    assert windows.dtype == np.int64
    assert transitions_of([3, 1, 2]).windows(3, stride=2).tolist() == [[0, 1, 2], [6, 7, 8]]


@given(
    st.lists(st.integers(1, 9), max_size=6),
    st.integers(1, 12),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_windows_are_all_stretches_of_one_episode(lengths, length, stride):
    transitions = transitions_of(lengths)
    windows = transitions.windows(length, stride)
    expected = [
        [(e, start + k) for k in range(length)]
        for e, steps in enumerate(lengths)
        for start in range(0, steps + 2 - length, stride)
    ]
    assert windows.shape == (len(expected), length)
    assert transitions["state"][windows].tolist() == [
        [list(pair) for pair in window] for window in expected
    ]


def test_the_steps_between_the_observations_of_windows():
    transitions = transitions_of([3, 1, 2])
    windows = transitions.windows(2)
    steps = transitions.steps(windows[:, :-1])
    assert steps.shape == (6, 1)
    np.testing.assert_array_equal(
        transitions["action"][steps], transitions["state"][windows[:, :-1]]
    )
    np.testing.assert_array_equal(transitions.steps(transitions.current), np.arange(6))


@pytest.mark.parametrize("row", [3, 5, 8, 9, -1])
def test_no_step_leaves_the_last_observation(row):
    with pytest.raises(RMRError, match="the last observation of an episode"):
        transitions_of([3, 1, 2]).steps(np.array([0, row]))


def test_steps_of_nothing():
    assert transitions_of([]).steps(np.empty((0, 3), int)).shape == (0, 3)
    with pytest.raises(RMRError, match="not there"):
        transitions_of([]).steps(np.array([0]))


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (-1, 1), (2, 0)])
def test_windows_that_cannot_be(length, stride):
    with pytest.raises(RMRError, match=r"at least 1 as (length|stride) of windows, found (0|-1)"):
        transitions_of([3]).windows(length, stride)


def test_the_repr_of_transitions():
    text = repr(transitions_of([3, 1]))
    assert text.startswith("Transitions(4 of 2 episodes, state: float32[6, 2], action: int64[4, 2]")


def test_to_a_device():
    transitions = transitions_of([3, 1, 2])
    moved = transitions.to("cpu")
    assert len(moved) == len(transitions)
    for name, array in transitions.columns.items():
        assert isinstance(moved[name], torch.Tensor)
        np.testing.assert_array_equal(moved[name].numpy(), array)
    assert moved.current.dtype == torch.int64
    np.testing.assert_array_equal(moved.episode.numpy(), transitions.episode)
    with pytest.raises(RMRError, match="'ram' was not loaded, only state, action"):
        moved["ram"]


@pytest.mark.parametrize("device", ["gpu", "cuda:77", ""])
def test_to_a_device_that_is_not_there(device):
    with pytest.raises(
        RMRError, match=rf"expected a device that PyTorch can use, found '{device}'"
    ):
        transitions_of([3]).to(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_to_a_gpu():
    transitions = transitions_of([3, 1, 2])
    moved = transitions.to("cuda")
    assert moved.current.device.type == moved["state"].device.type == "cuda"
    np.testing.assert_array_equal(moved["state"].cpu().numpy(), transitions["state"])


def test_a_mask_of_episodes_means_what_it_means_in_numpy(recorded):
    dataset = TransitionDataset(recorded)
    for mask in ([False, False, True], np.array([False, False, True])):
        assert (dataset.load(("ram",), episodes=mask)["ram"][:, 0] == 2).all()
    with pytest.raises(RMRError, match="a mask of 3 positions of episodes, found one of 2 in"):
        dataset.load(("ram",), episodes=[True, False])


def test_a_gap_in_the_numbering_is_told_at_opening(copied, caplog):
    TransitionDataset(copied)
    assert not caplog.messages
    (copied / "episodes" / "000001.h5").unlink()
    assert len(TransitionDataset(copied).episodes) == 2
    assert caplog.messages == [f"{copied} has no episode 1"]
