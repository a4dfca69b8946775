"""Many bouncing-balls worlds stepped at once in threads."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import UInt8

from rmr_gym.core.errors import known_name
from rmr_gym.envs.arguments import all_actions, all_seeds, limit, processors, whole_number
from rmr_gym.envs.balls.config import configure
from rmr_gym.envs.balls.env import ACTIONS, BallsWorld
from rmr_gym.envs.balls.physics import Motion

RENDER_MODES = ("rgb_array",)


class BouncingBallsVectorEnv(VectorEnv[Any, Any, Any]):
    """Many `rmr_gym.envs.balls.env.BouncingBallsEnv` in one, bit-equal to as many single ones.

    World i of ``reset(seed=s)`` behaves as the single environment after ``reset(seed=s + i)``,
    episode after episode; number, masses and radii of the balls are each world's own. What the
    observation, the actions, the rewards and info hold is described there; here each entry has one
    row a world, and info's entries come with Gymnasium's masks (``_collisions`` and so on).

    Autoreset: ``AutoresetMode.NEXT_STEP``: the step after the last one of an episode ignores the
    action, begins the next episode, and returns its first observation with reward 0.

    The physics runs in MuJoCo's own threads. With two or more of them, the next frame of a passive
    world, which no action can change, is already being computed while this one is drawn and while
    the caller works. The number of threads changes no bit of the result.

    Args:
        num_envs: Number of worlds, 1 or more.
        preset: A name of `rmr_gym.envs.balls.config.PRESETS`.
        max_episode_steps: Steps after which an episode is truncated, those that the id registers
            when made by `gymnasium.make_vec`; None for no limit.
        threads: Number of MuJoCo's threads; None for one a processor.
        render_mode: ``"rgb_array"`` or None.
        **options: Fields of `rmr_gym.envs.balls.config.BallsConfig` that change the preset.

    Raises:
        RMRError: As `rmr_gym.envs.balls.env.BouncingBallsEnv`, or a number below 1.

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
        render_mode: str | None = None,
        **options: Any,
    ):
        self.config = config = configure(preset, options)
        self.num_envs = whole_number("num_envs", num_envs, 1)
        self._limit = limit("max_episode_steps", max_episode_steps)
        self.render_mode = render_mode and known_name("render mode", render_mode, RENDER_MODES)
        threads = processors() if threads is None else whole_number("threads", threads, 1)
        self._world = world = BallsWorld(config, self.num_envs, threads=threads)
        self._pool = ThreadPoolExecutor(1) if threads > 1 and not config.push else None
        self._next: Future[Motion] | None = None
        self.metadata = {**self.metadata, "render_fps": world.render_fps}
        self.single_observation_space = world.observation_space
        self.single_action_space = world.action_space
        self.observation_space = batch_space(world.observation_space, self.num_envs)
        self.action_space = batch_space(world.action_space, self.num_envs)
        self._generators: list[np.random.Generator] = []
        self._elapsed = 0

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode in every world.

        Args:
            seed: Of world 0, world i having seed + i; or one seed a world; None to go on with the
                generators as they are.
            options: Reset options of the single environment, the same for every world.
        """
        before = self._generators or [None] * self.num_envs
        self._generators = [
            generator if s is None and generator else seeding.np_random(s)[0]
            for s, generator in zip(all_seeds(seed, self.num_envs), before, strict=True)
        ]
        self._begin(options)
        return self._look()

    def step(
        self, actions: Any
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Move every world on by one frame, or begin the next episode where the last one is over.

        All worlds begin and end together, since only the step limit ends an episode.
        """
        if not self._generators:
            raise ResetNeeded("call reset() before step()")
        chosen = all_actions(actions, self.num_envs, self._world.actions)
        if self._over():
            self._begin()
        else:
            motion = self._next.result() if self._next else self._world.mover(chosen)()
            self._elapsed += 1
            self._look_ahead()
            self._world.settle(motion, chosen)
        observations, infos = self._look()
        ended = np.full(self.num_envs, self._over())
        return observations, self._world.rewards.copy(), np.zeros_like(ended), ended, infos

    def render(self) -> tuple[UInt8[np.ndarray, "height width 3"], ...] | None:
        """Return the pictures of all worlds; None without a render mode."""
        if self.render_mode is None:
            return None
        if not self._generators:
            raise ResetNeeded("call reset() before render()")
        return tuple(self._world.pictures())

    def close_extras(self, **kwargs: Any) -> None:
        """End the thread and close the renderers."""
        if self._pool is not None:
            self._pool.shutdown()
        self._world.close()

    def get_action_meanings(self) -> list[str]:
        """Return the names of the actions of one world."""
        return list(ACTIONS[: self._world.actions])

    def _over(self) -> bool:
        return self._limit is not None and self._elapsed >= self._limit

    def _look_ahead(self) -> None:
        """Start to compute the next frame, where there is one that no action can change."""
        self._next = None
        if self._pool is not None and not self._over():
            self._next = self._pool.submit(self._world.mover())

    def _begin(self, options: dict[str, Any] | None = None) -> None:
        """Begin an episode in every world; a frame that was computed ahead is dropped."""
        if self._next is not None:
            self._next.result()
        self._next, self._elapsed = None, 0
        self._world.start(self._generators, options)
        self._look_ahead()

    def _look(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what all worlds show, in new arrays."""
        infos: dict[str, Any] = {}
        for name, rows in self._world.truth().items():
            infos[name], infos[f"_{name}"] = rows, np.ones(self.num_envs, bool)
        return self._world.observe(), infos
