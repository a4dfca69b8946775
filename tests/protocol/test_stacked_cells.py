import json
from dataclasses import replace

import pandas as pd
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import AtariModel
from rmr_gym.protocol import stacked_cells, stacked_stages, stages
from rmr_gym.protocol.abstract_table import abstract_table, model_task
from rmr_gym.protocol.bottleneck import bottleneck
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.stacked_stages import (
    AbstractMember,
    NaturalMember,
    natural_stack,
    palette_frames,
)
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import Artifact, Store
from rmr_gym.protocol.sweep import Cell
from rmr_gym.protocol.transfer import member_of, transfer, transfer_cells
from rmr_gym.protocol.transfer_donors import game_donor, random_dynamics_donor


@pytest.fixture
def quick(task):
    """One checkpoint and one probe: what a matrix needs to be checked."""
    preset = replace(
        task.preset,
        pretraining=replace(task.preset.pretraining, steps=3, checkpoints=(3,)),
        natural=replace(task.preset.natural, checkpoints=(2,)),
        probing=replace(task.preset.probing, probes=("ridge",)),
    )
    return replace(task, preset=preset)


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.natural_data, stages.probe_sets):
        cached.cache_clear()


def cell(key, member, after=()):
    return Cell(key, print, (member,), after)


def test_cells_of_one_recipient_share_stacks_of_at_most_so_many(quick):
    other = replace(quick, game="Breakout")
    cells = [Cell("donor", print, ())]
    for task in (quick, other):
        for seed in range(3):
            for arm in ("cswm", "rmr"):
                after = ("donor",) if arm == "rmr" else ()
                cells.append(
                    cell(f"{task.game} {arm} {seed}", NaturalMember(task, arm, seed), after)
                )
    members = {each.key: each.arguments[0] for each in cells if each.arguments}
    planned = stacked_cells.stacked_cells(cells, members, 4)
    stacks = [each for each in planned if each.key.startswith("stack ")]
    assert [each for each in planned if each not in stacks] == [
        each._replace(after=next(p.after for p in planned if p.key == each.key)) for each in cells
    ]
    assert [len(each.arguments[0]) for each in stacks] == [3, 3, 3, 3]
    for each in stacks:
        (runs,) = each.arguments
        assert len({run.task for run in runs}) == 1
        assert len({run.arm for run in runs}) == 1
        assert each.after == (("donor",) if runs[0].arm == "rmr" else ())
        mine = [p.key for p in planned if each.key in p.after]
        assert [members[key] for key in mine] == list(runs)
        assert planned.index(each) < min(i for i, p in enumerate(planned) if p.key in mine)
    assert stacked_cells.stacked_cells(cells, members, 1) == cells
    assert stacked_cells.stacked_cells(cells, members, None) == cells
    assert stacked_cells.stacked_cells(cells, members, 4, crashes=lambda _: 2) == cells


def test_without_a_gpu_nothing_is_stacked_unless_asked_for(quick):
    members = {str(seed): NaturalMember(quick, "cswm", seed) for seed in range(50)}
    cells = [cell(key, member) for key, member in members.items()]
    assert stacked_cells.stacked_cells(cells, members, None) == cells
    on_gpu = {key: m._replace(task=replace(quick, device="cuda")) for key, m in members.items()}
    planned = stacked_cells.stacked_cells(cells, on_gpu, None)
    assert len(planned) == 52


def test_a_stacked_transfer_gives_the_tables_of_the_plain_one(quick, tmp_path):
    donors = [game_donor(quick), random_dynamics_donor(quick)]
    tables = {}
    for name, stack in (("plain", None), ("stacked", 4)):
        out = tmp_path / name
        own = replace(quick, store=tmp_path / f"{name} store")
        donors = [game_donor(own), random_dynamics_donor(own)]
        assert transfer([own], donors, [0, 1], out, Computing("test", stack=stack)) == []
        tables[name] = pd.read_csv(out / "transfer.csv", keep_default_na=False)
    labels = ["recipient", "donor", "objective", "arm", "seed", "step", "probe"]
    assert tables["plain"][labels].equals(tables["stacked"][labels])
    for score in ("micro_f1", "macro_f1", "slot_accuracy"):
        assert (tables["plain"][score] - tables["stacked"][score]).abs().max() < 0.02
    states = pd.read_csv(tmp_path / "stacked" / "jobs.csv")
    assert set(states.state) == {"done"}
    assert states.key.str.startswith("stack ").sum() == 3  # of 12 runs
    for arm, donor in (("cswm", None), ("no_p", None), ("rmr", donors[1].pretrained())):
        record = stages.trained_encoders(own, arm, 1, donor).record
        assert record["stacked"]["runs"] in (3, 4)
        assert record["seconds"] == pytest.approx(
            record["stacked"]["seconds"] / record["stacked"]["runs"]
        )
    plain = stages.trained_encoders(replace(own, store=tmp_path / "plain store"), "cswm", 1)
    assert "stacked" not in plain.record
    assert stages.kept_steps(plain) == [2]


def test_a_stack_of_the_bottleneck_holds_runs_of_one_width(quick, tmp_path):
    out = tmp_path / "out"
    assert bottleneck([quick], [2, 3], [0, 1], out, Computing("test", stack=8)) == []
    states = pd.read_csv(out / "jobs.csv")
    assert states.key.str.startswith("stack ").sum() == 2
    table = pd.read_csv(out / "bottleneck.csv")
    assert len(table) == 2 * 2 * 3
    described = json.loads((out / "run.json").read_text())
    assert described["problems"] == []


def test_what_is_in_the_store_is_not_trained_again(quick, monkeypatch):
    members = [
        NaturalMember(quick, "cswm", 0),
        NaturalMember(quick, "random_p", 0),
        NaturalMember(quick, "no_p", 1),
    ]
    before = stages.trained_encoders(quick, "cswm", 0)
    asked = []
    train = stacked_stages.train_natural_stack

    def watched(config, model, data, runs, **options):
        asked.extend((run.arm, run.seed) for run in runs)
        return train(config, model, data, runs, **options)

    monkeypatch.setattr(stacked_stages, "train_natural_stack", watched)
    for _ in range(2):
        assert natural_stack(members)["note"] is None
    assert asked == [("random_p", 0), ("no_p", 1)]
    assert stages.trained_encoders(quick, "cswm", 0).record == before.record


def test_a_stack_that_fails_leaves_the_training_to_the_cells(quick, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("fake: the device is lost")

    monkeypatch.setattr(stacked_stages, "train_natural_stack", fail)
    donors, out = [random_dynamics_donor(quick)], tmp_path / "out"
    (problem,) = transfer([quick], donors, [0], out, Computing("test", stack=8))
    assert "the device is lost" in problem
    assert set(pd.read_csv(out / "jobs.csv").state) == {"done"}
    assert "stacked" not in stages.trained_encoders(quick, "cswm", 0).record


def test_half_stacks_are_told_of(quick, tmp_path, monkeypatch):
    train = stacked_stages.train_natural_stack

    def halved(*args, **options):
        artifacts = train(*args, **options)
        for artifact in artifacts:
            assert isinstance(artifact, Artifact)
            artifact.record["stacked"]["runs"] = 2
        return artifacts

    monkeypatch.setattr(stacked_stages, "train_natural_stack", halved)
    donors, out = [random_dynamics_donor(quick)], tmp_path / "out"
    (problem,) = transfer([quick], donors, [0], out, Computing("test", stack=8))
    assert "5 runs did not fit the device's memory: trained in stacks of 2" in problem
    assert json.loads((out / "run.json").read_text())["problems"] == [problem]


def test_bfloat16_convolutions_are_other_results(quick):
    half = replace(quick, cnn="bf16")
    store = Store(quick.store)
    keys = [stages.natural_key(each, "cswm", 0) for each in (quick, half)]
    assert keys[1] == keys[0] | {"cnn": "bf16"}
    encoders = stages.trained_encoders(half, "cswm", 0)
    assert store.folder("natural", keys[1]).is_dir()
    assert not store.folder("natural", keys[0]).exists()
    assert encoders.record["stacked"]["runs"] == 1


def test_palette_frames_are_the_frames_of_natural_training(recorded, quick):
    preset = replace(quick.preset, model=AtariModel(dim=4))
    task = GameTask("Pong", recorded("Pong"), quick.store, preset)
    data, frames = stages.natural_data(task), palette_frames(task)
    rows = torch.tensor([0, 7, len(data.frames) - 1])
    assert frames.pixels.shape == data.frames.shape
    assert torch.equal(frames.at(rows), data.frames[rows])


def test_a_stack_below_one_is_refused(quick, tmp_path):
    with pytest.raises(RMRError, match="got 0"):
        transfer(
            [quick], [random_dynamics_donor(quick)], [0], tmp_path / "o", Computing("", stack=0)
        )


def test_games_and_seeds_are_pretrained_in_stacks_of_one_model(quick, recorded, tmp_path):
    other = GameTask("Breakout", recorded("Breakout"), quick.store, quick.preset)
    models, out = ("deep_sets", "mpnn"), tmp_path / "out"
    assert abstract_table([quick, other], [0, 1], out, Computing("t", stack=9), models=models) == []
    states = pd.read_csv(out / "jobs.csv")
    assert states.key.str.startswith("stack pretraining ").sum() == 2
    for task in (quick, other):
        record = stages.pretrained(model_task(task, "mpnn"), seed=1).record
        assert record["stacked"]["runs"] == 4
        alone = stages.pretrained(replace(model_task(task, "mpnn"), store=tmp_path / "s"), seed=1)
        assert "stacked" not in alone.record
        assert record["curve"][-1] == pytest.approx(alone.record["curve"][-1], rel=1e-4)


def test_donors_that_are_games_are_pretrained_together(quick, recorded):
    other = GameTask("Breakout", recorded("Breakout"), quick.store, quick.preset)
    donors = [game_donor(quick), random_dynamics_donor(quick), game_donor(other)]
    cells, _ = transfer_cells([quick], donors, [0])
    members = {each.key: found for each in cells if (found := member_of(each))}
    planned = stacked_cells.stacked_cells(cells, members, 9)
    (leader,) = (each for each in planned if each.key.startswith("stack pretraining"))
    assert leader.arguments == ((AbstractMember(other), AbstractMember(quick)),)
    waiting = [each.key for each in planned if leader.key in each.after]
    assert waiting == ["donor Pong", "donor Breakout"]
