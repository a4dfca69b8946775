from dataclasses import replace

import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol import copying
from rmr_gym.protocol.copying import ROW, CopyingTask, clipped_gradients, trained
from rmr_gym.protocol.copying_presets import (
    COPYING_PRESETS,
    CopyingPreset,
    find_copying_preset,
)
from rmr_gym.protocol.store import Artifact, Store

SMOKE = replace(COPYING_PRESETS["smoke"], checkpoints=(2, 4), sequences=6)


@pytest.mark.parametrize("model", ["rims", "lstm"])
def test_train_and_find_again(tmp_path, model):
    task, seen = CopyingTask(tmp_path, SMOKE), []
    artifact = trained(task, model, 1, lambda *values: seen.append(values))
    rows = artifact.record["rows"]
    assert all(tuple(row) == ROW for row in rows)
    assert seen == [(step, 4) for step in range(1, 5)]
    whole = [(row["step"], row["span"]) for row in rows if row["dropped"] < 0]
    assert whole == [(2, 4), (2, 12), (4, 4), (4, 12)]
    dropped = {row["dropped"] for row in rows} - {-1}
    assert dropped == (set(range(4)) if model == "rims" else set())
    assert {row["active"] for row in rows} == {2 if model == "rims" else 0}
    if model == "rims":
        assert artifact.tensors["activity.12"].shape == (2 * 3 + 12 + 1, 4)
        assert torch.all(artifact.tensors["activity.12"].sum(1).round(decimals=4) == 2)
        assert torch.all(artifact.tensors["pattern.4"].sum(1) == 2)
        without = next(row for row in rows if row["dropped"] == 0 and row["span"] == 4)
        assert without["cross_entropy"] != rows[2]["cross_entropy"]
    again = trained(task, model, 1, lambda *values: pytest.fail("trained again"))
    assert again.record == artifact.record


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    whole = trained(CopyingTask(tmp_path / "a", SMOKE), "rims")
    loss, calls = copying.copying_loss, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(copying, "copying_loss", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(CopyingTask(tmp_path / "b", SMOKE), "rims")
    resumed = trained(CopyingTask(tmp_path / "b", SMOKE), "rims")
    assert len(calls) == 4 + 2
    assert resumed.record["rows"] == whole.record["rows"]
    assert all(torch.equal(resumed.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_the_baseline_is_shared_by_all_numbers_of_active_rims(tmp_path, monkeypatch):
    keys = []

    def note(self, stage, key, run):
        keys.append((stage, key))
        return Artifact({})

    monkeypatch.setattr(Store, "get_or_run", note)
    other = replace(SMOKE, sizes=replace(SMOKE.sizes, active=3))
    for preset in (SMOKE, other):
        for model in ("lstm", "rims"):
            trained(CopyingTask(tmp_path, preset), model)
    assert keys[0] == keys[2]
    assert keys[1] != keys[3]


def test_gradients_are_clipped_inside_the_block_alone():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0)

    def step():
        weight.data.zero_()
        weight.grad = torch.tensor([3.0, 4.0])
        optimizer.step()
        return weight.norm().item()

    with clipped_gradients(0.5):
        assert step() == pytest.approx(0.5, rel=1e-4)
    assert step() == 5.0


def test_paper_preset_is_the_papers():
    paper = find_copying_preset("paper")
    assert (paper.span, paper.test_spans, paper.digits, paper.batch) == (50, (50, 200), 10, 64)
    assert (paper.learning_rate, paper.clip, paper.checkpoints[-1]) == (1e-3, 1.0, 30_000)
    assert (paper.sizes.rims, paper.sizes.units, paper.lstm_units) == (6, 100, 600)
    assert (paper.sizes.heads, paper.sizes.message, paper.sizes.keys) == (4, 32, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoints": ()}, "rising steps"),
        ({"checkpoints": (3, 2)}, "rising steps"),
        ({"test_spans": ()}, "spans must be 0 or more"),
        ({"span": -1}, "spans must be 0 or more"),
        ({"clip": 0.0}, "rate and clip above 0"),
        ({"digits": 0}, "digits, batch"),
    ],
)
def test_bad_presets(change, message):
    with pytest.raises(RMRError, match=message):
        CopyingPreset(**{"name": "bad", "checkpoints": (1,)} | change)


def test_unknown_names_and_too_many_active_rims(tmp_path):
    with pytest.raises(RMRError, match="did you mean 'smoke'"):
        find_copying_preset("smok")
    with pytest.raises(RMRError, match="1 to 6 active RIMs out of 6, got 7"):
        find_copying_preset("paper", active=7)
    with pytest.raises(RMRError, match="unknown model 'gru'"):
        trained(CopyingTask(tmp_path, SMOKE), "gru")
