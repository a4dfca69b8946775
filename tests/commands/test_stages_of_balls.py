from dataclasses import replace

import pytest
import torch

from rmr_gym.agents.record import record
from rmr_gym.commands.stages import pretrain, train
from rmr_gym.core.errors import RMRError
from rmr_gym.domains.balls import BallsModel
from rmr_gym.experiments.worlds import balls_world
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.runs.store import Store, read_artifact
from rmr_gym.runs.training import Phase
from rmr_gym.stages import balls


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    options = {"balls": 3, "radii": 0.2, "resolution": 16, "max_episode_steps": 20}
    record("rmr/BouncingBalls-v0", path, episodes=4, **options)
    return path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    smoke, phases = balls.BALLS_PRESETS["smoke"], (Phase(1, batch=2),)
    pixels = replace(smoke.pixels, processor=BallsModel(dim=8), decoder_channels=4)
    tiny = replace(
        smoke,
        phases=phases,
        pixels=pixels,
        warm_start=balls.WarmStart(phases),
        prediction=balls.Prediction(phases),
        evaluation=balls.Evaluation(windows=5, horizon=10, frames=5),
    )
    monkeypatch.setitem(balls.BALLS_PRESETS, "smoke", tiny)


def run(command, recorded, tmp_path, *arguments):
    places = ("--data", recorded, "--root", tmp_path / "runs", "--preset", "smoke")
    command([*map(str, (*places, *arguments))])


def test_a_p_is_pretrained_and_scored_beside_the_baselines(recorded, tmp_path, capsys):
    out = tmp_path / "p"
    run(pretrain, recorded, tmp_path, "--out", out, "--model.predict", "position", "--seed", 1)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("simulator", "copy", "reflected", "mpnn"))
    record = read_artifact(out).record
    assert (record["kind"], record["preset"], record["seed"]) == (balls.KIND, "smoke", 1)
    assert record["model"]["predict"] == "position"
    with pytest.raises(RMRError, match="--force"):
        run(pretrain, recorded, tmp_path, "--out", out)
    run(pretrain, recorded, tmp_path, "--out", out, "--force")


def test_encoders_are_written_for_wrappers_with_their_p(recorded, tmp_path, monkeypatch):
    for arm in ("cswm", "untrained"):
        run(train, recorded, tmp_path, "--arm", arm, "--seed", 1)

    def refuse(*arguments, **options):
        raise AssertionError("what is in the store is not trained again")

    monkeypatch.setattr(balls, "train", refuse)
    run(train, recorded, tmp_path, "--arm", "cswm", "--seed", 1, "--out", tmp_path / "encoder")
    preset = balls.BALLS_PRESETS["smoke"]
    world = balls_world(recorded, preset)
    trained = Store(tmp_path / "runs" / "store").compute(world.trained("cswm", 1))
    untrained = balls.frame_pipeline(world.data, preset.pixels, 1)
    learnt = balls.kept_frames(world.data, preset.pixels, trained)
    frames = torch.randint(0, 256, (2, 3, 16, 16, 3))
    channels = frames.to(torch.uint8).permute(0, 1, 4, 2, 3).flatten(1, 2)
    for name, pipeline in (("cswm-1-1", learnt), ("untrained-1-0", untrained)):
        folder = tmp_path / "runs" / "encoders" / f"BouncingBalls-{name}"
        read = PretrainedEncoder.from_pretrained(folder)
        assert torch.equal(read.encoder(channels), pipeline.encoder(frames / 255))
        facts = read.provenance["training"]
        assert (facts["preset"], facts["arm"], facts["seed"]) == ("smoke", name.split("-")[0], 1)
    assert read.processor is None
    written = PretrainedEncoder.from_pretrained(tmp_path / "encoder")
    assert parameter_hash(written.processor) == parameter_hash(learnt.processor)
    assert [row["arm"] for row in written.provenance["metrics"]] == ["warm_start", "cswm"]
    assert written.provenance["data"]["options"]["balls"] == 3
    with pytest.raises(RMRError, match="did you mean 'cswm"):
        run(train, recorded, tmp_path, "--arm", "csvm")
    with pytest.raises(RMRError, match="exists already"):
        run(train, recorded, tmp_path, "--arm", "untrained", "--seed", 1)


def test_walls_are_those_of_the_recorded_world(recorded, tmp_path):
    world = balls_world(recorded, balls.BALLS_PRESETS["smoke"])
    assert world.data.radii == (0.2, 0.2, 0.2)
    options = {"max_steps": 3, "resolution": 8}
    record("rmr/RNEMBalls4-v0", tmp_path / "d", episodes=2, **options)
    with pytest.raises(RMRError, match="same in every episode"):
        run(pretrain, tmp_path / "d", tmp_path, "--out", tmp_path / "p")
