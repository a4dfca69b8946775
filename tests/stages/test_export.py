from dataclasses import replace

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.domains.atari import make_core
from rmr_gym.models.pretrained import PretrainedEncoder
from rmr_gym.models.rmr.belief import CompactReader
from rmr_gym.models.rmr.processors import load_weights
from rmr_gym.runs.store import Artifact, write_artifact
from rmr_gym.stages.belief import (
    Believing,
    _expanded,
    belief,
    evidence,
    instants,
    labelled_rows,
    recorded_episodes,
)
from rmr_gym.stages.export import (
    AMPLIFICATION,
    amplified_random,
    dynamics_donor,
    encoder_features,
    folder_donor,
    pretrained_belief,
    pretrained_encoder,
    reader,
)
from rmr_gym.stages.games import PRETRAIN_SEED


@pytest.fixture
def exported(game, chain, tmp_path):
    return write_artifact(tmp_path / "p", chain.compute(game.pretrained()))


def test_a_folder_gives_the_same_processor_and_counts_by_its_weights(game, chain, exported):
    model = game.preset.model
    donor = folder_donor("kept", exported, model)
    artifact, own = chain.compute(donor), chain.compute(game.pretrained())
    assert artifact.record["processor_hash"] == own.record["processor_hash"]
    assert artifact.part("encoder").keys() == own.part("encoder").keys()
    key = donor.key
    moved = exported.rename(exported.with_name("moved"))
    again = folder_donor("kept", moved, model)
    assert again.key == key
    given, direct = (chain.compute(game.trained("rmr", 0, task)) for task in (again, None))
    assert given.record["processor_hash"] == direct.record["processor_hash"]


def test_donors_of_other_sizes_are_refused(game, exported, tmp_path):
    model = game.preset.model
    with pytest.raises(RMRError, match=r"(?s)donor 'kept' do not fit.*action_encoder.weight"):
        folder_donor("kept", exported, replace(model, dim=8))
    with pytest.raises(RMRError, match="do not fit"):
        folder_donor("kept", exported, replace(model, core="mlp"))
    with pytest.raises(RMRError, match=r"holds no record\.json"):
        folder_donor("kept", tmp_path / "nothing", model)
    empty = write_artifact(tmp_path / "e", Artifact({}, {"encoder.w": torch.ones(1)}))
    with pytest.raises(RMRError, match=r"(?s)donor 'kept' do not fit.*Missing key"):
        folder_donor("kept", empty, model)


def test_an_amplified_random_p_is_a_random_one_but_for_its_output(game, chain):
    model = game.preset.model
    random, loud = (make_core(model, model.core, seed) for seed in (PRETRAIN_SEED, 1))
    load_weights(loud, chain.compute(amplified_random(model)).part("processor"), "P")
    z = torch.randn(2, 128, model.dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(loud.core(z), AMPLIFICATION * random.core(z), atol=1e-5)
    assert torch.equal(loud.action_encoder.weight, random.action_encoder.weight)
    with pytest.raises(RMRError, match="a core with layers"):
        amplified_random.function(replace(model, core="none"))


def test_balls_give_the_core_of_their_first_pass(game, chain, tmp_path):
    from rmr_gym.domains.balls import BallsModel, make_balls_processor

    processor = make_balls_processor(BallsModel(dim=4), 0)
    tensors = {f"processor.{name}": value for name, value in processor.state_dict().items()}
    record = {"kind": "balls processor", "processor_hash": "balls"}
    folder = write_artifact(tmp_path / "b", Artifact(record, tensors))
    donor = chain.compute(folder_donor("balls", folder, game.preset.model)).part("processor")
    assert torch.equal(donor["core.sender.weight"], tensors["processor.cores.0.sender.weight"])
    assert donor["action_encoder.weight"].shape == (4, 18)


def test_random_dynamics_are_pretrained_on_like_a_game(game, chain):
    task = dynamics_donor("random_dynamics", game.preset)
    assert task.key != game.pretrained().key
    record = chain.compute(task).record
    assert [row["step"] for row in record["rows"]] == [3, 6]


def test_an_encoder_of_another_game_is_warned_of_or_refused(
    game, chain, recorded, tmp_path, caplog
):
    folder = pretrained_encoder(game, "untrained", 0, chain).save_pretrained(tmp_path / "e")
    data = replace(game.data, label="Breakout", path=recorded("Breakout"))
    other = replace(game, data=data)
    assert encoder_features(folder, game, strict=True).path == folder
    assert not caplog.messages
    features = encoder_features(folder, other)
    assert caplog.messages == ["this encoder was trained on Pong, the data are of Breakout"]
    for task in (other.probed(features), other.labelled(features)):
        assert chain.compute(task).record["rows"]
    with pytest.raises(RMRError, match="choose an encoder of Breakout"):
        encoder_features(folder, other, strict=True)


SMALL = Believing(horizon=12, tracks=8, segment=12, starts=(0, 8), scored=(1, 4, 12))


@pytest.mark.parametrize("count", [1, 3])
def test_a_belief_is_exported_with_the_reader_that_its_evidence_came_from(
    game, chain, tmp_path, count
):
    model = game.preset.model
    read = evidence(game.data, model, SMALL.hidden, 40, 0)
    read = instants(game.data, model, 40, 0, read, count) if count > 1 else read
    fitted = belief(game.data, model, SMALL, 40, "rmr", 0, read, game.pretrained())
    made = pretrained_belief(game, fitted, chain)
    kept = PretrainedEncoder.from_pretrained(made.save_pretrained(tmp_path / "belief"))
    episodes = recorded_episodes(game.data, "validation", game.preset.model)
    frames = episodes.clips(np.arange(len(episodes.bits)), count)
    assert kept.config.frame_shape == frames.shape[1:]
    found = chain.compute(read)
    error = kept.encoder(frames) - _expanded(found, "validation")
    assert error.square().mean() < 0.01 * _expanded(found, "validation").square().mean()
    assert torch.equal(kept.encoder.mean, found.tensors["mean"])
    carried = kept.processor.state_dict()
    assert torch.equal(carried["fusion.weight"], chain.compute(fitted).tensors["weight"])
    for name, tensor in chain.compute(game.pretrained()).tensors.items():
        assert torch.equal(carried[f"pipeline.{name}"], tensor)
    assert kept.config.frameskip == game.preset.recording.frameskip
    assert kept.provenance["data"]["scored"] == game.data.scored_bytes.tolist()
    assert {row["k"] for row in kept.provenance["metrics"]} == {1, 4, 12}
    again = reader.function(game.data, model, 40, 0, found, count)
    assert all(
        torch.equal(again.tensors[name], part) for name, part in made.encoder.state_dict().items()
    )


def test_how_episodes_begin_is_among_what_an_exported_reader_keeps(game, chain, monkeypatch):
    """It looks like nothing else, and few labelled frames are of it."""
    training, kept = recorded_episodes(game.data, "training", game.preset.model), []
    compacted = CompactReader.of

    def of(fitted, frames, lost):
        kept.append(frames)
        return compacted(fitted, frames, lost)

    monkeypatch.setattr(CompactReader, "of", of)
    found = chain.compute(evidence(game.data, game.preset.model, SMALL.hidden, 40, 0))
    reader.function(game.data, game.preset.model, 40, 0, found, 3)
    begun = training.clips((training.first[:, None] + np.arange(3)).ravel(), 3)
    labelled = training.clips(labelled_rows(training, 40, 0), 3)
    for clip in (*begun, *labelled):
        assert (kept[0] == clip).all((1, 2)).any()


def test_a_p_of_other_sizes_is_refused(game, chain):
    small = game.with_preset(model={"dim": 8})
    read = evidence(game.data, game.preset.model, SMALL.hidden, 40, 0)
    fitted = belief(game.data, game.preset.model, SMALL, 40, "rmr", 0, read, game.pretrained())
    with pytest.raises(RMRError, match="the game's abstract pipeline do not fit"):
        pretrained_belief(small, fitted, chain)
