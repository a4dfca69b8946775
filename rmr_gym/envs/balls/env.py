"""Bouncing balls: MuJoCo's physics, seen as positions and as pictures at the same instant."""

import operator
from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from gymnasium.vector.utils import create_empty_array
from jaxtyping import UInt8

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.options import BallsOptions, parse_choice, parse_pixels
from rmr_gym.envs.balls.presets import configure
from rmr_gym.envs.balls.window import Window
from rmr_gym.envs.balls.world import (
    ACTIONS,
    BallsWorld,
    Painter,
    action_space,
    make_painter,
    observation_space,
)

RENDER_MODES = ("human", "rgb_array")


class BouncingBallsEnv(gym.Env[Any, Any], EzPickle):
    """Balls that collide elastically, without friction or gravity, in the box [-1, 1] x [-1, 1].

    Observation: ``Dict(state: float32[n, 2], pixels: uint8[64, 64, 3])``. The state holds the
    positions (x to the right, y upwards) of the n balls, in [-1, 1]. On request (``observe``) come
    ``velocities`` float32[n, 2] in units a second, ``radii`` float32[n], ``masses`` float32[n] and
    ``presence`` int8[n]. Where the number of balls varies, n is the largest number, ``presence`` is
    always there, and rows of absent balls are zero. Binary frames are uint8[height, width, 1] of 0
    and 255. All arrays are new at every step.

    Action: ``Discrete(1)``, a no-op, in a passive world: its future depends on nothing but its
    state. In a pushed world (``push`` above 0) ``Discrete(5)``: no-op, then an impulse to the
    right, upwards, to the left, downwards on ball 0, the agent's. A push is cut short where the
    kinetic energy of all balls would become more than they have when all start at the highest
    speed.

    Reward: 0 in a passive world. In a pushed world 1 for each impact of ball 0 with ball 1, the
    target, within the frame, less 0.01 for an action that pushes.

    Episode end: never ``terminated``; ``truncated`` by the step limit that the id registers
    (`rmr_gym.envs.balls.presets.PRESETS`).

    Time step: one frame, 1 / ``fps`` seconds (0.05 s), as physics steps of at most 0.0025 s.

    Start state: places uniform where nothing touches, one ball after another; directions uniform;
    speeds uniform within ``speeds``; all from the environment's generator, so that a seed
    determines an episode. ``reset(options={"positions": ..., "velocities": ..., "radii": ...,
    "masses": ...})`` sets any of them instead.

    Info: ``collisions`` uint8[n, n + 2], the impacts within the frame of each ball with each ball,
    with the fixed ball, and with the walls; ``kinetic_energy``; ``momentum`` float64[2]; with
    ``masks`` also ``masks`` uint8[height, width], 0 for background and curtain, 1 + k for ball k,
    n + 1 for the fixed ball; with a curtain ``curtain``, its first row, first column, rows and
    columns.

    Source: RMR, section 4 (10 balls, 64 x 64 x 3, MuJoCo, three past positions to the next); R-NEM,
    appendix A.1; S2RM, appendix B.2.
    Differs: the papers state neither speeds nor (RMR, S2RM) radii nor the frame rate; ours are in
    `PRESETS`. Frames are drawn by an exact-coverage rasteriser, MuJoCo's own renderer is an option.

    Args:
        preset: A name of `rmr_gym.envs.balls.presets.PRESETS`.
        renderer: ``"raster"`` (default; needs no graphics library) or ``"mujoco"`` (OpenGL through
            EGL or OSMesa).
        render_mode: ``"human"`` (a Matplotlib window), ``"rgb_array"`` or None.
        render_size: Height and width of what `render` shows, in pixels.
        **options: Fields of `rmr_gym.envs.balls.config.BallsConfig` that change the preset.

    Raises:
        RMRError: A preset, renderer or option that does not exist, a world that cannot be, or
            OpenGL that is asked for and missing; always before anything is simulated.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> env = gym.make("rmr/BouncingBalls-v0", balls=4, observe=["velocities"])
        >>> observation, info = env.reset(seed=0)
        >>> observation, reward, terminated, truncated, info = env.step(0)
        >>> observation["state"].shape, observation["pixels"].shape, info["collisions"].shape
        ((4, 2), (64, 64, 3), (4, 6))
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        preset: str = "rmr",
        *,
        renderer: str = "raster",
        render_mode: str | None = None,
        render_size: int = 480,
        **options: Unpack[BallsOptions],
    ):
        EzPickle.__init__(
            self,
            preset,
            renderer=renderer,
            render_mode=render_mode,
            render_size=render_size,
            **options,
        )
        self.config = configure(preset, options)
        self.render_mode = render_mode and parse_choice("render mode", render_mode, RENDER_MODES)
        self._render_size = parse_pixels("render_size", render_size)
        self._renderer = renderer
        self._world = BallsWorld(self.config, 1, renderer)
        self._studio: Painter | None = None
        self._window: Window | None = None
        self._started = False
        self.metadata = {**self.metadata, "render_fps": max(1, round(self.config.fps))}
        self.observation_space = observation_space(self.config)
        self.action_space = action_space(self.config)
        self._actions = int(self.action_space.n)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; `BouncingBallsEnv` says what ``options`` may set."""
        super().reset(seed=seed, options=options)
        self._world.start([self.np_random], options)
        self._started = True
        self._refresh_window()
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move the balls on by one frame, after a push if the action is one."""
        if not self._started:
            raise RMRError("expected an episode that runs, found none: call reset() before step()")
        actions = np.array([self._checked_action(action)])
        move = self._world.mover(actions)
        self._world.settle(move(), actions)
        self._refresh_window()
        reward = float(self._world.rewards[0])
        return self._observation(), reward, False, False, self._info()

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return the picture of this instant (``rgb_array``), or show it in the window."""
        if self.render_mode is None:
            gym.logger.warn(
                "render() was called without a render mode: make the environment with "
                'render_mode="rgb_array"'
            )
            return None
        if not self._started:
            raise RMRError("expected an episode to show, found none: call reset() before render()")
        if self._studio is None:
            self._studio = make_painter(self.config, self._renderer, self._render_size)
        picture = self._world.picture(self._studio, self._render_size)[0]
        if self.render_mode == "rgb_array":
            return picture
        if self._window is None:
            self._window = Window("rmr_gym: bouncing balls")
        self._window.show(picture, 1 / self.config.fps)
        return None

    def close(self) -> None:
        """Close the window and the renderers; may be called again."""
        self._world.close()
        if self._studio is not None:
            self._studio.close()
        if self._window is not None:
            self._window.close()
        self._studio = self._window = None

    def get_action_meanings(self) -> list[str]:
        """Return the names of the actions."""
        return list(ACTIONS[: self._actions])

    def _observation(self) -> dict[str, np.ndarray]:
        batch: Any = create_empty_array(self.observation_space, 1, fn=np.empty)
        self._world.observe(batch)
        return {name: rows[0] for name, rows in batch.items()}

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {name: rows[0] for name, rows in self._world.truth().items()}
        info["kinetic_energy"] = float(info["kinetic_energy"])
        return info

    def _refresh_window(self) -> None:
        if self.render_mode == "human":
            self.render()

    def _checked_action(self, action: Any) -> int:
        try:
            index = operator.index(action)
        except TypeError:
            index = -1
        if not 0 <= index < self._actions:
            raise RMRError(
                f"expected an action from 0 to {self._actions - 1}, found {action!r}: see "
                "get_action_meanings()"
            )
        return index
