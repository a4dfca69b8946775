import importlib

import pytest

from rmr_gym import cli
from rmr_gym.commands import doctor as module
from rmr_gym.core.errors import RMRError


def told(capsys, tmp_path, monkeypatch, columns=200):
    monkeypatch.setattr(module.out_console, "_width", columns)
    module.doctor(tmp_path)
    return capsys.readouterr().out


def without(monkeypatch, *missing):
    found = module.installed
    monkeypatch.setattr(
        module, "installed", lambda name: found(name) if name not in missing else None
    )


def row(text, what):
    return next(line for line in text.splitlines() if f"│ {what} " in line)


def test_everything_is_looked_at(capsys, tmp_path, monkeypatch):
    text = told(capsys, tmp_path, monkeypatch)
    for what in ("packages", "compiler", "kernel, cpu", "GPU", "OpenGL", "cores", "free disk"):
        assert row(text, what)
    assert "Python 3." in row(text, "rmr-gym")
    assert "│ ok" in row(text, "store")
    assert not (tmp_path / "store").exists()


def test_what_is_missing_is_told_with_what_it_costs(capsys, tmp_path, monkeypatch):
    without(monkeypatch, "tensorboard")
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(module, "ENOUGH", 10**9)
    text = told(capsys, tmp_path, monkeypatch)
    assert "less" in row(text, "tensorboard")
    assert "No training is logged for TensorBoard. `pip install 'rmr-gym[tensorboard]'`" in text
    assert "less" in row(text, "compiler")
    assert "PyTorch computes the messages of P, on a CPU about 3 times slower." in text
    assert "less" in row(text, "free disk")


@pytest.mark.parametrize("columns", [40, 30])
def test_a_narrow_terminal_loses_no_letter(capsys, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("CXX", "no-such-compiler")
    text = told(capsys, tmp_path, monkeypatch, columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "…" not in text


def test_a_needed_package_of_a_wrong_version_or_that_does_not_load_is_an_error(
    capsys, tmp_path, monkeypatch
):
    found = module.installed
    monkeypatch.setattr(
        module, "installed", lambda name: "1.26" if name == "numpy" else found(name)
    )
    with pytest.raises(RMRError, match="missing or broken, and needed: packages"):
        told(capsys, tmp_path, monkeypatch)
    assert "numpy is 1.26, expected <3,>=2.0" in capsys.readouterr().out

    monkeypatch.undo()
    without(monkeypatch, "scipy")
    with pytest.raises(RMRError, match="packages"):
        told(capsys, tmp_path, monkeypatch)
    assert "scipy is missing, expected" in capsys.readouterr().out

    monkeypatch.undo()
    load = importlib.import_module

    def import_module(name):
        if name in ("cv2", "torch"):
            raise ImportError("libGL.so.1: cannot open shared object file")
        return load(name)

    monkeypatch.setattr(module, "import_module", import_module)
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--root", str(tmp_path)])
    assert stop.value.code == 2
    assert "libGL" in capsys.readouterr().out


def test_a_store_that_cannot_be_written_is_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "access", lambda folder, mode: False)
    with pytest.raises(RMRError, match="needed: store"):
        told(capsys, tmp_path / "new" / "root", monkeypatch)
    assert "choose another folder with --root" in capsys.readouterr().out


def test_kernels_that_are_switched_off_are_told(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RMR_GYM_MESSAGES", "chunked")
    assert "less" in row(told(capsys, tmp_path, monkeypatch), "kernel, cpu")
