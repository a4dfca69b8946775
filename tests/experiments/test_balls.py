import json
from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.domains.balls import BallsModel
from rmr_gym.experiments.balls.grid import Balls, BallsNatural
from rmr_gym.experiments.base import no_progress, run
from rmr_gym.experiments.worlds import Playing, balls_world, find_data, is_of_balls
from rmr_gym.runs.store import Store, write_artifact
from rmr_gym.runs.training import Phase
from rmr_gym.stages.balls import BALLS_PRESETS, Evaluation, Prediction, WarmStart

PHASES = (Phase(1, batch=2),)
SMOKE = BALLS_PRESETS["smoke"]
TINY = vars(
    replace(
        SMOKE,
        phases=PHASES,
        pixels=replace(SMOKE.pixels, processor=BallsModel(dim=8), decoder_channels=4),
        warm_start=WarmStart(PHASES),
        prediction=Prediction(PHASES),
        evaluation=Evaluation(windows=5, horizon=10, frames=5),
    )
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, forget_loaded):
    path = tmp_path_factory.mktemp("data") / "balls"
    options = {"balls": 3, "radii": 0.2, "resolution": 16, "max_episode_steps": 20}
    record("rmr/BouncingBalls-v0", path, episodes=4, **options)
    yield path
    forget_loaded()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def computed(experiment, **options):
    """Run an experiment and return its folder; nothing may go wrong."""
    folder, problems = run(experiment(**TINY | {"workers": 1} | options))
    assert problems == []
    return folder


def test_rollouts_of_every_width_stand_beside_the_baselines(recorded, root):
    given = balls_world(recorded, replace(SMOKE, **TINY)).pretrained(5)
    write_artifact(root / "p", Store(root / "store").compute(given))
    options = {"data": recorded, "root": root, "seeds": 2}
    folder = computed(Balls, **options, dims=(2,), processors=(root / "p",))
    table = pd.read_csv(folder / "rollouts.csv")
    points = [("mpnn", 32), ("mpnn", 2), ("interaction", 32)] * 2
    assert table.model[:4].tolist() == ["simulator", "copy", "linear", "reflected"]
    assert list(zip(table.model, table.dim, strict=True))[4:] == [*points, ("mpnn", 32)]
    assert table.seed[4:].tolist() == [0, 0, 0, 1, 1, 1, 5]
    mine = table[4:]
    assert (mine[["training_mse", "validation_mse", "ratio_1", "ratio_10"]] > 0).all(axis=None)
    reflected = table.set_index("model").loc["reflected"]
    assert (reflected.ratio_1, reflected.ratio_10) == (1, 1)
    info = json.loads((folder / "run.json").read_text())
    assert (info["kind"], info["games"], info["dims"]) == ("balls", ["BouncingBalls"], [2])
    assert len(pd.read_csv(computed(Balls, **options, dims=(), out=root / "alone") / "curves.csv"))


def test_arms_and_widths_have_a_row_a_seed(recorded, root):
    arms = ("rmr", "cswm")
    folder = computed(BallsNatural, data=recorded, root=root, seeds=1, arms=arms, dims=(4,))
    table = pd.read_csv(folder / "balls_natural.csv")
    assert table.groupby(["core", "dim"], sort=False).arm.apply(list).to_dict() == {
        point: ["warm_start", *arms] for point in (("mpnn", 8), ("mpnn", 4), ("interaction", 8))
    }
    assert table.rollout_mse.isna().tolist() == [True, False, False] * 3


def test_bad_input_ends_before_anything_is_computed(recorded, tmp_path):
    for options, message in (
        ({"arms": ("rmr", "csvm")}, "did you mean 'cswm'"),
        ({"arms": ("rmr", "rmr")}, "rmr more than once"),
        ({"arms": ()}, "one arm or more, got none"),
        ({"processor": tmp_path}, "holds no record"),
        ({"seeds": 0}, "at least 1 as seeds"),
    ):
        with pytest.raises(RMRError, match=message):
            computed(BallsNatural, data=recorded, root=tmp_path, **options)
    with pytest.raises(RMRError, match="holds no record"):
        computed(Balls, data=recorded, root=tmp_path, processors=(tmp_path,))
    assert not list(tmp_path.rglob("*.csv"))


def test_an_environment_is_played_once_and_must_fit(tmp_path):
    from pathlib import Path

    playing = Playing(("rmr/BouncingBalls",), "tiny", 2, 3, {"resolution": 8})
    asked = []

    def progress_for(title):
        asked.append(title)
        return no_progress(title)

    found = [
        find_data(Path("rmr/BouncingBalls-v0"), playing, tmp_path, progress_for) for _ in range(2)
    ]
    assert found == [tmp_path / "data" / "BouncingBalls-v0-tiny"] * 2
    assert asked == ["playing BouncingBalls-v0"] * 2
    assert is_of_balls(found[0])
    assert find_data(found[0], playing, tmp_path, no_progress) == found[0]
    with pytest.raises(RMRError, match="whose id begins with rmr/BouncingBalls, got rmr/RNEM"):
        find_data(Path("rmr/RNEMBalls4-v0"), playing, tmp_path, no_progress)
    assert not is_of_balls(tmp_path)
