import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit
from PIL import Image
from stable_baselines3.common.vec_env import DummyVecEnv

import rmr_gym  # noqa: F401
from rmr_gym.agents.sb3 import agent as training
from rmr_gym.agents.sb3.agent import STRIP, film, returns
from rmr_gym.agents.sb3.policies import RMRFeaturesExtractor
from rmr_gym.agents.sb3.worlds import AgentConfig, RMRVecEnv, make_games
from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.agents import grid
from rmr_gym.models.pretrained import SHIPPED, BallsEncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.wrappers.features import RMRObservationWrapper

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def make_encoder(game="PushedBalls"):
    sizes = {"resolution": 16, "slots": 3, "dim": 8, "slot_dim": 8, "channels": 4}
    config, generator = BallsEncoderConfig(game, core="mpnn", **sizes), torch_generator(0)
    parts = (build(config.encoder, generator), build(config.processor, generator))
    return PretrainedEncoder(config, *parts, {"training": {"arm": "rmr_aligned"}})


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    small = {"ppo": {"n_steps": 4, "batch_size": 8, "n_epochs": 1}}
    small["dqn"] = {"buffer_size": 50, "learning_starts": 4, "batch_size": 4}
    for name, options in small.items():
        monkeypatch.setitem(training.ALGORITHMS, name, (training.ALGORITHMS[name][0], options))


def short(steps):
    return lambda: TimeLimit(gym.make("rmr/PushedBalls-v0", resolution=32), steps)


@pytest.mark.parametrize("output", ["processed", "frames"])
def test_sb3_form_equals_single_environments(output):
    encoder, lengths = make_encoder(), (2, 4)
    venv = RMRVecEnv(DummyVecEnv([short(n) for n in lengths]), encoder, output, strict=True)
    singles = [RMRObservationWrapper(short(n)(), encoder, output) for n in lengths]
    venv.seed(0)
    seen, alone = venv.reset(), [env.reset(seed=i)[0] for i, env in enumerate(singles)]
    for action in (2, 3, 2, 0, 1):
        np.testing.assert_allclose(seen, np.stack(alone), **CLOSE)
        seen, _, dones, infos = venv.step(np.full(2, action))
        for i, env in enumerate(singles):
            alone[i], _, _, truncated, _ = env.step(action)
            assert truncated == dones[i]
            if truncated:
                np.testing.assert_allclose(infos[i]["terminal_observation"], alone[i], **CLOSE)
                alone[i] = env.reset()[0]
    venv.close()


@pytest.mark.parametrize(
    ("features", "algorithm", "shape"),
    [
        ("rmr_aligned", "ppo", (24,)),
        ("rmr_aligned", "dqn", (9, 16, 16)),
        ("rmr_aligned_processed", "ppo", (3, 8)),
        ("rmr_aligned_ahead2", "ppo", (6, 8)),
        ("rmr_aligned_ahead2", "dqn", (6, 8)),
    ],
)
def test_an_agent_of_pushed_balls(features, algorithm, shape, tmp_path):
    encoder = str(make_encoder().save_pretrained(tmp_path / "encoder"))
    settings = {"copies": 2, "max_steps": 6}
    config = AgentConfig("PushedBalls", features, algorithm, encoder, **settings)
    training.train_agent(config, tmp_path / "agent", steps=16, checkpoints=1)
    agent = training.load_agent(tmp_path / "agent")
    assert agent.observation_space.shape == shape
    assert len(returns(config, agent, episodes=2)) == 2
    assert film(tmp_path / "agent", tmp_path / "a.gif", steps=3) == 4
    with Image.open(tmp_path / "a.gif") as drawn:
        assert drawn.size == (480 + 4 + 480 // 3, 480 + (STRIP if algorithm == "ppo" else 0))


@pytest.mark.parametrize("mode", ["frozen", "fine_tuned", "from_scratch"])
def test_the_encoder_inside_of_an_agent(mode):
    encoder = make_encoder()
    made = {
        output: RMRObservationWrapper(short(9)(), encoder, output, history=2)
        for output in ("frames", "slots")
    }
    extractor = RMRFeaturesExtractor(made["frames"].observation_space, encoder, mode)
    assert extractor.features_dim == 2 * 3 * 8
    learns = any(parameter.requires_grad for parameter in extractor.parameters())
    assert learns == (mode != "frozen")
    for env in made.values():
        env.reset(seed=0)
    seen = {output: env.step(1)[0] for output, env in made.items()}
    frames = torch.from_numpy(seen["frames"])[None] / 255
    features = extractor(frames)[0].detach().numpy()
    alike = np.allclose(features, seen["slots"].ravel(), **CLOSE)
    assert alike == (mode != "from_scratch")


def test_frames_that_are_no_whole_clips():
    space = gym.spaces.Box(0, 255, (10, 16, 16), np.uint8)
    with pytest.raises(RMRError, match=r"\[9 x frames, 16, 16\]"):
        RMRFeaturesExtractor(space, make_encoder())


def test_arms_of_balls_come_in_where_their_encoders_were_exported(tmp_path):
    games = ["Pong", "PushedBalls"]

    def found(*features):
        experiment = grid.Agents(features=features, encoders=tmp_path, seeds=1)
        configs = experiment.configs(games)
        return [(config.game, config.features, config.encoder) for config in configs]

    balls = [("PushedBalls", "state", None)]
    assert found("cswm_aligned", "state", "ram") == [*balls, ("Pong", "ram", None)][::-1]
    folder = make_encoder().save_pretrained(tmp_path / "PushedBalls-cswm_aligned-0-5")
    assert ("PushedBalls", "cswm_aligned", str(folder)) in found("cswm_aligned", "state")
    for features in ("rmr_aligned", "rmr_aligned_ahead4", "rmr_aligned_processed"):
        assert found(features) == [("PushedBalls", features, str(SHIPPED / "pushed_balls"))]
    assert ("PushedBalls", "cswm_aligned_ahead1", str(folder)) in found("cswm_aligned_ahead1")
    with pytest.raises(RMRError, match=r"found none: .*`rmr-gym train --arm rmr "):
        grid.encoder_for(tmp_path, "PushedBalls", "rmr", 0)


def test_encoders_of_other_arms_and_worlds(tmp_path):
    folder = str(make_encoder("BouncingBalls").save_pretrained(tmp_path / "encoder"))
    for features, message in (
        ("rmr", "expected an encoder of the arm 'rmr', found one of 'rmr_aligned'"),
        ("supervised", "unknown features of PushedBalls 'supervised': .*choose one of rmr"),
        ("rmr_alined", "did you mean 'rmr_aligned'"),
        ("rmr_aligned_ahed4", "did you mean 'rmr_aligned'"),
        ("rmr_alined_ahead4", "unknown arm with P 'rmr_alined': did you mean 'rmr_aligned'"),
        ("untrained_ahead1", "unknown arm with P 'untrained'"),
        ("state_processed", "unknown arm with P 'state'"),
        ("rmr_aligned_ahead0", "at least 1 as ahead"),
        ("rmr_aligned_ahead17", "expected ahead=1 to 16"),
        ("rmr_ahead1", "expected an encoder of the arm 'rmr', found one of 'rmr_aligned'"),
    ):
        with pytest.raises(RMRError, match=message):
            make_games(
                AgentConfig("PushedBalls", features, encoder=folder), copies=1, learning=True
            )
    with pytest.raises(RMRError, match="expected an encoder with features"):
        AgentConfig("PushedBalls", "cswm_aligned")
    assert AgentConfig("PushedBalls", "rmr_aligned").encoder == "pushed_balls"
    config = AgentConfig("PushedBalls", "rmr_aligned", encoder=folder)
    with pytest.warns(UserWarning, match="on BouncingBalls, the environment plays PushedBalls"):
        make_games(config, copies=1, learning=True).close()
