from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.torch_layers import NatureCNN

from rmr_gym.agents.sb3 import agent as training
from rmr_gym.agents.sb3.policies import POLICY_SIZES, RIMsCore, RIMsPolicy
from rmr_gym.agents.sb3.worlds import AgentConfig, make_games
from rmr_gym.commands import agent as commands
from rmr_gym.commands import experiments
from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.pipeline import build, torch_generator
from rmr_gym.models.world.rims import Reading, RIMSizes

SIZES = RIMSizes(rims=4, active=2, units=5, keys=6, heads=2, message=3, dropout=0.0)
BEGINS = torch.tensor([[0.0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1]]).T
CONFIG = AgentConfig("PushedBalls", "state", "rims_ppo", copies=2, max_steps=6)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    options = {"n_steps": 4, "batch_size": 8, "n_epochs": 1}
    for name in ("recurrent_ppo", "rims_ppo"):
        monkeypatch.setitem(training.ALGORITHMS, name, (RecurrentPPO, options))


@pytest.fixture
def core():
    made = build(lambda: RIMsCore(3, SIZES), torch_generator(0))
    with torch.no_grad():
        for weight in made.cell.attention.parameters():
            weight.mul_(50)  # so that not always the same RIMs are active
    return made


def drawn(*shape):
    return torch.randn(shape, generator=torch_generator(1))


def loop(core, sequence, hidden, memory):
    """One sequence at a time, one step at a time, with new states where an episode begins."""
    shown, active = torch.zeros(7, 3, 20), torch.zeros(7, 3, 4, dtype=torch.bool)
    for n in range(3):
        state = core.cell.init_state(1, torch_generator(2))
        first, kept = (part[0, n].view(1, 4, 5) for part in (hidden, memory))
        state = state._replace(hidden=first, memory=kept)
        for time in range(7):
            if BEGINS[time, n]:
                state = core.cell.init_state(1, torch_generator(2))
            reading = core.cell.read(sequence[time, n].view(1, 1, 3))
            state = core.cell(Reading(*reading), state)
            shown[time, n], active[time, n] = state.hidden.reshape(20), state.active[0]
    return shown, active


def test_a_core_is_a_slow_loop_with_resets(core):
    sequence, hidden, memory = drawn(7, 3, 3), drawn(1, 3, 20), drawn(1, 3, 20) * 2
    fast, (last, _) = core(sequence, (hidden, memory), BEGINS)
    slow, active = loop(core, sequence, hidden, memory)
    torch.testing.assert_close(fast, slow)
    assert torch.equal(last[0], fast[-1])
    assert len(active.view(-1, 4).unique(dim=0)) > 1
    state = (hidden, memory)
    for time in range(7):
        keep = (1 - BEGINS[time])[None, :, None]
        one, state = core(sequence[time, None], (keep * state[0], keep * state[1]))
        torch.testing.assert_close(one[0], fast[time])


def test_rims_that_are_not_active_keep_their_state_to_the_bit(core):
    sequence, state = drawn(1, 8, 3), (drawn(1, 8, 20), drawn(1, 8, 20) * 2)
    _, after = core(sequence, state)
    hidden, memory = (part.view(8, 4, 5) for part in state)
    packed = core.cell.init_state(8, torch_generator(0))._replace(hidden=hidden, memory=memory)
    active = core.cell(core.cell.read(sequence[0, :, None]), packed).active
    for before, now in zip(state, after, strict=True):
        same = (before.view(8, 4, 5) == now.view(8, 4, 5)).all(dim=-1)
        assert torch.equal(same, ~active)


def test_gradients_flow_through_time_but_not_into_the_episode_before(core):
    sequence, zero = drawn(7, 3, 3).requires_grad_(), torch.zeros(1, 3, 20)
    shown, _ = core(sequence, (zero, zero), BEGINS)
    (gradient,) = torch.autograd.grad(shown[-1].square().sum(), sequence)
    reached = gradient.abs().sum(dim=-1).T > 0
    first = [1, 3, 6]
    assert [row.nonzero()[0].item() for row in reached] == first
    weights = torch.autograd.grad(core(sequence, (zero, zero))[0].square().sum(), core.parameters())
    assert all(weight.abs().sum() > 0 for weight in weights)


def policies(*kinds):
    seen, acts = spaces.Box(-1, 1, (512,), np.float32), spaces.Discrete(6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [kind(seen, acts, lambda _: 1e-3) for kind in kinds]


def test_learning_sees_what_playing_did():
    (policy,) = policies(RIMsPolicy)
    seen, zero = drawn(7, 3, 512), torch.zeros(1, 3, 360)
    states, played = RNNStates((zero, zero), (zero, zero)), []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for time in range(7):
            actions, values, chances, states = policy(seen[time], states, BEGINS[time])
            played.append((values[:, 0], chances, actions))
    values, chances, actions = (
        torch.stack(each, 1).flatten() for each in zip(*played, strict=True)
    )
    rows, begins = seen.transpose(0, 1).flatten(0, 1), BEGINS.T.flatten()
    again = policy.evaluate_actions(rows, actions, RNNStates((zero, zero), (zero, zero)), begins)
    torch.testing.assert_close(again[0][:, 0], values)
    torch.testing.assert_close(again[1], chances)


def test_a_core_has_as_many_parameters_as_the_lstm():
    rims, lstm = policies(RIMsPolicy, RecurrentActorCriticPolicy)
    counts = [sum(map(torch.numel, each.lstm_actor.parameters())) for each in (rims, lstm)]
    assert counts == [767_288, 788_480]
    balls = sum(map(torch.numel, RIMsCore(20, POLICY_SIZES).parameters()))
    assert balls == 611_640 + 304 * 20
    assert not torch.equal(
        *(each.cell.attention.key for each in (rims.lstm_actor, rims.lstm_critic))
    )
    held = {id(weight) for group in rims.optimizer.param_groups for weight in group["params"]}
    assert held == {id(weight) for weight in rims.parameters()}


def test_agents_are_kept_and_go_on_bit_for_bit(tmp_path):
    weights = []
    for name in ("a", "b"):
        training.train_agent(CONFIG, tmp_path / name, steps=8, checkpoints=1)
        kept = training.load_agent(tmp_path / name)
        assert isinstance(kept.policy, RIMsPolicy)
        begun = kept.policy.state_dict()
        training.train_agent(CONFIG, tmp_path / name, steps=16, checkpoints=1)
        gone_on = training.load_agent(tmp_path / name)
        assert gone_on.num_timesteps == 16
        weights.append((begun, gone_on.policy.state_dict()))
    for one, other in zip(*weights, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    key = "lstm_critic.cell.dynamics.hidden_weight"
    assert not torch.equal(weights[0][0][key], weights[0][1][key])


def test_a_kept_agent_plays_as_it_did(tmp_path):
    venv = make_games(CONFIG, copies=2, learning=False)
    agent = RecurrentPPO(RIMsPolicy, venv, n_steps=4, batch_size=8, seed=0, device="cpu")
    agent.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent", device="cpu")
    seen, memories = venv.reset(), [None, None]
    for _ in range(3):
        played = [
            each.predict(seen, memory, deterministic=True)
            for each, memory in zip((agent, loaded), memories, strict=True)
        ]
        memories = [memory for _, memory in played]
        assert np.array_equal(*(actions for actions, _ in played))
        assert all(np.array_equal(*each) for each in zip(*memories, strict=True))
        seen, _, _, _ = venv.step(played[0][0])
    assert np.any(memories[0][0])


def test_rims_and_an_lstm_are_compared(tmp_path):
    small = ("--seeds", "1", "--steps", "8", "--checkpoints", "1", "--episodes", "1")
    small += ("--copies", "2", "--max-steps", "5", "--workers", "1", "--out", str(tmp_path))
    chosen = ("--games", "balls", "--features", "state")
    algorithms = ("--algorithms", "recurrent_ppo", "rims_ppo")
    experiments.run(["agents", *chosen, *algorithms, *small, "--root", str(tmp_path / "root")])
    agents = pd.read_csv(tmp_path / "results.csv").query("features == 'state'")
    assert list(agents["algorithm"]) == ["recurrent_ppo", "rims_ppo"]
    pair = pd.read_csv(tmp_path / "agents_pairs.csv").iloc[0]
    assert (pair["algorithm"], pair["second_algorithm"]) == ("recurrent_ppo", "rims_ppo")
    assert (pair["first"], pair["second"], pair["pairs"]) == ("state", "state", 1)


def test_an_agent_with_rims_sees_pictures_and_is_filmed(tmp_path):
    training.train_agent(replace(CONFIG, features="cnn"), tmp_path, steps=8, checkpoints=1)
    policy = training.load_agent(tmp_path).policy
    assert isinstance(policy.features_extractor, NatureCNN)
    commands.enjoy(tmp_path, steps=2)
    assert (tmp_path / "episode.gif").is_file()


@pytest.mark.parametrize("changed", [{"dynamics": "gru"}, {"dropout": 0.1}])
def test_rims_that_are_no_policy(changed):
    with pytest.raises(RMRError, match="dynamics 'lstm' and dropout 0"):
        RIMsCore(3, RIMSizes(**{"dropout": 0.0, **changed}))


def test_wrong_widths(core):
    zero = torch.zeros(1, 2, 20)
    with pytest.raises(RMRError, match=r"expected 3 features and states of 20, got 4"):
        core(torch.zeros(1, 2, 4), (zero, zero))
    with pytest.raises(RMRError, match=r"got 3 and \[10, 10\]"):
        core(torch.zeros(1, 2, 3), (zero[..., :10], zero[..., :10]))
