"""Atari 2600 games that show their RAM and their screen at the same instant."""

import operator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle
from jaxtyping import UInt8

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.emulator import Allocate, Pixels, ScreenAndRAM, choose_mode, load
from rmr_gym.envs.atari.games import ACTION_NAMES, find_game

_NOOP = 0
_FRAMES_A_SECOND = 60


class PairedAtariEnv(gym.Env[Any, Any], EzPickle):
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

    def __init__(
        self,
        game: str,
        *,
        frameskip: int = 4,
        repeat_action_probability: float = 0.0,
        pixels: Pixels = "gray",
        max_pool: bool = False,
        mode: int | None = None,
        difficulty: int | None = None,
        noop_max: int = 0,
        max_num_frames_per_episode: int | None = 108_000,
        render_mode: str | None = None,
    ):
        EzPickle.__init__(
            self,
            game=game,
            frameskip=frameskip,
            repeat_action_probability=repeat_action_probability,
            pixels=pixels,
            max_pool=max_pool,
            mode=mode,
            difficulty=difficulty,
            noop_max=noop_max,
            max_num_frames_per_episode=max_num_frames_per_episode,
            render_mode=render_mode,
        )
        self.game = find_game(game)
        self.render_mode = _checked_render_mode(render_mode)
        self._frameskip = _whole_number("frameskip", frameskip, at_least=1)
        self._repeat_probability = _checked_probability(repeat_action_probability)
        self._max_pool = _checked_max_pool(max_pool, pixels, self._frameskip)
        self._noop_max = _whole_number("noop_max", noop_max, at_least=0)
        self.metadata = {**self.metadata, "render_fps": max(1, _FRAMES_A_SECOND // frameskip)}
        self.ale = load(self.game, _checked_limit(max_num_frames_per_episode))
        choose_mode(self.ale, self.game, mode, difficulty)
        self._start = self.ale.cloneState()
        self._reader = ScreenAndRAM(self.ale, pixels)
        self.observation_space = self._reader.space
        self.action_space = spaces.Discrete(len(self.game.actions))
        self._held = _NOOP
        self._started = False
        self._frames_before = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode from the game's start state; 2 to 6 ms, with or without a seed."""
        super().reset(seed=seed, options=options)
        played = self._frames_before + self.ale.getFrameNumber()
        self._frames_before = played if seed is None else 0
        self._restart()
        self._started = True
        if self._noop_max:
            self._wait(int(self.np_random.integers(1, self._noop_max, endpoint=True)))
        return self._reader.read(), self._info()

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Emulate one time step with the action pressed."""
        if not self._started or self.ale.game_over():
            raise RMRError(
                "expected an episode that runs, found one that "
                f"{'is over' if self._started else 'has not begun'}: call reset() before step()"
            )
        *earlier, last = self._frame_actions(self._ale_action(action))
        reward = sum(map(self.ale.act, earlier))
        frame_before = self._reader.pixels() if self._max_pool else None
        reward += self.ale.act(last)
        observation = self._reader.read()
        if frame_before is not None:
            np.maximum(observation["pixels"], frame_before, out=observation["pixels"])
        terminated = self.ale.game_over(with_truncation=False)
        return observation, float(reward), terminated, self.ale.game_truncated(), self._info()

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return the screen of the current instant in RGB; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn(
                "render() was called without a render mode: make the environment with "
                'render_mode="rgb_array"'
            )
            return None
        return self.ale.getScreenRGB()

    def read_into(self, allocate: Allocate | None) -> None:
        """Read what is observed into arrays of the caller's, which saves a recorder a copy.

        Args:
            allocate: Called at every reset and step; gives arrays ``ram`` uint8[128] and ``pixels``
                of the observation's size. They are filled and returned as the observation, so it
                is for the caller to keep it from changing. None: new arrays, as ever.
        """
        self._reader.allocate = allocate or self._reader.new_arrays

    def palette_screen(self) -> UInt8[np.ndarray, "height width"]:
        """Return the palette indices of the current screen, whatever ``pixels`` shows."""
        screen = np.empty(self.ale.getScreenDims(), np.uint8)
        self.ale.getScreen(screen)
        return screen

    def get_action_meanings(self) -> list[str]:
        """Return the names of the 18 actions."""
        return list(ACTION_NAMES)

    def _ale_action(self, action: Any) -> int:
        try:
            index = operator.index(action)
        except TypeError:
            index = -1
        if not 0 <= index < len(self.game.actions):
            raise RMRError(
                f"expected an action from 0 to {len(self.game.actions) - 1}, found {action!r}: "
                "see get_action_meanings()"
            )
        return self.game.actions[index]

    def _frame_actions(self, action: int) -> list[int]:
        """Return the ALE action of each frame of a step, sticky actions included."""
        if self._repeat_probability == 0:
            return [action] * self._frameskip
        actions = []
        for repeat in self.np_random.random(self._frameskip) < self._repeat_probability:
            if not repeat:
                self._held = action
            actions.append(self._held)
        return actions

    def _restart(self) -> None:
        self.ale.restoreState(self._start)
        self.ale.reset_game()
        self._held = _NOOP

    def _wait(self, frames: int) -> None:
        for _ in range(frames):
            self.ale.act(_NOOP)
        if self.ale.game_over():
            self._restart()

    def _info(self) -> dict[str, Any]:
        return {
            "lives": self.ale.lives(),
            "episode_frame_number": self.ale.getEpisodeFrameNumber(),
            "frame_number": self._frames_before + self.ale.getFrameNumber(),
        }


def _whole_number(name: str, value: object, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < at_least:
        raise RMRError(f"expected a whole number of at least {at_least} as {name}, found {value!r}")
    return int(value)


def _checked_limit(max_num_frames: object) -> int:
    """Return the limit as ALE takes it: 0 for none."""
    if max_num_frames is None:
        return 0
    return _whole_number("max_num_frames_per_episode", max_num_frames, at_least=1)


def _checked_probability(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise RMRError(
            f"expected a probability in [0, 1] as repeat_action_probability, found {value!r}"
        )
    return float(value)


def _checked_max_pool(max_pool: bool, pixels: str, frameskip: int) -> bool:
    if max_pool and (pixels == "palette" or frameskip < 2):
        raise RMRError(
            "max_pool takes the brighter of a step's last two frames: expected gray or rgb pixels "
            f"and a frameskip of at least 2, found pixels={pixels!r}, frameskip={frameskip}"
        )
    return max_pool


def _checked_render_mode(render_mode: str | None) -> str | None:
    if render_mode not in (None, "rgb_array"):
        raise RMRError(f"expected 'rgb_array' or None as render_mode, found {render_mode!r}")
    return render_mode
