"""Many bouncing-balls worlds stepped at once in threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Unpack

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array
from jaxtyping import UInt8

from rmr_gym.envs.balls_options import BallsOptions, parse_choice, parse_pixels
from rmr_gym.envs.balls_physics import Motion
from rmr_gym.envs.balls_presets import configure
from rmr_gym.envs.balls_world import (
    ACTIONS,
    BallsWorld,
    Painter,
    action_space,
    make_painter,
    observation_space,
)
from rmr_gym.errors import RMRError

RENDER_MODES = ("rgb_array",)
_DRAWING = 0.3
_GROUPS = 2


class BouncingBallsVectorEnv(VectorEnv[Any, Any, Any]):
    """Many `rmr_gym.envs.balls.BouncingBallsEnv` in one, bit-equal to as many single ones.

    World i of ``reset(seed=s)`` behaves as the single environment after ``reset(seed=s + i)``,
    episode after episode; number, masses and radii of the balls are each world's own. What the
    observation, the actions, the rewards and info hold is described there; here each entry has one
    row a world, and info's entries come with Gymnasium's masks (``_collisions`` and so on).

    Autoreset: ``AutoresetMode.NEXT_STEP``: the step after the last one of an episode ignores the
    action, begins the next episode, and returns its first observation with reward 0.

    The physics runs in threads of MuJoCo's own; drawing needs Python's lock and stays in one
    thread. So the worlds are split into two groups: all threads move the first one, and while it is
    drawn, all but one move the second. The number of threads changes no bit of the result.

    Args:
        num_envs: Number of worlds, 1 or more.
        preset: A name of `rmr_gym.envs.balls_presets.PRESETS`.
        max_episode_steps: Steps after which an episode is truncated, those that the id registers
            when made by `gymnasium.make_vec`; None for no limit.
        threads: Number of threads that compute at a time; None for one a processor.
        renderer: ``"raster"`` or ``"mujoco"``.
        render_mode: ``"rgb_array"`` or None.
        render_size: Height and width of what `render` returns for each world, in pixels.
        **options: Fields of `rmr_gym.envs.balls_config.BallsConfig` that change the preset.

    Raises:
        RMRError: As `rmr_gym.envs.balls.BouncingBallsEnv`, or a number below 1.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> envs = gym.make_vec("rmr/RNEMBalls4-v0", num_envs=16, threads=1)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations["pixels"].shape
        (16, 64, 64, 1)
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": list(RENDER_MODES),
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        preset: str = "rmr",
        *,
        max_episode_steps: int | None = None,
        threads: int | None = None,
        renderer: str = "raster",
        render_mode: str | None = None,
        render_size: int = 480,
        **options: Unpack[BallsOptions],
    ):
        self.config = configure(preset, options)
        self.num_envs = _at_least_one("num_envs", num_envs)
        self._limit = max_episode_steps and _at_least_one("max_episode_steps", max_episode_steps)
        self.render_mode = render_mode and parse_choice("render mode", render_mode, RENDER_MODES)
        self._render_size = parse_pixels("render_size", render_size)
        self._renderer = renderer
        workers = _processors() if threads is None else _at_least_one("threads", threads)
        self._groups = _split(self.num_envs, workers)
        self._worlds = [
            BallsWorld(
                self.config, len(group), renderer, workers if group.start == 0 else workers - 1
            )
            for group in self._groups
        ]
        self._pool = ThreadPoolExecutor(1) if len(self._groups) > 1 else None
        self._studio: Painter | None = None
        self.metadata = {**self.metadata, "render_fps": max(1, round(self.config.fps))}
        self.single_observation_space = observation_space(self.config)
        self.single_action_space = action_space(self.config)
        self._actions = int(self.single_action_space.n)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._generators: list[np.random.Generator] = []
        self._over = np.zeros(self.num_envs, bool)
        self._elapsed = np.zeros(self.num_envs, np.int64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode in every world.

        Args:
            seed: Of world 0, world i having seed + i; or one seed a world; None to go on with the
                generators as they are.
            options: Reset options of the single environment, the same for every world.
        """
        seeds = self._seeds(seed)
        if not self._generators:
            self._generators = [seeding.np_random(s)[0] for s in seeds]
        for world, s in enumerate(seeds):
            if s is not None:
                self._generators[world] = seeding.np_random(s)[0]
        self._over[:] = False
        self._elapsed[:] = 0
        for world, group in zip(self._worlds, self._groups, strict=True):
            world.start(range(len(group)), self._generators[group.start : group.stop], options)
        return self._collect([None] * len(self._worlds))

    def step(
        self, actions: Any
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Move every world on by one frame; where an episode is over, begin the next one."""
        if not self._generators:
            raise ResetNeeded("call reset() before step()")
        chosen, over = self._checked_actions(actions), self._over.copy()
        moves = []
        for world, group in zip(self._worlds, self._groups, strict=True):
            ended = over[group.start : group.stop]
            begun, running = np.flatnonzero(ended), np.flatnonzero(~ended)
            if begun.size:
                world.start(begun.tolist(), [self._generators[group[i]] for i in begun])
            acted = chosen[group.start : group.stop][running]
            moves.append(world.mover(running, acted) if running.size else None)
        observations, infos = self._collect(moves)
        self._elapsed = np.where(over, 0, self._elapsed + 1)
        self._over = self._elapsed >= self._limit if self._limit else np.zeros_like(over)
        rewards = np.concatenate([world.rewards for world in self._worlds])
        return observations, rewards, np.zeros_like(over), self._over.copy(), infos

    def render(self) -> tuple[UInt8[np.ndarray, "height width 3"], ...] | None:
        """Return the pictures of all worlds; None without a render mode."""
        if self.render_mode is None:
            return None
        if not self._generators:
            raise ResetNeeded("call reset() before render()")
        if self._studio is None:
            self._studio = make_painter(self.config, self._renderer, self._render_size)
        pictures = [world.picture(self._studio, self._render_size) for world in self._worlds]
        return tuple(np.concatenate(pictures))

    def close_extras(self, **kwargs: Any) -> None:
        """End the threads and close the renderers."""
        if self._pool is not None:
            self._pool.shutdown()
        for painter in [*self._worlds, *([self._studio] if self._studio else [])]:
            painter.close()

    def get_action_meanings(self) -> list[str]:
        """Return the names of the actions of one world."""
        return list(ACTIONS[: self._actions])

    def _collect(
        self, moves: Sequence[Callable[[], Motion] | None]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Move the groups, and look at each while the next one moves."""
        observations: Any = create_empty_array(
            self.single_observation_space, self.num_envs, fn=np.empty
        )
        truths = []
        for motion, world, group in zip(
            self._motions(moves), self._worlds, self._groups, strict=True
        ):
            if motion:
                world.settle(motion)
            rows = slice(group.start, group.stop)
            world.observe({name: array[rows] for name, array in observations.items()})
            truths.append(world.truth())
        infos: dict[str, Any] = {}
        for name in truths[0]:
            infos[name] = np.concatenate([truth[name] for truth in truths])
            infos[f"_{name}"] = np.ones(self.num_envs, bool)
        return observations, infos

    def _motions(self, moves: Sequence[Callable[[], Motion] | None]) -> Iterator[Motion | None]:
        """Make the first call here and start the others in the background; yield in turn."""
        first, *later = moves
        done = first() if first else None
        pending = [self._pool.submit(move) if move and self._pool else None for move in later]
        yield done
        for future in pending:
            yield future.result() if future else None

    def _seeds(self, seed: int | list[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        seeds: list[int | None] = (
            [seed + world for world in range(self.num_envs)] if isinstance(seed, int) else seed
        )
        if len(seeds) != self.num_envs:
            raise RMRError(
                f"expected one seed or {self.num_envs}, one a world, found {len(seeds)} of them"
            )
        return seeds

    def _checked_actions(self, actions: Any) -> np.ndarray:
        chosen = np.asarray(actions)
        whole = chosen.shape == (self.num_envs,) and np.issubdtype(chosen.dtype, np.integer)
        if not whole or chosen.min() < 0 or chosen.max() >= self._actions:
            raise RMRError(
                f"expected {self.num_envs} actions from 0 to {self._actions - 1}, "
                f"found {actions!r}: see get_action_meanings()"
            )
        return chosen


def _split(worlds: int, threads: int) -> list[range]:
    """Split worlds into groups, each moved in the time in which the one before it is drawn."""
    if threads == 1:
        return [range(worlds)]
    sizes = np.power(_DRAWING * (threads - 1), np.arange(_GROUPS))
    bounds = np.rint(worlds * np.cumsum([0, *sizes]) / sizes.sum()).astype(int).tolist()
    return [range(first, last) for first, last in pairwise(bounds) if first < last]


def _processors() -> int:
    """Return the number of processors that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _at_least_one(name: str, number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise RMRError(f"expected {name} to be a whole number of at least 1, found {number!r}")
    return number
