import os
import re
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


def test_importing_the_package_takes_at_most_a_twelfth_longer_than_gymnasium(tmp_path):
    """Both from bytecode, as users import them, which the first of the runs writes."""
    cached = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    shares = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import gymnasium, rmr_gym"],
            capture_output=True,
            text=True,
            check=True,
            env=cached,
        )
        lines = re.findall(r"(\d+) \| (gymnasium|rmr_gym)$", done.stderr, re.MULTILINE)
        times = {name: int(time) for time, name in lines}
        shares.append(times["rmr_gym"] / times["gymnasium"])
    assert min(shares[1:]) <= 1 / 12


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
    import rmr_gym.wrappers
    from rmr_gym.wrappers.views import PairedObservation

    assert rmr_gym.wrappers.PairedObservation is PairedObservation
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = rmr_gym.wrappers.Nonsense


def test_the_version_is_that_of_the_project():
    project = Path(rmr_gym.__file__).parents[1] / "pyproject.toml"
    assert rmr_gym.__version__ == tomllib.loads(project.read_text())["project"]["version"]


def test_extras_name_what_features_of_others_need():
    """RecordVideo, HumanRendering and SB3's bars import these, and say so where they are not."""
    project = Path(rmr_gym.__file__).parents[1] / "pyproject.toml"
    extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
    for extra, package in (("video", "moviepy"), ("window", "pygame-ce"), ("bars", "tqdm")):
        assert any(line.startswith(package) for line in extras[extra])
    page = (project.parent / "docs" / "getting_started.md").read_text()
    assert all(f"| `{extra}` |" in page for extra in extras.keys() - {"test", "dev"})


@pytest.mark.filterwarnings("ignore:.*HumanRendering wrapper is being applied")
@pytest.mark.parametrize("env_id", ["rmr/Pong-v0", "rmr/BouncingBalls-v0"])
def test_a_window_without_pygame_says_what_to_install(env_id, monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    env = gym.make(env_id, render_mode="human", disable_env_checker=True)
    with pytest.raises(gym.error.DependencyNotInstalled, match="pygame is not installed"):
        env.reset(seed=0)


def test_loggers_of_agents_leave_nothing_behind(tmp_path_factory):
    from stable_baselines3.common.logger import configure

    made = Path(configure(format_strings=[""]).get_dir())
    assert tmp_path_factory.getbasetemp() in made.parents
