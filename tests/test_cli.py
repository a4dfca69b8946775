import os
import subprocess
import sys

import pytest

from rmr_gym import cli


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "--games", "Pnog"), "did you mean 'Pong'"),
        (("compare", "--games", "Pong", "pong"), "each game may be named once"),
        (("compare", "--preset", "laptp"), "did you mean 'laptop'"),
        (("compare", "--objective", "cswn"), "did you mean 'cswm'"),
        (("compare", "--seeds", "0"), "seeds must be 1 or more"),
        (("compare", "--device", "cuda:7"), "'cuda:7' is not there: choose one of cpu"),
        (("compare", "--device", "gpu"), "'gpu' is not there"),
        (("demo", "--workers", "0"), "workers must be 1 or more"),
        (("record", "--game", "Brekout", "--out", "x"), "did you mean 'Breakout'"),
        (
            ("record", "--game", "Pong", "--out", "x", "--players", "unifrm"),
            "did you mean 'uniform'",
        ),
        (("record", "--game", "Pong", "--out", "x", "--episodes", "0"), "episodes"),
        (("pretrain", "--data", "nowhere", "--out", "x"), "nowhere"),
        (("probe", "--data", "nowhere", "--encoder", "y"), "y holds no record.json"),
        (("report", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    capsys, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "command", ["record", "pretrain", "train", "probe", "compare", "report", "demo"]
)
def test_help_names_every_option(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert "(default" in capsys.readouterr().out or command == "report"


def test_help_is_light():
    code = (
        "import sys\nfrom rmr_gym import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'mujoco', 'matplotlib', 'ale_py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("arguments", [("--help",), ("policies", "list")])
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


def test_the_chain_stage_by_stage(capsys, monkeypatch, tmp_path, tiny_preset, recorded):
    from rmr_gym.stages import presets as config

    monkeypatch.setitem(config.PRESETS, "tiny", tiny_preset)
    monkeypatch.chdir(tmp_path)
    data = ("--data", str(recorded("Pong")), "--preset", "tiny")
    cli.main(["pretrain", *data, "--out", "p"])
    assert "copy" in capsys.readouterr().out
    cli.main(["train", *data, "--processor", "p", "--arm", "rmr", "--out", "e"])
    cli.main(["probe", *data, "--encoder", "e"])
    assert "ridge" in capsys.readouterr().out
    assert "exists already" in refused(capsys, "pretrain", *data, "--out", "p")
    assert "holds no encoder" in refused(capsys, "probe", *data, "--encoder", "p")
    assert "holds no processor" in refused(capsys, "train", *data, "--processor", "e", "--out", "z")
    assert "did you mean 'rmr'" in refused(capsys, "train", *data, "--arm", "rnr", "--out", "z")
    assert "did you mean 'mpnn'" in refused(
        capsys, "pretrain", *data, "--processor", "mpn", "--out", "z"
    )


def test_an_output_that_cannot_be_written_is_said(capsys, monkeypatch, tmp_path, recorded):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    data = str(recorded("Pong"))
    said = refused(capsys, "pretrain", "--data", data, "--out", "p", "--root", "file/runs")
    assert "cannot write" in said


def test_record_says_what_it_made_and_goes_on(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = ["record", "--game", "pong", "--out", "d", "--max-steps", "20", "--episodes"]
    cli.main([*arguments, "2"])
    assert "2 episodes" in capsys.readouterr().out
    first = {path: path.read_bytes() for path in (tmp_path / "d" / "episodes").iterdir()}
    cli.main([*arguments, "3"])
    assert "3 episodes" in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in first.items())


def test_interrupt_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rmr_gym.agents.record.record", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo"])
    assert stop.value.code == 130
    assert "run the same command again" in " ".join(capsys.readouterr().err.split())
