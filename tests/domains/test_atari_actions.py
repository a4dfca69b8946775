import ale_py
import gymnasium as gym
import numpy as np
import pytest

from rmr_gym.core.actions import ACTION_NAMES, ale_actions
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.atari import AtariModel, load_abstract, load_natural
from rmr_gym.stages.belief import recorded_episodes
from rmr_gym.stages.games import GameData
from rmr_gym.wrappers import RecordTransitions

gym.register_envs(ale_py)


class Hidden(gym.Wrapper):
    """Chooses among actions of its own, and tells nobody which."""

    def __init__(self, env):
        super().__init__(env)
        self.action_space = gym.spaces.Discrete(3)

    def step(self, action):
        return self.env.step([0, 2, 5][action])


def recorded(env, path, episodes=1):
    env = RecordTransitions(env, path)
    for seed in range(episodes):
        env.reset(seed=seed)
        for action in range(int(env.action_space.n)):
            env.step(action)
    env.close()
    return TransitionDataset(path)


def test_p_learns_what_the_actions_of_a_smaller_set_press(tmp_path):
    dataset = recorded(gym.make("ALE/Pong-v5"), tmp_path / "pong")
    names = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    assert dataset.manifest.action_names == names
    wanted = [ACTION_NAMES.index(name) for name in names]
    assert load_abstract(dataset, [0]).action.tolist() == wanted
    assert load_natural(dataset, [0], 84, 84).action.tolist() == wanted


def test_a_belief_is_told_what_the_actions_of_a_smaller_set_press(tmp_path):
    dataset = recorded(gym.make("ALE/Pong-v5"), tmp_path / "pong", episodes=2)
    data = GameData("Pong", tmp_path / "pong", train_episodes=1, validation_episodes=1)
    pressed = load_abstract(dataset, [0]).action.tolist()
    assert recorded_episodes(data, "training", AtariModel(height=84, width=84)).action.tolist() == [
        0,
        *pressed,
    ]


def test_every_action_of_our_games_is_what_it_was(tmp_path):
    dataset = recorded(gym.make("rmr/Pong-v0"), tmp_path / "pong")
    assert load_abstract(dataset, [0]).action.tolist() == list(range(18))


def test_actions_without_names_are_refused(tmp_path):
    dataset = recorded(Hidden(gym.make("rmr/Pong-v0")), tmp_path / "pong")
    assert dataset.manifest.action_names is None
    for load in (load_abstract, lambda *given: load_natural(*given, 84, 84)):
        with pytest.raises(RMRError, match="found none: record the game again"):
            load(dataset, [0])


def test_names_that_are_not_ales_are_refused():
    assert np.array_equal(ale_actions(["FIRE", "NOOP"], ""), [1, 0])
    with pytest.raises(RMRError, match=r"found \['no-op', 'push right'\]: do this"):
        ale_actions(["no-op", "push right"], "do this")
