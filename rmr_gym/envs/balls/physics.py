"""Many worlds of bouncing balls moved at once by mujoco's batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rmr_gym.envs.balls.config import BallsConfig
from rmr_gym.envs.balls.model import SOFTNESS, compile_model, load_mujoco
from rmr_gym.envs.balls.start import Start


@dataclass(frozen=True)
class Motion:
    """What happened in one frame: the states before it and after each of its physics steps."""

    first_positions: Float[np.ndarray, "batch slots 2"]
    first_velocities: Float[np.ndarray, "batch slots 2"]
    positions: Float[np.ndarray, "batch substeps slots 2"]
    velocities: Float[np.ndarray, "batch substeps slots 2"]


class BallsPhysics:
    """Simulations of one compiled model, each with its own balls, masses and radii.

    A simulation's motion depends neither on the others in the batch nor on the number of threads.

    Args:
        config: The world.
        simulations: How many there are.
        threads: Number of MuJoCo's threads.
    """

    radii: Float[np.ndarray, "batch slots"]
    masses: Float[np.ndarray, "batch slots"]
    presence: Bool[np.ndarray, "batch slots"]

    def __init__(self, config: BallsConfig, simulations: int, threads: int = 1):
        mujoco = load_mujoco()
        model = compile_model(config)
        self._config = config
        self._batch: Any = mujoco.batch.Batch(model, simulations, threads)
        self._no_stage = mujoco.mjtStage.mjSTAGE_NONE.value
        first_geom = int(model.body_geomadr[1])
        self._bodies = slice(1, 1 + config.most)
        self._geoms = slice(first_geom, first_geom + config.most)
        shape = (simulations, config.most)
        self.radii, self.masses = np.zeros(shape), np.zeros(shape)
        self.presence = np.zeros(shape, bool)
        self._qpos = self._batch.bind("qpos").reshape(*shape, 2)
        self._qvel = self._batch.bind("qvel").reshape(*shape, 2)

    @property
    def positions(self) -> Float[np.ndarray, "batch slots 2"]:
        """Positions now; writing to them moves the balls."""
        return self._qpos

    @property
    def velocities(self) -> Float[np.ndarray, "batch slots 2"]:
        """Velocities now; writing to them pushes the balls."""
        return self._qvel

    def start(self, starts: Sequence[Start]) -> None:
        """Begin a new episode in every simulation."""
        for row, start in enumerate(starts):
            self.radii[row], self.masses[row] = start.radii, start.masses
            self.presence[row] = start.presence
        self._resize()
        self._batch.reset(stage=self._no_stage)
        for row, start in enumerate(starts):
            self._qpos[row], self._qvel[row] = start.positions, start.velocities

    def move(self) -> Motion:
        """Move every simulation by one frame."""
        return self.mover()()

    def mover(self) -> Callable[[], Motion]:
        """Return the call that moves every simulation by one frame.

        The call spends all but a few microseconds outside of Python's lock, so another thread can
        make it while this one works on.
        """
        place, velocity = self._qpos.copy(), self._qvel.copy()

        def move() -> Motion:
            after = self._batch.rollout(self._config.substeps, record=("qpos", "qvel"))
            shape = (len(place), self._config.substeps, self._config.most, 2)
            states = after["qpos"].reshape(shape), after["qvel"].reshape(shape)
            return Motion(place, velocity, *states)

        return move

    def _resize(self) -> None:
        """Write masses and radii into the simulations' models; absent balls touch nothing.

        Bounding boxes follow in set_const; inertia does not matter to balls that cannot turn.
        """
        present = self.presence
        radii = np.where(present, self.radii, self._config.largest_radius)
        masses = np.where(present, self.masses, 1.0)
        self._set("body_mass", self._bodies, masses)
        self._set("geom_size", self._geoms, _first_of_three(radii))
        for name in ("geom_contype", "geom_conaffinity"):
            self._set(name, self._geoms, present)
        for name in ("body_contype", "body_conaffinity"):
            self._set(name, self._bodies, present)
        self._batch.set_const()
        self._set("body_invweight0", self._bodies, SOFTNESS / masses[..., None])

    def _set(self, field: str, where: slice, values: np.ndarray) -> None:
        self._batch.expand(field)[:, where] = values


def _first_of_three(radii: Float[np.ndarray, "batch slots"]) -> Float[np.ndarray, "batch slots 3"]:
    """Return sphere sizes as MuJoCo stores them: the radius and two unused zeros."""
    return np.stack([radii, np.zeros_like(radii), np.zeros_like(radii)], axis=-1)
