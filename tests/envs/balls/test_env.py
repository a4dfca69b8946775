import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import rmr_gym
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.config import PRESETS
from rmr_gym.envs.balls.env import BouncingBallsEnv, BouncingBallsVectorEnv

EVERY_ID = [preset.env_id for preset in PRESETS.values()]


def equal(first, second) -> bool:
    """Bitwise equality of nested observations and infos."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return np.array_equal(first, second) and np.asarray(first).dtype == np.asarray(second).dtype


def play(env: gym.Env, steps: int, seed: int) -> list:
    env.action_space.seed(seed)
    return [env.reset(seed=seed), *(env.step(env.action_space.sample()) for _ in range(steps))]


@pytest.mark.parametrize("env_id", EVERY_ID)
def test_gymnasium_accepts_every_id(env_id):
    check_env(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", EVERY_ID)
@pytest.mark.filterwarnings("ignore:Your observation state has an unconventional shape")
@pytest.mark.filterwarnings("ignore:Your observation velocities has an unconventional shape")
def test_stable_baselines_accepts_every_id(env_id):
    sb3_check_env(gym.make(env_id, render_mode="rgb_array"), skip_render_check=False)


@pytest.mark.parametrize("env_id", EVERY_ID)
def test_two_copies_do_the_same_bit_by_bit(env_id):
    first, second = gym.make(env_id, masks=True), gym.make(env_id, masks=True)
    assert all(map(equal, play(first, 12, seed=5), play(second, 12, seed=5)))
    assert all(map(equal, [first.reset()], [second.reset()]))
    assert not equal(first.reset(seed=6)[0], second.reset(seed=5)[0])


def test_a_seed_leaves_nothing_of_what_was_played_before():
    used, fresh = BouncingBallsEnv("rnem-6-8"), BouncingBallsEnv("rnem-6-8")
    play(used, 60, seed=1)
    assert all(map(equal, play(used, 40, seed=2), play(fresh, 40, seed=2)))


def test_the_default_is_the_papers_world():
    env = gym.make("rmr/BouncingBalls-v0")
    observation, info = env.reset(seed=0)
    assert {name: (a.shape, a.dtype) for name, a in observation.items()} == {
        "state": ((10, 2), np.float32),
        "pixels": ((64, 64, 3), np.uint8),
    }
    assert env.action_space == gym.spaces.Discrete(1)
    assert set(info) == {"collisions", "kinetic_energy", "momentum"}
    for _ in range(99):
        _, reward, terminated, truncated, _ = env.step(0)
        assert (reward, terminated, truncated) == (0.0, False, False)
    assert env.step(0)[3] is True


def test_importing_and_registering_leaves_mujoco_alone():
    code = (
        "import sys; import rmr_gym; import gymnasium; "
        "gymnasium.spec('rmr/PushedBalls-v0'); "
        "assert not {'mujoco', 'scipy', 'matplotlib', 'jaxtyping'} & set(sys.modules)"
    )
    root = Path(rmr_gym.__file__).parents[1]
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=root)


def test_a_spec_read_from_json_makes_the_same_world():
    env = gym.make("rmr/RNEMBalls4-v0", speeds=(1, 2), colors=[[1, 2, 3]], kinds=[(0.1, 2.0)])
    spec = EnvSpec.from_json(env.spec.to_json())
    assert json.loads(env.spec.to_json())["kwargs"]["preset"] == "rnem-4"
    assert all(map(equal, play(env, 5, seed=1), play(gym.make(spec), 5, seed=1)))


def test_copies_and_pickles_are_new_environments():
    env = BouncingBallsEnv("pushed", balls=3)
    for twin in (pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        assert all(map(equal, play(env, 5, seed=3), play(twin, 5, seed=3)))


def test_observed_extras():
    extras = ["masses", "velocities", "presence", "radii"]
    env = BouncingBallsEnv("rnem-4", balls=(2, 5), observe=extras)
    seen = set()
    for seed in range(12):
        observation, info = env.reset(seed=seed)
        count = int(observation["presence"].sum())
        seen.add(count)
        assert observation["presence"].tolist() == [1] * count + [0] * (5 - count)
        for name in ("state", "velocities", "radii", "masses"):
            assert not observation[name][count:].any()
            assert observation[name][:count].all()
        assert {0.16: 1.0, 0.2: 6.0}.items() >= {
            (round(float(r), 6), float(m))
            for r, m in zip(
                observation["radii"][:count], observation["masses"][:count], strict=True
            )
        }
        speed = np.linalg.norm(observation["velocities"][:count].astype(float), axis=1)
        assert (speed >= 0.5 - 1e-6).all()
        assert (speed <= 1.5 + 1e-6).all()
        energy = 0.5 * (observation["masses"][:count] * speed**2).sum()
        assert info["kinetic_energy"] == pytest.approx(energy, rel=1e-5)
    assert seen == {2, 3, 4, 5}


def test_balls_begin_apart_and_inside():
    env = BouncingBallsEnv("s2rm-6", observe=["radii"])
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        places = np.vstack([observation["state"], [[0, 0]]])
        radii = np.append(observation["radii"], env.config.fixed_ball)
        gaps = np.linalg.norm(places[:, None] - places, axis=-1) - radii[:, None] - radii
        assert gaps[~np.eye(7, dtype=bool)].min() > -1e-6
        assert (np.abs(places) + radii[:, None]).max() <= 1 + 1e-6


def test_state_pixels_and_masks_are_of_the_same_instant():
    env = BouncingBallsEnv(masks=True, balls=4, resolution=128)
    env.reset(seed=2)
    for _ in range(15):
        observation, *_, info = env.step(0)
        for k, (x, y) in enumerate(observation["state"]):
            row, column = np.argwhere(info["masks"] == k + 1).mean(axis=0)
            assert (column + 0.5) / 64 - 1 == pytest.approx(x, abs=0.01)
            assert 1 - (row + 0.5) / 64 == pytest.approx(y, abs=0.01)
            owned = observation["pixels"][info["masks"] == k + 1]
            assert (np.median(owned, axis=0) == env.config.palette()[k]).all()


def test_reset_options_set_what_they_name():
    env = BouncingBallsEnv(balls=2, observe=["velocities", "masses", "radii"])
    options = {
        "positions": [[-0.5, 0], [0.5, 0]],
        "velocities": [[1, 0], [-1, 0]],
        "masses": [1, 3],
        "radii": [0.1, 0.15],
    }
    observation, _ = env.reset(seed=0, options=options)
    assert observation["state"].tolist() == options["positions"]
    assert observation["velocities"].tolist() == options["velocities"]
    assert observation["masses"].tolist() == options["masses"]
    for _ in range(12):
        observation, *_ = env.step(0)
    assert observation["velocities"][:, 0] == pytest.approx([-2, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": [[0, 0]]}, "did you mean 'positions'"),
        ({"positions": [[0, 0], [0.1, 0]]}, "where no balls overlap"),
        ({"positions": [[0, 0], [0.95, 0]]}, "inside the box"),
        ({"positions": [[0, 0]]}, "2 to 2 balls"),
        ({"positions": [[0, np.nan], [0, 0.5]]}, "finite"),
        ({"velocities": [1, 0]}, "shape"),
        ({"velocities": [[50, 0], [0, 0]]}, "with higher speeds"),
        ({"radii": [0.1, 0]}, "expected radii from 0.03"),
        ({"radii": [0.1, 0.3]}, "larger radii"),
        ({"masses": [1, -1]}, "masses above 0"),
    ],
)
def test_reset_options_that_cannot_be(options, message):
    env = BouncingBallsEnv(balls=2)
    with pytest.raises(RMRError, match=message):
        env.reset(seed=0, options=options)


def test_a_curtain_hides_pixels_and_masks_for_an_episode():
    env = BouncingBallsEnv("rnem-curtain", masks=True, curtain=(0.5, 0.9))
    open_air = BouncingBallsEnv("rnem-curtain", masks=True, curtain=None)
    for seed in range(5):
        (observation, info), (unhidden, _) = env.reset(seed=seed), open_air.reset(seed=seed)
        top, left, rows, columns = info["curtain"]
        assert 32 <= min(rows, columns) <= max(rows, columns) <= 58
        assert equal(env.step(0)[4]["curtain"], info["curtain"])
        inside = np.zeros((64, 64), bool)
        inside[top : top + rows, left : left + columns] = True
        assert not observation["pixels"][inside].any()
        assert not info["masks"][inside].any()
        assert equal(observation["pixels"][~inside], unhidden["pixels"][~inside])
        assert equal(observation["state"], unhidden["state"])


def test_a_push_is_an_impulse_on_ball_0():
    env = BouncingBallsEnv("pushed", masses=2.0)
    far = [[0, 0], [0.7, 0.7], [-0.7, 0.7], [0.7, -0.7], [-0.7, -0.7]]
    for action, direction in enumerate([(0, 0), (1, 0), (0, 1), (-1, 0), (0, -1)]):
        env.reset(seed=0, options={"positions": far, "velocities": np.zeros((5, 2))})
        observation, reward, *_, info = env.step(action)
        assert observation["velocities"][0] == pytest.approx(0.25 * np.array(direction))
        assert not observation["velocities"][1:].any()
        assert info["momentum"] == pytest.approx(0.5 * np.array(direction))
        assert reward == pytest.approx(-0.01 * (action > 0))


def test_pushes_cannot_heat_the_world_without_bound():
    env = BouncingBallsEnv("pushed", push=5.0)
    _, info = env.reset(seed=0)
    bound = 0.5 * 5 * env.config.speeds[1] ** 2
    energies = [env.step(1 + step % 2)[4]["kinetic_energy"] for step in range(100)]
    assert max(energies) == pytest.approx(bound, rel=1e-4)
    assert info["kinetic_energy"] < bound


def test_hitting_the_target_is_rewarded_and_can_be_done_on_purpose():
    assert steered(lambda _: 0) + 5 < steered(chase)


def chase(observation) -> int:
    """Push towards where the target will be, unless already under way."""
    (agent, target), (ours, theirs) = observation["state"][:2], observation["velocities"][:2]
    wanted = (target - agent) / np.linalg.norm(target - agent) * 1.5 + theirs - ours
    axis = int(np.abs(wanted).argmax())
    return 0 if abs(wanted[axis]) < 0.4 else [[3, 1], [4, 2]][axis][int(wanted[axis] > 0)]


def steered(policy) -> float:
    env = gym.make("rmr/PushedBalls-v0")
    total = 0.0
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        for _ in range(200):
            observation, reward, *_, info = env.step(policy(observation))
            hits = float(info["collisions"][0, 1])
            assert reward in (pytest.approx(hits), pytest.approx(hits - 0.01))
            total += reward
    return total


def test_actions_and_order_are_checked():
    env = BouncingBallsEnv(render_mode="rgb_array")
    for call in (lambda: env.step(0), env.render):
        with pytest.raises(RMRError, match=r"call reset\(\)"):
            call()
    env.reset(seed=0)
    for action in (1, -1, 0.5, "push"):
        with pytest.raises(RMRError, match="expected an action from 0 to 0"):
            env.step(action)
    assert env.get_action_meanings() == ["no-op"]
    assert len(BouncingBallsEnv("pushed").get_action_meanings()) == 5


def test_pictures_for_people_come_in_any_size():
    small = BouncingBallsEnv("rnem-curtain", render_mode="rgb_array", render_size=64)
    large = BouncingBallsEnv("rnem-curtain", render_mode="rgb_array", render_size=320)
    observation, info = small.reset(seed=1)
    large.reset(seed=1)
    assert large.render().shape == (320, 320, 3)
    coarse = large.render().reshape(64, 5, 64, 5, 3).mean(axis=(1, 3))
    assert np.abs(coarse - small.render()).max() <= 2
    top, left, rows, columns = info["curtain"]
    assert (small.render()[top : top + rows, left : left + columns] >= 64).all()
    assert not observation["pixels"][top : top + rows, left : left + columns].any()


def same(first, second) -> bool:
    """Bitwise equality of nested results of reset and step."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return np.array_equal(first, second) and first.dtype == second.dtype


def play_many(envs, steps, seed=0):
    envs.action_space.seed(seed)
    return [envs.reset(seed=seed), *(envs.step(envs.action_space.sample()) for _ in range(steps))]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_equal_to_single_environments_bit_by_bit_over_episodes(preset):
    options = {"num_envs": 3, "max_episode_steps": 6, "masks": True}
    together = gym.make_vec(preset.env_id, threads=2, **options)
    single = gym.make_vec(preset.env_id, vectorization_mode="sync", **options)
    assert isinstance(together, BouncingBallsVectorEnv)
    for ours, theirs in zip(play_many(together, 15), play_many(single, 15), strict=True):
        assert same(ours, theirs)
    assert same(together.reset(), single.reset())
    assert same(together.reset(seed=[3, 1, 4]), single.reset(seed=[3, 1, 4]))


def test_two_copies_and_any_number_of_threads_do_the_same():
    runs = [
        play_many(BouncingBallsVectorEnv(70, "rnem-6-8", threads=threads, masks=True), 4)
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
    for result in play_many(envs, 4):
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


def test_copies_are_new_vectors():
    envs = BouncingBallsVectorEnv(2, "pushed", max_episode_steps=3, threads=2)
    for twin in (copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))):
        assert same(tuple(play_many(twin, 5)), tuple(play_many(envs, 5)))


@pytest.mark.parametrize("seed", [np.int64(3), np.array([3, 4]), [np.uint8(3), 4], 2**80])
def test_every_whole_number_is_a_seed(seed):
    envs, alone = BouncingBallsVectorEnv(2, threads=1), BouncingBallsEnv()
    shown = envs.reset(seed=seed)[0]
    single = alone.reset(seed=seed[0] if np.ndim(seed) else seed)[0]
    assert np.array_equal(shown["state"][0], single["state"])


def test_closed_vectors_say_so():
    envs = BouncingBallsVectorEnv(2, threads=2, render_mode="rgb_array")
    envs.reset(seed=0)
    envs.close()
    for use in (envs.reset, lambda: envs.step([0, 0]), envs.render):
        with pytest.raises(RMRError, match="found closed ones: make new ones"):
            use()
