"""How an episode of bouncing balls begins: what the seed draws and what the caller may set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from rmr_gym.core.errors import RMRError, unknown_name

if TYPE_CHECKING:
    from rmr_gym.envs.balls.config import BallsConfig

RESET_OPTIONS = ("positions", "velocities", "radii", "masses")
SMALLEST_RADIUS = 0.03
_CANDIDATES = 16
_ROUNDS = 40
_RESTARTS = 60


@dataclass(frozen=True)
class Start:
    """The first instant of an episode; rows of absent balls are zero."""

    positions: Float[np.ndarray, "slots 2"]
    velocities: Float[np.ndarray, "slots 2"]
    radii: Float[np.ndarray, " slots"]
    masses: Float[np.ndarray, " slots"]
    presence: Bool[np.ndarray, " slots"]


def draw_start(
    config: "BallsConfig", rng: np.random.Generator, options: Mapping[str, Any] | None = None
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
    given = _checked_options(config, dict(options or {}))
    drawn = int(rng.integers(config.fewest, config.most, endpoint=True))
    count = len(given["positions"]) if "positions" in given else drawn
    kinds = np.array(config.all_kinds)
    chosen = rng.integers(len(kinds), size=config.most) if config.kinds else np.arange(config.most)
    own = {"radii": kinds[chosen[:count], 0], "masses": kinds[chosen[:count], 1]}
    radii, masses = (_rows({**own, **given}[name], count, name) for name in own)
    _check_bodies(config, radii, masses)
    fixed = config.fixed_ball or 0.0
    if "positions" in given:
        positions = given["positions"]
        _check_positions(positions, radii, fixed)
    else:
        positions = draw_positions(rng, radii, fixed)
    if "velocities" in given:
        velocities = _rows(given["velocities"], count, "velocities")
        _check_energy(config, velocities, masses)
    else:
        velocities = _draw_velocities(rng, config.speeds, count)
    presence = np.arange(config.most) < count
    most = config.most
    return Start(
        positions=_padded(positions, most),
        velocities=_padded(velocities, most),
        radii=_padded(radii, most),
        masses=_padded(masses, most),
        presence=presence,
    )


def draw_positions(
    rng: np.random.Generator, radii: Float[np.ndarray, " slots"], fixed_ball: float
) -> Float[np.ndarray, "slots 2"]:
    """Place balls one after another, the largest first, uniformly where nothing is touched.

    Raises:
        RMRError: No room was found in many attempts.
    """
    order = np.argsort(-radii, kind="stable")
    for _ in range(_RESTARTS):
        positions = _attempt(rng, radii[order], fixed_ball)
        if positions is not None:
            placed = np.empty_like(positions)
            placed[order] = positions
            return placed
    raise RMRError(
        f"expected balls that fit into the box, found no room for {len(radii)} of radius up to "
        f"{radii.max():.3g}: take fewer or smaller balls"
    )


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


def _checked_options(config: "BallsConfig", options: dict[str, Any]) -> dict[str, np.ndarray]:
    for name in options:
        if name not in RESET_OPTIONS:
            raise unknown_name("reset option", str(name), RESET_OPTIONS)
    given = {name: np.asarray(value, dtype=np.float64) for name, value in options.items()}
    for name, rows in given.items():
        shape = (-1, 2) if name in ("positions", "velocities") else (-1,)
        fits = rows.ndim == len(shape) and rows.shape[1:] == shape[1:]
        if not fits or not config.fewest <= len(rows) <= config.most or not np.isfinite(rows).all():
            raise RMRError(
                f"expected the reset option {name} to hold finite numbers of shape "
                f"[balls{', 2' if len(shape) == 2 else ''}] for {config.fewest} to {config.most} "
                f"balls, found shape {list(rows.shape)}"
            )
    return given


def _rows(rows: np.ndarray, count: int, name: str) -> np.ndarray:
    if len(rows) != count:
        raise RMRError(
            f"expected the reset option {name} for {count} balls, found {len(rows)}: give "
            "positions for the same number of balls"
        )
    return rows


def _check_bodies(
    config: "BallsConfig", radii: Float[np.ndarray, " slots"], masses: Float[np.ndarray, " slots"]
) -> None:
    if radii.min() < SMALLEST_RADIUS or radii.max() > config.largest_radius + 1e-9:
        raise RMRError(
            f"expected radii from {SMALLEST_RADIUS} to {config.largest_radius:.3g}, the largest of "
            f"the environment's own, found {radii.tolist()}: make the environment with larger radii"
        )
    if masses.min() <= 0:
        raise RMRError(f"expected masses above 0, found {masses.tolist()}")


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
    config: "BallsConfig",
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
    padded = np.zeros((most, *rows.shape[1:]))
    padded[: len(rows)] = rows
    return padded
