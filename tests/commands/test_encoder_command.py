import pytest
import torch

from rmr_gym.commands import encoder as commands
from rmr_gym.core.errors import RMRError
from rmr_gym.models import pretrained as artifacts
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol import stages
from rmr_gym.protocol.config import PRESETS
from rmr_gym.protocol.stages import GameTask


@pytest.fixture
def run(recorded, tiny_preset, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "smoke", tiny_preset)
    monkeypatch.setattr(artifacts, "SHIPPED", tmp_path / "shipped")
    common = ["--preset", "smoke", "--data", str(recorded("Pong")), "--root", str(tmp_path)]

    def command(*arguments):
        commands.app.cli(args=["export", "--game", "pong", *common, *arguments], prog="encoder")

    return command


def test_it_writes_what_the_comparison_trained(run, recorded, tiny_preset, tmp_path):
    run("--arm", "rmr", "--seed", "1")
    read = PretrainedEncoder.from_pretrained(tmp_path / "encoders" / "Pong-rmr-1-4")
    task = GameTask("Pong", recorded("Pong"), tmp_path / "store", tiny_preset)
    trained = stages.trained_encoders(task, "rmr", 1)
    last = stages.kept_encoder(task, 1, trained, 4)
    assert parameter_hash(read.encoder) == parameter_hash(last)
    assert read.processor is not None
    assert parameter_hash(read.processor) == trained.record["processor_hash"]["after"]
    fingerprint = stages.open_episodes(task).dataset.fingerprint
    assert read.provenance["data"]["fingerprint"] == fingerprint
    assert read.provenance["training"]["step"] == 4
    metrics = read.provenance["metrics"]
    assert metrics[0]["probe"] == "ridge"
    first = {row["features"]: row["micro_f1"] for row in reversed(metrics)}
    assert {"this encoder", "untrained encoder", "pixels through PCA"} == set(first)
    of_untrained = stages.probed(task, stages.untrained_encoder(task, 1)).record["rows"][0]
    assert first["untrained encoder"] == of_untrained["micro_f1"] != first["this encoder"]
    assert "micro_f1" in (tmp_path / "encoders" / "Pong-rmr-1-4" / "README.md").read_text()


def test_other_arms_and_checkpoints(run, recorded, tiny_preset, tmp_path):
    run("--arm", "shuffled_p", "--step", "2", "--out", str(tmp_path / "s"))
    shuffled = PretrainedEncoder.from_pretrained(tmp_path / "s")
    task = GameTask("Pong", recorded("Pong"), tmp_path / "store", tiny_preset)
    hashes = stages.trained_encoders(task, "shuffled_p", 0).record["processor_hash"]
    assert shuffled.processor is not None
    assert parameter_hash(shuffled.processor) == hashes["after"]
    run("--arm", "untrained", "--out", str(tmp_path / "u"))
    untrained = PretrainedEncoder.from_pretrained(tmp_path / "u")
    assert untrained.processor is None
    weight = stages.untrained_encoder(task, 0).project.weight
    assert torch.equal(untrained.encoder.project.weight, weight)
    assert untrained.encoder.mean_frame.std() > 0


def test_an_encoder_of_an_aligned_start_keeps_its_affine_maps(run, recorded, tiny_preset, tmp_path):
    run("--objective", "infonce_aligned", "--out", str(tmp_path / "a"))
    read = PretrainedEncoder.from_pretrained(tmp_path / "a")
    preset = tiny_preset.with_objective("infonce_aligned")
    task = GameTask("Pong", recorded("Pong"), tmp_path / "store", preset)
    last = stages.kept_encoder(task, 0, stages.trained_encoders(task, "rmr", 0), 4)
    assert parameter_hash(read.encoder) == parameter_hash(last)
    assert read.config.affine


def test_shipping_listing_showing(run, tmp_path, capsys):
    run("--ship")
    assert PretrainedEncoder.from_pretrained("pong").config.game == "Pong"
    with pytest.raises(RMRError, match="exists already"):
        run("--ship")
    run("--ship", "--force")
    capsys.readouterr()
    commands.app.cli(args=["list"], prog="encoder")
    assert "pong" in capsys.readouterr().out
    commands.app.cli(args=["show", "pong"], prog="encoder")
    assert "Slot encoder of Pong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arm", "rmrr"), "did you mean 'rmr'"),
        (("--step", "3"), r"expected a checkpoint of \[2, 4\] as step, found 3"),
        (("--ship", "--out", "x"), "either --out or --ship"),
        (("--preset", "smok"), "did you mean 'smoke'"),
        (("--game", "breakout"), "Pong"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_bad_input(run, arguments, message):
    with pytest.raises(RMRError, match=message):
        run(*arguments)
