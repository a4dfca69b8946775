import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TimeLimit
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv

import rmr_gym
from rmr_gym.core.actions import ACTION_NAMES
from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import frame_transform
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.wrappers import Curtain, PairedObservation
from rmr_gym.wrappers.describe import action_names
from rmr_gym.wrappers.features import RMRObservationWrapper, RMRVectorObservation

gym.register_envs(ale_py)
SAME = {"repeat_action_probability": 0.0, "full_action_space": True}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def make_encoder(**sizes):
    config = EncoderConfig("Pong", **{"dim": 4, "core": "mpnn", **sizes})
    generator = torch_generator(0)
    encoder = build(config.encoder, generator)
    encoder.standardise_by(torch.full((config.height, config.width), 90.0), 30.0)
    processor = build(config.processor, generator) if config.core else None
    return PretrainedEncoder(config, encoder, processor)


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    return encoder.save_pretrained(tmp_path_factory.mktemp("encoders") / "pong")


@torch.no_grad()
def expected(encoder, env, action=None):
    """What the encoder makes of the emulator's screen, by way of training's own conversion."""
    frames = frame_transform(84, 84)(env.unwrapped.ale.getScreen()[None])
    slots = encoder.encoder(torch.from_numpy(frames))
    if action is not None:
        slots = encoder.processor(slots, torch.tensor([action]))
    return slots[0].numpy()


MAKERS = {
    "rgb": lambda: gym.make("ALE/Pong-v5", **SAME),
    "grayscale": lambda: gym.make("ALE/Pong-v5", obs_type="grayscale", **SAME),
    "ram": lambda: gym.make("ALE/Pong-v5", obs_type="ram", **SAME),
    "pair": lambda: gym.make("rmr/Pong-v0"),
    "pair of palette": lambda: gym.make("rmr/Pong-v0", pixels="palette"),
    "pair of rgb": lambda: gym.make("rmr/Pong-v0", pixels="rgb"),
    "paired": lambda: PairedObservation(gym.make("ALE/Pong-v5", **SAME), pixels="palette"),
    "preprocessed": lambda: AtariPreprocessing(
        gym.make("ALE/Pong-v5", frameskip=1, **SAME), noop_max=0
    ),
    "stacked": lambda: FrameStackObservation(gym.make("ALE/Pong-v5", **SAME), 4),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_whatever_is_observed_the_encoder_sees_what_it_was_trained_on(kind, encoder):
    if kind == "preprocessed":
        pytest.importorskip("cv2", exc_type=ImportError)
    env = RMRObservationWrapper(MAKERS[kind](), encoder, strict=True)
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (128, 4), np.float32)
    observation, _ = env.reset(seed=0)
    for action in (2, 3, 0, 5):
        assert observation.dtype == np.float32
        assert np.array_equal(observation, expected(encoder, env))
        observation, *_ = env.step(action)
    assert observation.std() > 0


def test_a_curtain_inside_is_seen(encoder):
    plain = RMRObservationWrapper(gym.make("rmr/Pong-v0"), encoder)
    hidden = Curtain(gym.make("rmr/Pong-v0"), sides=(0.9, 0.9))
    hidden = RMRObservationWrapper(hidden, encoder)
    assert not np.allclose(plain.reset(seed=0)[0], hidden.reset(seed=0)[0])


def test_outputs(encoder):
    made = {
        output: RMRObservationWrapper(gym.make("rmr/Pong-v0"), encoder, output=output)
        for output in ("slots", "flat", "processed", "frames")
    }
    seen = {output: env.reset(seed=0)[0] for output, env in made.items()}
    assert np.array_equal(seen["processed"], expected(encoder, made["slots"], action=0))
    for action in (3, 17):
        seen = {output: env.step(action)[0] for output, env in made.items()}
        for output, env in made.items():
            assert seen[output] in env.observation_space
        assert np.array_equal(seen["flat"], seen["slots"].ravel())
        assert np.array_equal(seen["processed"], expected(encoder, made["slots"], action))
        screen = made["slots"].unwrapped.ale.getScreen()
        assert np.array_equal(seen["frames"], frame_transform(84, 84)(screen[None]))


def test_p_gets_the_action_that_was_pressed_whatever_its_number(encoder):
    """The minimal actions of Pong are numbered otherwise than P's."""
    inner = gym.make("ALE/Pong-v5", repeat_action_probability=0.0)
    env = RMRObservationWrapper(inner, encoder, output="processed")
    env.reset(seed=0)
    for action, name in enumerate(inner.unwrapped.get_action_meanings()):
        seen = env.step(action)[0]
        assert np.array_equal(seen, expected(encoder, env, ACTION_NAMES.index(name)))


def test_continuous_actions_do_not_matter_without_p(encoder):
    env = RMRObservationWrapper(gym.make("ALE/Pong-v5", continuous=True), encoder, history=2)
    env.reset(seed=0)
    assert np.array_equal(
        env.step(np.array([0.5, 1.0, 0.2], np.float32))[0][1], expected(encoder, env)
    )
    with pytest.raises(RMRError, match="actions with ALE's names"):
        RMRObservationWrapper(gym.make("ALE/Pong-v5", continuous=True), encoder, output="processed")


def test_history_repeats_the_first_and_never_leaks_into_the_next_episode(encoder):
    env = RMRObservationWrapper(
        gym.make("rmr/Pong-v0"),
        encoder,
        keep=("pixels", "ram"),
        history={"features": 3, "pixels": 2},
    )
    first, _ = env.reset(seed=0)
    assert {name: entry.shape for name, entry in first.items()} == {
        "features": (3, 128, 4), "pixels": (2, 210, 160, 1), "ram": (128,)
    }  # fmt: skip
    assert (first["features"] == first["features"][-1]).all()
    before = first
    for _ in range(4):
        after = env.step(2)[0]
        assert after in env.observation_space
        assert np.array_equal(after["features"][:-1], before["features"][1:])
        assert np.array_equal(after["pixels"][0], before["pixels"][1])
        assert np.array_equal(after["ram"], env.unwrapped.ale.getRAM())
        before = after
    again, _ = env.reset(seed=0)
    assert all(np.array_equal(again[name], first[name]) for name in first)


def test_what_is_returned_is_the_callers(encoder):
    env = RMRObservationWrapper(gym.make("rmr/Pong-v0"), encoder, history=2)
    observation, _ = env.reset(seed=0)
    kept = observation.copy()
    observation[:] = 0
    assert np.array_equal(env.step(0)[0][0], kept[1])


@pytest.mark.parametrize(
    ("name", "output"),
    [
        *(("rmr/Pong-v0", output) for output in ("processed", "lookahead", "frames")),
        ("ALE/Pong-v5", "flat"),
    ],
)
def test_both_checkers(folder, name, output):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(infinity|unwrapped version|unconventional).*")
        env = gym.make(name, max_episode_steps=8)
        check_env(RMRObservationWrapper(env, folder, output=output), skip_render_check=True)
        sb3_check_env(RMRObservationWrapper(gym.make(name), folder, output=output))


def test_the_spec_rebuilds_it_even_from_json(folder, tmp_path):
    history = {"features": 2}
    env = RMRObservationWrapper(
        gym.make("rmr/Pong-v0"), folder, output="processed", keep=("ram",), history=history
    )
    spec = EnvSpec.from_json(env.spec.to_json())
    again = gym.make(spec)
    assert isinstance(again, RMRObservationWrapper)
    assert again.observation_space == env.observation_space
    for one, two in ((env.reset(seed=4), again.reset(seed=4)), (env.step(3), again.step(3))):
        assert all(np.array_equal(one[0][name], two[0][name]) for name in ("features", "ram"))
    assert json.loads(env.spec.to_json())["additional_wrappers"]


def test_an_encoder_of_another_game_is_named(encoder):
    with pytest.warns(UserWarning, match="trained on Pong, the environment plays Breakout"):
        RMRObservationWrapper(gym.make("rmr/Breakout-v0"), encoder)
    with pytest.warns(UserWarning, match="plays Assault"):
        RMRObservationWrapper(gym.make("ALE/Assault-v5"), encoder)
    with pytest.raises(RMRError, match="trained on Pong, the environment plays Breakout"):
        RMRObservationWrapper(gym.make("ALE/Breakout-v5"), encoder, strict=True)
    with pytest.warns(UserWarning, match="plays Breakout"):
        RMRVectorObservation(gym.make_vec("rmr/Breakout-v0", 1, workers=0), encoder)


class Screens(gym.Env):
    """An environment without an emulator."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, shape, dtype):
        self.observation_space = gym.spaces.Box(0, 255, shape, dtype)

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"histroy": 2}, "unknown option 'histroy': did you mean 'history'"),
        ({"output": "slot"}, "did you mean 'slots'"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
        ({"keep": "ram"}, r"for instance \['ram'\]"),
        ({"keep": ("rom",)}, "did you mean 'ram'"),
        ({"keep": ("features",)}, "makes its own"),
        ({"keep": ("ram",), "history": {"ram": 2}}, "RAM is not stacked"),
        ({"history": {"pixels": 2}}, "unknown entry to stack 'pixels'"),
        ({"history": 0}, "at least 1 as history"),
        ({"output": "lookahead", "ahead": 0}, "at least 1 as ahead, found 0"),
        ({"output": "lookahead", "ahead": 17}, "ahead=1 to 16 with 'lookahead', .* found 17"),
        ({"output": "processed", "ahead": 2}, "1 with all else, found 2 with 'processed'"),
        ({"history": True}, "at least 1 as history"),
        ({"pixels": "cmyk"}, "unknown kind of pixels"),
    ],
)
def test_bad_options(encoder, options, message):
    with pytest.raises(RMRError, match=message):
        RMRObservationWrapper(gym.make("rmr/Pong-v0"), encoder, **options)


def test_bad_environments(encoder, tmp_path):
    for shape, dtype in (((84, 84), np.uint8), ((210, 160, 3), np.float32)):
        with pytest.raises(RMRError, match="expected whole screens"):
            RMRObservationWrapper(Screens(shape, dtype), encoder)
    with pytest.raises(RMRError, match="actions with ALE's names"):
        RMRObservationWrapper(Screens((210, 160), np.uint8), encoder, output="processed")
    with pytest.raises(RMRError, match="does not name"):
        RMRObservationWrapper(Screens((210, 160), np.uint8), encoder, strict=True)
    with pytest.raises(RMRError, match="around a vector, use RMRVectorObservation"):
        RMRObservationWrapper(gym.make_vec("rmr/Pong-v0", 1, workers=0), encoder)
    with pytest.raises(RMRError, match="around a single one, use RMRObservationWrapper"):
        RMRVectorObservation(gym.make("rmr/Pong-v0"), encoder)
    with pytest.raises(RMRError, match="to keep 'ram' of"):
        RMRObservationWrapper(gym.make("ALE/Pong-v5"), encoder, keep=("ram",))
    for output in ("processed", "lookahead"):
        with pytest.raises(RMRError, match=f"with P for output='{output}', found one without"):
            RMRObservationWrapper(gym.make("rmr/Pong-v0"), make_encoder(core=None), output)
    with pytest.raises(RMRError, match="found neither at"):
        RMRObservationWrapper(gym.make("rmr/Pong-v0"), tmp_path / "nowhere")
    with pytest.raises(RMRError, match=r"no encoder of Enduro .*encoder train --game Enduro`"):
        RMRObservationWrapper(gym.make("ALE/Enduro-v5"))
    envs = SyncVectorEnv([lambda: Screens((84, 84), np.uint8)])
    with pytest.raises(RMRError, match=r"found uint8 of shape \(84, 84\), and no emulator"):
        RMRVectorObservation(envs, encoder)


def short(steps, **options):
    return lambda: TimeLimit(PairedAtariEnv("Pong", **options), steps)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_equals_single_environments(encoder, mode, beside_singles):
    """Environments of unequal length, so that some begin anew while others go on."""
    lengths, options = (
        (3, 5, 4),
        {"keep": ("ram",), "history": 2, "output": "lookahead", "ahead": 2},
    )
    envs = SyncVectorEnv([short(steps) for steps in lengths], autoreset_mode=mode)
    envs = RMRVectorObservation(envs, encoder, **options)
    singles = [RMRObservationWrapper(short(steps)(), encoder, **options) for steps in lengths]
    for shown, alone in beside_singles(envs, singles, mode):
        check(shown, alone)
    envs.close()


def check(shown, alone):
    assert np.array_equal(shown["ram"], alone["ram"])
    np.testing.assert_allclose(shown["features"], alone["features"], **CLOSE)


def check_rows(rows, alone):
    for i, single in enumerate(alone):
        check({name: entry[i] for name, entry in rows.items()}, single)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_our_own_vector(encoder, mode):
    envs = gym.make_vec(
        "rmr/Pong-v0", 2, workers=0, pixels="palette", autoreset_mode=mode, max_episode_steps=3
    )
    envs = RMRVectorObservation(envs, encoder, output="frames", history=2, strict=True)
    single = RMRObservationWrapper(gym.make("rmr/Pong-v0"), encoder, output="frames", history=2)
    first = single.reset(seed=0)[0]
    assert np.array_equal(envs.reset(seed=0)[0][0], first)
    alone = [single.step(2)[0] for _ in range(3)]
    seen = [envs.step(np.full(2, 2)) for _ in range(4)]
    assert all(np.array_equal(seen[i][0][0], alone[i]) for i in range(2))
    if mode == "SameStep":
        assert np.array_equal(seen[2][4]["final_obs"][0], alone[2])
        assert np.array_equal(seen[2][0][0], first)
    else:
        assert np.array_equal(seen[2][0][0], alone[2])
        assert np.array_equal(seen[3][0][0], first)


def test_an_object_is_neither_moved_nor_trained(encoder):
    given = make_encoder()
    env = RMRObservationWrapper(gym.make("rmr/Pong-v0"), given)
    before = env.reset(seed=0)[0]
    with torch.no_grad():
        given.encoder.project.bias += 1
    assert np.array_equal(env.reset(seed=0)[0], before)


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_reads_its_own_emulator(encoder, twin_of):
    env = RMRObservationWrapper(MAKERS["ram"](), encoder)
    env.reset(seed=0)
    twin = twin_of(env)
    twin.reset(seed=0)
    for action in (2, 3, 3, 3):
        shown = twin.step(action)[0]
    assert np.allclose(shown, expected(encoder, twin), **CLOSE)


FORKED = """
import gymnasium as gym, torch
from rmr_gym.wrappers.features import RMRObservationWrapper

def wrapped(env):
    return RMRObservationWrapper(env, "pong")

if __name__ == "__main__":
    torch.set_num_threads(2)
    wrapped(gym.make("rmr/Pong-v0")).reset(seed=0)
    envs = gym.make_vec("rmr/Pong-v0", 2, vectorization_mode="async", wrappers=[wrapped])
    envs.reset(seed=0)
    assert envs.step([2, 3])[0].shape == (2, 128, 64)
    envs.close()
"""


def test_forked_processes_do_not_hang_where_torch_ran_several_threads(tmp_path):
    (tmp_path / "forked.py").write_text(FORKED)
    environment = {**os.environ, "PYTHONPATH": str(Path(rmr_gym.__file__).parents[1])}
    environment |= {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, str(tmp_path / "forked.py")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        assert process.wait(timeout=120) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


class Stacked(gym.ObservationWrapper):
    """Shows the last three gray screens as channels, as wrappers of other packages do."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gym.spaces.Box(0, 255, (210, 160, 3), np.uint8)

    def observation(self, observation):
        return np.repeat(observation[..., None], 3, axis=2)


def test_stacked_gray_frames_are_not_taken_for_colours(encoder):
    gray = gym.make("ALE/Pong-v5", obs_type="grayscale", **SAME)
    with pytest.raises(RMRError, match="expected colours, found three channels around a picture"):
        RMRObservationWrapper(Stacked(gray), encoder)
    RMRObservationWrapper(Stacked(gray), encoder, pixels="rgb")
    RMRObservationWrapper(PairedObservation(gray, pixels="rgb"), encoder)


class Three(gym.ActionWrapper):
    """NOOP, UP, DOWN."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(3)

    def action(self, action):
        return [0, 2, 5][action]


class Hidden(gym.Wrapper):
    """Chooses among actions of its own, and tells nobody which."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(3)

    def step(self, action):
        return self.env.step([0, 2, 5][action])


def test_p_is_given_what_an_action_wrapper_presses(encoder):
    env = RMRObservationWrapper(Three(gym.make("rmr/Pong-v0")), encoder, output="processed")
    env.reset(seed=0)
    for action, pressed in ((1, "UP"), (2, "DOWN"), (0, "NOOP")):
        shown = env.step(action)[0]
        assert np.allclose(shown, expected(encoder, env, ACTION_NAMES.index(pressed)), **CLOSE)


def test_p_is_given_no_action_whose_name_is_hidden(encoder):
    with pytest.raises(RMRError, match="discrete actions with ALE's names"):
        RMRObservationWrapper(Hidden(gym.make("rmr/Pong-v0")), encoder, output="processed")
    RMRObservationWrapper(Hidden(gym.make("rmr/Pong-v0")), encoder)


def test_actions_have_names_in_every_kind_of_vector():
    makers = [lambda: Three(gym.make("rmr/Pong-v0")), lambda: Hidden(gym.make("rmr/Pong-v0"))]
    for make, names in zip(makers, (("NOOP", "UP", "DOWN"), None), strict=True):
        for kind in (SyncVectorEnv, AsyncVectorEnv, DummyVecEnv):
            envs = kind([make])
            assert action_names(envs) == names
            envs.close()
    assert action_names(gym.make("ALE/Pong-v5"))[2] == "RIGHT"
    assert action_names(gym.make_vec("rmr/Pong-v0", 2, workers=0)) == ACTION_NAMES
    assert action_names(gym.make("CartPole-v1")) is None
    assert action_names(gym.wrappers.StickyAction(gym.make("rmr/Pong-v0"), 0.5)) == ACTION_NAMES


@torch.no_grad()
def test_a_look_ahead_has_a_row_for_each_action_of_the_environment():
    """The minimal actions of Pong are numbered otherwise than P's, and there are six of them."""
    encoder, held = make_encoder(), 3
    inner = gym.make("ALE/Pong-v5", repeat_action_probability=0.0)
    env = RMRObservationWrapper(inner, encoder, "lookahead", ahead=held)
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (128 + 6, 4), np.float32)
    env.reset(seed=0)
    seen = env.step(2)[0]
    slots = torch.from_numpy(expected(encoder, env))[None]
    assert np.array_equal(seen[:128], slots[0])
    for row, name in zip(seen[128:], inner.unwrapped.get_action_meanings(), strict=True):
        action = torch.tensor([ACTION_NAMES.index(name)])
        after = encoder.processor(slots, action)
        for _ in range(held - 1):
            after = encoder.processor(after * (slots.norm() / after.norm()), action)
        np.testing.assert_allclose(row, after[0].mean(0), **CLOSE)
    assert len({row.tobytes() for row in seen[128:]}) == 6


def test_looking_one_step_ahead_is_what_p_makes_of_the_slots(encoder):
    made = {
        output: RMRObservationWrapper(gym.make("rmr/Pong-v0"), encoder, output)
        for output in ("processed", "lookahead")
    }
    for env in made.values():
        env.reset(seed=0)
    for action in (3, 11):
        seen = {output: env.step(action)[0] for output, env in made.items()}
        after = seen["processed"].mean(0)
        np.testing.assert_allclose(seen["lookahead"][128 + action], after, **CLOSE)
