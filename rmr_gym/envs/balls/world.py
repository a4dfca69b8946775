"""A batch of bouncing-balls worlds with everything that one time step shows of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Float, Int, UInt8

from rmr_gym.envs.balls.camera import MujocoCamera
from rmr_gym.envs.balls.config import BallsConfig
from rmr_gym.envs.balls.curtain import draw_curtain, hide
from rmr_gym.envs.balls.options import parse_choice
from rmr_gym.envs.balls.physics import BallsPhysics, Motion
from rmr_gym.envs.balls.raster import Rasterizer
from rmr_gym.envs.balls.start import draw_start
from rmr_gym.envs.balls.truth import collisions, kinetic_energy, momentum

RENDERERS = ("raster", "mujoco")
ACTIONS = ("no-op", "push right", "push up", "push left", "push down")
_DIRECTIONS = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]], np.float64)
_AGENT, _TARGET = 0, 1
_PUSH_COST = 0.01
_SHADE = 64

Painter = Rasterizer | MujocoCamera


def make_painter(config: BallsConfig, renderer: str, resolution: int) -> Painter:
    """Return what draws the frames.

    Raises:
        RMRError: An unknown renderer, or MuJoCo's where OpenGL is missing.
    """
    if parse_choice("renderer", renderer, RENDERERS) == "mujoco":
        return MujocoCamera(config, resolution)
    return Rasterizer(resolution, config.largest_radius)


def observation_space(config: BallsConfig) -> spaces.Space[Any]:
    """Return the Dict space of one world's observation."""
    slots, size, speed = config.most, config.resolution, config.top_speed
    channels = 3 if config.frames == "rgb" else 1
    heaviest = max(mass for _, mass in config.all_kinds)
    extras = {
        "velocities": spaces.Box(-speed, speed, (slots, 2), np.float32),
        "radii": spaces.Box(0, 1, (slots,), np.float32),
        "masses": spaces.Box(0, heaviest, (slots,), np.float32),
        "presence": spaces.MultiBinary(slots),
    }
    return spaces.Dict(
        {
            "state": spaces.Box(-1, 1, (slots, 2), np.float32),
            "pixels": spaces.Box(0, 255, (size, size, channels), np.uint8),
            **{name: extras[name] for name in config.extras},
        }
    )


def action_space(config: BallsConfig) -> spaces.Discrete:
    """Return the space of one world's actions: the no-op alone in a passive world."""
    return spaces.Discrete(len(ACTIONS) if config.push else 1)


class BallsWorld:
    """Simulations of one config: physics, start states, pushes, rewards, pictures and truth.

    Args:
        config: The world, checked.
        simulations: How many there are.
        renderer: One of `RENDERERS`.
        threads: Number of MuJoCo's threads.
    """

    def __init__(
        self, config: BallsConfig, simulations: int, renderer: str = "raster", threads: int = 1
    ):
        self.config = config
        self._painter = make_painter(config, renderer, config.resolution)
        self._physics = BallsPhysics(config, simulations, threads)
        self._palette = config.palette()
        shape = (simulations, config.most)
        self._positions, self._velocities = np.zeros((*shape, 2)), np.zeros((*shape, 2))
        self._hits = np.zeros((*shape, config.most + 2), np.uint8)
        self._curtains = np.zeros((simulations, 4), np.int64)
        self.rewards = np.zeros(simulations)

    def close(self) -> None:
        """Release what the renderer holds."""
        self._painter.close()

    def start(
        self, generators: Sequence[np.random.Generator], options: Mapping[str, Any] | None = None
    ) -> None:
        """Begin an episode in every simulation, each from its generator.

        Raises:
            RMRError: A reset option that does not exist or cannot be.
        """
        physics, config = self._physics, self.config
        physics.start([draw_start(config, rng, options) for rng in generators])
        self._positions, self._velocities = physics.positions.copy(), physics.velocities.copy()
        self._hits[:] = 0
        self.rewards[:] = 0
        if config.curtain:
            size = config.resolution
            for row, rng in enumerate(generators):
                self._curtains[row] = draw_curtain(rng, config.curtain, size, size)

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
        physics = self._physics
        self._positions, self._velocities = motion.positions[:, -1], motion.velocities[:, -1]
        fixed = self.config.fixed_ball or 0.0
        self._hits = collisions(motion, physics.radii, physics.presence, fixed)
        if self.config.push:
            self.rewards = self._hits[:, _AGENT, _TARGET] - _PUSH_COST * (actions > 0)

    def observe(self, out: Mapping[str, np.ndarray]) -> None:
        """Write the observation of all simulations into arrays of `observation_space`'s entries."""
        physics = self._physics
        out["state"][:] = self._positions
        entries = {
            "velocities": self._velocities,
            "radii": physics.radii,
            "masses": physics.masses,
            "presence": physics.presence,
        }
        for name in self.config.extras:
            out[name][:] = entries[name]
        frames = out["pixels"]
        if self.config.frames == "rgb":
            self._painter.rgb(*self._discs(), self._shown_palette(), frames)
        else:
            self._painter.binary(*self._discs(), frames)
        self._hide(frames)

    def truth(self) -> dict[str, np.ndarray]:
        """Return new arrays of what the simulator knows, for info."""
        masses = self._physics.masses
        known = {
            "collisions": self._hits.copy(),
            "kinetic_energy": kinetic_energy(self._velocities, masses),
            "momentum": momentum(self._velocities, masses),
        }
        if self.config.masks:
            known["masks"] = self.masks()
        if self.config.curtain:
            known["curtain"] = self._curtains.copy()
        return known

    def masks(self) -> UInt8[np.ndarray, "batch height width"]:
        """Return 1 + the index of the ball that owns each visible pixel, most + 1 the fixed one."""
        size = self.config.resolution
        owners = np.zeros((len(self._hits), size, size), np.uint8)
        Rasterizer(size, self.config.largest_radius).owners(*self._discs(), owners)
        self._hide(owners)
        return owners

    def picture(self, painter: Painter, size: int) -> UInt8[np.ndarray, "batch height width 3"]:
        """Return RGB pictures for people, of any size; a curtain shows as a gray veil."""
        frames = np.zeros((len(self._hits), size, size, 3), np.uint8)
        painter.rgb(*self._discs(), self._shown_palette(), frames)
        if self.config.curtain:
            scale = size / self.config.resolution
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
        limit = 0.5 * self.config.speeds[1] ** 2 * masses.sum(axis=1)
        room = np.maximum(limit - kinetic_energy(velocities, masses), 0)
        along = (velocities[:, _AGENT] * directions).sum(axis=1)
        largest = np.sqrt(along**2 + 2 * room / mass) - along
        change = np.minimum(self.config.push / mass, largest)
        velocities[:, _AGENT] += change[:, None] * directions

    def _discs(
        self,
    ) -> tuple[Float[np.ndarray, "batch slots 2"], Float[np.ndarray, "batch slots"]]:
        """Return places and radii of all that is drawn: the balls, then the fixed one if any."""
        positions, radii = self._positions, self._physics.radii
        if not self.config.fixed_ball:
            return positions, radii
        count = len(radii)
        return (
            np.concatenate([positions, np.zeros((count, 1, 2))], axis=1),
            np.concatenate([radii, np.full((count, 1), self.config.fixed_ball)], axis=1),
        )

    def _shown_palette(self) -> UInt8[np.ndarray, "slots 3"]:
        return self._palette if self.config.fixed_ball else self._palette[:-1]

    def _hide(self, frames: np.ndarray) -> None:
        if self.config.curtain:
            for frame, curtain in zip(frames, self._curtains, strict=True):
                hide(frame, curtain)
