import json
from dataclasses import replace

import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import stages
from rmr_gym.protocol.bottleneck import (
    BOTTLENECK_ABSTRACT_COLUMNS,
    BOTTLENECK_COLUMNS,
    bottleneck,
    narrowed,
)
from rmr_gym.protocol.computing import Computing


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.natural_data, stages.probe_sets):
        cached.cache_clear()


def test_every_width_has_its_arms_and_its_own_pretraining(task, tmp_path):
    out = tmp_path / "out"
    assert bottleneck([task], [2, 3], [0], out, Computing("test")) == []
    table = pd.read_csv(out / "bottleneck.csv")
    assert tuple(table.columns) == BOTTLENECK_COLUMNS
    found = set(zip(table.dim, table.arm, table.step, strict=True))
    steps = {"rmr": (2, 4), "cswm": (2, 4), "untrained": (0,)}
    assert found == {(dim, arm, step) for dim in (2, 3) for arm in steps for step in steps[arm]}
    abstract = pd.read_csv(out / "bottleneck_abstract.csv")
    assert tuple(abstract.columns) == BOTTLENECK_ABSTRACT_COLUMNS
    pairs = list(zip(abstract.dim, abstract.step, strict=True))
    assert pairs == [(2, 3), (2, 6), (3, 3), (3, 6)]
    curve = stages.pretrained(narrowed(task, 2)).record["curve"]
    assert abstract.loss[0] == next(point["loss"] for point in curve if point["step"] == 3)
    described = json.loads((out / "run.json").read_text())
    assert (described["kind"], described["dims"]) == ("bottleneck", [2, 3])


def test_only_the_width_changes(task):
    assert narrowed(task, 2) == replace(
        task, preset=replace(task.preset, model=replace(task.preset.model, dim=2))
    )
    with pytest.raises(RMRError, match="dim and maps must be 1 or more"):
        narrowed(task, 0)


def test_a_width_that_comes_twice_is_refused(task, tmp_path):
    with pytest.raises(RMRError, match="come twice"):
        bottleneck([task], [2, 2], [0], tmp_path, Computing("test"))
    with pytest.raises(RMRError, match="at least one game, one width and one seed"):
        bottleneck([task], [], [0], tmp_path, Computing("test"))
