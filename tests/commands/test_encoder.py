from collections import namedtuple
from dataclasses import replace
from functools import partial
from itertools import chain

import gymnasium
import pytest
import torch

from rmr_gym.commands.console import carry_out
from rmr_gym.commands.stages import ENCODER
from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.belief.grid import Belief
from rmr_gym.models import pretrained as artifacts
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.stages.chain import UNTRAINED
from rmr_gym.stages.natural import kept_encoder
from rmr_gym.stages.presets import AtariPreset
from rmr_gym.wrappers import RMRObservationWrapper
from rmr_gym.wrappers.features import RMRBeliefWrapper


def command(arguments):
    carry_out(ENCODER, arguments, "rmr-gym encoder")


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """Make an encoder of Pong; without --out, below tmp_path."""
    monkeypatch.setattr(artifacts, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr("rmr_gym.commands.stages.SHIPPED", tmp_path / "shipped")
    common = ["--preset", "tiny", "--data", tiny["data"], "--root", tiny["root"]]

    def make(*arguments, name="export"):
        command([name, "--game", "pong", *map(str, (*common, *arguments))])

    return make


@pytest.fixture
def train(run):
    """Make it by `rmr-gym encoder train`."""
    return partial(run, name="train")


def test_it_writes_what_the_comparison_trained(run, game, chain):
    run("--arm", "rmr", "--seed", "1")
    folder = chain.root.parent / "encoders" / "Pong-rmr-1-4"
    read = PretrainedEncoder.from_pretrained(folder)
    trained = chain.compute(game.trained("rmr", 1))
    last = kept_encoder(game.preset.model, trained, 4)
    assert parameter_hash(read.encoder) == parameter_hash(last)
    assert read.processor is not None
    assert parameter_hash(read.processor) == trained.record["processor_hash"]["after"]
    assert read.provenance["data"]["fingerprint"] == game.data.open().dataset.fingerprint
    assert read.provenance["data"]["scored_ram_bytes"] == len(game.data.scored_bytes)
    assert read.provenance["training"]["step"] == 4
    metrics = read.provenance["metrics"]
    assert metrics[0]["probe"] == "ridge"
    first = {row["features"]: row["micro_f1"] for row in reversed(metrics)}
    assert set(first) == {"this encoder", "untrained encoder", "pixels through PCA"}
    untrained = chain.compute(game.scored(UNTRAINED, 1)).record["rows"][0]
    assert first["untrained encoder"] == untrained["micro_f1"] != first["this encoder"]
    assert "micro_f1" in (folder / "README.md").read_text()
    with pytest.raises(RMRError, match="exists already"):
        run("--arm", "rmr", "--seed", "1")


def test_other_arms_and_checkpoints(run, game, chain, tmp_path):
    run("--arm", "shuffled_p", "--step", "2", "--out", tmp_path / "s")
    shuffled = PretrainedEncoder.from_pretrained(tmp_path / "s")
    hashes = chain.compute(game.trained("shuffled_p", 0)).record["processor_hash"]
    assert shuffled.processor is not None
    assert parameter_hash(shuffled.processor) == hashes["after"]
    assert shuffled.provenance["training"]["step"] == 2
    run("--arm", "untrained", "--out", tmp_path / "u")
    untrained = PretrainedEncoder.from_pretrained(tmp_path / "u")
    assert untrained.processor is None
    start = kept_encoder(game.preset.model, chain.compute(game.trained(UNTRAINED, 0)), 0)
    assert torch.equal(untrained.encoder.project.weight, start.project.weight)
    assert untrained.encoder.mean_frame.std() > 0
    run("--arm", "supervised", "--out", tmp_path / "c")
    assert PretrainedEncoder.from_pretrained(tmp_path / "c").processor is None


def test_an_encoder_that_collapsed_is_not_exported(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("rmr_gym.stages.natural.count_dead_slots", lambda encoder, data: 100)
    with pytest.raises(RMRError, match="the encoder of arm 'rmr' collapsed"):
        run("--root", tmp_path / "root", "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_shipping_listing_showing(run, capsys):
    run("--ship")
    assert PretrainedEncoder.from_pretrained("pong").config.game == "Pong"
    with pytest.raises(RMRError, match="exists already"):
        run("--ship")
    run("--ship", "--force")
    capsys.readouterr()
    command(["list"])
    printed = capsys.readouterr().out
    scores = PretrainedEncoder.from_pretrained("pong").provenance["metrics"]
    assert all(f"{row['micro_f1']:.4f}" in printed for row in scores if row["probe"] == "ridge")
    command(["show", "pong"])
    assert "Slot encoder of Pong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arm", "rmrr"), "did you mean 'rmr'"),
        (("--step", "3"), r"expected one of the checkpoints \[2, 4\] as step, got 3"),
        (("--ship", "--out", "x"), "either --out or --ship"),
        (("--preset", "smok"), "did you mean 'smoke'"),
        (("--game", "breakou"), "did you mean 'Breakout'"),
        (("--device", "tpu"), "tpu"),
        (("--seeds", "0"), "at least 1 as seeds"),
        (("--arm", "belief"), "make it with `rmr-gym encoder train`"),
    ],
)
def test_bad_input(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RMRError, match=message):
        run(*arguments)


def test_any_game_of_ale_is_recorded_pretrained_trained_and_probed(train, tmp_path, capsys, caplog):
    folders = ("--data", tmp_path, "--root", tmp_path / "root")
    train("--game", "ALE/Enduro-v5", *folders)
    assert "players without skill play it" in caplog.text
    folder = tmp_path / "root" / "encoders" / "Enduro-rmr-0-4"
    said = capsys.readouterr()
    announced = "about 1 minutes on an idle core at the sizes of the preset laptop, less what"
    assert said.out.index(announced) < said.out.index(f"written: {folder}")
    assert "recording Enduro: 6/6" in said.err
    assert "training Enduro, rmr: 6/6" in said.err
    read = PretrainedEncoder.from_pretrained(folder)
    assert read.config.game == "Enduro"
    assert read.provenance["training"]["objective"] == "infonce"
    assert read.provenance["data"]["players"] == 8
    scores = {row["features"]: row["micro_f1"] for row in read.provenance["metrics"]}
    assert set(scores) == {"this encoder", "untrained encoder", "pixels through PCA"}
    assert all(f"{score:.4f}" in said.out for score in scores.values())
    env = RMRObservationWrapper(gymnasium.make("ALE/Enduro-v5"), folder, strict=True)
    assert env.reset(seed=0)[0].shape == (128, 4)


def test_what_was_stopped_goes_on_where_it_was(train, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rmr_gym.stages.natural.natural.function", stop)
        with pytest.raises(KeyboardInterrupt):
            train("--root", tmp_path)
    assert not (tmp_path / "encoders").exists()
    monkeypatch.setattr("rmr_gym.stages.natural.pretrain.function", stop)
    train("--root", tmp_path)
    assert (tmp_path / "encoders" / "Pong-rmr-0-4" / "config.json").is_file()


def test_all_games_one_by_one(train, two_games, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rmr_gym.experiments.atari.GAMES", ["Pong", "Breakout"])
    every = ("--game", "all", "--arm", "untrained", "--data", two_games)
    with pytest.raises(RMRError, match="expected either --out or --game all, found both"):
        train(*every, "--out", tmp_path / "x")
    train(*every, "--ship")
    assert {path.name for path in (tmp_path / "shipped").iterdir()} == {"pong", "breakout"}
    with pytest.raises(RMRError, match="exists already"):
        train(*every, "--ship")
    train(*every, "--ship", "--force")


def test_a_disk_that_is_too_small_is_refused_first(train, tmp_path, monkeypatch, tiny):
    free = namedtuple("usage", "free")(49e6)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(RMRError, match=r"expected 0\.1 GB of free disk for .*, found 0\.0: make"):
        train("--root", tmp_path / "new" / "root", "--data", tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_is_proposed(tiny):
    trained, exported = (ENCODER[name].proposals("laptop") for name in ("train", "export"))
    compared = AtariPreset.proposals("laptop")
    assert {name: exported[name] for name in compared} == compared
    assert trained["natural"] == replace(compared["natural"], objective="infonce")
    assert trained["pretraining"] == Belief.proposals("laptop")["pretraining"]


def test_data_of_another_game_are_refused(run, recorded, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Pong").symlink_to(recorded("Breakout"))
    with pytest.raises(RMRError, match=r"Pong.*Breakout|Breakout.*Pong"):
        run("--data", tmp_path / "data", "--out", tmp_path / "x")


def test_a_belief_is_made_and_shipped(train, run, tmp_path, capsys):
    sizes = {"horizon": 12, "segment": 12, "tracks": 8, "rounds": 1, "starts": 0, "scored": 12}
    few = ["--labels", 40, *chain(*((f"--belief.{name}", n) for name, n in sizes.items()))]
    train("--arm", "belief", "--seed", "0", "--out", tmp_path / "b", *few)
    read = PretrainedEncoder.from_pretrained(tmp_path / "b")
    assert read.config.kind == "rmr_gym belief"
    assert read.provenance["training"]["labels"] == 40
    env = RMRBeliefWrapper(gymnasium.make("rmr/Pong-v0"), tmp_path / "b")
    assert env.reset(seed=0)[0].shape == (128, 8)
    train("--arm", "belief", "--ship", *few)
    assert (tmp_path / "shipped" / "pong_belief" / "config.json").is_file()
    RMRBeliefWrapper(gymnasium.make("rmr/Pong-v0")).reset(seed=0)
    capsys.readouterr()
    command(["show", "pong_belief"])
    assert "Belief over the RAM of Pong" in capsys.readouterr().out
    command(["list"])
    assert "pong_belief" in capsys.readouterr().out
