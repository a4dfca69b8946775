import json

import pandas as pd
import pytest

from rmr_gym.agents.players.player_features import PLAYER, player_cell
from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import stages
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.labels_probe import label_sets
from rmr_gym.protocol.measures import measure
from rmr_gym.protocol.memory_features import memory_sets
from rmr_gym.protocol.ranking import AHEAD, ranking_paths


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (
        *(stages.open_episodes, stages.natural_data, stages.probe_sets),
        *(label_sets, memory_sets, ranking_paths),
    ):
        cached.cache_clear()


def test_every_arm_is_measured_at_its_checkpoints(task, tmp_path):
    out = tmp_path / "out"
    arms = ("rmr", "cswm", "untrained", "supervised", "pca")
    extra = {PLAYER: player_cell}
    assert measure([task], [0, 1], out, Computing("test"), arms=arms, extra=extra) == []
    labels, ranking, references = (
        pd.read_csv(out / f"{name}.csv") for name in ("labels", "ranking", "references")
    )
    steps = labels.groupby(["arm", "seed"])["step"].unique().map(sorted).to_dict()
    both = {(arm, seed): [2, 4] for arm in ("rmr", "cswm", "supervised") for seed in (0, 1)}
    untrained = {("untrained", 0): [0], ("untrained", 1): [0], ("pca", 0): [0], (PLAYER, 0): [0]}
    assert steps == both | untrained
    names = {label.name for label in label_sets(task).labels}
    assert set(labels["label"]) == names | {"average"}
    assert not labels.duplicated(["game", "arm", "seed", "step", "label", "category"]).any()
    assert ranking.groupby(["arm", "seed", "step"])["ahead"].agg(list).to_dict() == {
        (arm, seed, step): list(AHEAD)
        for arm in ("rmr", "cswm")
        for seed in (0, 1)
        for step in (2, 4)
    }
    assert set(references["arm"]) == {PLAYER}
    assert list(references["probe"]) == list(task.preset.probing.probes)
    described = json.loads((out / "run.json").read_text())
    assert described["kind"] == "measures"
    assert described["arms"] == [*arms, PLAYER]


def test_one_measure_alone(task, tmp_path):
    measure([task], [0], tmp_path, Computing("t"), arms=("cswm", "pca"), measures=("ranking",))
    assert set(pd.read_csv(tmp_path / "ranking.csv")["arm"]) == {"cswm"}
    assert pd.read_csv(tmp_path / "labels.csv").empty
    assert len(list((task.store / "natural").iterdir())) == 1


def test_unknown_names_and_nothing_to_do_are_refused(task, tmp_path):
    with pytest.raises(RMRError, match="did you mean 'rmr'"):
        measure([task], [0], tmp_path, Computing("t"), arms=("rm",))
    with pytest.raises(RMRError, match="did you mean 'labels'"):
        measure([task], [0], tmp_path, Computing("t"), measures=("label",))
    with pytest.raises(RMRError, match="at least one game"):
        measure([], [0], tmp_path, Computing("t"))
