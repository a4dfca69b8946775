import shutil
from functools import cache

import gymnasium as gym
import numpy as np
import pytest

import rmr_gym  # noqa: F401
from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import palette_to_gray, palette_to_rgb
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.atari import frame_transform
from rmr_gym.models.rmr.kernels import COMPILERS
from rmr_gym.wrappers import screens
from rmr_gym.wrappers.screens import FrameReader, Shrinker

GRAY = gym.spaces.Box(0, 255, (210, 160, 1), np.uint8)
RGB = gym.spaces.Box(0, 255, (210, 160, 3), np.uint8)


def random_screens(count):
    return 2 * np.random.default_rng(0).integers(0, 128, (count, 210, 160), dtype=np.uint8)


@pytest.mark.parametrize("size", [(84, 84), (210, 160), (64, 80), (97, 61), (1, 1), (105, 160)])
def test_shrinking_is_byte_equal_to_training(size):
    indices = random_screens(5)
    shrunk = Shrinker(*size)(palette_to_gray(indices).astype(np.float32))
    assert np.array_equal(shrunk, frame_transform(*size)(indices))


@pytest.fixture(params=["compiled", "numpy"])
def way(request, monkeypatch):
    """How screens are shrunk."""
    if request.param == "numpy":
        monkeypatch.setattr(screens, "_library", lambda: None)
    elif not any(map(shutil.which, COMPILERS)):
        pytest.skip("no compiler here")
    else:
        assert screens._library() is not None


SIZES = [(84, 84), (42, 42), (100, 40), (210, 160), (97, 61)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3, 60])
def test_means_that_end_in_a_half_are_rounded_as_in_training(size, count):
    """Blocks of few gray levels make many of them; few screens at once take other products."""
    blocks = 2 * np.random.default_rng(1).integers(0, 128, (60, 42, 32), dtype=np.uint8)
    indices = np.kron(blocks, np.ones((5, 5), np.uint8))
    gray = palette_to_gray(indices).astype(np.float32)
    shrink = Shrinker(*size)
    parts = [shrink(gray[start : start + count]) for start in range(0, 60, count)]
    assert np.array_equal(np.concatenate(parts), frame_transform(*size)(indices))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["gray", "palette", "rgb"])
def test_only_changed_rows_are_computed_and_all_frames_are_right(way, size, kind):
    rng = np.random.default_rng(2)
    convert = {"gray": palette_to_gray, "palette": np.copy, "rgb": palette_to_rgb}[kind]
    reader = FrameReader(RGB if kind == "rgb" else GRAY, *size, palette=kind == "palette")
    indices = random_screens(4)
    for number in range(12):
        count = int(rng.integers(1, 5))
        top, places = int(rng.integers(0, 210)), rng.permutation(4)[:count]
        indices[:, top : top + 9, 20:90] = 2 * rng.integers(0, 128, dtype=np.uint8)
        shown = convert(indices[places])
        if kind != "rgb":
            shown = shown[..., None]
        frames = reader(shown)
        assert np.array_equal(frames, frame_transform(*size)(indices[places])), number
        frames[:] = 0


def test_screens_that_are_not_contiguous(way):
    indices = random_screens(3)
    reader = FrameReader(GRAY, 84, 84, palette=True)
    for shown in (indices[::-1], indices.transpose(0, 2, 1).copy().transpose(0, 2, 1)):
        assert np.array_equal(reader(shown[..., None]), frame_transform(84, 84)(shown))


@pytest.mark.parametrize("game", ["Pong", "Breakout"])
def test_every_way_of_showing_a_game_is_byte_equal_to_training(recorded, game):
    dataset = TransitionDataset(recorded(game))
    indices = dataset.load(columns=("pixels",), episodes=[0])["pixels"]
    trained_on = frame_transform(84, 84)(indices)
    gray, rgb = palette_to_gray(indices), palette_to_rgb(indices)
    flat = gym.spaces.Box(0, 255, (210, 160), np.uint8)
    for space, shown, palette in (
        (flat, gray, False),
        (GRAY, gray[..., None], False),
        (GRAY, indices[..., None], True),
        (RGB, rgb, False),
        (RGB, rgb, True),
    ):
        assert np.array_equal(FrameReader(space, 84, 84, palette=palette)(shown), trained_on)
        pair = gym.spaces.Dict(pixels=space, ram=gym.spaces.Box(0, 255, (128,), np.uint8))
        reader = FrameReader(pair, 84, 84, palette=palette)
        assert np.array_equal(reader({"pixels": shown, "ram": None}), trained_on)


@pytest.mark.parametrize("size", [(210, 160), (84, 84)])
def test_any_colour_is_the_same_gray_compiled_or_not(size, monkeypatch):
    """Among them every colour whose gray level ends in a half, where roundings differ."""
    blue = np.arange(256)
    colours = np.stack(np.meshgrid(np.arange(0, 256, 5), np.arange(0, 256, 3), blue), -1)
    shown = np.zeros((35, 210, 160, 3), np.uint8)
    shown.reshape(-1, 3)[: colours.size // 3] = colours.reshape(-1, 3)
    compiled = FrameReader(RGB, *size)(shown)
    monkeypatch.setattr(screens, "_library", lambda: None)
    assert np.array_equal(compiled, FrameReader(RGB, *size)(shown))


def test_without_a_compiler_numpy_does_it_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(screens, "_library", cache(screens._library.__wrapped__))
    monkeypatch.setenv("RMR_GYM_KERNELS", "0")
    indices = random_screens(2)
    for _ in range(2):
        frames = FrameReader(GRAY, 84, 84, palette=True)(indices[..., None])
        assert np.array_equal(frames, frame_transform(84, 84)(indices))
    (record,) = caplog.records
    assert "numpy takes" in record.getMessage()


def test_all_colours_of_the_palette(way):
    indices = np.zeros((1, 210, 160), np.uint8)
    indices[0, 0, :128] = np.arange(0, 256, 2)
    reader = FrameReader(RGB, 210, 160)
    assert np.array_equal(reader(palette_to_rgb(indices)), palette_to_gray(indices))


@pytest.mark.parametrize(
    ("space", "found"),
    [
        (gym.spaces.Box(0, 255, (84, 84), np.uint8), r"uint8 of shape \(84, 84\)"),
        (gym.spaces.Box(0, 255, (210, 160, 2), np.uint8), r"\(210, 160, 2\)"),
        (gym.spaces.Box(0, 255, (3, 210, 160), np.uint8), r"\(3, 210, 160\)"),
        (gym.spaces.Box(0, 255, (4, 210, 160, 3), np.uint8), r"\(4, 210, 160, 3\)"),
        (gym.spaces.Box(0, 1, (210, 160, 3), np.float32), r"float32 of shape \(210, 160, 3\)"),
        (gym.spaces.Box(0, 255, (128,), np.uint8), r"uint8 of shape \(128,\)"),
        (gym.spaces.Dict(ram=gym.spaces.Box(0, 255, (128,), np.uint8)), "Dict"),
        (gym.spaces.Discrete(3), "Discrete"),
    ],
)
def test_what_is_no_screen(space, found):
    with pytest.raises(RMRError, match=f"expected whole screens of 210 x 160.*{found}"):
        FrameReader(space, 84, 84)


def test_observations_that_do_not_keep_to_their_space():
    reader = FrameReader(GRAY, 84, 84)
    for shown in (np.zeros((1, 210, 160, 1)), np.zeros((1, 84, 84, 1), np.uint8)):
        with pytest.raises(RMRError, match="does not keep to its observation space"):
            reader(shown)
