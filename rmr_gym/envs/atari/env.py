"""Atari 2600 games that show their RAM and their screen at the same instant."""

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from ale_py import ALEInterface, LoggerMode, roms
from jaxtyping import UInt8

from rmr_gym.core.actions import ACTION_NAMES
from rmr_gym.core.errors import RMRError, from_options, known_name, limit, whole_number
from rmr_gym.envs import arguments
from rmr_gym.envs.arguments import Arrays, Info, Seed
from rmr_gym.envs.atari.games import Game, find_game

Pixels = Literal["gray", "palette", "rgb"]

_SCREENS: dict[str, tuple[int, str]] = {
    "gray": (1, "getScreenGrayscale"),
    "palette": (1, "getScreen"),
    "rgb": (3, "getScreenRGB"),
}


class ScreenAndRAM:
    """Reads the RAM and the screen of an ALE, both after the last frame that it emulated.

    It keeps no emulator, so that copies of what reads with it read their own.

    Args:
        ale: An emulator with the ROM loaded.
        pixels: ``"gray"`` or ``"rgb"`` as ALE converts the screen, or ``"palette"`` for the palette
            indices, from which `rmr_gym.core.palette` rebuilds the other two.

    Attributes:
        space: The space of what `read` returns.

    Raises:
        RMRError: ``pixels`` is none of the three.
    """

    def __init__(self, ale: ALEInterface, pixels: str = "gray"):
        channels, reader = _SCREENS[known_name("kind of pixels", pixels, _SCREENS)]
        self._read_screen = reader
        self.space = gym.spaces.Dict(
            ram=gym.spaces.Box(0, 255, (ale.getRAMSize(),), np.uint8),
            pixels=gym.spaces.Box(0, 255, (*ale.getScreenDims(), channels), np.uint8),
        )

    def pixels(self, ale: ALEInterface) -> UInt8[np.ndarray, "height width channels"]:
        """Return the screen as a new array."""
        screen = getattr(ale, self._read_screen)()
        return screen if screen.ndim == 3 else screen[:, :, None]

    def read(self, ale: ALEInterface) -> Arrays:
        """Return RAM and screen, in new arrays."""
        return {"ram": ale.getRAM(), "pixels": self.pixels(ale)}


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


_NOOP = 0


@dataclass(frozen=True)
class AtariOptions:
    """How a game is played and shown.

    Args:
        frameskip: Frames a step, 1 or more.
        repeat_action_probability: Probability of a sticky action at each frame, in [0, 1].
        pixels: ``"gray"``, ``"palette"`` (indices, see `rmr_gym.core.palette`) or ``"rgb"``.
        max_pool: Show the element-wise maximum of the last two frames (against flicker, for
            agents); the RAM is that of the later one. Needs gray or RGB and a frame skip of 2.
        mode: ALE's mode of the game; None for the game's default.
        difficulty: ALE's difficulty of the game; None for the game's default.
        noop_max: At reset, press nothing for 1 to ``noop_max`` frames, drawn uniformly; 0 for none.
        max_num_frames_per_episode: Frames after which an episode is truncated (108,000 are 30
            minutes of play); None for no limit.
        render_mode: ``"rgb_array"`` or None.

    Raises:
        RMRError: A value that does not exist.
    """

    frameskip: int = 4
    repeat_action_probability: float = 0.0
    pixels: Pixels = "gray"
    max_pool: bool = False
    mode: int | None = None
    difficulty: int | None = None
    noop_max: int = 0
    max_num_frames_per_episode: int | None = 108_000
    render_mode: str | None = None

    def __post_init__(self) -> None:
        whole_number("frameskip", self.frameskip, at_least=1)
        whole_number("noop_max", self.noop_max)
        limit("max_num_frames_per_episode", self.max_num_frames_per_episode)
        arguments.probability("repeat_action_probability", self.repeat_action_probability)
        if self.max_pool and (self.pixels == "palette" or self.frameskip < 2):
            raise RMRError(
                "max_pool takes the brighter of a step's last two frames: expected gray or rgb "
                f"pixels and a frameskip of at least 2, found pixels={self.pixels!r}, "
                f"frameskip={self.frameskip}"
            )
        if self.render_mode is not None:
            known_name("render mode", self.render_mode, ["rgb_array"])


class PairedAtariEnv(gym.Env[Any, Any], gym.utils.EzPickle):
    """A game of the paper's tables, observed as the pair of its RAM and its screen.

    Observation: ``Dict(ram: uint8[128], pixels: uint8[210, 160, 1])``, ``[210, 160, 3]`` for
    ``pixels="rgb"``. Both are read after the last emulated frame of the step, so they belong to the
    same instant, and both are new arrays at every step. (The machine draws a frame and then updates
    its memory; what a game computes in one frame and draws in the next, its screen shows a
    frame, that is 1/60 s, later, here as on the console.)

    Action: ``Discrete(18)`` in every game, in ALE's order (`get_action_meanings`). A game that
    knows fewer actions has them mapped in its row of `rmr_gym.envs.atari.games.GAMES`.

    Reward: the change of the game's score over the emulated frames, neither clipped nor scaled.

    Episode end: ``terminated`` when the game is over, ``truncated`` after
    ``max_num_frames_per_episode`` frames; a lost life ends nothing.

    Time step: ``frameskip`` frames of 1/60 s with the same action; fewer where the game ends.

    Start state: the same emulator state at every reset, whatever was played before, equal to a
    freshly loaded ROM after ``reset_game``; then, if ``noop_max`` is set, a random number of frames
    without input. What is random (those frames, sticky actions) comes from the environment's own
    generator, so that a seed and a list of actions determine an episode.

    Info: ``lives``; ``episode_frame_number``, the frames since the reset; ``frame_number``, the
    frames since the last reset with a seed.

    Source: RMR, section 5 (RAM and framebuffer, 18 actions).
    Differs: the paper names neither frame skip nor sticky actions; the defaults are frame skip 4
    and none. Sticky actions are drawn here and not inside ALE, with the same law (Machado et al.,
    2018: at each frame, with this probability, the action of the frame before is executed again):
    ALE can be seeded only by loading the ROM again, which costs more than 400 steps. A reset
    restores the emulator where ALE's own leaves some memory of the last episode in some games.

    Args:
        game: The game, in any spelling that `rmr_gym.envs.atari.games.find_game` understands.
        **options: Fields of `AtariOptions`.

    Raises:
        RMRError: A game, option or action that does not exist, or a step outside an episode.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> env = gym.make("rmr/Breakout-v0", pixels="rgb")
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(1)
        >>> observation["pixels"].shape, info["lives"]
        ((210, 160, 3), 5)
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(self, game: str, **options: Any):
        gym.utils.EzPickle.__init__(self, game, **options)
        self.game, self.options = find_game(game), from_options(AtariOptions, options)
        self.render_mode = self.options.render_mode
        rate = max(1, 60 // self.options.frameskip)
        self.metadata = {**self.metadata, "render_fps": rate}
        self.ale = load(self.game, self.options.max_num_frames_per_episode or 0)
        choose_mode(self.ale, self.game, self.options.mode, self.options.difficulty)
        self._start = self.ale.cloneState()
        self._reader = ScreenAndRAM(self.ale, self.options.pixels)
        self.observation_space = self._reader.space
        self.action_space = gym.spaces.Discrete(len(self.game.actions))
        self._held = _NOOP
        self._started = False
        self._frames_before = 0

    def reset(self, *, seed: Seed = None, options: Info | None = None) -> tuple[Arrays, Info]:
        """Start an episode from the game's start state; 2 to 6 ms, with or without a seed."""
        super().reset(seed=arguments.plain_seed(seed), options=options)
        played = self._frames_before + self.ale.getFrameNumber()
        self._frames_before = played if seed is None else 0
        self._restart()
        self._started = True
        if self.options.noop_max:
            for _ in range(self.np_random.integers(1, self.options.noop_max, endpoint=True)):
                self.ale.act(_NOOP)
            if self.ale.game_over():
                self._restart()
        return self._reader.read(self.ale), self._info()

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, Info]:
        """Emulate one time step with the action pressed."""
        if not self._started or self.ale.game_over():
            raise RMRError(
                "expected an episode that runs, found one that "
                f"{'is over' if self._started else 'has not begun'}: call reset() before step()"
            )
        *earlier, last = self._frame_actions(
            self.game.actions[arguments.one_action(action, len(self.game.actions))]
        )
        reward = sum(map(self.ale.act, earlier))
        frame_before = self._reader.pixels(self.ale) if self.options.max_pool else None
        reward += self.ale.act(last)
        observation = self._reader.read(self.ale)
        if frame_before is not None:
            np.maximum(observation["pixels"], frame_before, out=observation["pixels"])
        terminated = self.ale.game_over(with_truncation=False)
        return observation, float(reward), terminated, self.ale.game_truncated(), self._info()

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return the screen of the current instant in RGB; None without a render mode."""
        if self.render_mode is None:
            return arguments.warn_of_no_render_mode()
        return self.ale.getScreenRGB()

    def get_action_meanings(self) -> list[str]:
        """Return the names of the 18 actions."""
        return list(ACTION_NAMES)

    def _frame_actions(self, action: int) -> list[int]:
        """Return the ALE action of each frame of a step, sticky actions included."""
        frames, probability = self.options.frameskip, self.options.repeat_action_probability
        if probability == 0:
            return [action] * frames
        actions = []
        for repeat in self.np_random.random(frames) < probability:
            if not repeat:
                self._held = action
            actions.append(self._held)
        return actions

    def _restart(self) -> None:
        self.ale.restoreState(self._start)
        self.ale.reset_game()
        self._held = _NOOP

    def _info(self) -> dict[str, Any]:
        return {
            "lives": self.ale.lives(),
            "episode_frame_number": self.ale.getEpisodeFrameNumber(),
            "frame_number": self._frames_before + self.ale.getFrameNumber(),
        }
