"""How an episode of bouncing balls begins: what the seed draws and what the caller may set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.envs.balls.config import SMALLEST_RADIUS, BallsConfig

RESET_OPTIONS = ("positions", "velocities", "radii", "masses")
_CANDIDATES = 16
_ROUNDS = 40
_RESTARTS = 60
_FULLEST = 0.5


@dataclass(frozen=True)
class Start:
    """The first instant of an episode; rows of absent balls are zero."""

    positions: Float[np.ndarray, "slots 2"]
    velocities: Float[np.ndarray, "slots 2"]
    radii: Float[np.ndarray, " slots"]
    masses: Float[np.ndarray, " slots"]
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
        rows["velocities"] = _draw_velocities(rng, config.speeds, count)
    padded = {name: _padded(values, config.most) for name, values in rows.items()}
    return Start(**padded, presence=np.arange(config.most) < count)


def check_fit(config: BallsConfig) -> None:
    """Make sure that there is room for the balls of a world and for their motion.

    Raises:
        RMRError: They cover more than half of the box, or are not placed in many attempts.
    """
    radii = np.array([radius for radius, _ in config.all_kinds])
    crowd = np.full(config.most, radii.max()) if config.kinds else radii
    fixed = config.fixed_ball or 0.0
    area = np.pi * float(np.sum(crowd**2) + fixed**2) / 4
    if area > _FULLEST or _placed(np.random.default_rng(0), crowd, fixed) is None:
        raise RMRError(
            f"expected balls that fit into the box with room to move, found {config.most} of "
            f"radius up to {crowd.max():.3g} that cover {area:.0%} of it: take fewer or smaller "
            "balls"
        )


def draw_positions(
    rng: np.random.Generator, radii: Float[np.ndarray, " slots"], fixed_ball: float
) -> Float[np.ndarray, "slots 2"]:
    """Place balls one after another, the largest first, uniformly where nothing is touched.

    Raises:
        RMRError: No room was found in many attempts.
    """
    positions = _placed(rng, radii, fixed_ball)
    if positions is None:
        raise RMRError(
            f"expected balls that fit into the box, found no room for {len(radii)} of radius up to "
            f"{radii.max():.3g}: take fewer or smaller balls"
        )
    return positions


def _placed(
    rng: np.random.Generator, radii: Float[np.ndarray, " slots"], fixed_ball: float
) -> Float[np.ndarray, "slots 2"] | None:
    order = np.argsort(-radii, kind="stable")
    for _ in range(_RESTARTS):
        positions = _attempt(rng, radii[order], fixed_ball)
        if positions is not None:
            return positions[np.argsort(order)]
    return None


def _attempt(
    rng: np.random.Generator, radii: Float[np.ndarray, " slots"], fixed_ball: float
) -> Float[np.ndarray, "slots 2"] | None:
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


def _draw_velocities(
    rng: np.random.Generator, speeds: tuple[float, float], count: int
) -> Float[np.ndarray, "slots 2"]:
    angles = rng.uniform(0, 2 * np.pi, count)
    speed = rng.uniform(*speeds, count)
    return speed[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


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


def _check_positions(
    positions: Float[np.ndarray, "slots 2"], radii: Float[np.ndarray, " slots"], fixed_ball: float
) -> None:
    placed = np.vstack([positions, np.zeros((1, 2))])
    reach = np.append(radii, fixed_ball or -np.inf)
    gaps = np.linalg.norm(placed[:, None] - placed, axis=-1) - (reach[:, None] + reach)
    np.fill_diagonal(gaps, np.inf)
    if (np.abs(positions) + radii[:, None] > 1 + 1e-9).any() or gaps.min() < -1e-9:
        raise RMRError(
            "expected positions inside the box [-1, 1] where no balls overlap, found "
            f"{positions.tolist()} with radii {radii.tolist()}"
        )


def _check_energy(
    config: BallsConfig,
    velocities: Float[np.ndarray, "slots 2"],
    masses: Float[np.ndarray, " slots"],
) -> None:
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
