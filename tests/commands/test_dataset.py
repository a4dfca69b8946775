from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rmr_gym.commands.console import carry_out
from rmr_gym.commands.dataset import DATASET
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.data.schema import ColumnSpec, Episode, Manifest, step_columns
from rmr_gym.data.writer import DatasetWriter

MANIFEST = Manifest(
    observations=(ColumnSpec("pixels", "uint8", (70, 60)), ColumnSpec("state", "float32", (2,))),
    steps=step_columns(spaces.Discrete(5)),
    env_id="rmr/Nowhere-v0",
    env_kwargs={"n": 3},
    heads=("left", "right"),
    settings={"seed": 0},
    versions={"gymnasium": "1.4.0"},
)


def made(index: int, number: int, length: int = 6) -> Episode:
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (length + 1, 70, 60), dtype=np.uint8)
    pixels[3] = pixels[1]
    return Episode(
        index=index,
        seed=number,
        head=MANIFEST.heads[index % 2],
        observations={
            "pixels": pixels,
            "state": rng.normal(size=(length + 1, 2)).astype(np.float32),
        },
        actions=rng.integers(0, 5, length),
        rewards=np.full(length, float(number)),
        terminated=np.arange(length) == length - 1,
        truncated=np.zeros(length, bool),
    )


def written(path: Path, manifest: Manifest, *numbers: int) -> Path:
    with DatasetWriter(path, manifest) as writer:
        for index, number in enumerate(numbers):
            writer.write(made(index, number))
    return path


@pytest.fixture
def recorded(tmp_path) -> Path:
    return written(tmp_path / "recorded", MANIFEST, 1, 2, 3)


@pytest.fixture
def run(capsys):
    """Run a subcommand of the group; what it printed, outputs and notes, in one line of words."""

    def called(*arguments) -> str:
        carry_out(DATASET, [str(argument) for argument in arguments], "rmr-gym dataset")
        printed = capsys.readouterr()
        return " ".join((printed.out + printed.err).split())

    return called


def test_info(run, recorded):
    text = run("info", recorded)
    dataset = TransitionDataset(recorded)
    assert "rmr/Nowhere-v0, 3 episodes by 2 heads, 18 transitions" in text
    assert "pixels uint8[T + 1, 70, 60]" in text
    assert "{'n': 3}" in text
    assert "gymnasium 1.4.0" in text
    assert dataset.fingerprint in text
    assert "lengths 6 to 6, mean 6.0; interrupted 0" in text
    assert f"{dataset.stored_bytes() / 18:.1f} bytes a step, of" in text
    assert "│ left │ 2 │ 12 │ 12.0000 │ 6.0000 │ 18.0000 │" in text.replace("┃", "│")
    assert "being" not in text
    assert "repeated" not in text


def test_info_with_duplicates(run, recorded):
    text = run("info", recorded, "--duplicates")
    assert "│ pixels │ 21 │ 3 │ 3 │ 0 │" in text
    assert "│ state │ 21 │ 0 │ 0 │ 0 │" in text


def test_info_of_an_empty_data_set(run, tmp_path):
    assert "0 episodes by 0 heads" in run("info", written(tmp_path / "empty", MANIFEST))


def test_what_is_not_seen_while_a_recorder_writes_is_said(run, recorded):
    pytest.importorskip("fcntl")
    with DatasetWriter(recorded, MANIFEST) as writer:
        assert "a recorder is writing to" in run("info", recorded)
        writer.write(made(3, 4))
        assert "a recorder is writing to" in run("verify", recorded)
    assert "a recorder is writing to" not in run("verify", recorded)


def test_verify(run, recorded, capsys):
    assert "every episode is whole" in run("verify", recorded)
    (recorded / "episodes" / "000001.h5").unlink()
    path = recorded / "episodes" / "000002.h5"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RMRError, match="damaged or missing episodes: 2; delete"):
        run("verify", recorded)
    named = " ".join(capsys.readouterr().err.split())
    assert "000001.h5 is missing" in named
    assert "episode 2: " in named
    assert "000002.h5 is truncated" in named


def test_export_and_import(run, recorded, tmp_path):
    pytest.importorskip("minari")
    root = tmp_path / "minari"
    export = ("export", recorded, "--to", "minari", "--id", "rmr/balls-v0", "--out", root)
    assert "rmr/balls-v0" in run(*export)
    assert (root / "rmr" / "balls-v0" / "data" / "metadata.json").is_file()
    back = ("import", "--from", "minari", "rmr/balls-v0", tmp_path / "back", "--root", root)
    assert "3 episodes by 2 heads" in run(*back)
    dataset = TransitionDataset(tmp_path / "back", verify=True)
    assert dataset.fingerprint == TransitionDataset(recorded).fingerprint
    with pytest.raises(RMRError, match="exists already: choose another one or replace it"):
        run(*export)
    run(*export, "--force")

    written(tmp_path / "full", replace(MANIFEST, game="Pong"), 9)
    import_ = ("import", "rmr/balls-v0", tmp_path / "full", "--root", root)
    with pytest.raises(RMRError, match="holds another data set"):
        run(*import_)
    assert len(TransitionDataset(tmp_path / "full").episodes) == 1
    run(*import_, "--force")
    assert TransitionDataset(tmp_path / "full").fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "x", "--to", "minary", "--id", "a-v0"),
        ("import", "--from", "minary", "a-v0", "x"),
    ],
)
def test_another_format(run, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RMRError, match="unknown format 'minary': did you mean 'minari'"):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_merge(run, recorded, tmp_path):
    other = replace(MANIFEST, settings={"seed": 1})
    second, third = written(tmp_path / "2", other, 4), written(tmp_path / "3", other, 5, 6)
    out = tmp_path / "out"
    assert "6 episodes by 2 heads" in run("merge", out, recorded, second, third)
    assert [e.seed for e in TransitionDataset(out).episodes] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RMRError, match="holds another data set"):
        run("merge", out, recorded, second)
    assert "4 episodes" in run("merge", out, recorded, second, "--force")
    with pytest.raises(RMRError, match="at least two"):
        run("merge", tmp_path / "new", recorded)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["info", "verify"])
def test_no_data_set(run, tmp_path, command):
    with pytest.raises(RMRError, match="expected a recorded data set in"):
        run(command, tmp_path / "nowhere")


@pytest.mark.parametrize("command", ["info", "verify", "export", "import", "merge"])
def test_help_names_every_argument(run, capsys, command):
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert {"info": "--duplicates", "export": "--id", "import": "--from"}.get(command, "") in text
