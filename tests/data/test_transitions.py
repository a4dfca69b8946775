import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import Transitions
from rmr_gym.data.reader import transition_rows


def loaded(lengths) -> Transitions:
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
    windows = loaded([3, 1, 2]).windows(3)
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [6, 7, 8]]
    assert windows.dtype == np.int64
    assert loaded([3, 1, 2]).windows(3, stride=2).tolist() == [[0, 1, 2], [6, 7, 8]]


@given(
    st.lists(st.integers(1, 9), max_size=6),
    st.integers(1, 12),
    st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_windows_are_all_stretches_of_one_episode(lengths, length, stride):
    transitions = loaded(lengths)
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
    transitions = loaded([3, 1, 2])
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
        loaded([3, 1, 2]).steps(np.array([0, row]))


def test_steps_of_nothing():
    assert loaded([]).steps(np.empty((0, 3), int)).shape == (0, 3)
    with pytest.raises(RMRError, match="not there"):
        loaded([]).steps(np.array([0]))


@pytest.mark.parametrize(("length", "stride"), [(0, 1), (-1, 1), (2, 0)])
def test_windows_that_cannot_be(length, stride):
    with pytest.raises(RMRError, match=r"of a (length|stride) of 1 or more, found (0|-1)"):
        loaded([3]).windows(length, stride)


def test_the_repr_prints_shapes():
    text = repr(loaded([3, 1]))
    assert text.startswith("Transitions(4 of 2 episodes, state: float32[6, 2], action: int64[4, 2]")


def test_to_a_device():
    transitions = loaded([3, 1, 2])
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
        loaded([3]).to(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_to_a_gpu():
    transitions = loaded([3, 1, 2])
    moved = transitions.to("cuda")
    assert moved.current.device.type == moved["state"].device.type == "cuda"
    np.testing.assert_array_equal(moved["state"].cpu().numpy(), transitions["state"])
