"""The chain stage by stage: what one command writes, the next one reads."""

import json

import gymnasium as gym
import pytest

from rmr_gym.commands import stages as commands
from rmr_gym.commands.agent import AGENT
from rmr_gym.commands.console import carry_out
from rmr_gym.core.errors import RMRError
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import read_artifact
from rmr_gym.stages.natural import kept_encoder
from rmr_gym.wrappers import RMRObservationWrapper


@pytest.fixture
def run(tiny, recorded):
    """Carry a command out on the data set of Pong."""
    common = ["--preset", "tiny", "--root", str(tiny["root"])]

    def command(name, *arguments, game="Pong"):
        data = ["--data", str(recorded(game))]
        words = [*common, *data, *map(str, arguments)]
        if name == "probe":
            carry_out(commands.Probe, words, "rmr-gym probe")
        else:
            getattr(commands, name)(words)

    return command


@pytest.fixture
def processor(run, tmp_path, capsys):
    run("pretrain", "--out", tmp_path / "p")
    printed = capsys.readouterr().out
    assert "copy" in printed
    assert "mpnn" in printed
    return tmp_path / "p"


@pytest.fixture
def encoder(run, processor, tmp_path):
    run("train", "--processor", processor, "--arm", "rmr", "--out", tmp_path / "e")
    return tmp_path / "e"


def test_train_writes_what_probe_wrappers_and_agents_read(run, encoder, game, chain, capsys):
    read = PretrainedEncoder.from_pretrained(encoder)
    artifact = chain.compute(game.trained("rmr", 0))
    last = kept_encoder(game.preset.model, artifact, 4)
    assert parameter_hash(read.encoder) == parameter_hash(last)
    assert read.processor is not None
    assert parameter_hash(read.processor) == artifact.record["processor_hash"]["after"]
    assert read.provenance["training"]["step"] == 4
    assert "Slot encoder of Pong" in read.card()
    run("probe", "--encoder", encoder)
    printed = capsys.readouterr().out
    scores = chain.compute(game.probed(game.trained("rmr", 0))).record["rows"]
    ridge = next(row for row in scores if row["step"] == 4 and row["probe"] == "ridge")
    assert f"{ridge['micro_f1']:.4f}" in printed
    assert f"{ridge['effective_rank']:.4f}" in printed


def test_wrappers_agents_and_show_read_the_folder(run, encoder, processor, capsys, tmp_path):
    env = RMRObservationWrapper(gym.make("rmr/Pong-v0"), encoder, output="processed")
    assert env.reset(seed=0)[0].shape == (128, 4)
    small = ("--steps", "8", "--checkpoints", "1", "--max-steps", "4", "--out", str(tmp_path / "a"))
    chosen = ("train", "--game", "Pong", "--encoder", str(encoder))
    carry_out(AGENT, [*chosen, *small], "rmr-gym agent")
    assert (tmp_path / "a" / "000000008" / "policy.safetensors").is_file()
    capsys.readouterr()
    carry_out(commands.ENCODER, ["show", str(encoder)], "rmr-gym encoder")
    assert "# Slot encoder of Pong" in capsys.readouterr().out
    carry_out(commands.ENCODER, ["show", str(processor)], "rmr-gym encoder")
    printed = capsys.readouterr().out
    assert "P of Pong, without an encoder: `rmr-gym train --processor" in printed
    assert "copy" in printed
    with pytest.raises(RMRError, match="holds a P and no encoder"):
        RMRObservationWrapper(gym.make("rmr/Pong-v0"), processor)


def test_a_checkpoint_an_arm_and_changed_settings(run, tmp_path):
    run("train", "--arm", "no_p", "--step", 2, "--natural.batch", 6, "--out", tmp_path / "e")
    read = PretrainedEncoder.from_pretrained(tmp_path / "e")
    assert read.provenance["training"]["step"] == 2
    assert read.provenance["training"]["arm"] == "no_p"
    assert read.config.core == "none"
    run("pretrain", "--model.dim", 6, "--seed", 1, "--out", tmp_path / "p")
    record = read_artifact(tmp_path / "p").record
    assert (record["kind"], record["game"], record["model"]["dim"]) == ("processor", "Pong", 6)
    run("train", "--processor", tmp_path / "p", "--out", tmp_path / "wide")
    wide = PretrainedEncoder.from_pretrained(tmp_path / "wide")
    assert wide.config.dim == 6, "sizes are those of the P"


def test_a_store_finds_what_another_command_computed(run, processor, tmp_path, monkeypatch):
    from rmr_gym.stages.natural import pretrain

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(pretrain, "function", fail)
    run("pretrain", "--out", tmp_path / "again")
    one, two = (read_artifact(folder).record for folder in (processor, tmp_path / "again"))
    assert one == two


def test_an_encoder_of_another_game_is_warned_of_and_strict_refuses(run, encoder, capsys, caplog):
    run("probe", "--encoder", encoder, game="Breakout")
    printed = capsys.readouterr()
    warning = "this encoder was trained on Pong, the data are of Breakout"
    assert warning in caplog.text
    assert "ridge" in printed.out
    with pytest.raises(RMRError, match=f"{warning}: choose an encoder of Breakout"):
        run("probe", "--encoder", encoder, "--strict", game="Breakout")


def test_nothing_is_overwritten_unless_it_is_asked_for(run, processor, encoder):
    files = (processor / "record.json", encoder / "config.json")
    before = [path.read_bytes() for path in files]
    for command, out in (("pretrain", processor), ("train", encoder)):
        with pytest.raises(RMRError, match="exists already: choose another one or replace it"):
            run(command, "--out", out, "--seed", 1)
    assert before == [path.read_bytes() for path in files]
    run("pretrain", "--out", processor, "--seed", 1, "--force")
    assert (processor / "record.json").read_bytes() != before[0]
    assert json.loads((processor / "record.json").read_bytes())["kind"] == "processor"


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("probe", ("--encoder", "p"), "holds no pretrained encoder|expected the folder of a"),
        ("train", ("--processor", "e", "--out", "z"), r"holds no"),
        ("train", ("--processor", "nowhere", "--out", "z"), r"holds no record\.json"),
        ("train", ("--arm", "rnr", "--out", "z"), "did you mean 'rmr'"),
        ("train", ("--step", "3", "--out", "z"), r"expected one of the checkpoints \[2, 4\]"),
        ("pretrain", ("--model.core", "mpn", "--out", "z"), "did you mean 'mpnn'"),
        ("pretrain", ("--device", "tpu", "--out", "z"), "tpu"),
        ("pretrain", ("--recording.train-episodes", "40", "--out", "z"), "42"),
    ],
)
def test_bad_input(run, processor, encoder, monkeypatch, tmp_path, command, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RMRError, match=message):
        run(command, *arguments)
    assert not (tmp_path / "z").exists()
