"""Bouncing balls: MuJoCo's physics, seen as positions and as pictures at the same instant."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle, seeding
from gymnasium.vector.utils import batch_space, create_empty_array
from jaxtyping import Int, UInt8

from rmr_gym.core.errors import RMRError, known_name, limit, whole_number
from rmr_gym.envs import arguments
from rmr_gym.envs.arguments import Arrays, Info, Seed, Seeds
from rmr_gym.envs.balls import physics
from rmr_gym.envs.balls.config import BallsConfig, configure
from rmr_gym.envs.balls.physics import Motion
from rmr_gym.envs.balls.pictures import Centres, MujocoCamera, Radii, Rasterizer, draw_curtain, hide

RENDER_MODES = ("rgb_array",)
ACTIONS = ("no-op", "push right", "push up", "push left", "push down")
_DIRECTIONS = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], np.float64)
_AGENT, _TARGET = 0, 1
_PUSH_COST = 0.01
_SHADE = 64

Painter = Rasterizer | MujocoCamera


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
    (`rmr_gym.envs.balls.config.PRESETS`).

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
        preset: A name of `rmr_gym.envs.balls.config.PRESETS`.
        render_mode: ``"rgb_array"`` or None; `gymnasium.make` takes ``"human"`` as well, for which
            it puts `gymnasium.wrappers.HumanRendering` around the environment.
        **options: Fields of `rmr_gym.envs.balls.config.BallsConfig` that change the preset.

    Attributes:
        world: The simulation.

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

    def __init__(self, preset: str = "rmr", *, render_mode: str | None = None, **options: Any):
        EzPickle.__init__(self, preset, render_mode=render_mode, **options)
        self.config = configure(preset, options)
        self.render_mode = render_mode and known_name("render mode", render_mode, RENDER_MODES)
        self.world = BallsWorld(self.config, 1)
        self._started = False
        self.metadata = {**self.metadata, "render_fps": self.world.render_fps}
        self.observation_space = self.world.observation_space
        self.action_space = self.world.action_space

    def reset(self, *, seed: Seed = None, options: Info | None = None) -> tuple[Arrays, Info]:
        """Begin an episode; `BouncingBallsEnv` says what ``options`` may set."""
        super().reset(seed=arguments.plain_seed(seed), options=options)
        self.world.start([self.np_random], options)
        self._started = True
        return _alone(self.world.observe()), _alone(self.world.truth())

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, Info]:
        """Move the balls on by one frame, after a push if the action is one."""
        if not self._started:
            raise RMRError("expected an episode that runs, found none: call reset() before step()")
        actions = np.array([arguments.one_action(action, self.world.actions)])
        self.world.settle(self.world.mover(actions)(), actions)
        reward = float(self.world.rewards[0])
        return _alone(self.world.observe()), reward, False, False, _alone(self.world.truth())

    def render(self) -> UInt8[np.ndarray, "height width 3"] | None:
        """Return the picture of this instant; None without a render mode."""
        if self.render_mode is None:
            return arguments.warn_of_no_render_mode()
        if not self._started:
            raise RMRError("expected an episode to show, found none: call reset() before render()")
        return self.world.pictures()[0]

    def close(self) -> None:
        """Close the renderers; may be called again."""
        self.world.close()

    def get_action_meanings(self) -> list[str]:
        """Return the names of the actions."""
        return list(ACTIONS[: self.world.actions])


def _alone(batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: rows[0] for name, rows in batch.items()}


class BallsWorld:
    """Simulations of one config: physics, start states, pushes, rewards, pictures and truth.

    Args:
        config: The world.
        simulations: How many there are.
        threads: Number of MuJoCo's threads.

    Attributes:
        observation_space: Of one simulation.
        action_space: Of one simulation: the no-op alone in a passive world.
        actions: The number of its actions.
        render_fps: Frames a second, as Gymnasium's metadata take them: whole, and at least 1.
        rewards: Of the last frame, one a simulation.

    Raises:
        RMRError: The balls do not fit, or OpenGL that is missing.
    """

    def __init__(self, config: BallsConfig, simulations: int, *, threads: int = 1):
        physics.check_fit(config)
        self._config = config
        self._painter = self._make_painter(config.resolution)
        self._studio: Painter | None = None
        self._physics = physics.BallsPhysics(config, simulations, threads)
        self._palette = np.array(config.palette(), np.uint8)[: None if config.fixed_ball else -1]
        shape = (simulations, config.most)
        self._positions, self._velocities = np.zeros((*shape, 2)), np.zeros((*shape, 2))
        self._hits = np.zeros((*shape, config.most + 2), np.uint8)
        self._curtains = np.zeros((simulations, 4), np.int64)
        self.rewards = np.zeros(simulations)
        self.observation_space = _observation_space(config)
        self.render_fps = max(1, round(config.fps))
        self.actions = len(ACTIONS) if config.push else 1
        self.action_space = gym.spaces.Discrete(self.actions)

    def close(self) -> None:
        """Release what the renderer holds."""
        for painter in filter(None, (self._painter, self._studio)):
            painter.close()
        self._studio = None

    def start(
        self, generators: Sequence[np.random.Generator], options: Mapping[str, Any] | None = None
    ) -> None:
        """Begin an episode in every simulation, each from its generator.

        Raises:
            RMRError: A reset option that does not exist or cannot be.
        """
        bodies, config = self._physics, self._config
        bodies.start([physics.draw_start(config, rng, options) for rng in generators])
        self._positions, self._velocities = bodies.positions.copy(), bodies.velocities.copy()
        self._hits[:] = 0
        self.rewards[:] = 0
        if config.curtain:
            size = config.resolution
            for row, rng in enumerate(generators):
                self._curtains[row] = draw_curtain(rng, config.curtain, size, size)

    def begin_as(self, world: "BallsWorld") -> None:
        """Begin in every simulation where the first one of a world of the same config is now."""
        names, bodies = physics.Start.__annotations__, vars(world._physics)
        now = physics.Start(**{name: bodies[name][0] for name in names})
        self._physics.start([now] * len(self._hits))

    def mover(self, actions: Int[np.ndarray, " batch"] | None = None) -> Callable[[], Motion]:
        """Push, and return the call that moves every simulation by one frame.

        Another thread may make that call, and nothing is seen of it before its result goes to
        `settle`.
        """
        if actions is not None and actions.any():
            self._push(actions)
        return self._physics.mover()

    def settle(self, motion: Motion, actions: Int[np.ndarray, " batch"]) -> None:
        """Show the state after a frame, and find out what happened in it."""
        bodies = self._physics
        self._positions, self._velocities = motion.positions[:, -1], motion.velocities[:, -1]
        fixed = self._config.fixed_ball or 0.0
        self._hits = physics.collisions(motion, bodies.radii, bodies.presence, fixed)
        if self._config.push:
            self.rewards = self._hits[:, _AGENT, _TARGET] - _PUSH_COST * (actions > 0)

    def observe(self) -> dict[str, np.ndarray]:
        """Return the observation of all simulations in new arrays."""
        out: Any = create_empty_array(self.observation_space, len(self._hits), fn=np.empty)
        bodies = {name: getattr(self._physics, name) for name in ("radii", "masses", "presence")}
        entries = {"state": self._positions, "velocities": self._velocities, **bodies}
        for name in out.keys() & entries.keys():
            out[name][:] = entries[name]
        if self._config.frames == "rgb":
            self._painter.rgb(*self._discs(), self._palette, out["pixels"])
        else:
            self._painter.binary(*self._discs(), out["pixels"])
        self._hide(out["pixels"])
        return out

    def truth(self) -> dict[str, np.ndarray]:
        """Return new arrays of what the simulator knows, for info."""
        masses = self._physics.masses
        known = {
            "collisions": self._hits.copy(),
            "kinetic_energy": physics.kinetic_energy(self._velocities, masses),
            "momentum": physics.momentum(self._velocities, masses),
        }
        if self._config.masks:
            size = self._config.resolution
            known["masks"] = owners = np.zeros((len(self._hits), size, size), np.uint8)
            Rasterizer(size, self._config.largest_radius).owners(*self._discs(), owners)
            self._hide(owners)
        if self._config.curtain:
            known["curtain"] = self._curtains.copy()
        return known

    def pictures(self) -> UInt8[np.ndarray, "batch height width 3"]:
        """Return RGB pictures for people; a curtain shows as a gray veil."""
        size = self._config.render_size
        self._studio = self._studio or self._make_painter(size)
        frames = np.zeros((len(self._hits), size, size, 3), np.uint8)
        self._studio.rgb(*self._discs(), self._palette, frames)
        if self._config.curtain:
            scale = size / self._config.resolution
            for frame, curtain in zip(frames, self._curtains, strict=True):
                top, left, rows, columns = np.rint(curtain * scale).astype(int)
                veiled = frame[top : top + rows, left : left + columns]
                veiled[:] = veiled // 4 + _SHADE
        return frames

    def _push(self, actions: Int[np.ndarray, " batch"]) -> None:
        """Change the agent's velocity by push / mass, or by less where energy would pass its bound.

        The bound is the energy that the balls have if all start at the highest speed; it keeps
        overlaps small and velocities inside their space.
        """
        velocities, masses = self._physics.velocities, self._physics.masses
        directions, mass = _DIRECTIONS[actions], masses[:, _AGENT]
        limit = 0.5 * self._config.speeds[1] ** 2 * masses.sum(axis=1)
        room = np.maximum(limit - physics.kinetic_energy(velocities, masses), 0)
        along = (velocities[:, _AGENT] * directions).sum(axis=1)
        largest = np.sqrt(along**2 + 2 * room / mass) - along
        change = np.minimum(self._config.push / mass, largest)
        velocities[:, _AGENT] += change[:, None] * directions

    def _discs(self) -> tuple[Centres, Radii]:
        """Return places and radii of all that is drawn: the balls, then the fixed one if any."""
        positions, radii, fixed = self._positions, self._physics.radii, self._config.fixed_ball
        if not fixed:
            return positions, radii
        middle = np.pad(positions, ((0, 0), (0, 1), (0, 0)))
        return middle, np.pad(radii, ((0, 0), (0, 1)), constant_values=fixed)

    def _make_painter(self, resolution: int) -> Painter:
        if self._config.renderer == "mujoco":
            return MujocoCamera(self._config, resolution)
        return Rasterizer(resolution, self._config.largest_radius)

    def _hide(self, frames: np.ndarray) -> None:
        if self._config.curtain:
            for frame, curtain in zip(frames, self._curtains, strict=True):
                hide(frame, curtain)


def _observation_space(config: BallsConfig) -> gym.spaces.Space[Any]:
    """Return the Dict space of one world's observation."""
    slots, size, speed = config.most, config.resolution, config.top_speed
    channels = 3 if config.frames == "rgb" else 1
    heaviest = max(mass for _, mass in config.all_kinds)
    extras = {
        "velocities": gym.spaces.Box(-speed, speed, (slots, 2), np.float32),
        "radii": gym.spaces.Box(0, 1, (slots,), np.float32),
        "masses": gym.spaces.Box(0, heaviest, (slots,), np.float32),
        "presence": gym.spaces.MultiBinary(slots),
    }
    shown: dict[str, Any] = {name: extras[name] for name in config.extras}
    shown["state"] = gym.spaces.Box(-1, 1, (slots, 2), np.float32)
    shown["pixels"] = gym.spaces.Box(0, 255, (size, size, channels), np.uint8)
    return gym.spaces.Dict(shown)


class BouncingBallsVectorEnv(gym.vector.VectorEnv[Any, Any, Any], EzPickle):
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
        **BouncingBallsEnv.metadata,
        "autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP,
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
        own = {"threads": threads, "render_mode": render_mode, **options}
        EzPickle.__init__(self, num_envs, preset, max_episode_steps=max_episode_steps, **own)
        self.config = config = configure(preset, options)
        self.num_envs = whole_number("num_envs", num_envs, 1)
        self._limit = limit("max_episode_steps", max_episode_steps)
        self.render_mode = render_mode and known_name("render mode", render_mode, RENDER_MODES)
        threads = arguments.parallel("threads", threads, at_least=1)
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

    def reset(self, *, seed: Seeds = None, options: Info | None = None) -> tuple[Arrays, Info]:
        """Begin an episode in every world.

        Args:
            seed: Of world 0, world i having seed + i; or one seed a world; None to go on with the
                generators as they are.
            options: Reset options of the single environment, the same for every world.
        """
        arguments.check_open(self)
        before = self._generators or [None] * self.num_envs
        self._generators = [
            generator if s is None and generator else seeding.np_random(s)[0]
            for s, generator in zip(arguments.all_seeds(seed, self.num_envs), before, strict=True)
        ]
        self._begin(options)
        return self._look()

    def step(self, actions: Any) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Move every world on by one frame, or begin the next episode where the last one is over.

        All worlds begin and end together, since only the step limit ends an episode.
        """
        arguments.check_open(self)
        if not self._generators:
            raise gym.error.ResetNeeded("call reset() before step()")
        chosen = arguments.all_actions(actions, self.num_envs, self._world.actions)
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
        arguments.check_open(self)
        if self.render_mode is None:
            return None
        if not self._generators:
            raise gym.error.ResetNeeded("call reset() before render()")
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
