import copy
import json
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace

import ale_py
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import AtariPreprocessing, TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.atari_wrappers import MaxAndSkipEnv
from stable_baselines3.common.env_util import make_vec_env

import rmr_gym  # noqa: F401  (registers the environments)
from rmr_gym.core.errors import RMRError
from rmr_gym.data.sampling import ram_to_bits
from rmr_gym.domains.atari import frame_transform
from rmr_gym.models.pretrained import WEIGHTS, BeliefConfig, EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.wrappers.features import (
    RMRBeliefWrapper,
    RMRObservationWrapper,
    RMRVectorBelief,
)

gym.register_envs(ale_py)
SAME = {"repeat_action_probability": 0.0, "full_action_space": True}
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
CONFIG = BeliefConfig("Pong", dim=4, rank=3, core="mpnn")


def make_belief(config=CONFIG):
    """A reader and a P of random numbers, in which frames, actions and the past all count."""
    generator = torch_generator(0)
    reader, carried = config.encoder(), build(config.processor, generator)
    reader.pixels.random_(-127, 128, generator=generator)
    reader.along.normal_(0, 0.002, generator=generator)
    reader.offset.normal_(0, 0.1, generator=generator)
    reader.mean.uniform_(generator=generator)
    carried.fusion.weight.normal_(0, 1, generator=generator)
    carried.fusion.trust.normal_(0, 1, generator=generator)
    return PretrainedEncoder(config, reader, carried, {"training": {"arm": "belief", "step": 0}})


@pytest.fixture(scope="module")
def belief():
    return make_belief()


@pytest.fixture(scope="module")
def folder(belief, tmp_path_factory):
    return belief.save_pretrained(tmp_path_factory.mktemp("beliefs") / "pong_belief")


@torch.no_grad()
def evidence(belief, env):
    screen = env.unwrapped.ale.getScreen()[None]
    return belief.encoder(torch.from_numpy(frame_transform(84, 84)(screen)))


def shown(log_odds):
    return torch.sigmoid(log_odds)[0].numpy()


MAKERS = {
    "pair": lambda: gym.make("rmr/Pong-v0"),
    "pair of palette": lambda: gym.make("rmr/Pong-v0", pixels="palette"),
    "rgb": lambda: gym.make("ALE/Pong-v5", **SAME),
    "ram": lambda: gym.make("ALE/Pong-v5", obs_type="ram", **SAME),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_it_is_the_filter_from_the_ram_of_the_reset(kind, belief):
    env = RMRBeliefWrapper(MAKERS[kind](), belief)
    assert env.observation_space == gym.spaces.Box(0, 1, (128, 8), np.float32)
    now, _ = env.reset(seed=0)
    bits = ram_to_bits(env.unwrapped.ale.getRAM()[None])
    np.testing.assert_allclose(now, bits[0], atol=2e-4)
    past = alone = torch.from_numpy(bits).float() * 20 - 10
    for age, action in enumerate((2, 3, 17), 1):
        now, *_ = env.step(action)
        assert now in env.observation_space
        given = torch.tensor([action]), evidence(belief, env), torch.tensor([age])
        with torch.no_grad():
            past, alone = belief.processor(past, alone, *given)
        np.testing.assert_allclose(now, shown(past), **CLOSE)
    assert not np.array_equal(now > 0.5, ram_to_bits(env.unwrapped.ale.getRAM()) > 0)
    np.testing.assert_allclose(env.reset(seed=0)[0], bits[0], atol=2e-4)


def test_evidence_is_what_the_frame_tells_without_a_past(belief):
    env = RMRBeliefWrapper(gym.make("rmr/Pong-v0"), belief, output="evidence")
    assert env.observation_space == gym.spaces.Box(0, 1, (128, 8), np.float32)
    now, _ = env.reset(seed=0)
    for action in (2, 3, 17):
        told = (belief.encoder.mean + evidence(belief, env)).clamp(0, 1)
        np.testing.assert_allclose(now, told[0], **CLOSE)
        now, *_ = env.step(action)
    assert now.std() > 0.1


def test_a_reader_of_three_frames_sees_the_last_three_and_begins_anew():
    belief = make_belief(replace(CONFIG, instants=3))
    env = RMRBeliefWrapper(gym.make("rmr/Pong-v0"), belief)
    for _ in range(2):
        env.reset(seed=0)
        frames = [frame_transform(84, 84)(env.unwrapped.ale.getScreen()[None])[0]] * 3
        ram = ram_to_bits(env.unwrapped.ale.getRAM()[None])
        past = alone = torch.from_numpy(ram).float() * 20 - 10
        for age, action in enumerate((2, 3, 0, 5), 1):
            now, *_ = env.step(action)
            screen = env.unwrapped.ale.getScreen()[None]
            frames = [*frames[1:], frame_transform(84, 84)(screen)[0]]
            with torch.no_grad():
                seen = belief.encoder(torch.from_numpy(np.concatenate(frames)[None]))
                given = torch.tensor([action]), seen, torch.tensor([age])
                past, alone = belief.processor(past, alone, *given)
            np.testing.assert_allclose(now, shown(past), **CLOSE)


def test_frame_action_and_past_all_count(belief):
    env = RMRBeliefWrapper(gym.make("rmr/Pong-v0"), belief)
    env.reset(seed=0)
    np.testing.assert_array_equal(env.step(0)[0], (env.reset(), env.step(0))[1][0])
    one, other = ((env.reset(), env.step(action))[1][0] for action in (0, 2))
    assert not np.allclose(one, other)
    later = RMRBeliefWrapper(gym.make("rmr/Pong-v0"), belief, start="unknown")
    later.reset(seed=0)
    assert not np.allclose(one, later.step(0)[0])


def test_an_unknown_start_is_read_off_the_first_frame_and_no_ram_is_looked_at(belief):
    class Sealed(gym.ObservationWrapper):
        """Shows pixels alone."""

        def __init__(self, env):
            super().__init__(env)
            self.observation_space = env.observation_space["pixels"]

        def observation(self, observation):
            return observation["pixels"]

    env = RMRBeliefWrapper(Sealed(gym.make("rmr/Pong-v0")), belief, start="unknown")
    read = evidence(belief, (env.reset(seed=0), env)[1]) + belief.encoder.mean
    expected = read.clamp(1e-4, 1 - 1e-4)[0].numpy()
    np.testing.assert_allclose(env.reset(seed=0)[0], expected, **CLOSE)


def test_latents_are_the_slots_of_the_probabilities(belief):
    made = [
        RMRBeliefWrapper(gym.make("rmr/Pong-v0"), belief, output=output, history=2, keep=("ram",))
        for output in ("bits", "latents")
    ]
    bits, latents = ((env.reset(seed=0), env.step(3))[1][0] for env in made)
    assert latents["features"].shape == (2, 128, 4)
    assert latents in made[1].observation_space
    with torch.no_grad():
        slots = belief.processor.pipeline.encoder(torch.from_numpy(bits["features"]))
    np.testing.assert_allclose(latents["features"], slots, **CLOSE)


def short(steps):
    return lambda: TimeLimit(gym.make("rmr/Pong-v0"), steps)


@pytest.mark.parametrize("start", ["known", "unknown"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_vector_equals_single_environments(belief, mode, start, beside_singles):
    """Episodes of 3, 4 and 5 steps end at different times."""
    lengths = (3, 4, 5)
    envs = SyncVectorEnv([short(steps) for steps in lengths], autoreset_mode=mode)
    envs = RMRVectorBelief(envs, belief, start=start)
    singles = [RMRBeliefWrapper(short(steps)(), belief, start=start) for steps in lengths]
    for shown, alone in beside_singles(envs, singles, mode):
        np.testing.assert_allclose(shown, alone, **CLOSE)


def test_our_own_vector_and_options_of_a_reset(belief):
    envs = gym.make_vec("rmr/Pong-v0", 2, workers=0, pixels="palette", max_episode_steps=3)
    envs = RMRVectorBelief(envs, belief, output="latents")
    assert envs.reset(seed=0, options={})[0].shape == (2, 128, 4)
    assert envs.step(np.full(2, 2))[0] in envs.observation_space


def test_agents_of_stable_baselines_learn_on_it(folder):
    venv = make_vec_env(
        "rmr/Pong-v0", 2, wrapper_class=RMRBeliefWrapper, wrapper_kwargs={"encoder": str(folder)}
    )
    agent = PPO("MlpPolicy", venv, n_steps=4, batch_size=8, n_epochs=1, device="cpu").learn(8)
    assert agent.predict(venv.reset())[0].shape == (2,)
    venv.close()


def test_checker_and_spec(folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(infinity|unwrapped version|unconventional).*")
        env = gym.make("rmr/Pong-v0", max_episode_steps=8)
        check_env(RMRBeliefWrapper(env, folder), skip_render_check=True)
    env = RMRBeliefWrapper(gym.make("rmr/Pong-v0"), folder, start="unknown", history=2)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert isinstance(again, RMRBeliefWrapper)
    for one, two in ((env.reset(seed=4), again.reset(seed=4)), (env.step(3), again.step(3))):
        np.testing.assert_array_equal(one[0], two[0])


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_begins_from_its_own_ram(belief, twin_of):
    env = RMRBeliefWrapper(MAKERS["ram"](), belief)
    env.reset(seed=0)
    twin = twin_of(env)
    expected = ram_to_bits(twin.reset(seed=0)[1] and twin.unwrapped.ale.getRAM()[None])
    np.testing.assert_allclose(twin.reset(seed=0)[0], expected[0], atol=2e-4)


@pytest.mark.parametrize(
    ("make", "frames"),
    [
        (lambda: gym.make("rmr/Pong-v0", frameskip=2), 2),
        (lambda: gym.make("ALE/Pong-v5", frameskip=1, **SAME), 1),
        (lambda: gym.make("PongNoFrameskip-v4"), 1),
        (lambda: MaxAndSkipEnv(gym.make("ALE/Pong-v5", **SAME), 4), 16),
        (
            lambda: AtariPreprocessing(
                gym.make("ALE/Pong-v5", frameskip=1, **SAME), noop_max=0, frame_skip=3
            ),
            3,
        ),
    ],
)
def test_steps_of_another_length_are_refused(belief, make, frames):
    with pytest.raises(RMRError, match=f"steps of 4 frames, the environment's have {frames}: make"):
        RMRBeliefWrapper(make(), belief)


def test_steps_of_the_length_that_wrappers_make_are_taken(belief):
    inner = gym.make("ALE/Pong-v5", frameskip=1, **SAME)
    RMRBeliefWrapper(AtariPreprocessing(inner, noop_max=0, frame_skip=4), belief).reset(seed=0)
    with pytest.raises(RMRError, match="have 2: make"):
        RMRVectorBelief(gym.make_vec("rmr/Pong-v0", 1, workers=0, frameskip=2), belief)


class Screens(gym.Env):
    """An environment without an emulator that tells neither game nor actions."""

    observation_space = gym.spaces.Box(0, 255, (210, 160), np.uint8)
    action_space = gym.spaces.Discrete(2)


class Blind(Screens):
    observation_space = gym.spaces.Box(0, 255, (128,), np.uint8)


def test_bad_input(belief, tmp_path):
    pong = gym.make("rmr/Pong-v0")
    with pytest.raises(RMRError, match="trained on Pong, the environment plays Bre"):
        RMRBeliefWrapper(gym.make("rmr/Breakout-v0"), belief)
    with pytest.raises(RMRError, match="a game that it does not name"):
        RMRBeliefWrapper(Screens(), belief, strict=True)
    with pytest.raises(RMRError, match="no belief of an unnamed game comes with"):
        RMRBeliefWrapper(Screens())
    with pytest.raises(RMRError, match="expected whole screens"):
        RMRBeliefWrapper(Blind(), belief)
    with pytest.raises(RMRError, match=r"actions with ALE's names.*P must know what is pressed"):
        RMRBeliefWrapper(Screens(), belief, start="unknown")
    with pytest.raises(RMRError, match="actions with ALE's names"):
        RMRBeliefWrapper(gym.make("ALE/Pong-v5", continuous=True), belief)
    with pytest.raises(RMRError, match="expected RAM to begin from"):
        RMRVectorBelief(gym.make_vec("ALE/Pong-v5", 1, vectorization_mode="sync"), belief)
    with pytest.raises(RMRError, match="unknown start 'now'"):
        RMRBeliefWrapper(pong, belief, start="now")
    with pytest.raises(RMRError, match="unknown output 'slots'"):
        RMRBeliefWrapper(pong, belief, output="slots")
    with pytest.raises(RMRError, match=r"expected a belief, found .* 'rmr_gym encoder'"):
        RMRBeliefWrapper(pong, "pong")
    with pytest.raises(RMRError, match=r"expected an encoder, found .* 'rmr_gym belief'"):
        RMRObservationWrapper(pong, belief)
    with pytest.raises(RMRError, match="rmr-gym encoder train --game Enduro --arm belief`"):
        RMRBeliefWrapper(gym.make("ALE/Enduro-v5"))
    with pytest.raises(RMRError, match="use RMRVectorBelief"):
        RMRBeliefWrapper(gym.make_vec("rmr/Pong-v0", 1, workers=0), belief)
    env = RMRBeliefWrapper(pong, belief)
    env.reset()
    with pytest.raises(RMRError, match="expected an action"):
        env.step(None)


NUMBER_FOR_AN_ARTIFACT = """
import gymnasium as gym
import rmr_gym
from rmr_gym.core.errors import RMRError
from rmr_gym.wrappers import features

for kind in (features.RMRBeliefWrapper, features.RMRObservationWrapper):
    try:
        kind(gym.make("rmr/Pong-v0"), 5)
    except RMRError as error:
        assert "or a PretrainedEncoder, found 5: give one of these" in str(error)
    else:
        raise AssertionError("5 was taken")
"""


def test_what_is_no_artifact_is_refused_where_no_types_are_checked():
    subprocess.run([sys.executable, "-c", NUMBER_FOR_AN_ARTIFACT], check=True)


@pytest.mark.parametrize("vector", [False, True])
def test_no_ops_at_resets_shift_the_steps_that_a_belief_knows_which_is_told(belief, vector):
    make, wrap = (gym.make_vec, RMRVectorBelief) if vector else (gym.make, RMRBeliefWrapper)
    with pytest.warns(UserWarning, match="after up to 8 frames without input"):
        wrap(make("rmr/Pong-v0", noop_max=8), belief)


def test_damaged_artifacts(folder, tmp_path):
    def altered(change):
        belief = make_belief()
        change(belief)
        return belief.save_pretrained(tmp_path / "altered", overwrite=True)

    with pytest.raises(RMRError, match=r"numbers that are not finite, in encoder\.along"):
        PretrainedEncoder.from_pretrained(altered(lambda b: b.encoder.along.fill_(float("nan"))))
    written = altered(lambda b: b.encoder.float())
    content = bytearray((written / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (written / WEIGHTS).write_bytes(content)
    with pytest.raises(RMRError):
        PretrainedEncoder.from_pretrained(written)
    record = json.loads((folder / "config.json").read_text())
    for name, value in (("rank", 4), ("dim", 8), ("height", 42)):
        config = json.loads(json.dumps(record))
        config["config"][name] = value
        (written / "config.json").write_text(json.dumps(config))
        (written / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
        with pytest.raises(RMRError, match=r"does not fit config\.json"):
            PretrainedEncoder.from_pretrained(written)
    for wrong in ({"core": None}, {"core": "gru"}, {"frameskip": 0}, {"rank": 0}, {"instants": 0}):
        with pytest.raises(RMRError):
            replace(CONFIG, **wrong).processor()
    assert EncoderConfig("Pong").kind != CONFIG.kind
