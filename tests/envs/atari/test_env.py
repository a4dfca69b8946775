import copy
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import rmr_gym
from rmr_gym.core.actions import ACTION_NAMES
from rmr_gym.core.errors import RMRError
from rmr_gym.core.palette import palette_to_gray, palette_to_rgb
from rmr_gym.envs.atari.env import PairedAtariEnv, ScreenAndRAM, choose_mode, load
from rmr_gym.envs.atari.games import GAMES

RIGHT_PADDLE_SLOT, RIGHT_PADDLE_COLUMNS = 60, slice(140, 144)


def raw_ale(rom: str) -> ALEInterface:
    """A freshly loaded emulator, set up without any of our code."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 12345)
    ale.loadROM(roms.get_rom_path(rom))
    ale.reset_game()
    return ale


def random_actions(count: int, seed: int = 0) -> list[int]:
    return [int(action) for action in np.random.default_rng(seed).integers(18, size=count)]


def play(env: gym.Env, actions: list[int], seed: int | None = None) -> list:
    """Everything that an episode shows, in comparable form."""
    observation, info = env.reset(seed=seed)
    seen = [(observation["ram"].tobytes(), observation["pixels"].tobytes(), info)]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        pair = (observation["ram"].tobytes(), observation["pixels"].tobytes())
        seen.append((*pair, reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return seen


def wait(env: gym.Env, steps: int) -> None:
    for _ in range(steps):
        env.step(0)


@pytest.fixture(scope="module", params=GAMES.values(), ids=GAMES)
def registered(request):
    """One environment a game, played by several tests: a reset has to undo what they did."""
    return gym.make(request.param.env_id)


@pytest.fixture(scope="module")
def pong():
    return PairedAtariEnv("Pong")


def test_gymnasium_accepts_the_environment(registered):
    env = registered.unwrapped
    assert env.observation_space["ram"] == gym.spaces.Box(0, 255, (128,), np.uint8)
    assert env.observation_space["pixels"] == gym.spaces.Box(0, 255, (210, 160, 1), np.uint8)
    assert env.action_space == gym.spaces.Discrete(18)
    check_env(env, skip_render_check=True)


def test_two_copies_agree_byte_for_byte(registered):
    actions = random_actions(25)
    copy_of_it = gym.make(registered.spec)
    assert play(copy_of_it, actions, seed=5) == play(registered, actions, seed=5)


def test_a_played_environment_resets_to_what_a_fresh_emulator_shows(registered):
    """ALE's own reset remembers the last episode in some games; ours and a fresh ROM agree."""
    play(registered, random_actions(30, seed=1))
    play(registered, random_actions(30, seed=2))
    game = registered.unwrapped.game
    ale = raw_ale(game.rom)
    assert set(game.actions) <= {int(action.value) for action in ale.getLegalActionSet()}
    observation, _ = registered.reset()
    assert np.array_equal(observation["ram"], ale.getRAM())
    assert np.array_equal(observation["pixels"][:, :, 0], ale.getScreenGrayscale())
    for action in random_actions(30, seed=3):
        observation, reward, terminated, _, info = registered.step(action)
        assert reward == sum(ale.act(game.actions[action]) for _ in range(4))
        assert np.array_equal(observation["ram"], ale.getRAM())
        assert np.array_equal(observation["pixels"][:, :, 0], ale.getScreenGrayscale())
        assert info["lives"] == ale.lives()
        assert terminated == ale.game_over()
        if terminated:
            break


@pytest.mark.parametrize("name", ["Pong", "Berzerk", "PrivateEye"])
def test_two_copies_agree_in_what_is_random(name):
    options = {"repeat_action_probability": 0.25, "noop_max": 20, "pixels": "palette"}
    one, two = (PairedAtariEnv(name, **options) for _ in range(2))
    two.reset(seed=99)
    wait(two, 10)
    actions = random_actions(40)
    assert play(one, actions, seed=5) == play(two, actions, seed=5)
    assert play(one, actions, seed=6) != play(two, actions, seed=5)


def test_a_long_episode_agrees_with_ales_own_environment():
    theirs = gym.make(
        "ALE/Breakout-v5", obs_type="rgb", repeat_action_probability=0.0, full_action_space=True
    )
    ours = PairedAtariEnv("Breakout", pixels="rgb")
    picture, _ = theirs.reset(seed=4)
    observation, _ = ours.reset(seed=4)
    ended, steps = False, 0
    while not ended:
        assert np.array_equal(observation["pixels"], picture)
        action = steps % 18
        picture, their_reward, *their_end, their_info = theirs.step(action)
        observation, reward, *end, info = ours.step(action)
        assert (reward, end) == (their_reward, their_end)
        assert info["lives"] == their_info["lives"]
        assert info["episode_frame_number"] == their_info["episode_frame_number"]
        ended, steps = any(end), steps + 1
    assert steps > 50


def test_pixels_and_ram_are_of_the_last_frame_and_of_no_other():
    env = PairedAtariEnv("Pong", pixels="palette")
    env.reset()
    ale = raw_ale("pong")
    moved = 0
    for action in [0] * 20 + random_actions(60):
        frames = []
        for _ in range(4):
            ale.act(action)
            frames.append((ale.getRAM(), ale.getScreen()))
        observation, *_ = env.step(action)
        assert np.array_equal(observation["ram"], frames[-1][0])
        assert np.array_equal(observation["pixels"][:, :, 0], frames[-1][1])
        moved += not np.array_equal(frames[-2][1], frames[-1][1])
        assert not np.array_equal(frames[-2][0], frames[-1][0])
    assert moved > 20


def test_a_byte_written_to_ram_moves_the_paddle_in_the_very_next_frame():
    touched, untouched = (PairedAtariEnv("Pong", frameskip=1) for _ in range(2))
    for env in (touched, untouched):
        env.reset(seed=0)
        wait(env, 100)
    touched.ale.setRAM(RIGHT_PADDLE_SLOT, 150)
    with_touch, *_ = touched.step(0)
    without, *_ = untouched.step(0)
    changed_slots = np.flatnonzero(with_touch["ram"] != without["ram"])
    changed_columns = np.flatnonzero((with_touch["pixels"] != without["pixels"]).any(axis=(0, 2)))
    assert RIGHT_PADDLE_SLOT in changed_slots
    assert changed_columns.tolist() == list(range(160))[RIGHT_PADDLE_COLUMNS]


def test_a_byte_written_to_ram_is_in_the_next_observation(pong):
    before, _ = pong.reset(seed=0)
    score_slot = 14
    pong.ale.setRAM(score_slot, 7)
    after, *_ = pong.step(0)
    assert (before["ram"][score_slot], after["ram"][score_slot]) == (0, 7)


def test_skiing_with_the_button_goes_where_it_goes_without():
    def episode(action):
        env = PairedAtariEnv("Skiing")
        return play(env, [action] * 30, seed=0)

    name = ACTION_NAMES.index
    assert episode(name("RIGHTFIRE")) == episode(name("RIGHT")) != episode(name("NOOP"))
    assert episode(name("DOWNLEFTFIRE")) == episode(name("DOWNLEFT")) != episode(name("NOOP"))
    assert episode(name("FIRE")) == episode(name("NOOP"))


def test_kept_observations_stay_as_they_were():
    env = PairedAtariEnv("Breakout", pixels="rgb")
    observation, _ = env.reset()
    kept = {name: array.copy() for name, array in observation.items()}
    wait(env, 20)
    later, _ = env.reset()
    for name, array in observation.items():
        assert np.array_equal(array, kept[name])
        assert not np.shares_memory(array, later[name])


def test_the_three_kinds_of_pixels_are_one_picture():
    gray, palette, rgb = (
        PairedAtariEnv("Seaquest", pixels=pixels) for pixels in ("gray", "palette", "rgb")
    )
    for env in (gray, palette, rgb):
        env.reset(seed=0)
    for action in random_actions(30):
        indices = palette.step(action)[0]["pixels"][:, :, 0]
        assert np.array_equal(gray.step(action)[0]["pixels"][:, :, 0], palette_to_gray(indices))
        assert np.array_equal(rgb.step(action)[0]["pixels"], palette_to_rgb(indices))
        for env in (gray, palette, rgb):
            assert np.array_equal(env.ale.getScreen(), indices)


@pytest.mark.parametrize("pixels", ["gray", "rgb"])
def test_max_pooling_is_of_the_last_two_frames_and_ram_of_the_last(pixels):
    pooled = PairedAtariEnv("Asteroids", pixels=pixels, max_pool=True)
    by_frame = PairedAtariEnv("Asteroids", pixels=pixels, frameskip=1)
    pooled.reset()
    by_frame.reset()
    flickered = 0
    for action in random_actions(40):
        observation, *_ = pooled.step(action)
        frames = [by_frame.step(action)[0] for _ in range(4)]
        last, before = frames[-1]["pixels"], frames[-2]["pixels"]
        assert np.array_equal(observation["pixels"], np.maximum(last, before))
        assert np.array_equal(observation["ram"], frames[-1]["ram"])
        flickered += not np.array_equal(observation["pixels"], last)
    assert flickered > 10


@pytest.mark.parametrize("frameskip", [1, 3, 4, 5])
def test_frame_skip(frameskip):
    env = PairedAtariEnv("Pong", frameskip=frameskip)
    env.reset()
    for step in range(1, 4):
        assert env.step(0)[-1]["episode_frame_number"] == step * frameskip
    assert env.metadata["render_fps"] == 60 // frameskip
    assert PairedAtariEnv.metadata["render_fps"] == 15


def test_sticky_actions_repeat_the_action_of_the_frame_before():
    """Their law: the executed action follows from the seed's draws; ALE executes it."""
    env = PairedAtariEnv("Breakout", repeat_action_probability=0.25)
    env.reset(seed=11)
    draws = np.random.Generator(np.random.PCG64())
    draws.bit_generator.state = env.np_random.bit_generator.state
    ale = raw_ale("breakout")
    held, repeated = 0, 0
    for action in random_actions(60):
        observation, *_ = env.step(action)
        for draw in draws.random(4):
            repeated += draw < 0.25
            held = held if draw < 0.25 else action
            ale.act(held)
        assert np.array_equal(observation["ram"], ale.getRAM())
    assert 40 <= repeated <= 80


def test_sticky_actions_begin_with_no_button_after_each_reset():
    env = PairedAtariEnv("Breakout", repeat_action_probability=0.9)
    assert play(env, [3] * 20, seed=0) == play(env, [3] * 20, seed=0)
    never = PairedAtariEnv("Breakout", repeat_action_probability=1.0)
    assert play(never, [3] * 20, seed=0) == play(never, [0] * 20, seed=0)


def test_noops_at_reset_are_drawn_from_the_seed_and_cover_the_range():
    env = PairedAtariEnv("Pong", noop_max=5)
    counts = [env.reset(seed=seed)[1]["episode_frame_number"] for seed in range(40)]
    assert set(counts) == {1, 2, 3, 4, 5}
    assert counts == [env.reset(seed=seed)[1]["episode_frame_number"] for seed in range(40)]


def test_noops_that_outlast_the_episode_start_it_again():
    env = PairedAtariEnv("Pong", noop_max=1, max_num_frames_per_episode=1)
    assert env.reset()[1]["episode_frame_number"] == 0


def test_without_options_every_episode_is_the_same_whatever_the_seed():
    env = PairedAtariEnv("Berzerk")
    actions = random_actions(40)
    first = play(env, actions, seed=0)
    for seed in (1, None):
        again = play(env, actions, seed=seed)
        assert [row[:5] for row in again[1:]] == [row[:5] for row in first[1:]]


def test_modes_and_difficulties_change_the_game_and_survive_a_reset():
    def start(**options):
        env = PairedAtariEnv("Breakout", **options)
        wait_actions = [1] + [3] * 30
        first = play(env, wait_actions, seed=0)
        assert play(env, wait_actions, seed=0) == first
        return first

    assert start(mode=4) != start()
    assert start(difficulty=1) != start()
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path("breakout"))
    ale.setMode(4)
    ale.reset_game()
    assert start(mode=4)[0][0] == ale.getRAM().tobytes()


def test_truncation_after_the_limit_of_frames():
    env = gym.make("rmr/Pong-v0", max_num_frames_per_episode=40)
    rows = play(env, [0] * 100, seed=0)
    assert len(rows) == 1 + 10
    assert [row[2:5] for row in rows[1:]] == [(0.0, False, False)] * 9 + [(0.0, False, True)]
    with pytest.raises(RMRError, match="found one that is over: call reset"):
        env.step(0)
    assert len(play(env, [0] * 100)) == 1 + 10


def test_no_limit_of_frames(pong):
    env = PairedAtariEnv("Pong", max_num_frames_per_episode=None)
    assert env.ale.getInt("max_num_frames_per_episode") == 0
    assert pong.ale.getInt("max_num_frames_per_episode") == 108_000


def test_termination_at_the_end_of_the_game():
    env = PairedAtariEnv("Breakout")
    rows = play(env, [1, 3] * 2000, seed=0)
    *_, terminated, truncated, info = rows[-1]
    assert (terminated, truncated, info["lives"]) == (True, False, 0)
    assert all(row[3:5] == (False, False) for row in rows[1:-1])
    with pytest.raises(RMRError, match="found one that is over: call reset"):
        env.step(0)
    env.reset()
    env.step(0)


def test_frame_numbers(pong):
    for seed, frames in ((0, (0, 0)), (None, (0, 12)), (None, (0, 24)), (3, (0, 0))):
        info = pong.reset(seed=seed)[1]
        assert (info["episode_frame_number"], info["frame_number"]) == frames
        wait(pong, 3)


def test_a_step_before_the_first_reset():
    with pytest.raises(RMRError, match="found one that has not begun: call reset"):
        PairedAtariEnv("Pong").step(0)


@pytest.mark.parametrize("action", [-1, 18, 1.5, "LEFT", None, np.array([1, 2])])
def test_an_action_that_does_not_exist(pong, action):
    pong.reset()
    with pytest.raises(RMRError, match="expected an action from 0 to 17, found"):
        pong.step(action)
    pong.step(0)


@pytest.mark.parametrize("action", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_every_kind_of_integer_is_an_action(pong, action):
    assert play(pong, [action] * 5, seed=0) == play(pong, [3] * 5, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"framskip": 2}, "unknown option 'framskip': did you mean 'frameskip'"),
        ({"game": "Pnog"}, "unknown game 'Pnog': did you mean 'Pong'"),
        ({"frameskip": 0}, "whole number of at least 1 as frameskip, found 0"),
        ({"noop_max": -1}, "whole number of at least 0 as noop_max, found -1"),
        ({"repeat_action_probability": 1.5}, r"probability in \[0, 1\].*found 1.5"),
        ({"max_num_frames_per_episode": 0}, "at least 1 as max_num_frames_per_episode, found 0"),
        ({"mode": 99}, "expected a mode of Pong"),
        ({"difficulty": 99}, "expected a difficulty of Pong"),
        ({"max_pool": True, "pixels": "palette"}, "found pixels='palette', frameskip=4"),
        ({"max_pool": True, "frameskip": 1}, "found pixels='gray', frameskip=1"),
        ({"render_mode": "human"}, "unknown render mode 'human': choose one of rgb_array"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(RMRError, match=message):
        PairedAtariEnv(**{"game": "Pong", **options})


def test_options_of_the_wrong_type_get_the_same_kind_of_sentence():
    """In a Python without the annotation checks of this test suite, as users have it."""
    code = """
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.core.errors import RMRError
for options in ({"frameskip": (2, 5)}, {"frameskip": True}, {"noop_max": 2.5}, {"game": 3},
                {"repeat_action_probability": "often"}, {"pixels": "grey"}):
    try:
        PairedAtariEnv(**{"game": "Pong", **options})
    except RMRError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(rmr_gym.__file__).parents[1],
    )
    messages = done.stdout.splitlines()
    assert len(messages) == 6
    assert messages[0] == "expected a whole number of at least 1 as frameskip, found (2, 5)"
    assert messages[-1].startswith("unknown kind of pixels 'grey': did you mean 'gray'?")


def test_rendering_gives_the_rgb_picture_of_this_instant():
    env = gym.make("rmr/Breakout-v0", render_mode="rgb_array", pixels="palette")
    env.reset(seed=0)
    observation, *_ = env.step(1)
    assert np.array_equal(env.render(), palette_to_rgb(observation["pixels"][:, :, 0]))
    check_env(env.unwrapped)


def test_rendering_without_a_mode_warns(pong):
    pong.reset()
    with pytest.warns(UserWarning, match="without a render mode"):
        assert pong.render() is None


def test_rebuilt_from_its_spec():
    env = gym.make("rmr/Pong-v0", pixels="palette", frameskip=3, noop_max=7)
    spec = EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    assert again.spec == env.spec
    actions = random_actions(20)
    assert play(again, actions, seed=2) == play(env, actions, seed=2)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_are_new_environments_with_the_same_options(copied):
    env = PairedAtariEnv("Pong", pixels="palette", frameskip=3, repeat_action_probability=0.2)
    env.reset(seed=0)
    wait(env, 5)
    actions = random_actions(20)
    assert play(copied(env), actions, seed=2) == play(env, actions, seed=2)


def test_in_a_vector_with_the_autoreset_of_gymnasium():
    vector = gym.make_vec("rmr/Pong-v0", num_envs=2, max_num_frames_per_episode=8)
    observations, _ = vector.reset(seed=[0, 1])
    assert observations["ram"].shape == (2, 128)
    for step in range(1, 7):
        observations, _, _, truncated, _ = vector.step([0, 3])
        assert truncated.tolist() == [step % 3 == 2] * 2
    assert observations["pixels"].shape == (2, 210, 160, 1)
    vector.close()


PONG = GAMES["Pong"]


@pytest.fixture
def emulated():
    return load(PONG, max_num_frames=0)


@pytest.mark.parametrize(
    ("pixels", "reader"),
    [("gray", "getScreenGrayscale"), ("palette", "getScreen"), ("rgb", "getScreenRGB")],
)
def test_reads_what_ale_shows_and_keeps_nothing(emulated, pixels, reader):
    both = ScreenAndRAM(emulated, pixels)
    first = both.read(emulated)
    kept = {name: array.copy() for name, array in first.items()}
    assert first in both.space
    assert np.array_equal(first["ram"], emulated.getRAM())
    assert np.array_equal(np.squeeze(first["pixels"]), getattr(emulated, reader)())
    for _ in range(100):
        emulated.act(3)
    second = both.read(emulated)
    for name in ("ram", "pixels"):
        assert not np.array_equal(first[name], second[name])
        assert np.array_equal(first[name], kept[name])


def test_unknown_pixels(emulated):
    with pytest.raises(RMRError, match="unknown kind of pixels 'grey': did you mean 'gray'"):
        ScreenAndRAM(emulated, "grey")


def test_loads_silently_and_without_sticky_actions(emulated, capfd):
    load(PONG, max_num_frames=100)
    assert capfd.readouterr() == ("", "")
    assert emulated.getFloat("repeat_action_probability") == 0


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_a_folder_without_roms(monkeypatch, tmp_path, folder):
    if folder == "empty":
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path / folder))
    with pytest.raises(RMRError, match=r"expected the ROM of Pong in ale-py.*unset ALE_ROMS_DIR"):
        load(PONG, max_num_frames=0)


def test_modes_and_difficulties_that_the_game_does_not_have(emulated):
    with pytest.raises(RMRError, match=r"expected a mode of Pong \(0, 1\), found 7"):
        choose_mode(emulated, PONG, mode=7, difficulty=None)
    with pytest.raises(RMRError, match=r"expected a difficulty of Pong \(0, 1, 2, 3\), found 9"):
        choose_mode(emulated, PONG, mode=None, difficulty=9)
