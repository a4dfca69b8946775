import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.emulator import ScreenAndRAM, choose_mode, load
from rmr_gym.envs.atari.games import GAMES

PONG = GAMES["Pong"]


@pytest.fixture
def pong():
    return load(PONG, max_num_frames=0)


@pytest.mark.parametrize(
    ("pixels", "reader"),
    [("gray", "getScreenGrayscale"), ("palette", "getScreen"), ("rgb", "getScreenRGB")],
)
def test_reads_what_ale_shows_and_keeps_nothing(pong, pixels, reader):
    both = ScreenAndRAM(pong, pixels)
    first = both.read()
    kept = {name: array.copy() for name, array in first.items()}
    assert first in both.space
    assert np.array_equal(first["ram"], pong.getRAM())
    assert np.array_equal(np.squeeze(first["pixels"]), getattr(pong, reader)())
    for _ in range(100):
        pong.act(3)
    second = both.read()
    for name in ("ram", "pixels"):
        assert not np.array_equal(first[name], second[name])
        assert np.array_equal(first[name], kept[name])


def test_unknown_pixels(pong):
    with pytest.raises(RMRError, match="unknown kind of pixels 'grey': did you mean 'gray'"):
        ScreenAndRAM(pong, "grey")


def test_loads_silently_and_without_sticky_actions(pong, capfd):
    load(PONG, max_num_frames=100)
    assert capfd.readouterr() == ("", "")
    assert pong.getFloat("repeat_action_probability") == 0


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_a_folder_without_roms(monkeypatch, tmp_path, folder):
    if folder == "empty":
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / folder))
    with pytest.raises(RMRError, match=r"expected the ROM of Pong in ale-py.*unset ALE_ROMS_DIR"):
        load(PONG, max_num_frames=0)


def test_modes_and_difficulties_that_the_game_does_not_have(pong):
    with pytest.raises(RMRError, match=r"expected a mode of Pong \(0, 1\), found 7"):
        choose_mode(pong, PONG, mode=7, difficulty=None)
    with pytest.raises(RMRError, match=r"expected a difficulty of Pong \(0, 1, 2, 3\), found 9"):
        choose_mode(pong, PONG, mode=None, difficulty=9)
