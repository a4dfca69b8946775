import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import rmr_gym  # noqa: F401
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.balls.env import BouncingBallsEnv
from rmr_gym.models.pretrained import BallsEncoderConfig, EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.wrappers.features import RMRObservationWrapper, RMRVectorObservation
from rmr_gym.wrappers.screens import PictureReader

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def make_encoder(game="BouncingBalls", core="mpnn"):
    sizes = {"resolution": 16, "slots": 3, "dim": 8, "slot_dim": 8, "channels": 4}
    config, generator = BallsEncoderConfig(game, core=core, **sizes), torch_generator(0)
    processor = build(config.processor, generator) if core else None
    return PretrainedEncoder(config, build(config.encoder, generator), processor)


@pytest.fixture(scope="module")
def encoder():
    return make_encoder()


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    return encoder.save_pretrained(tmp_path_factory.mktemp("encoders") / "balls")


class Picture(gym.ObservationWrapper):
    """Shows the picture alone."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = env.observation_space["pixels"]

    def observation(self, observation):
        return observation["pixels"]


@torch.no_grad()
def expected(encoder, pictures, processed=False):
    """What encoder and P make of the last three pictures, the first one repeated if need be."""
    last = ([pictures[0]] * 2 + pictures)[-3:]
    clip = np.concatenate([picture.transpose(2, 0, 1) for picture in last])
    slots = encoder.encoder(torch.from_numpy(clip)[None])
    return (encoder.processor(slots) if processed else slots)[0].numpy()


@pytest.mark.parametrize("alone", [False, True])
def test_three_pictures_go_in_and_no_earlier_episode(encoder, alone):
    inner = gym.make("rmr/BouncingBalls-v0", balls=2, resolution=16)
    inner = Picture(inner) if alone else inner
    env = RMRObservationWrapper(inner, encoder, strict=True)
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (3, 8), np.float32)
    source = gym.make("rmr/BouncingBalls-v0", balls=2, resolution=16)
    for seed in (0, 1):
        seen, pictures = env.reset(seed=seed)[0], [source.reset(seed=seed)[0]["pixels"]]
        for _ in range(4):
            np.testing.assert_array_equal(seen, expected(encoder, pictures))
            seen = env.step(0)[0]
            pictures.append(source.step(0)[0]["pixels"])
    assert not np.array_equal(expected(encoder, pictures), expected(encoder, pictures[-1:]))


def test_outputs_and_what_is_kept(encoder):
    def made(output, **options):
        env = gym.make("rmr/PushedBalls-v0", resolution=16)
        return RMRObservationWrapper(env, make_encoder("PushedBalls"), output, **options)

    kept = {"keep": ("pixels", "state"), "history": {"features": 2}}
    outputs = ("slots", "flat", "processed", "lookahead", "frames")
    envs = {output: made(output) for output in outputs}
    envs["kept"] = made("slots", **kept)
    envs["two"] = made("frames", history=2)
    seen = {name: env.reset(seed=0)[0] for name, env in envs.items()}
    pictures = [seen["kept"]["pixels"]]
    for action in (1, 3, 2):
        assert np.array_equal(seen["processed"], expected(encoder, pictures, processed=True))
        assert np.array_equal(seen["flat"], seen["slots"].ravel())
        both = np.concatenate([seen["slots"], seen["processed"]])
        np.testing.assert_allclose(seen["lookahead"], both, **CLOSE)
        assert np.array_equal(seen["kept"]["features"][1], seen["slots"])
        assert np.array_equal(seen["frames"][-3:], pictures[-1].transpose(2, 0, 1))
        assert np.array_equal(seen["two"][9:], seen["frames"])
        for name, env in envs.items():
            assert seen[name] in env.observation_space
        before = seen
        seen = {name: env.step(action)[0] for name, env in envs.items()}
        pictures.append(seen["kept"]["pixels"])
        assert np.array_equal(seen["two"][:9], before["frames"])
        assert np.array_equal(seen["kept"]["features"][0], before["slots"])
    assert envs["frames"].observation_space.shape == (9, 16, 16)


@pytest.mark.parametrize(("size", "target"), [(64, 32), (48, 16), (48, 32)])
def test_larger_pictures_are_shrunk_to_what_is_drawn_small(size, target):
    def drawn(resolution):
        env = gym.make("rmr/BouncingBalls-v0", resolution=resolution)
        return env.observation_space, env.reset(seed=3)[0]

    space, observation = drawn(size)
    batch = {name: np.stack([entry, entry]) for name, entry in observation.items()}
    batch["pixels"][1] = 255
    shrunk = PictureReader(space, target)(batch)
    assert shrunk.shape == (2, 3, target, target)
    assert (shrunk[1] == 255).all()
    assert shrunk[0].mean() == pytest.approx(observation["pixels"].mean(), abs=0.2)
    if size % target == 0:
        small = drawn(target)[1]["pixels"].transpose(2, 0, 1).astype(int)
        assert np.abs(shrunk[0] - small).max() <= 1
    if size == 2 * target:
        blocks = observation["pixels"].reshape(target, 2, target, 2, 3).astype(int).sum((1, 3))
        assert np.array_equal(shrunk[0].transpose(1, 2, 0), (blocks + 2) // 4)


@pytest.mark.parametrize("output", ["processed", "frames"])
@pytest.mark.parametrize("name", ["rmr/BouncingBalls-v0", "rmr/PushedBalls-v0"])
def test_both_checkers(folder, name, output):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(infinity|unwrapped version|unconventional).*")
        warnings.filterwarnings("ignore", message=".*(was trained on|minimal resolution).*")
        env = gym.make(name, max_episode_steps=5)
        check_env(RMRObservationWrapper(env, folder, output), skip_render_check=True)
        sb3_check_env(RMRObservationWrapper(gym.make(name), folder, output))


def test_the_spec_rebuilds_it_even_from_json(folder):
    inner = gym.make("rmr/BouncingBalls-v0", balls=3)
    env = RMRObservationWrapper(inner, folder, "processed", keep=("state",), strict=True)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.observation_space == env.observation_space
    for one, two in ((env.reset(seed=4), again.reset(seed=4)), (env.step(0), again.step(0))):
        assert all(np.array_equal(one[0][name], two[0][name]) for name in ("features", "state"))


def short(steps):
    return lambda: TimeLimit(BouncingBallsEnv(balls=2, resolution=16), steps)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_equals_single_environments(encoder, mode):
    """Episodes of unequal length: those that begin anew remember nothing, the others all."""
    lengths, options = (3, 5), {"history": 2, "output": "processed"}
    envs = SyncVectorEnv([short(steps) for steps in lengths], autoreset_mode=mode)
    envs = RMRVectorObservation(envs, encoder, **options)
    singles = [RMRObservationWrapper(short(steps)(), encoder, **options) for steps in lengths]
    seen, _ = envs.reset(seed=0)
    alone, over = [env.reset(seed=i)[0] for i, env in enumerate(singles)], np.zeros(2, bool)
    for _ in range(9):
        np.testing.assert_allclose(seen, np.stack(alone), **CLOSE)
        if mode is AutoresetMode.DISABLED and over.any():
            seen, _ = envs.reset(options={"reset_mask": over.copy()})
            alone = [env.reset()[0] if over[i] else alone[i] for i, env in enumerate(singles)]
            over[:] = False
            continue
        seen, _, _, truncated, infos = envs.step(np.zeros(2, int))
        for i, env in enumerate(singles):
            if mode is AutoresetMode.NEXT_STEP and over[i]:
                alone[i] = env.reset()[0]
                continue
            alone[i], _, _, ends, _ = env.step(0)
            if mode is AutoresetMode.SAME_STEP and ends:
                np.testing.assert_allclose(infos["final_obs"][i], alone[i], **CLOSE)
                alone[i] = env.reset()[0]
        over = truncated
    envs.close()


def test_our_own_vector(encoder):
    options = {"balls": 3, "resolution": 32}
    envs = gym.make_vec("rmr/PushedBalls-v0", 2, threads=1, max_episode_steps=2, **options)
    envs = RMRVectorObservation(envs, make_encoder("PushedBalls"), "processed", strict=True)
    single = gym.make("rmr/PushedBalls-v0", **options)
    single = RMRObservationWrapper(single, make_encoder("PushedBalls"), "processed")
    np.testing.assert_allclose(envs.reset(seed=6)[0][1], single.reset(seed=7)[0], **CLOSE)
    for _ in range(2):
        np.testing.assert_allclose(envs.step(np.array([0, 2]))[0][1], single.step(2)[0], **CLOSE)
    begun = envs.step(np.zeros(2, int))[0]
    np.testing.assert_allclose(begun[1], single.reset()[0], **CLOSE)


class Pictures(gym.Env):
    """An environment that shows some array."""

    action_space = gym.spaces.Discrete(2)

    def __init__(self, shape, dtype=np.uint8):
        self.observation_space = gym.spaces.Box(0, 255, shape, dtype)

    def reset(self, *, seed=None, options=None):
        return np.zeros((5, 5, 3), np.uint8), {}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((16, 16, 3), np.float32),
        ((16, 16, 1), np.uint8),
        ((3, 16, 16), np.uint8),
        ((16, 20, 3), np.uint8),
        ((8, 8, 3), np.uint8),
        ((16, 16), np.uint8),
    ],
)
def test_pictures_that_do_not_fit(encoder, shape, dtype):
    with pytest.raises(RMRError, match=r"16 x 16 x 3 or larger, .* found \w+ of shape"):
        RMRObservationWrapper(Pictures(shape, dtype), encoder)


def test_bad_input(encoder):
    pong = EncoderConfig("Pong", dim=2)
    pong = PretrainedEncoder(pong, build(pong.encoder, torch_generator(0)))
    balls = gym.make("rmr/BouncingBalls-v0")
    with pytest.raises(RMRError, match="around bouncing balls, take an encoder of them"):
        RMRObservationWrapper(balls, pong)
    for name in ("rmr/Pong-v0", "ALE/Pong-v5"):
        with pytest.raises(RMRError, match=r"on bouncing balls, found uint8 of shape \(210"):
            RMRObservationWrapper(gym.make(name), encoder)
    with pytest.raises(RMRError, match=r"found uint8 .* take an encoder of the game"):
        RMRVectorObservation(gym.make_vec("rmr/Pong-v0", 1, workers=0), encoder)
    with pytest.raises(RMRError, match=r"found uint8 of shape \(64, 64, 1\)"):
        RMRObservationWrapper(gym.make("rmr/RNEMBalls4-v0"), encoder)
    with pytest.warns(UserWarning, match="on BouncingBalls, the environment plays PushedBalls"):
        RMRObservationWrapper(gym.make("rmr/PushedBalls-v0"), encoder)
    with pytest.raises(RMRError, match="environment plays PushedBalls"):
        RMRObservationWrapper(gym.make("rmr/PushedBalls-v0"), encoder, strict=True)
    with pytest.raises(RMRError, match="found one without"):
        RMRObservationWrapper(balls, make_encoder(core=None), "processed")
    with pytest.raises(RMRError, match="does not keep to its observation space"):
        RMRObservationWrapper(Pictures((16, 16, 3)), encoder).reset()
