import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.core.seeding import generator
from rmr_gym.data.ram import ram_to_bits
from rmr_gym.domains.atari import make_core
from rmr_gym.models.rmr.processors import load_weights
from rmr_gym.protocol import stages
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.config import as_json
from rmr_gym.protocol.stages import GameTask
from rmr_gym.protocol.store import Artifact, write_artifact
from rmr_gym.protocol.transfer import CONTROLS, TRANSFER_COLUMNS, transfer
from rmr_gym.protocol.transfer_donors import (
    AMPLIFICATION,
    RandomWorld,
    amplified_random_donor,
    folder_donor,
    game_donor,
    random_dynamics,
    random_dynamics_donor,
)


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


def test_the_matrix_has_every_pair_and_the_controls_once(quick, recorded, tmp_path):
    out = tmp_path / "out"
    other = GameTask("Breakout", recorded("Breakout"), quick.store, quick.preset)
    donors = [game_donor(quick), game_donor(other), random_dynamics_donor(quick)]
    assert transfer([quick, other], donors, [0], out, Computing("test")) == []
    table = pd.read_csv(out / "transfer.csv", keep_default_na=False)
    assert tuple(table.columns) == TRANSFER_COLUMNS
    rows = {tuple(row) for row in table[["recipient", "donor", "arm"]].itertuples(index=False)}
    names = [donor.name for donor in donors]
    assert rows == {
        *((game, name, "rmr") for game in ("Pong", "Breakout") for name in names),
        *((game, "", arm) for game in ("Pong", "Breakout") for arm in CONTROLS),
    }
    assert len(table) == len(rows)
    described = json.loads((out / "run.json").read_text())
    assert (described["kind"], described["donors"]) == ("transfer", names)
    cells = pd.read_csv(out / "jobs.csv")
    assert set(cells.state) == {"done"}
    assert len(cells) == len(rows) + len(donors)
    before = (out / "transfer.csv").read_bytes()
    assert transfer([quick, other], donors, [0], out, Computing("again")) == []
    assert (out / "transfer.csv").read_bytes() == before


def test_own_donor_is_the_arm_rmr_of_a_comparison(quick):
    own = stages.trained_encoders(quick, "rmr", 0)
    given = stages.trained_encoders(quick, "rmr", 0, game_donor(quick).pretrained())
    assert own.record["processor_hash"] == given.record["processor_hash"]


def test_results_of_other_settings_are_refused(quick, tmp_path):
    donors, out = [random_dynamics_donor(quick)], tmp_path / "out"
    transfer([quick], donors, [0], out, Computing("test"))
    batch = replace(quick.preset, natural=replace(quick.preset.natural, batch=6))
    with pytest.raises(RMRError, match=r"natural\.batch was 8, is 6; choose another folder"):
        transfer([replace(quick, preset=batch)], donors, [0], out, Computing("test"))


def test_a_loss_that_is_no_number_stops_that_cell_alone(quick, tmp_path, monkeypatch):
    import torch

    from rmr_gym.protocol import natural

    terms = natural.OBJECTIVES["cswm"].terms
    calls = []

    def broken(config, latents):
        calls.append(1)
        found = terms(config, latents)
        return found._replace(loss=found.loss * torch.nan) if len(calls) == 1 else found

    monkeypatch.setitem(natural.OBJECTIVES, "cswm", natural.Objective(broken, "uniform"))
    donors, out = [random_dynamics_donor(quick)], tmp_path / "out"
    problems = transfer([quick], donors, [0], out, Computing("test"))
    assert len(problems) == 1
    assert "the loss became nan at step 1" in problems[0]
    assert "DivergedError" in next((out / "logs").glob("control_Pong_cswm_0*")).read_text()
    assert transfer([quick], donors, [0], out, Computing("test")) == []


def exported(task, tmp_path, **changes):
    record = {"kind": "processor", "game": "Pong", "model": as_json(task.preset.model)}
    artifact = stages.pretrained(task)
    return write_artifact(
        tmp_path / "p", Artifact(artifact.record | record | changes, artifact.tensors)
    )


def test_a_folder_gives_the_same_processor(quick, tmp_path):
    donor = folder_donor("kept", exported(quick, tmp_path), quick.preset.model)
    assert (
        donor.pretrained().record["processor_hash"]
        == (stages.pretrained(quick).record["processor_hash"])
    )


def test_donors_of_other_sizes_are_refused(quick, tmp_path):
    folder = exported(quick, tmp_path)
    with pytest.raises(RMRError, match="has latents of width 4 and 18 actions, expected 8 and 18"):
        folder_donor("kept", folder, replace(quick.preset.model, dim=8))
    with pytest.raises(RMRError, match="do not fit"):
        folder_donor("kept", folder, replace(quick.preset.model, core="mlp"))
    with pytest.raises(RMRError, match=r"holds no record\.json"):
        folder_donor("kept", tmp_path / "nothing", quick.preset.model)


def test_an_amplified_random_p_is_a_random_one_but_for_its_output(quick):
    model = quick.preset.model
    random = make_core(model, model.core, stages.PRETRAIN_SEED)
    loud = make_core(model, model.core, 1)
    load_weights(loud, amplified_random_donor(quick).pretrained().part("processor"), "P")
    z = torch.randn(2, 128, model.dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(loud.core(z), AMPLIFICATION * random.core(z), atol=1e-5)
    assert torch.equal(loud.action_encoder.weight, random.action_encoder.weight)
    bare = replace(quick, preset=replace(quick.preset, model=replace(model, core="none")))
    with pytest.raises(RMRError, match="a core with layers"):
        amplified_random_donor(bare).pretrained()


def test_balls_give_the_core_of_their_first_pass(quick, tmp_path):
    from rmr_gym.domains.balls import BallsModel, make_balls_processor

    processor = make_balls_processor(BallsModel(dim=4), 0)
    tensors = {f"processor.{name}": value for name, value in processor.state_dict().items()}
    folder = write_artifact(tmp_path / "b", Artifact({"kind": "balls processor"}, tensors))
    donor = folder_donor("balls", folder, quick.preset.model).pretrained().part("processor")
    assert torch.equal(donor["core.sender.weight"], tensors["processor.cores.0.sender.weight"])
    assert donor["action_encoder.weight"].shape == (4, 18)


def test_nothing_to_transfer_and_equal_donors_are_refused(quick, tmp_path):
    with pytest.raises(RMRError, match="at least one recipient"):
        transfer([quick], [], [0], tmp_path, Computing("test"))
    twice = [random_dynamics_donor(quick)] * 2
    with pytest.raises(RMRError, match="come twice: donor random_dynamics"):
        transfer([quick], twice, [0], tmp_path, Computing("test"))


def test_the_random_world_moves_only_cells_whose_gate_is_set():
    world = RandomWorld.draw(generator(0, "test"))
    data = random_dynamics(3, 20, "training")
    assert data.bits.shape == (3 * 21, 128, 8)
    assert len(data.current) == len(data.action) == 60
    assert (ram_to_bits(data.ram) == data.bits).all()
    before = generator(1, "bits").integers(0, 2, (50, 128, 8), dtype=np.uint8)
    after = world.step(before, np.zeros(50, int))
    closed = before[:, world.parent, world.gate] == 0
    assert (after[closed] == before[closed]).all()
    assert (after[~closed] != before[~closed]).any(-1).mean() > 0.9
    assert (world.parent != np.arange(128)).all()


def test_parts_of_the_random_world_differ_and_come_again():
    training, again = (random_dynamics(2, 5, "training") for _ in range(2))
    assert (training.bits == again.bits).all()
    assert (training.bits != random_dynamics(2, 5, "validation").bits).any()
