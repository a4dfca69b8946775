"""What a simulator knows and a picture does not tell: collisions, energy and momentum."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmr_gym.envs.balls_physics import Motion


def collisions(
    motion: Motion,
    radii: Float[np.ndarray, "batch slots"],
    presence: Bool[np.ndarray, "batch slots"],
    fixed_ball: float,
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
    counts = np.zeros((len(radii), slots, slots + 2), np.uint8)
    row, step = np.nonzero(_turns(motion))
    if not row.size:
        return counts
    initial = (step == 0)[:, None, None]
    place = np.where(initial, motion.first_positions[row], motion.positions[row, step - 1])
    velocity = np.where(initial, motion.first_velocities[row], motion.velocities[row, step - 1])
    hits = np.concatenate(
        [
            _meeting(place, velocity, radii[row]) & presence[row][:, None],
            _meeting_middle(place, velocity, radii[row] + fixed_ball if fixed_ball else None),
            _meeting_walls(place, velocity, radii[row]),
        ],
        axis=2,
    )
    np.add.at(counts, row, (hits & presence[row][:, :, None]).astype(np.uint8))
    return counts


def kinetic_energy(
    velocities: Float[np.ndarray, "batch slots 2"], masses: Float[np.ndarray, "batch slots"]
) -> Float[np.ndarray, " batch"]:
    """Sum of m v^2 / 2 over the balls, in mass x units^2 / s^2."""
    return 0.5 * (masses * (velocities**2).sum(axis=2)).sum(axis=1)


def momentum(
    velocities: Float[np.ndarray, "batch slots 2"], masses: Float[np.ndarray, "batch slots"]
) -> Float[np.ndarray, "batch 2"]:
    """Sum of m v over the balls, in mass x units / s; walls and the fixed ball change it."""
    return (masses[..., None] * velocities).sum(axis=1)


def _turns(motion: Motion) -> Bool[np.ndarray, "batch substeps"]:
    """Return the physics steps that change some velocity."""
    after = motion.velocities.reshape(*motion.velocities.shape[:2], -1)
    turns = np.empty(after.shape[:2], bool)
    turns[:, 0] = (after[:, 0] != motion.first_velocities.reshape(len(after), -1)).any(axis=1)
    turns[:, 1:] = (after[:, 1:] != after[:, :-1]).any(axis=2)
    return turns


def _meeting(
    place: Float[np.ndarray, "events slots 2"],
    velocity: Float[np.ndarray, "events slots 2"],
    radii: Float[np.ndarray, "events slots"],
) -> Bool[np.ndarray, "events slots slots"]:
    gap_x, gap_y = _differences(place[..., 0]), _differences(place[..., 1])
    speed_x, speed_y = _differences(velocity[..., 0]), _differences(velocity[..., 1])
    reach = radii[:, :, None] + radii[:, None]
    return (gap_x * speed_x + gap_y * speed_y < 0) & (gap_x**2 + gap_y**2 < reach**2)


def _differences(
    values: Float[np.ndarray, "events slots"],
) -> Float[np.ndarray, "events slots slots"]:
    return values[:, :, None] - values[:, None]


def _meeting_middle(
    place: Float[np.ndarray, "events slots 2"],
    velocity: Float[np.ndarray, "events slots 2"],
    reach: Float[np.ndarray, "events slots"] | None,
) -> Bool[np.ndarray, "events slots 1"]:
    if reach is None:
        return np.zeros((*place.shape[:2], 1), bool)
    closing = (place * velocity).sum(-1) < 0
    return (closing & ((place**2).sum(-1) < reach**2))[..., None]


def _meeting_walls(
    place: Float[np.ndarray, "events slots 2"],
    velocity: Float[np.ndarray, "events slots 2"],
    radii: Float[np.ndarray, "events slots"],
) -> Bool[np.ndarray, "events slots 1"]:
    outside = (np.abs(place) + radii[..., None] > 1) & (place * velocity > 0)
    return (outside[..., 0] | outside[..., 1])[..., None]
