"""MuJoCo's physics of many worlds of balls at once: how an episode begins, motion, collisions."""

import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from jinja2 import Template

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.envs.balls.config import SMALLEST_RADIUS, BallsConfig

Places = Float[np.ndarray, "slots 2"]
"""A place or a velocity of every ball of a world."""

Sizes = Float[np.ndarray, " slots"]
"""A radius or a mass of every ball of a world."""

RESET_OPTIONS = ("positions", "velocities", "radii", "masses")
_CANDIDATES = 16
_ROUNDS = 40
_RESTARTS = 60
_FULLEST = 0.5


@dataclass(frozen=True)
class Start:
    """The first instant of an episode; rows of absent balls are zero."""

    positions: Places
    velocities: Places
    radii: Sizes
    masses: Sizes
    presence: Bool[np.ndarray, " slots"]


def draw_start(
    config: BallsConfig, rng: np.random.Generator, options: Mapping[str, Any] | None = None
) -> Start:
    """Draw number, kinds, places and velocities of the balls, or take them from ``options``.

    Balls are placed one after another, uniformly where there is room; directions are uniform.

    Args:
        config: The world.
        rng: The episode's generator.
        options: ``positions`` [balls, 2], ``velocities`` [balls, 2], ``radii`` and ``masses``
            [balls]; what is absent is drawn.

    Raises:
        RMRError: An option that does not exist or cannot be.
    """
    given = _checked_options(config, options or {})
    drawn = int(rng.integers(config.fewest, config.most, endpoint=True))
    count = len(given.get("positions", range(drawn)))
    kinds = np.array(config.all_kinds)
    chosen = rng.integers(len(kinds), size=config.most) if config.kinds else np.arange(config.most)
    radii, masses = kinds[chosen[:count]].T
    rows = {"radii": radii, "masses": masses, **given}
    _check_bodies(config, count, rows)
    if "positions" not in given:
        rows["positions"] = draw_positions(rng, rows["radii"], config.fixed_ball or 0.0)
    if "velocities" not in given:
        angles, speeds = rng.uniform(0, 2 * np.pi, count), rng.uniform(*config.speeds, count)
        rows["velocities"] = speeds[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    padded = {name: _padded(values, config.most) for name, values in rows.items()}
    return Start(**padded, presence=np.arange(config.most) < count)


def check_fit(config: BallsConfig) -> None:
    """Make sure that there is room for the balls of a world and for their motion.

    Raises:
        RMRError: As `draw_positions`, for the largest balls that there can be.
    """
    radii = np.array([radius for radius, _ in config.all_kinds])
    crowd = np.full(config.most, radii.max()) if config.kinds else radii
    draw_positions(np.random.default_rng(0), crowd, config.fixed_ball or 0.0)


def draw_positions(rng: np.random.Generator, radii: Sizes, fixed_ball: float) -> Places:
    """Place balls one after another, the largest first, uniformly where nothing is touched.

    Raises:
        RMRError: They cover more than half of the box, or find no room in many attempts.
    """
    order = np.argsort(-radii, kind="stable")
    area = np.pi * float(np.sum(radii**2) + fixed_ball**2) / 4
    for _ in range(_RESTARTS if area <= _FULLEST else 0):
        positions = _attempt(rng, radii[order], fixed_ball)
        if positions is not None:
            return positions[np.argsort(order)]
    raise RMRError(
        f"expected balls that fit into the box with room to move, found no room for {len(radii)} "
        f"of radius up to {radii.max():.3g} that cover {area:.0%} of it: take fewer or smaller "
        "balls"
    )


def _attempt(rng: np.random.Generator, radii: Sizes, fixed_ball: float) -> Places | None:
    """Place all balls once; None where one finds no room."""
    placed = np.zeros((len(radii) + 1, 2))
    reach = np.concatenate([[fixed_ball or -np.inf], radii])
    for k, radius in enumerate(radii):
        for _ in range(_ROUNDS):
            candidates = rng.uniform(-1 + radius, 1 - radius, (_CANDIDATES, 2))
            gaps = np.linalg.norm(candidates[:, None] - placed[: k + 1], axis=-1)
            free = np.flatnonzero((gaps > reach[: k + 1] + radius).all(axis=1))
            if free.size:
                placed[k + 1] = candidates[free[0]]
                break
        else:
            return None
    return placed[1:]


def _checked_options(config: BallsConfig, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    given = {
        known_name("reset option", name, RESET_OPTIONS): np.asarray(value, dtype=np.float64)
        for name, value in options.items()
    }
    for name, rows in given.items():
        shape = (2,) if name in ("positions", "velocities") else ()
        fits = rows.ndim == 1 + len(shape) and rows.shape[1:] == shape
        if not fits or not config.fewest <= len(rows) <= config.most or not np.isfinite(rows).all():
            raise RMRError(
                f"expected the reset option {name} to hold finite numbers of shape "
                f"[balls{', 2' if shape else ''}] for {config.fewest} to {config.most} "
                f"balls, found shape {list(rows.shape)}"
            )
    return given


def _check_bodies(config: BallsConfig, count: int, rows: Mapping[str, np.ndarray]) -> None:
    """Check everything that was given: the number of rows, sizes, places and energy."""
    for name, values in rows.items():
        if len(values) != count:
            raise RMRError(
                f"expected the reset option {name} for {count} balls, found {len(values)}: give "
                "positions for the same number of balls"
            )
    radii, masses = rows["radii"], rows["masses"]
    if radii.min() < SMALLEST_RADIUS or radii.max() > config.largest_radius + 1e-9:
        raise RMRError(
            f"expected radii from {SMALLEST_RADIUS} to {config.largest_radius:.3g}, the largest of "
            f"the environment's own, found {radii.tolist()}: make the environment with larger radii"
        )
    if masses.min() <= 0:
        raise RMRError(f"expected masses above 0, found {masses.tolist()}")
    if "positions" in rows:
        _check_positions(rows["positions"], radii, config.fixed_ball or 0.0)
    if "velocities" in rows:
        _check_energy(config, rows["velocities"], masses)


def _check_positions(positions: Places, radii: Sizes, fixed_ball: float) -> None:
    placed = np.vstack([positions, np.zeros((1, 2))])
    reach = np.append(radii, fixed_ball or -np.inf)
    gaps = np.linalg.norm(placed[:, None] - placed, axis=-1) - (reach[:, None] + reach)
    np.fill_diagonal(gaps, np.inf)
    if (np.abs(positions) + radii[:, None] > 1 + 1e-9).any() or gaps.min() < -1e-9:
        raise RMRError(
            "expected positions inside the box [-1, 1] where no balls overlap, found "
            f"{positions.tolist()} with radii {radii.tolist()}"
        )


def _check_energy(config: BallsConfig, velocities: Places, masses: Sizes) -> None:
    energy = 0.5 * float(np.sum(masses[:, None] * velocities**2))
    fastest = float(np.sqrt(2 * energy / masses.min()))
    if fastest > config.top_speed:
        raise RMRError(
            "expected velocities of which no ball can become faster than "
            f"{config.top_speed:.3g}, found energy for {fastest:.3g}: make the environment with "
            "higher speeds"
        )


def _padded(rows: np.ndarray, most: int) -> np.ndarray:
    return np.pad(rows, [(0, most - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


Vectors = Float[np.ndarray, "batch slots 2"]
"""A place or a velocity of every ball."""

Scalars = Float[np.ndarray, "batch slots"]
"""A radius or a mass of every ball."""

Presence = Bool[np.ndarray, "batch slots"]
"""Which balls there are."""

Gaps = Float[np.ndarray, "events 2"]
"""How two bodies lie, or move, seen from one of them."""

GL_LIBRARIES = {
    "egl": ("libEGL.so.1", "libEGL.so"),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
_SYSTEMS = {"cgl": "darwin", "wgl": "win32", "glx": "linux"}
SOFTNESS = 1e-6
_IMPEDANCE = 0.9999
_HIDDEN = 3


@dataclass(frozen=True)
class Motion:
    """What happened in one frame: the state before it, then that after each physics step."""

    positions: Float[np.ndarray, "batch states slots 2"]
    velocities: Float[np.ndarray, "batch states slots 2"]


class BallsPhysics:
    """Simulations of one compiled model, each with its own balls, masses and radii.

    A simulation's motion depends neither on the others in the batch nor on the number of threads.

    Args:
        config: The world.
        simulations: How many there are.
        threads: Number of MuJoCo's threads.

    Attributes:
        positions: Now; writing to them moves the balls.
        velocities: Now; writing to them pushes the balls.
        radii: Of this episode, like masses and presence.
    """

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
        self.positions: Vectors = self._batch.bind("qpos").reshape(*shape, 2)
        self.velocities: Vectors = self._batch.bind("qvel").reshape(*shape, 2)

    def start(self, starts: Sequence[Start]) -> None:
        """Begin a new episode in every simulation."""
        for row, start in enumerate(starts):
            self.radii[row], self.masses[row] = start.radii, start.masses
            self.presence[row] = start.presence
        self._resize()
        self._batch.reset(stage=self._no_stage)
        for row, start in enumerate(starts):
            self.positions[row], self.velocities[row] = start.positions, start.velocities

    def mover(self) -> Callable[[], Motion]:
        """Return the call that moves every simulation by one frame.

        The call spends all but a few microseconds outside of Python's lock, so another thread can
        make it while this one works on.
        """
        before = {"qpos": self.positions[:, None].copy(), "qvel": self.velocities[:, None].copy()}

        def move() -> Motion:
            after = self._batch.rollout(self._config.substeps, record=tuple(before))
            shape = (len(self.radii), self._config.substeps, self._config.most, 2)
            return Motion(
                *(np.concatenate((now, after[k].reshape(shape)), 1) for k, now in before.items())
            )

        return move

    def _resize(self) -> None:
        """Write masses and radii into the simulations' models; absent balls touch nothing.

        Bounding boxes follow in set_const; inertia does not matter to balls that cannot turn.
        """
        present = self.presence
        radii = np.where(present, self.radii, self._config.largest_radius)
        masses = np.where(present, self.masses, 1.0)
        self._set("body_mass", self._bodies, masses)
        self._set("geom_size", self._geoms, np.pad(radii[..., None], ((0, 0), (0, 0), (0, 2))))
        for name in ("contype", "conaffinity"):
            self._set(f"geom_{name}", self._geoms, present)
            self._set(f"body_{name}", self._bodies, present)
        self._batch.set_const()
        self._set("body_invweight0", self._bodies, SOFTNESS / masses[..., None])

    def _set(self, field: str, where: slice, values: np.ndarray) -> None:
        self._batch.expand(field)[:, where] = values


def load_mujoco() -> Any:
    """Import mujoco for its physics, which needs no graphics library.

    MuJoCo picks its OpenGL back end as it is imported, from the variable MUJOCO_GL, and fails as a
    whole where that back end is of another system or its library is missing. In these cases it is
    imported without graphics.

    Raises:
        RMRError: mujoco is not installed, or cannot be imported.
    """
    asked = os.environ.get("MUJOCO_GL")
    back_end = (asked or "").strip().lower()
    elsewhere = _SYSTEMS.get(back_end, sys.platform) != sys.platform
    hopeless = elsewhere or (back_end in GL_LIBRARIES and not has_library(back_end))
    if hopeless:
        os.environ["MUJOCO_GL"] = "disable"
    try:
        import mujoco  # noqa: PLC0415
        import mujoco.batch  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:
        raise RMRError(
            "expected mujoco 4 or newer, which moves the balls, found an import that fails "
            f"({error}): install it with `pip install 'mujoco>=4'`, and unset MUJOCO_GL if that is "
            "the variable it complains of"
        ) from error
    finally:
        if hopeless and asked is not None:
            os.environ["MUJOCO_GL"] = asked
    return mujoco


def has_library(back_end: str) -> bool:
    """Whether the shared library of an OpenGL back end, ``egl`` or ``osmesa``, can be loaded."""
    for name in GL_LIBRARIES[back_end]:
        with suppress(OSError):
            ctypes.CDLL(name)
            return True
    return False


def compile_model(config: BallsConfig, offscreen: int = 0) -> Any:
    """Compile the world of a config to an MjModel; radii and masses are set again each episode.

    Args:
        config: The world.
        offscreen: Height and width of MuJoCo's own pictures in pixels; 0 where it draws none.
    """
    model = load_mujoco().MjModel.from_xml_string(world_xml(config, offscreen))
    model.body_invweight0[1:] = SOFTNESS
    return model


def world_xml(config: BallsConfig, offscreen: int = 0) -> str:
    """Return the MJCF of the world.

    Each ball is a sphere on two slide joints, so it moves in the plane without turning. A contact
    without stiffness and with damping 2 / timestep (times the impedance, by which MuJoCo divides
    it) asks for the speed -v of the bodies that close in with v: the collision is elastic and over
    within one timestep. MuJoCo softens what is asked by (1 - impedance) x ``body_invweight0``; the
    impedance is at most 0.9999, so the softness is taken away through `SOFTNESS` instead. The usual
    spring-like ``solref`` loses the energy.

    Source: docs/bouncing_balls.md, measured with mujoco 4.0.

    Args:
        config: The world.
        offscreen: Height and width of MuJoCo's own pictures in pixels; 0 where it draws none.
    """
    template = Template(Path(__file__).with_name("world.xml.j2").read_text())
    return template.render(config=config, offscreen=offscreen, impedance=_IMPEDANCE, hidden=_HIDDEN)


def collisions(
    motion: Motion, radii: Scalars, presence: Presence, fixed_ball: float
) -> UInt8[np.ndarray, "batch slots partners"]:
    """Count the impacts of each ball within a frame.

    An impact is a physics step that begins with two bodies overlapping and closing in; the solver
    turns their closing speed around in this same step.

    Args:
        motion: The states of the frame.
        radii: Radii of the balls.
        presence: Which balls there are.
        fixed_ball: Radius of the ball in the middle; 0 for none.

    Returns:
        Impacts with each partner: the balls in turn (symmetric), then the ball in the middle, then
        the walls.
    """
    slots = radii.shape[1]
    partners = slots + 2
    speeds = motion.velocities.reshape(*motion.velocities.shape[:2], -1)
    row, step = np.nonzero((speeds[:, 1:] != speeds[:, :-1]).any(axis=2))
    if not row.size:
        return np.zeros((len(radii), slots, partners), np.uint8)
    place, velocity = motion.positions[row, step], motion.velocities[row, step]
    turned = (velocity != motion.velocities[row, step + 1]).any(axis=2) & presence[row]
    event, ball = np.nonzero(turned)
    x, v, r = place[event, ball], velocity[event, ball], radii[row[event], ball]
    target = (row[event] * slots + ball) * partners
    outside = ((np.abs(x) + r[:, None] > 1) & (x * v > 0)).any(axis=1)
    hits = [target[outside] + slots + 1]
    if fixed_ball:
        hits.append(target[_meeting(x, v, r + fixed_ball)] + slots)
    pairs = turned[:, :, None] & turned[:, None] & ~np.eye(slots, dtype=bool)
    event, one, other = np.nonzero(pairs)
    gap, speed = (part[event, one] - part[event, other] for part in (place, velocity))
    world = row[event]
    met = _meeting(gap, speed, radii[world, one] + radii[world, other])
    hits.append(((world * slots + one) * partners + other)[met])
    counts = np.bincount(np.concatenate(hits), minlength=radii.size * partners)
    return counts.astype(np.uint8).reshape(len(radii), slots, partners)


def kinetic_energy(velocities: Vectors, masses: Scalars) -> Float[np.ndarray, " batch"]:
    """Sum of m v^2 / 2 over the balls, in mass x units^2 / s^2."""
    return 0.5 * (masses * (velocities**2).sum(axis=2)).sum(axis=1)


def momentum(velocities: Vectors, masses: Scalars) -> Float[np.ndarray, "batch 2"]:
    """Sum of m v over the balls, in mass x units / s; walls and the fixed ball change it."""
    return (masses[..., None] * velocities).sum(axis=1)


def _meeting(
    gap: Gaps, velocity: Gaps, reach: Float[np.ndarray, " events"]
) -> Bool[np.ndarray, " events"]:
    """Whether two bodies overlap and close in, seen from one of them."""
    return ((gap**2).sum(axis=1) < reach**2) & ((gap * velocity).sum(axis=1) < 0)
