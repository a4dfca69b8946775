import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms

from rmr_gym.core.palette import PALETTE_GRAY, PALETTE_RGB, palette_to_gray, palette_to_rgb
from rmr_gym.envs.atari.games import GAMES


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_the_look_ups_equal_ale_in_random_play(game):
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", 0)
    ale.loadROM(roms.get_rom_path(game.rom))
    rng = np.random.default_rng(7)
    for step in range(300):
        action = int(rng.integers(18))
        for _ in range(4):
            ale.act(action)
        if ale.game_over():
            ale.reset_game()
        if step % 6 == 0:
            screen = ale.getScreen()
            assert np.array_equal(palette_to_gray(screen), ale.getScreenGrayscale())
            assert np.array_equal(palette_to_rgb(screen), ale.getScreenRGB())


def test_the_look_ups_equal_ale_on_every_colour_that_corrupted_memory_paints():
    ale = ALEInterface()
    ale.setInt("random_seed", 0)
    ale.loadROM(roms.get_rom_path("yars_revenge"))
    rng = np.random.default_rng(3)
    start, seen = ale.cloneState(), np.zeros(256, bool)
    for step in range(1200):
        for slot in rng.integers(0, 128, 10):
            ale.setRAM(int(slot), int(rng.integers(256)))
        ale.act(int(rng.integers(18)))
        if step % 40 == 0 or ale.game_over():
            ale.restoreState(start)
            continue
        screen = ale.getScreen()
        if not seen[screen].all():
            assert np.array_equal(palette_to_gray(screen), ale.getScreenGrayscale())
            assert np.array_equal(palette_to_rgb(screen), ale.getScreenRGB())
        seen[screen] = True
    assert seen[0::2].sum() > 100


def test_known_colours():
    assert palette_to_rgb(np.array([0, 14], np.uint8)).tolist() == [[0, 0, 0], [236, 236, 236]]
    assert palette_to_rgb(np.array([[64]], np.uint8)).tolist() == [[[148, 0, 0]]]
    assert palette_to_gray(np.array([0, 14, 64], np.uint8)).tolist() == [0, 236, 44]


def test_colours_differ_and_are_read_only():
    assert len(np.unique(PALETTE_RGB[0::2], axis=0)) == 128
    for table in (PALETTE_RGB, PALETTE_GRAY):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


def test_odd_indices_are_gray_in_rgb():
    assert np.array_equal(PALETTE_RGB[1::2], np.repeat(PALETTE_GRAY[0::2, None], 3, axis=1))
    assert PALETTE_GRAY[1] == PALETTE_RGB[2, 2]
    assert PALETTE_GRAY[255] == PALETTE_GRAY[254]
