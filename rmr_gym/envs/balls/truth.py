"""What a simulator knows and a picture does not tell: collisions, energy and momentum."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmr_gym.envs.balls.physics import Motion


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
    partners = slots + 2
    row, step = np.nonzero(_turns(motion))
    if not row.size:
        return np.zeros((len(radii), slots, partners), np.uint8)
    initial = (step == 0)[:, None, None]
    place = np.where(initial, motion.first_positions[row], motion.positions[row, step - 1])
    velocity = np.where(initial, motion.first_velocities[row], motion.velocities[row, step - 1])
    turned = (velocity != motion.velocities[row, step]).any(axis=2) & presence[row]
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
    gap: Float[np.ndarray, "events 2"],
    velocity: Float[np.ndarray, "events 2"],
    reach: Float[np.ndarray, " events"],
) -> Bool[np.ndarray, " events"]:
    """Whether two bodies overlap and close in, seen from one of them."""
    return ((gap**2).sum(axis=1) < reach**2) & ((gap * velocity).sum(axis=1) < 0)
