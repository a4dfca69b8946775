import os
import subprocess
import sys
from pathlib import Path

import pytest

import rmr_gym
from rmr_gym import cli
from rmr_gym.data.dataset import TransitionDataset


def exit_code(*arguments):
    try:
        cli.main(arguments)
    except SystemExit as stop:
        return stop.code
    return 0


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rnu", "compare"), "did you mean 'run'"),
        (("run", "comprae"), "did you mean 'compare'"),
        (("run", "compare", "--games", "Pnog"), "did you mean 'Pong'"),
        (("run", "compare", "--games", "Pong", "pong"), "each game may be named once"),
        (("run", "compare", "--preset", "laptp"), "did you mean 'laptop'"),
        (("run", "compare", "--natural.objective", "cswn"), "did you mean 'cswm'"),
        (("run", "compare", "--seeds", "0"), "at least 1 as seeds"),
        (("run", "compare", "--out", "x.csv"), "expected a folder for --out"),
        (("run", "compare", "--device", "cuda:7"), "'cuda:7' is not there: choose one of cpu"),
        (("run", "compare", "--device", "gpu"), "'gpu' is not there"),
        (("run", "compare", "--workers", "0"), "at least 1 as workers"),
        (("record", "--game", "Brekout", "--out", "x"), "did you mean 'Breakout'"),
        (
            ("record", "--game", "Pong", "--out", "x", "--players", "unifrm"),
            "did you mean 'uniform'",
        ),
        (("record", "--game", "Pong", "--out", "x", "--episodes", "0"), "episodes"),
        (("pretrain", "--data", "nowhere", "--out", "x"), "nowhere"),
        (("pretrain", "--data", "nowhere", "--out", "x", "--preset", "somke"), "mean 'smoke'"),
        (("probe", "--data", "nowhere", "--encoder", "./y"), "expected the folder of a pretrained"),
        (("run", "compare", "--data", "nowhere"), "found no folder: make it, or leave --data out"),
        (("encoder", "export", "--game", "Enduroo"), "unknown game 'Enduroo'"),
        (("report", "nowhere"), "nowhere"),
        (("--tensorboard", "logs"), "expected a folder and a command behind --tensorboard"),
        (("--tyro-print-completion", "zhs"), "unknown shell 'zhs': did you mean 'zsh'"),
        (("status", "nowhere"), "nowhere holds no run"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capsys, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_names_every_option(capsys, command):
    assert exit_code(command, "--help") == 0
    assert f"rmr-gym {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("run", "compare"), ("--natural.objective", "--recording.max-steps", "--model.dim")),
        (("run", "transfer"), ("--donors", "--probing.train-rows", "--stack", "--scheduler")),
        (("run", "agents"), ("--algorithms", "--steps")),
        (("pretrain",), ("--data", "--out", "--pretraining.steps", "--force")),
        (("train",), ("--arm", "--processor", "--natural.checkpoints")),
        (("encoder", "export"), ("--game", "--ship", "--natural.cnn")),
    ],
)
def test_help_names_the_options_of_nested_settings_with_what_the_preset_says(
    capsys, arguments, options
):
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in options)


def test_help_shows_what_the_chosen_preset_proposes(capsys):
    for preset, steps in (("smoke", "5 15"), ("laptop", "100 300")):
        with pytest.raises(SystemExit):
            cli.main(["run", "compare", "--preset", preset, "--help"])
        assert f"(default: {steps})" in " ".join(capsys.readouterr().out.split())


def test_the_version_is_told():
    done = subprocess.run(
        [sys.executable, "-m", "rmr_gym", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"rmr-gym {rmr_gym.__version__}\n"


def test_the_module_of_the_command_line_is_the_command_line_too():
    done = subprocess.run(
        [sys.executable, "-m", "rmr_gym.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"rmr-gym {rmr_gym.__version__}\n"


def test_home_is_expanded_behind_an_equals_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    small = ("--game", "Pong", "--episodes", "1", "--max-steps", "2")
    cli.main(["record", *small, "--out=~/d", "--players=uniform"])
    assert TransitionDataset(tmp_path / "home" / "d").episodes
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_script_on_standard_input_starts_workers(tmp_path):
    script = (
        "import gymnasium, rmr_gym\n"
        "rmr_gym.record('Pong', 'd', episodes=2, max_steps=2, workers=2)\n"
        "envs = gymnasium.make_vec('rmr/Pong-v0', 2, workers=2)\n"
        "print(envs.reset(seed=0)[0]['ram'].shape)\n"
        "envs.close()\n"
    )
    place = {**os.environ, "PYTHONPATH": str(Path(rmr_gym.__file__).parents[1])}
    given = {"input": script, "cwd": tmp_path, "env": place, "text": True}
    done = subprocess.run([sys.executable, "-"], capture_output=True, check=False, **given)
    assert done.stdout == "(2, 128)\n", done.stderr
    assert len(TransitionDataset(tmp_path / "d").episodes) == 2


def test_help_is_light():
    code = (
        "import sys\nfrom rmr_gym import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'mujoco', 'matplotlib', 'ale_py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("arguments", [("--help",), ("players", "list")])
def test_an_output_that_its_reader_closes_ends_in_silence(arguments):
    code = f"from rmr_gym import cli; cli.main({arguments})"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_another_broken_pipe_is_not_silenced(monkeypatch):
    def broken(*_):
        raise BrokenPipeError("of a worker")

    monkeypatch.setattr(cli, "_run", broken)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        cli.main([])


def test_an_output_that_cannot_be_written_is_said(capsys, monkeypatch, tmp_path, recorded):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    data = str(recorded("Pong"))
    printed = refused(capsys, "pretrain", "--data", data, "--out", "p", "--root", "file/runs")
    assert "cannot write" in printed


def test_record_says_what_it_made_and_goes_on(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ["record", "--game", "pong", "--out", "d", "--max-steps", "20", "--episodes"]
    cli.main([*arguments, "2"])
    assert "2 episodes" in capsys.readouterr().out
    first = {path: path.read_bytes() for path in (tmp_path / "d" / "episodes").iterdir()}
    cli.main([*arguments, "3"])
    assert "3 episodes" in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in first.items())


def test_a_policy_of_yours_plays(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "def right(screen):\n    assert screen.ndim == 3\n    return 2"
    )
    arguments = ["record", "--game", "Enduro", "--episodes", "1", "--max-steps", "4"]
    cli.main([*arguments, "--policy", "mine:right"])
    assert "Enduro, 1 episode" in capsys.readouterr().out
    dataset = TransitionDataset(tmp_path / "runs" / "data" / "Enduro-1x4")
    assert dataset.episodes[0].head == "right"
    assert dataset.load(("action",))["action"].tolist() == [2] * 4
    message = refused(capsys, *arguments, "--policy", "mine:left")
    assert "expected 'left' in the module 'mine'" in message
    message = refused(capsys, *arguments, "--policy", "mine:right", "--players", "uniform")
    assert "expected players" in message


def test_a_model_of_stable_baselines3_plays(capsys, monkeypatch, tmp_path):
    from stable_baselines3 import PPO

    monkeypatch.chdir(tmp_path)
    PPO("MlpPolicy", "CartPole-v1", n_steps=2, batch_size=2, device="cpu").save("saved.zip")
    (tmp_path / "holds_a_model.py").write_text(
        'from stable_baselines3 import PPO\n\nagent = PPO.load("saved.zip")\n'
    )
    arguments = ["record", "--env", "CartPole-v1", "--episodes=1", "--out=d"]
    cli.main([*arguments, "--policy", "holds_a_model:agent"])
    (episode,) = TransitionDataset(tmp_path / "d").episodes
    assert episode.head == "PPO"
    assert 'agent = PPO.load("model.zip") in mine.py' in refused(
        capsys, *arguments, "--policy", "saved.zip"
    )


def test_interrupt_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rmr_gym.experiments.atari.record", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "compare", "--preset", "smoke"])
    assert stop.value.code == 130
    assert "run the same command again" in " ".join(capsys.readouterr().err.split())


def test_a_shell_completes_commands_experiments_and_their_options(capsys, tmp_path):
    assert not exit_code("--tyro-print-completion", "bash")
    script = tmp_path / "rmr-gym"
    script.write_text(capsys.readouterr().out)
    asked = """source "$1"; shift; COMP_WORDS=(rmr-gym "$@"); COMP_CWORD=$#; COMPREPLY=()
    _tyro_rmr_gym; echo "${COMPREPLY[@]}"
    """

    def completed(*words):
        command = ["bash", "-c", asked, "bash", str(script), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert completed("re") == ["record", "report"]
    assert completed("run", "world") == ["world-models"]
    assert "--natural.objective" in completed("run", "compare", "--nat")
    assert completed("dataset", "ver") == ["verify"]
    assert "--pretraining.steps" in completed("pretrain", "--pre")
