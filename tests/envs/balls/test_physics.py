import numpy as np
import pytest

from rmr_gym.envs.balls.config import configure
from rmr_gym.envs.balls.env import BouncingBallsEnv
from rmr_gym.envs.balls.physics import (
    BallsPhysics,
    Motion,
    collisions,
    draw_start,
    kinetic_energy,
    momentum,
)


def started(config, simulations: int) -> BallsPhysics:
    physics = BallsPhysics(config, simulations)
    starts = [draw_start(config, np.random.default_rng(seed)) for seed in range(simulations)]
    physics.start(starts)
    return physics


def deepest_overlap(positions, radii, presence, fixed_ball=0.0) -> float:
    """Deepest overlap of any two balls, with a wall, or with the fixed ball."""
    gaps = np.linalg.norm(positions[:, :, :, None] - positions[:, :, None], axis=-1)
    depth = radii[:, None, :, None] + radii[:, None, None] - gaps
    pairs = presence[:, :, None] & presence[:, None] & ~np.eye(radii.shape[1], dtype=bool)
    walls = np.abs(positions) + radii[:, None, :, None] - 1
    middle = radii[:, None] + fixed_ball - np.linalg.norm(positions, axis=-1)
    return max(
        np.max(depth, initial=0, where=pairs[:, None]),
        np.max(walls, initial=0, where=presence[:, None, :, None]),
        np.max(middle, initial=0, where=presence[:, None] & (fixed_ball > 0)),
    )


def event_driven(x, v, r, m, duration):
    """Exact motion of elastic discs in the box: jump from one collision to the next."""
    x, v = x.copy(), v.copy()
    i, j = np.triu_indices(len(x), 1)
    while True:
        d, w = x[i] - x[j], v[i] - v[j]
        a, b, c = (w * w).sum(1), (d * w).sum(1), (d * d).sum(1) - (r[i] + r[j]) ** 2
        meet = (b < 0) & (b * b > a * c)
        pair = np.full(len(i), np.inf)
        pair[meet] = (-b - np.sqrt(np.abs(b * b - a * c)))[meet] / a[meet]
        wall = (np.sign(v) * (1 - r[:, None]) - x) / np.where(v == 0, np.inf, v)
        wall[v == 0] = np.inf
        step = min(pair.min(initial=np.inf), wall.min(), duration)
        x += v * step
        duration -= step
        if duration <= 0:
            return x, v
        if step == wall.min():
            v[np.unravel_index(wall.argmin(), wall.shape)] *= -1
        else:
            p, q = i[pair.argmin()], j[pair.argmin()]
            n = (x[p] - x[q]) / np.linalg.norm(x[p] - x[q])
            impulse = 2 * ((v[p] - v[q]) @ n) / (1 / m[p] + 1 / m[q])
            v[p] -= impulse / m[p] * n
            v[q] += impulse / m[q] * n


WORLDS = {
    **{f"n={n}": configure("rmr", {"balls": n}) for n in range(1, 11)},
    "rnem-4": configure("rnem-4", {}),
    "rnem-6-8": configure("rnem-6-8", {}),
    "s2rm-6": configure("s2rm-6", {}),
}


@pytest.mark.parametrize("name", WORLDS)
def test_energy_is_kept_and_balls_hardly_overlap(name):
    config, simulations = WORLDS[name], 4
    physics = started(config, simulations)
    before, deepest = kinetic_energy(physics.velocities, physics.masses), 0.0
    for _ in range(100):
        motion = physics.mover()()
        fixed = config.fixed_ball or 0.0
        depth = deepest_overlap(motion.positions, physics.radii, physics.presence, fixed)
        deepest = max(deepest, depth)
    after = kinetic_energy(physics.velocities, physics.masses)
    assert np.abs(after / before - 1).max() < 1e-5
    assert deepest <= 0.03
    assert np.abs(physics.positions).max() <= 1


def test_a_light_ball_between_a_heavy_one_and_the_wall_keeps_the_energy():
    env = BouncingBallsEnv(balls=2, radii=0.2, masses=[1.0, 6.0], observe=["velocities"])
    nearly = [[-0.7998, 0.0], [-0.3995, 0.01]]
    options = {"positions": nearly, "velocities": [[-0.5, 0.0], [-0.9, 0.0]]}
    _, info = env.reset(seed=0, options=options)
    after = [env.step(0)[4]["kinetic_energy"] for _ in range(5)]
    assert after == pytest.approx([info["kinetic_energy"]] * 5, rel=1e-5)


@pytest.mark.parametrize("name", ["rmr", "rnem-4"])
def test_positions_agree_with_an_event_driven_simulator(name):
    config, simulations, frames = configure(name, {"balls": 4}), 48, 10
    physics = started(config, simulations)
    x, v = physics.positions.copy(), physics.velocities.copy()
    for _ in range(frames):
        physics.mover()()
    exact = np.array(
        [
            event_driven(*world, frames / config.fps)[0]
            for world in zip(x, v, physics.radii, physics.masses, strict=True)
        ]
    )
    error = np.sqrt(((physics.positions - exact) ** 2).sum(axis=-1).mean())
    drift = np.sqrt((v**2).sum(axis=-1).mean()) * frames / config.fps
    assert error < 0.02 < drift / 10


def test_the_event_driven_simulator_swaps_velocities_of_equal_balls():
    x, v = np.array([[-0.5, 0.0], [0.5, 0.0]]), np.array([[1.0, 0.0], [-0.5, 0.0]])
    x, v = event_driven(x, v, np.full(2, 0.1), np.ones(2), 0.6)
    assert v[:, 0] == pytest.approx([-0.5, 1.0])
    assert x[1, 0] - x[0, 0] == pytest.approx(0.3)
    assert event_driven(np.zeros((1, 2)), np.array([[1.0, 0]]), np.array([0.1]), np.ones(1), 1.0)[
        0
    ].tolist() == [[pytest.approx(0.8), 0]]


def test_between_collisions_balls_fly_straight():
    env = BouncingBallsEnv(balls=1, radii=0.1)
    observation, _ = env.reset(options={"positions": [[-0.5, -0.2]], "velocities": [[1.0, 0.4]]})
    for frame in range(1, 16):
        observation, *_, info = env.step(0)
        assert observation["state"][0] == pytest.approx(
            [-0.5 + frame * 0.05, -0.2 + frame * 0.02], abs=1e-6
        )
        assert not info["collisions"].any()


def collided(options, frames=12, **world) -> tuple[np.ndarray, list]:
    env = BouncingBallsEnv(**world)
    env.reset(seed=0, options=options)
    infos = [env.step(0)[4] for _ in range(frames)]
    return sum(info["collisions"].astype(int) for info in infos), infos


def test_collisions_name_both_partners_and_keep_momentum():
    places, velocities = [[-0.3, 0], [0.3, 0.05], [0, 0.7]], [[1, 0], [-1, 0], [0, 0.1]]
    hits, infos = collided({"positions": places, "velocities": velocities}, balls=3)
    assert hits.tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    for info in infos:
        assert info["momentum"] == pytest.approx([0, 0.1], abs=1e-9)


def test_collisions_with_walls_and_the_fixed_ball():
    places, velocities = [[0.5, 0], [-0.5, -0.7]], [[-1, 0], [0.1, -1]]
    world = {"balls": 2, "fixed_ball": 0.2, "radii": 0.15}
    hits, _ = collided({"positions": places, "velocities": velocities}, frames=8, **world)
    assert hits.tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]


def test_collisions_count_every_turn_of_a_ball_alone():
    options = {"positions": [[0, 0]], "velocities": [[1.4, 0]]}
    hits, infos = collided(options, frames=100, balls=1, radii=0.1)
    flights = (100 * 0.05 * 1.4 + 0.9) / 1.8
    assert hits[0, 2] == int(flights)
    turns = [info["collisions"].sum() for info in infos]
    assert max(turns) == 1


def test_bodies_that_overlap_but_part_do_not_collide():
    places = np.array([[[-0.92, 0.5], [-0.1, 0], [0.05, 0], [0.16, 0.15]]])
    before = np.array([[[0.3, 0], [1, 0], [-1, 0], [1, 1]]], float)
    after = np.array([[[0.3, 0], [-1, 0], [1, 0], [1, 1]]], float)
    motion = Motion(np.stack((places, places), 1), np.stack((before, after), 1))
    hits = collisions(motion, np.full((1, 4), 0.1), np.ones((1, 4), bool), 0.0)[0]
    assert np.argwhere(hits).tolist() == [[1, 2], [2, 1]]
    middle = collisions(motion, np.full((1, 4), 0.1), np.ones((1, 4), bool), 0.1)[0]
    assert np.argwhere(middle).tolist() == [[1, 2], [1, 4], [2, 1], [2, 4]]


def test_absent_balls_touch_nothing():
    present = configure("rmr", {"balls": 2})
    padded = configure("rmr", {"balls": (2, 6)})
    lone, crowd = BallsPhysics(present, 1), BallsPhysics(padded, 1)
    options = {"positions": [[-0.4, 0.02], [0.3, 0]], "velocities": [[1, 0], [-0.5, 0.2]]}
    for physics, config in ((lone, present), (crowd, padded)):
        physics.start([draw_start(config, np.random.default_rng(0), options)])
        for _ in range(60):
            physics.mover()()
    assert np.allclose(crowd.positions[0, :2], lone.positions[0], atol=1e-9)
    assert not crowd.positions[0, 2:].any()
    assert momentum(crowd.velocities, crowd.masses).shape == (1, 2)


def test_each_simulation_has_its_own_masses_and_radii():
    config = configure("rnem-4", {"kinds": [(0.1, 1.0), (0.2, 9.0)]})
    together = started(config, 6)
    assert len({tuple(row) for row in together.radii}) > 1
    for _ in range(40):
        together.mover()()
    for seed in range(6):
        alone = BallsPhysics(config, 1)
        alone.start([draw_start(config, np.random.default_rng(seed))])
        for _ in range(40):
            alone.mover()()
        assert np.array_equal(alone.positions[0], together.positions[seed])
        assert np.array_equal(alone.velocities[0], together.velocities[seed])
