import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.data.sampling import bits_to_ram, ram_to_bits
from rmr_gym.domains.dynamics import (
    ALGORITHMS,
    DYNAMICS,
    Dynamics,
    RandomWorld,
)


def run(algorithm, steps, rows=5):
    """Return the bytes of every step [steps + 1, rows, 128]."""
    bits = algorithm.start(generator(0, "dynamics"), rows)
    memory = [bits_to_ram(bits)]
    for _ in range(steps):
        bits = algorithm.step(bits, np.zeros(rows, int))
        memory.append(bits_to_ram(bits))
    return np.stack(memory)


def test_sorting_sorts_what_is_there():
    memory = run(ALGORITHMS["sorting"], 126)
    np.testing.assert_array_equal(memory[-1, :, :126], np.sort(memory[0, :, :126], 1))
    np.testing.assert_array_equal(memory[:3, :, 127], [[0] * 5, [1] * 5, [0] * 5])


def test_searching_finds_what_it_looks_for():
    memory = run(ALGORITHMS["searching"], 60)
    sought, low, high, found = np.moveaxis(memory[..., 124:], -1, 0)
    ended = low[:-1] == high[:-1]
    assert (ended.sum(0) >= 7).all()
    rows = np.broadcast_to(np.arange(5), ended.shape)[ended]
    assert (memory[0, rows, low[:-1][ended]] == sought[:-1][ended]).all()
    assert (found[1:][ended] == low[:-1][ended]).all()
    assert (memory[:, :, :124] == memory[0, :, :124]).all()


def test_shortest_paths_are_those_of_scipy():
    memory = run(ALGORITHMS["shortest_paths"], 29, rows=3)
    for number, source in ((9, 0), (19, 1), (29, 2)):
        assert (memory[number, :, 126] == source).all()
        assert (memory[number, :, 127] == 9).all()
        for row in range(3):
            edges = memory[0, row, :100].reshape(10, 10).astype(float) + 1e-9
            expected = shortest_path(edges, indices=source)
            np.testing.assert_allclose(memory[number, row, 100:110], expected, atol=1e-6)


@pytest.mark.parametrize("name", DYNAMICS)
def test_parts_differ_and_come_again(name):
    world = Dynamics(2, 2, 70, label=name)
    assert (world.abstract("training").bits == world.abstract("training").bits).all()
    assert (world.abstract("training").bits != world.abstract("validation").bits).any()
    data = world.abstract("training")
    assert (ram_to_bits(data.ram) == data.bits).all()
    longest = 64 if name in ALGORITHMS else 70
    assert len(data.bits) == len(data.current) // longest * (longest + 1)
    assert len(world.scored_bytes) > 5


def test_unknown_dynamics_are_refused():
    with pytest.raises(RMRError, match="sorting"):
        Dynamics(2, 2, 70, label="sortin")


def test_the_random_world_moves_only_bytes_whose_gate_is_set():
    world = RandomWorld.draw(generator(0, "test"))
    data = Dynamics(3, 2, 20, 0.6).abstract("training")
    assert data.bits.shape == (3 * 21, 128, 8)
    assert len(data.current) == len(data.action) == 60
    assert (ram_to_bits(data.ram) == data.bits).all()
    before = generator(1, "bits").integers(0, 2, (50, 128, 8), dtype=np.uint8)
    after = world.step(before, np.zeros(50, int))
    closed = before[:, world.parent, world.gate] == 0
    assert (after[closed] == before[closed]).all()
    assert (after[~closed] != before[~closed]).any(-1).mean() > 0.9
    assert (world.parent != np.arange(128)).all()


def test_parts_of_the_random_world_differ_and_come_again():
    world = Dynamics(2, 2, 5, 0.6)
    assert (world.abstract("training").bits == world.abstract("training").bits).all()
    assert (world.abstract("training").bits != world.abstract("validation").bits).any()
