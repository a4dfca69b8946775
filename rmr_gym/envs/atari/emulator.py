"""The emulator underneath: loading a game, and reading its RAM and its screen."""

from typing import Literal

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from gymnasium import spaces
from jaxtyping import UInt8

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.envs.atari.games import Game

Pixels = Literal["gray", "palette", "rgb"]

_SCREENS: dict[str, tuple[int, str]] = {
    "gray": (1, "getScreenGrayscale"),
    "palette": (1, "getScreen"),
    "rgb": (3, "getScreenRGB"),
}


class ScreenAndRAM:
    """Reads the RAM and the screen of an ALE, both after the last frame that it emulated.

    Args:
        ale: The emulator, with a ROM loaded.
        pixels: ``"gray"`` or ``"rgb"`` as ALE converts the screen, or ``"palette"`` for the palette
            indices, from which `rmr_gym.core.palette` rebuilds the other two.

    Attributes:
        space: The space of what `read` returns.

    Raises:
        RMRError: ``pixels`` is none of the three.
    """

    def __init__(self, ale: ALEInterface, pixels: str = "gray"):
        if pixels not in _SCREENS:
            raise unknown_name("kind of pixels", str(pixels), _SCREENS)
        channels, reader = _SCREENS[pixels]
        self._read_ram = ale.getRAM
        self._read_screen = getattr(ale, reader)
        self._shape = (*ale.getScreenDims(), channels)
        self.space = spaces.Dict(
            ram=spaces.Box(0, 255, (ale.getRAMSize(),), np.uint8),
            pixels=spaces.Box(0, 255, self._shape, np.uint8),
        )

    def pixels(self) -> UInt8[np.ndarray, "height width channels"]:
        """Return the screen as a new array."""
        pixels = np.empty(self._shape, np.uint8)
        self._read_screen(pixels if self._shape[2] == 3 else pixels[:, :, 0])
        return pixels

    def read(self) -> dict[str, np.ndarray]:
        """Return RAM and screen, in new arrays."""
        ram = np.empty(self.space["ram"].shape or (), np.uint8)
        self._read_ram(ram)
        return {"ram": ram, "pixels": self.pixels()}


def load(game: Game, max_num_frames: int) -> ALEInterface:
    """Return an emulator with the game loaded, silent and without sticky actions of its own."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 0)
    ale.setInt("max_num_frames_per_episode", max_num_frames)
    try:
        path = roms.get_rom_path(game.rom)
    except OSError as error:
        raise RMRError(
            f"expected the ROM of {game.name} in ale-py, found: {error}; install ale-py again, or "
            "unset ALE_ROMS_DIR if it points to other ROMs"
        ) from error
    if path is None:
        raise RMRError(f"expected the ROM of {game.name} in ale-py, found none: upgrade ale-py")
    ale.loadROM(path)
    return ale


def choose_mode(ale: ALEInterface, game: Game, mode: int | None, difficulty: int | None) -> None:
    """Set what is not None; it takes effect at the next reset of the emulator."""
    for kind, value, choices, choose in (
        ("mode", mode, ale.getAvailableModes(), ale.setMode),
        ("difficulty", difficulty, ale.getAvailableDifficulties(), ale.setDifficulty),
    ):
        if value is None:
            continue
        if value not in choices:
            listed = ", ".join(map(str, choices))
            raise RMRError(f"expected a {kind} of {game.name} ({listed}), found {value!r}")
        choose(value)
