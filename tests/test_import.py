import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium as gym
import pytest

import rmr_gym
from rmr_gym.envs.atari.games import GAMES

HEAVY = [
    "jaxtyping",
    "torch",
    "mujoco",
    "ale_py",
    "stable_baselines3",
    "matplotlib",
    "h5py",
    "pandas",
    "scipy",
]


def fresh_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(rmr_gym.__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_light_and_silent():
    out = fresh_python(
        "import sys, rmr_gym, rmr_gym.wrappers\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    assert out == ""


def test_the_module_in_an_id_registers_by_itself():
    out = fresh_python(
        "import gymnasium as gym\n"
        "env = gym.make('rmr_gym:rmr/Pong-v0')\n"
        "print(sorted(env.reset(seed=0)[0]))"
    )
    assert out == "['pixels', 'ram']\n"


def test_every_game_is_registered():
    registered = {name for name in gym.registry if name.startswith("rmr/")}
    assert registered >= {game.env_id for game in GAMES.values()}
    assert "rmr/YarsRevenge-v0" in registered
    for game in GAMES.values():
        spec = gym.spec(game.env_id)
        assert spec.max_episode_steps is None
        assert not spec.nondeterministic


def test_registering_twice_changes_nothing():
    from rmr_gym.envs import register_envs

    before = dict(gym.registry)
    register_envs()
    assert gym.registry == before


def test_lazy_names():
    import rmr_gym.envs
    import rmr_gym.wrappers
    from rmr_gym.envs.atari.env import PairedAtariEnv
    from rmr_gym.wrappers.views import PairedObservation

    assert rmr_gym.envs.PairedAtariEnv is PairedAtariEnv
    assert rmr_gym.wrappers.PairedObservation is PairedObservation
    for module in (rmr_gym.envs, rmr_gym.wrappers):
        with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
            _ = module.Nonsense


def test_the_version_is_that_of_the_project():
    project = Path(rmr_gym.__file__).parents[1] / "pyproject.toml"
    assert rmr_gym.__version__ == tomllib.loads(project.read_text())["project"]["version"]
