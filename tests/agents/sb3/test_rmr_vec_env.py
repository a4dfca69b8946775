import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
)

import rmr_gym  # noqa: F401
from rmr_gym.agents.sb3.worlds import AgentConfig, RMRVecBelief, RMRVecEnv, make_games
from rmr_gym.core.errors import RMRError
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.wrappers.features import RMRBeliefWrapper, RMRObservationWrapper


@pytest.fixture(scope="module")
def encoder():
    config, generator = EncoderConfig("Pong", dim=4, core="deep_sets"), torch_generator(0)
    made = build(config.encoder, generator)
    made.standardise_by(torch.full((84, 84), 90.0), 30.0)
    return PretrainedEncoder(config, made, build(config.processor, generator))


def short(steps):
    return lambda: TimeLimit(gym.make("rmr/Pong-v0", pixels="palette"), steps)


@pytest.mark.parametrize("output", ["processed", "frames"])
def test_it_equals_single_environments(encoder, output):
    lengths, options = (2, 4), {"history": 2, "keep": ("ram",), "output": output}
    venv = RMRVecEnv(DummyVecEnv([short(steps) for steps in lengths]), encoder, **options)
    name = "frames" if output == "frames" else "features"
    singles = [RMRObservationWrapper(short(steps)(), encoder, **options) for steps in lengths]
    seen, alone = venv.reset(), [env.reset()[0] for env in singles]
    for action in (2, 3, 2, 0, 1):
        for i in range(2):
            np.testing.assert_allclose(seen[name][i], alone[i][name], rtol=1e-4, atol=1e-4)
            assert np.array_equal(seen["ram"][i], alone[i]["ram"])
        seen, _, dones, infos = venv.step(np.full(2, action))
        for i, env in enumerate(singles):
            alone[i], _, _, truncated, _ = env.step(action)
            assert truncated == dones[i]
            if truncated:
                last = infos[i]["terminal_observation"]
                np.testing.assert_allclose(last[name], alone[i][name], rtol=1e-4, atol=1e-4)
                assert np.array_equal(last["ram"], alone[i]["ram"])
                alone[i] = env.reset()[0]
    venv.close()


def test_an_agent_learns_on_it(encoder):
    venv = RMRVecEnv(DummyVecEnv([short(6)] * 2), encoder, strict=True)
    agent = PPO("MlpPolicy", venv, n_steps=8, batch_size=8, n_epochs=1, device="cpu")
    agent.learn(16)
    assert agent.rollout_buffer.observations.shape == (16, 128, 4)
    assert agent.rollout_buffer.observations.std() > 0


def test_it_shows_by_default_what_the_wrapper_shows(encoder):
    venv = RMRVecEnv(DummyVecEnv([short(6)]), encoder)
    assert venv.observation_space == RMRObservationWrapper(short(6)(), encoder).observation_space


def test_stacked_gray_frames_are_not_taken_for_colours(encoder):
    gray = DummyVecEnv([lambda: gym.make("ALE/Pong-v5", obs_type="grayscale")] * 2)
    gray = VecFrameStack(VecAddChannel(gray), 3)
    with pytest.raises(RMRError, match="expected colours, found three channels around a picture"):
        RMRVecEnv(gray, encoder)
    balls = DummyVecEnv([lambda: gym.make("rmr/RNEMBalls4-v0")])
    with pytest.raises(RMRError, match="expected colours"):
        RMRVecEnv(VecFrameStack(VecExtractDictObs(balls, "pixels"), 3), encoder)


class VecAddChannel(VecEnvWrapper):
    """Shows gray screens [height, width] as [height, width, 1], as frame stacks want them."""

    def __init__(self, venv):
        super().__init__(venv, gym.spaces.Box(0, 255, (*venv.observation_space.shape, 1), np.uint8))

    def reset(self):
        return self.venv.reset()[..., None]

    def step_wait(self):
        observations, *rest = self.venv.step_wait()
        return observations[..., None], *rest


def test_bad_input(encoder):
    with pytest.raises(RMRError, match="expected a VecEnv of Stable-Baselines3"):
        RMRVecEnv(gym.make("rmr/Pong-v0"), encoder)
    with pytest.warns(UserWarning, match="plays Boxing"):
        RMRVecEnv(DummyVecEnv([lambda: gym.make("rmr/Boxing-v0")]), encoder)
    ram = DummyVecEnv([lambda: gym.make("ALE/Pong-v5", obs_type="ram")])
    with pytest.raises(RMRError, match=r"found uint8 of shape \(128,\)"):
        RMRVecEnv(ram, encoder)


@pytest.mark.parametrize("output", ["bits", "latents", "evidence"])
def test_a_belief_equals_that_of_single_environments(output):
    lengths = (2, 4)
    venv = RMRVecBelief(DummyVecEnv([short(steps) for steps in lengths]), output=output)
    singles = [RMRBeliefWrapper(short(steps)(), output=output) for steps in lengths]
    assert venv.observation_space == singles[0].observation_space
    seen, alone = venv.reset(), [env.reset()[0] for env in singles]
    for action in (2, 3, 2, 0, 1):
        np.testing.assert_allclose(seen, np.stack(alone), atol=1e-4)
        seen, _, dones, infos = venv.step(np.full(2, action))
        for i, env in enumerate(singles):
            alone[i], _, _, truncated, _ = env.step(action)
            assert truncated == dones[i]
            if truncated:
                np.testing.assert_allclose(infos[i]["terminal_observation"], alone[i], atol=1e-4)
                alone[i] = env.reset()[0]
    venv.close()
    with pytest.raises(RMRError, match=r"use RMRVectorBelief; around SB3's, RMRVecBelief"):
        RMRBeliefWrapper(gym.make_vec("rmr/Pong-v0", 1))


@pytest.mark.parametrize(
    ("features", "shape"),
    [("belief", (128, 8)), ("belief_evidence", (128, 8)), ("belief_latents", (128, 64))],
)
def test_agents_see_beliefs_of_the_game(features, shape):
    config = AgentConfig("Pong", features, copies=2)
    assert config.encoder == "pong_belief"
    venv = make_games(config, copies=2, learning=True)
    assert venv.reset().shape == (2, *shape)
    seen, *_ = venv.step(np.zeros(2, np.int64))
    assert seen.shape == (2, *shape)
    venv.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"game": "Seaquest"}, "`rmr-gym encoder train --game Seaquest --arm belief`"),
        ({"game": "PushedBalls"}, "unknown features of PushedBalls 'belief'"),
        ({"game": "Pong", "features": "belief_processed"}, "unknown arm with P 'belief'"),
        ({"game": "Pong", "features": "belief_bits"}, "unknown features of Pong 'belief_bits'"),
    ],
)
def test_beliefs_that_there_are_not(config, message):
    with pytest.raises(RMRError, match=message):
        AgentConfig(**{"features": "belief", **config})


def test_an_encoder_is_no_belief():
    config = AgentConfig("Pong", "belief", encoder="pong", copies=1)
    with pytest.raises(RMRError, match="an encoder of the arm 'belief', found one of 'rmr'"):
        make_games(config, copies=1, learning=False)
