"""The chain in five names: what README shows, and that the commands do the same."""

import subprocess
import sys

import pytest

import rmr_gym
from rmr_gym.core.errors import RMRError
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import read_artifact


@pytest.fixture
def small(tiny):
    return {"preset": "tiny", "root": tiny["root"]}


def test_the_chain(small, recorded, tmp_path):
    data = recorded("Pong")
    processor = rmr_gym.pretrain(data, tmp_path / "p", **small)
    folder = rmr_gym.train(data, tmp_path / "e", processor=processor, **small)
    encoder = rmr_gym.load_encoder(folder)
    hashes = read_artifact(processor).record["processor_hash"]
    assert parameter_hash(encoder.processor) == hashes
    (scores, *_) = rmr_gym.probe(data, folder, **small)
    assert scores["probe"] == "ridge"
    assert 0 < scores["micro_f1"] <= 1
    assert encoder.provenance["metrics"][0]["micro_f1"] == scores["micro_f1"]


def test_settings_have_the_names_of_the_command_line(small, recorded, tmp_path):
    settings = {"model.dim": 6, "natural.checkpoints": (1, 2)}
    folder = rmr_gym.train(
        recorded("Pong"), tmp_path / "e", arm="no_p", settings=settings, step=1, **small
    )
    encoder = rmr_gym.load_encoder(folder)
    assert encoder.config.dim == 6
    assert encoder.provenance["training"]["step"] == 1
    for settings, message in (
        ({"model.dims": 6}, r"did you mean 'model\.dim'"),
        ({"natural.checkpoints": 3}, r"expected a list of its kind for natural\.checkpoints"),
    ):
        with pytest.raises(RMRError, match=message):
            rmr_gym.train(recorded("Pong"), tmp_path / "x", settings=settings, **small)


def test_without_a_folder_it_is_where_agents_look(small, recorded):
    folder = rmr_gym.train(recorded("Pong"), arm="untrained", overwrite=True, **small)
    assert folder == small["root"] / "encoders" / "Pong-untrained-0-0"


def test_what_cannot_be_is_refused_before_anything_is_computed(
    small, recorded, tmp_path, monkeypatch
):
    monkeypatch.setattr("rmr_gym.runs.store.Store.compute", None)
    (tmp_path / "there").mkdir()
    data = recorded("Pong")
    for call, message in (
        (lambda: rmr_gym.pretrain(data, tmp_path / "there", **small), "exists already"),
        (lambda: rmr_gym.train(data, tmp_path / "there", **small), "exists already"),
        (lambda: rmr_gym.train(data, tmp_path / "x", step=3, **small), r"checkpoints \[2, 4\] as"),
        (lambda: rmr_gym.train(data, tmp_path / "x", arm="rnr", **small), "did you mean 'rmr'"),
        (lambda: rmr_gym.train(tmp_path, tmp_path / "x", **small), "expected a recorded data set"),
        (lambda: rmr_gym.probe(data, tmp_path / "no", **small), "expected the folder of a"),
        (lambda: rmr_gym.pretrain(data, "p", preset="smok"), "did you mean 'smoke'"),
    ):
        with pytest.raises(RMRError, match=message):
            call()


def test_episodes_that_are_all_the_same_are_refused_before_training(small, tiny_preset, tmp_path):
    sizes, trained = tiny_preset.recording, []
    data, episodes = tmp_path / "same", sizes.train_episodes + sizes.validation_episodes
    options = {"episodes": episodes, "max_steps": sizes.max_steps}
    rmr_gym.record("Pong", data, policy=lambda seen: 0, **options)
    small |= {"settings": {"probing.train_rows": 10_000}}
    small |= {"progress": lambda *done: trained.append(done)}
    with pytest.raises(RMRError, match="test frames also occur in the training episodes"):
        rmr_gym.train(data, tmp_path / "e", arm="no_p", **small)
    assert not trained


def test_names_are_listed_and_loaded_when_they_are_asked_for():
    assert {"record", "pretrain", "train", "probe", "load_encoder"} <= {*dir(rmr_gym)}
    code = (
        "import sys, rmr_gym\n"
        "assert 'torch' not in sys.modules\n"
        "from rmr_gym import pretrain, train, probe, record, load_encoder\n"
        "assert 'torch' in sys.modules\n"
        "assert 'stable_baselines3' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = rmr_gym.trian
