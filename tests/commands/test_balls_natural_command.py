from dataclasses import replace

import matplotlib.image
import pandas as pd
import pytest
import torch

from rmr_gym.agents.record import record
from rmr_gym.commands import balls_natural as commands
from rmr_gym.core.errors import RMRError
from rmr_gym.domains.balls import BallsModel
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.protocol import balls, balls_natural, balls_natural_presets
from rmr_gym.protocol import balls_natural_scores as scores
from rmr_gym.protocol.balls import Phase
from rmr_gym.protocol.sweep import Outcome


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    options = {"balls": 3, "radii": 0.2, "resolution": 16, "max_episode_steps": 14}
    record("rmr/BouncingBalls-v0", path, episodes=4, **options)
    return path


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    smoke = balls_natural_presets.PIXEL_PRESETS["smoke"]
    model = replace(smoke.model, processor=BallsModel(dim=8), decoder_channels=4)
    tiny = replace(smoke, warm_start=(Phase(1, batch=2),), phases=(Phase(1, batch=2),), model=model)
    monkeypatch.setitem(balls_natural_presets.PIXEL_PRESETS, "smoke", tiny)
    abstract = replace(balls.BALLS_PRESETS["smoke"], phases=(Phase(1, batch=2),))
    monkeypatch.setitem(balls.BALLS_PRESETS, "smoke", abstract)
    yield
    for cached in (
        *(balls.open_balls, balls.load_part),
        *(balls_natural.load_pixels, scores.true_masks),
    ):
        cached.cache_clear()


def run(tmp_path, command, *arguments):
    root = ("--root", str(tmp_path / "runs"), "--preset", "smoke")
    commands.app.cli(args=[command, *map(str, arguments), *root])


def test_compare_train_and_draw(recorded, tmp_path, capsys, monkeypatch):
    out = tmp_path / "natural.csv"
    arms = ("--arms", "rmr", "baseline")
    run(tmp_path, "compare", "--data", recorded, "--out", out, "--seeds", 1, *arms)
    table = pd.read_csv(out)
    assert list(table) == list(scores.ROW)
    assert table.arm.tolist() == ["warm_start", "rmr", "baseline"]
    assert "no ratio between arms" in capsys.readouterr().out, "one step beats no copy"

    def refuse(*arguments, **options):
        raise AssertionError("what is in the store is not trained again")

    monkeypatch.setattr(balls_natural, "train_frames", refuse)
    run(tmp_path, "train", "--data", recorded, "--arm", "rmr")
    run(tmp_path, "pictures", "--data", recorded, "--out", tmp_path, "--rollouts", 1, "--steps", 2)
    assert (tmp_path / "rollout_rmr_0.gif").is_file()
    for name in ("rollout_rmr_0.png", "masks_rmr.png"):
        assert matplotlib.image.imread(tmp_path / name).std() > 0


def test_an_encoder_is_exported_from_what_is_in_the_store(recorded, tmp_path, monkeypatch):
    run(tmp_path, "train", "--data", recorded, "--arm", "baseline", "--seed", 1)

    def refuse(*arguments, **options):
        raise AssertionError("what is in the store is not trained again")

    monkeypatch.setattr(balls_natural, "train_frames", refuse)
    for arm in ("baseline", "untrained"):
        run(tmp_path, "export", "--data", recorded, "--arm", arm, "--seed", 1)
    task = commands.make_task(recorded, None, "smoke", tmp_path / "runs", "cpu")
    encoders, frames = tmp_path / "runs" / "encoders", torch.randint(0, 256, (2, 3, 16, 16, 3))
    bytes_ = frames.to(torch.uint8).permute(0, 1, 4, 2, 3).flatten(1, 2)
    for arm, step in (("baseline", 1), (None, 0)):
        before = balls_natural.trained(task, arm, 1) if arm else None
        pipeline = balls_natural.restored(task, arm, 1, before)
        folder = encoders / f"BouncingBalls-{arm or 'untrained'}-1-{step}"
        read = PretrainedEncoder.from_pretrained(folder)
        latents = pipeline.encoder(frames / 255)
        assert torch.equal(read.encoder(bytes_), latents)
        facts = read.provenance["training"]
        assert (facts["preset"], facts["arm"], facts["seed"]) == ("smoke", arm or "untrained", 1)
    assert read.processor is None
    learnt = PretrainedEncoder.from_pretrained(encoders / "BouncingBalls-baseline-1-1")
    before = balls_natural.restored(task, "baseline", 1, balls_natural.trained(task, "baseline", 1))
    assert parameter_hash(learnt.processor) == parameter_hash(before.processor)
    assert [row["arm"] for row in learnt.provenance["metrics"]] == ["warm_start", "baseline"]
    assert learnt.provenance["data"]["options"]["balls"] == 3
    with pytest.raises(RMRError, match="did you mean 'baseline"):
        run(tmp_path, "export", "--data", recorded, "--arm", "baselin")
    with pytest.raises(RMRError, match="exists already"):
        run(tmp_path, "export", "--data", recorded, "--arm", "untrained", "--seed", 1)


def test_ratios_are_written_where_every_arm_beats_the_copy(tmp_path, capsys):
    outcomes = [
        Outcome(
            arm, {"arm": arm, "seed": 0, "mse": mse, "copy_mse": 1.0, "ratio_to_copy": mse}, None
        )
        for arm, mse in (("rmr", 0.2), ("baseline", 0.4))
    ]
    commands._report(tmp_path / "table.csv", outcomes, scores.ROW)
    assert "0.5000" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "table_ratios.csv").ratio.tolist() == [pytest.approx(0.5)]


def test_a_bottleneck_has_a_row_a_width(recorded, tmp_path):
    out = tmp_path / "narrow.csv"
    run(tmp_path, "bottleneck", "--data", recorded, "--out", out, "--seeds", 1, "--dims", 4)
    table = pd.read_csv(out)
    assert table.groupby(["core", "dim"], sort=False).arm.apply(list).to_dict() == {
        point: ["warm_start", "rmr", "baseline"]
        for point in (("mpnn", 4), ("mpnn", 8), ("interaction", 8))
    }


def test_an_unknown_arm_is_refused(recorded, tmp_path):
    with pytest.raises(RMRError, match="baseline"):
        run(tmp_path, "train", "--data", recorded, "--arm", "baselin")
