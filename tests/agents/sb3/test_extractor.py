from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv

import rmr_gym  # noqa: F401
from rmr_gym.agents.sb3.policies import RMRFeaturesExtractor
from rmr_gym.core.errors import RMRError
from rmr_gym.models.pretrained import EncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.wrappers.features import RMRObservationWrapper

PPO_OF = partial(PPO, "CnnPolicy", n_steps=8, batch_size=8, n_epochs=2, device="cpu", seed=0)
DQN_OF = partial(
    DQN, "CnnPolicy", buffer_size=64, learning_starts=4, train_freq=4, batch_size=4,
    target_update_interval=2, tau=0.01, device="cpu", seed=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder():
    config, generator = EncoderConfig("Pong", dim=4, core="deep_sets"), torch_generator(0)
    made = build(config.encoder, generator)
    made.standardise_by(torch.full((84, 84), 90.0), 30.0)
    return PretrainedEncoder(config, made, build(config.processor, generator))


def frames(encoder, history=2):
    env = TimeLimit(gym.make("rmr/Pong-v0", noop_max=5), 12)
    return RMRObservationWrapper(env, encoder, output="frames", history=history)


def vector(encoder):
    return DummyVecEnv([lambda: frames(encoder)] * 2)


def policy_of(encoder, **options):
    return {
        "features_extractor_class": RMRFeaturesExtractor,
        "features_extractor_kwargs": {"encoder": encoder, **options},
    }


def extractors(agent):
    return [part for part in agent.policy.modules() if isinstance(part, RMRFeaturesExtractor)]


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("make", [PPO_OF, DQN_OF])
@pytest.mark.parametrize("mode", ["frozen", "fine_tuned", "from_scratch"])
def test_what_learns_and_what_does_not(encoder, make, mode):
    agent = make(env=vector(encoder), policy_kwargs=policy_of(encoder, mode=mode))
    before = [state(part) for part in extractors(agent)]
    same = parameter_hash(extractors(agent)[0].encoder) == parameter_hash(encoder.encoder)
    assert same == (mode != "from_scratch"), "the policy must not draw pretrained weights anew"
    agent.learn(32)
    for part, then in zip(extractors(agent), before, strict=True):
        moved = {
            name for name, now in part.state_dict().items() if not torch.equal(now, then[name])
        }
        assert not moved & {"encoder.mean_frame", "encoder.deviation"}
        assert ("encoder.project.weight" in moved) == (mode != "frozen")
        assert ("encoder.trunk.0.weight" in moved) == (mode != "frozen")
    sizes = [p.shape for group in agent.policy.optimizer.param_groups for p in group["params"]]
    assert (encoder.encoder.slot_maps.weight.shape in sizes) == (mode != "frozen")
    if mode == "frozen":
        assert not list(extractors(agent)[0].parameters())
        assert not extractors(agent)[0].encoder.training


@pytest.mark.parametrize("make", [PPO_OF, DQN_OF])
@pytest.mark.parametrize("mode", ["frozen", "fine_tuned"])
def test_a_saved_agent_continues_bit_equal(encoder, make, mode, tmp_path):
    """Learn on twice from the same file; the artifact need not be there any more."""
    agent = make(env=vector(encoder), policy_kwargs=policy_of(encoder, mode=mode))
    agent.learn(16)
    agent.save(tmp_path / "agent.zip")
    if make is DQN_OF:
        agent.save_replay_buffer(tmp_path / "buffer.pkl")
    ends = []
    for _ in range(2):
        env = vector(encoder)
        env.seed(5)
        again = type(agent).load(tmp_path / "agent.zip", env=env, device="cpu")
        assert parameter_hash(again.policy) == parameter_hash(agent.policy)
        if make is DQN_OF:
            again.load_replay_buffer(tmp_path / "buffer.pkl")
        again.set_random_seed(7)
        again.learn(16, reset_num_timesteps=False)
        ends.append(parameter_hash(again.policy))
    assert ends[0] == ends[1]
    assert ends[0] != parameter_hash(agent.policy)


def test_saved_by_path_it_needs_the_artifact(encoder, tmp_path):
    folder = encoder.save_pretrained(tmp_path / "encoder")
    agent = PPO_OF(env=vector(encoder), policy_kwargs=policy_of(str(folder)))
    agent.save(tmp_path / "agent.zip")
    loaded = PPO.load(tmp_path / "agent.zip", device="cpu")
    assert parameter_hash(loaded.policy) == parameter_hash(agent.policy)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(RMRError, match="found neither at"):
        PPO.load(tmp_path / "agent.zip", device="cpu")


def test_bytes_stay_bytes_and_reach_the_encoder_unchanged(encoder):
    env = frames(encoder)
    agent = DQN_OF(env=env, policy_kwargs=policy_of(encoder))
    agent.learn(8)
    stored = agent.replay_buffer.observations
    assert stored.dtype == np.uint8
    assert stored.shape[2:] == (2, 84, 84)
    every = torch.arange(256, dtype=torch.uint8).repeat(56)[: 2 * 84 * 84].reshape(1, 2, 84, 84)
    extractor = extractors(agent)[0]
    seen = agent.policy.extract_features(every, extractor)
    expected = encoder.encoder(every.reshape(2, 84, 84)).reshape(1, -1)
    assert torch.equal(seen, expected)
    unscaled = RMRFeaturesExtractor(env.observation_space, encoder, scaled=False)
    assert torch.equal(unscaled(every.float()), expected)


def test_scratch_follows_the_seed_of_torch(encoder):
    space = frames(encoder).observation_space
    hashes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made = RMRFeaturesExtractor(space, encoder, mode="from_scratch")
        hashes.append(parameter_hash(made.encoder))
        assert torch.equal(made.encoder.mean_frame, encoder.encoder.mean_frame)
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (gym.spaces.Box(0, 255, (1, 84, 84), np.uint8), {"mode": "freeze"}, "did you mean 'frozen"),
        (gym.spaces.Box(0, 1, (1, 84, 84), np.float32), {}, "expected frames of bytes"),
        (gym.spaces.Box(0, 255, (84, 84, 1), np.uint8), {}, "expected frames of bytes"),
        (gym.spaces.Box(0, 255, (1, 64, 64), np.uint8), {}, r"\[frames, 84, 84\]"),
        (gym.spaces.Discrete(3), {}, "expected frames of bytes"),
    ],
)
def test_bad_input(encoder, space, options, message):
    with pytest.raises(RMRError, match=message):
        RMRFeaturesExtractor(space, encoder, **options)
