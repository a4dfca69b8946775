import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.config import PRESETS
from rmr_gym.envs.balls.env import BouncingBallsEnv
from rmr_gym.envs.balls.vector import BouncingBallsVectorEnv


def same(first, second) -> bool:
    """Bitwise equality of nested results of reset and step."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return np.array_equal(first, second) and first.dtype == second.dtype


def play(envs, steps, seed=0):
    envs.action_space.seed(seed)
    return [envs.reset(seed=seed), *(envs.step(envs.action_space.sample()) for _ in range(steps))]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_equal_to_single_environments_bit_by_bit_over_episodes(preset):
    options = {"num_envs": 3, "max_episode_steps": 6, "masks": True}
    together = gym.make_vec(preset.env_id, threads=2, **options)
    single = gym.make_vec(preset.env_id, vectorization_mode="sync", **options)
    assert isinstance(together, BouncingBallsVectorEnv)
    for ours, theirs in zip(play(together, 15), play(single, 15), strict=True):
        assert same(ours, theirs)
    assert same(together.reset(), single.reset())
    assert same(together.reset(seed=[3, 1, 4]), single.reset(seed=[3, 1, 4]))


def test_two_copies_and_any_number_of_threads_do_the_same():
    runs = [
        play(BouncingBallsVectorEnv(70, "rnem-6-8", threads=threads, masks=True), 4)
        for threads in (1, 1, 2, 5)
    ]
    for run in runs[1:]:
        assert all(map(same, runs[0], run))


def test_worlds_differ_from_each_other():
    observations, infos = BouncingBallsVectorEnv(8, "rnem-6-8").reset(seed=0)
    assert len({world.tobytes() for world in observations["pixels"]}) == 8
    assert len(set(observations["presence"].sum(axis=1).tolist())) > 1
    assert infos["_kinetic_energy"].all()


def test_the_step_after_the_last_begins_the_next_episode():
    envs = gym.make_vec("rmr/BouncingBalls-v0", num_envs=4, max_episode_steps=3)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    actions = np.zeros(4, np.int64)
    ends = [envs.step(actions)[3].tolist() for _ in range(8)]
    assert ends == [[step in (2, 6)] * 4 for step in range(8)]


def test_without_a_limit_no_episode_ends():
    envs = BouncingBallsVectorEnv(2)
    envs.reset(seed=0)
    assert not any(envs.step(np.zeros(2, int))[3].any() for _ in range(12))


def test_observations_are_new_arrays_inside_their_space():
    envs = BouncingBallsVectorEnv(5, "pushed")
    kept, copies = [], []
    for result in play(envs, 4):
        kept.append(result[0])
        copies.append({name: array.copy() for name, array in result[0].items()})
        assert result[0] in envs.observation_space
    assert all(map(same, kept, copies))


def test_reset_options_reach_every_world():
    envs = BouncingBallsVectorEnv(3, balls=1)
    observations, _ = envs.reset(seed=0, options={"positions": [[0.25, -0.5]]})
    assert observations["state"].tolist() == [[[0.25, -0.5]]] * 3
    with pytest.raises(RMRError, match="did you mean 'positions'"):
        envs.reset(options={"postions": [[0, 0]]})


def test_pictures_of_all_worlds():
    options = {"render_mode": "rgb_array", "render_size": 96}
    envs = BouncingBallsVectorEnv(3, "rnem-4", threads=2, **options)
    with pytest.raises(ResetNeeded):
        envs.render()
    envs.reset(seed=7)
    single = BouncingBallsEnv("rnem-4", **options)
    single.reset(seed=9)
    for _ in range(3):
        pictures = envs.render()
        assert len(pictures) == 3
        assert np.array_equal(pictures[2], single.render())
        envs.step(np.zeros(3, int))
        single.step(0)
    assert BouncingBallsVectorEnv(2).render() is None


def test_bad_numbers_and_order():
    for options in ({"num_envs": 0}, {"threads": 0}, {"max_episode_steps": -1}):
        with pytest.raises(RMRError, match="whole number of at least 1"):
            BouncingBallsVectorEnv(**options)
    envs = BouncingBallsVectorEnv(2, "pushed")
    with pytest.raises(ResetNeeded):
        envs.step(np.zeros(2, int))
    envs.reset()
    for actions in ([0], [0, 5], [-1, 0], [0.5, 0]):
        with pytest.raises(RMRError, match="expected 2 actions from 0 to 4"):
            envs.step(actions)
    with pytest.raises(RMRError, match="one seed or 2"):
        envs.reset(seed=[1])


def test_closing_twice():
    envs = BouncingBallsVectorEnv(4, threads=2)
    envs.reset(seed=0)
    envs.close()
    envs.close()
