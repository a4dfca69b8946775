from dataclasses import replace

import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.models.world.rims import RIMSizes
from rmr_gym.runs.store import Store
from rmr_gym.stages import sequences as stages
from rmr_gym.stages.sequences import (
    SEQUENCE_PRESETS,
    LSTMSizes,
    SequencePreset,
    SequenceTask,
    sequences,
)

SMOKE = SEQUENCE_PRESETS["smoke"]
TASK = replace(SMOKE.task, checkpoints=(2, 4), sequences=6)


def task_of(model, seed=1):
    return sequences(TASK, model, getattr(SMOKE, model), seed)


@pytest.mark.parametrize("model", ["rims", "lstm"])
def test_rows_of_every_span_with_and_without_each_rim(tmp_path, model):
    steps = []
    artifact = Store(tmp_path).compute(task_of(model), lambda *values: steps.append(values))
    rows = artifact.record["rows"]
    assert steps == [(step, 4) for step in range(1, 5)]
    whole = [(row["step"], row["span"]) for row in rows if row["dropped"] < 0]
    assert whole == [(2, 4), (2, 12), (4, 4), (4, 12)]
    dropped = {row["dropped"] for row in rows} - {-1}
    assert dropped == (set(range(4)) if model == "rims" else set())
    if model == "rims":
        assert artifact.tensors["activity.12"].shape == (2 * 3 + 12 + 1, 4)
        assert torch.all(artifact.tensors["activity.12"].sum(1).round(decimals=4) == 2)
        assert torch.all(artifact.tensors["pattern.4"].sum(1) == 2)
        without = next(row for row in rows if row["dropped"] == 0 and row["span"] == 4)
        assert without["cross_entropy"] != rows[2]["cross_entropy"]


@pytest.mark.parametrize(
    ("kind", "score", "instants"), [("digits", "cross_entropy", 144), ("adding", "mse", 12)]
)
def test_the_checkpoint_of_the_least_loss_held_out_counts(monkeypatch, kind, score, instants):
    scores, scored = iter([0.7, 0.2, 0.5]), stages._Tests.scored

    def held_out(tests, span, part="test"):
        if part == "test":
            return scored(tests, span)
        assert (span, part) == (tests.task.span, "validation")
        return {score: next(scores)}, None

    monkeypatch.setattr(stages._Tests, "scored", held_out)
    longer = replace(TASK, kind=kind, checkpoints=(1, 2, 4))
    artifact = sequences.function(longer, "rims", SMOKE.rims, 0)
    rows = artifact.record["rows"]
    held = {row["step"]: row["held_out"] for row in rows if row["dropped"] < 0}
    assert held == {1: 0.7, 2: 0.2, 4: 0.5}
    assert {row["step"] for row in rows if row["dropped"] >= 0} == {2}
    assert all(score in row for row in rows)
    assert artifact.tensors["activity.12"].shape == (instants, 4)
    shorter = sequences.function(replace(TASK, kind="copying"), "rims", SMOKE.rims, 0)
    assert not any("held_out" in row for row in shorter.record["rows"])
    monkeypatch.setattr(stages._Tests, "scored", scored)
    only = sequences.function(replace(longer, checkpoints=(2,)), "rims", SMOKE.rims, 0).tensors
    assert all(torch.equal(artifact.tensors[name], only[name]) for name in only)


@pytest.mark.parametrize("kind", ["digits", "adding"])
def test_presets_of_other_tasks_test_longer_sequences(kind):
    preset = SEQUENCE_PRESETS[kind]
    assert preset.task.kind == kind
    assert preset.task.test_spans[0] == preset.task.span == min(preset.task.test_spans)
    assert preset.rims.rims * preset.rims.units == preset.lstm.units


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    whole = Store(tmp_path / "whole").compute(task_of("rims"))
    loss, calls, killed = stages.domain.losses, [], Store(tmp_path / "killed")

    def dying(*arguments):
        calls.extend([1] if len(arguments) == 2 else [])  # scores ask for one loss a target
        if len(calls) == 4 and len(arguments) == 2:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(stages.domain, "losses", dying)
    with pytest.raises(KeyboardInterrupt):
        killed.compute(task_of("rims"))
    resumed = killed.compute(task_of("rims"))
    assert len(calls) == 4 + 2
    assert resumed.record["rows"] == whole.record["rows"]
    assert all(torch.equal(resumed.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_gradients_are_clipped_as_the_task_says():
    tight, loose = (
        sequences.function(replace(TASK, clip=clip), "lstm", LSTMSizes(4), 0).tensors
        for clip in (1e-9, 1.0)
    )
    assert any(not torch.equal(weights, loose[name]) for name, weights in tight.items())


def test_paper_preset_is_the_papers():
    paper = SEQUENCE_PRESETS["paper"]
    task = paper.task
    assert (task.span, task.test_spans, task.digits, task.batch) == (50, (50, 200), 10, 64)
    assert (task.learning_rate, task.clip, task.checkpoints[-1]) == (1e-3, 1.0, 30_000)
    assert (paper.rims.rims, paper.rims.units, paper.lstm.units) == (6, 100, 600)
    assert (paper.rims.heads, paper.rims.message, paper.rims.keys) == (4, 32, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoints": ()}, "rising steps"),
        ({"checkpoints": (3, 2)}, "rising steps"),
        ({"test_spans": ()}, r"test_spans in \[0, inf\) in SequenceTask, got test_spans=\(\)"),
        ({"span": -1}, r"span in \[0, inf\)"),
        ({"kind": "digit"}, "unknown sequence task 'digit': did you mean 'digits'"),
        ({"kind": "digits", "span": 0}, "spans of digits must be 1 or more"),
        ({"kind": "digits", "test_spans": (8, 0)}, "spans of digits must be 1 or more"),
        ({"kind": "adding", "span": 1}, "spans of adding must be 2 or more"),
        ({"clip": 0.0}, r"clip in \(0, inf\)"),
        ({"digits": 0}, "counts of 1 or more in SequenceTask, got digits=0"),
    ],
)
def test_impossible_tasks_are_refused(change, message):
    with pytest.raises(RMRError, match=message):
        SequenceTask(**change)


def test_unknown_names_and_impossible_sizes_are_refused():
    with pytest.raises(RMRError, match="did you mean 'smoke'"):
        SequencePreset.proposals("smok")
    with pytest.raises(RMRError, match="1 to 6 active RIMs out of 6, got 7"):
        RIMSizes(active=7)
    with pytest.raises(RMRError, match="counts of 1 or more in LSTMSizes, got units=0"):
        LSTMSizes(0)
    with pytest.raises(RMRError, match="unknown model 'gru'"):
        sequences.function(TASK, "gru", SMOKE.lstm, 0)
