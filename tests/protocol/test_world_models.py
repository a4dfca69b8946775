from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.balls import BallsModel, make_balls_processor
from rmr_gym.domains.clips import Clips, load_clips, true_groups
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.models.world.base import Prediction, WorldModel, frame_bce
from rmr_gym.protocol import store, world_models
from rmr_gym.protocol import world_model_presets as presets
from rmr_gym.protocol import world_model_rollouts as rollouts
from rmr_gym.protocol import world_model_scores as scores
from rmr_gym.protocol.training import DivergedError
from rmr_gym.protocol.world_model_presets import WORLD_MODELS, WORLD_PRESETS, WorldEntry
from rmr_gym.protocol.world_models import WorldTask
from rmr_gym.stages import balls
from rmr_gym.stages.presets import as_json

TINY = replace(WORLD_PRESETS["smoke"], steps=4, batch=2, check_every=2)
OPTIONS = {"resolution": 16, "observe": ["radii", "velocities"]}


class Copier(nn.Module):
    """Predicts the frame that it saw last, and groups the left and the right half."""

    cut = 0.0

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.nothing = nn.Parameter(torch.zeros(()))

    def init_state(self, batch, generator):
        del generator
        return torch.zeros(batch, *self.shape)

    def step(self, state, observation, action):
        del action
        return state if observation is None else observation

    def decode(self, state):
        half = torch.zeros(len(state), 2, *self.shape[:2])
        half[:, 0, :, : self.shape[1] // 2] = half[:, 1, :, self.shape[1] // 2 :] = 1
        return Prediction(state, half)

    def loss(self, state, following):
        return frame_bce(state, following) + self.nothing.square()


class Prophet(nn.Module):
    """Knows every frame of some data: predicts what comes, or the inverse. Groups are the balls.

    In the first frame of a sequence it takes all for one group.
    """

    cut = 0.0

    def __init__(self, data, *, honest):
        super().__init__()
        dataset = TransitionDataset(data)
        clips = load_clips(dataset, range(len(dataset.episodes)), 2, truth=True)
        frames = torch.from_numpy(clips.frames).float() / 255
        owners = true_groups(clips, np.arange(len(frames))).astype(np.int64)
        self.frames, self.owners, self.honest = frames, torch.from_numpy(owners), honest
        self.nothing = nn.Parameter(torch.zeros(()))

    def init_state(self, batch, generator):
        del batch, generator

    def step(self, state, observation, action):
        del action
        if state is not None:
            return state[0] + 1, state[1] + 1
        return (observation[:, None] == self.frames).flatten(2).all(2).int().argmax(1), 0

    def decode(self, state):
        rows, steps = state
        following = self.frames[rows + 1]
        owners = self.owners[rows] if steps else torch.zeros_like(self.owners[rows])
        groups = nn.functional.one_hot(owners, int(self.owners.max()) + 1).movedim(-1, 1).float()
        return Prediction(following if self.honest else 1 - following, groups)

    def loss(self, state, following):
        return frame_bce(self.decode(state).frame, following) + self.nothing.square()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "balls"
    record("rmr/RNEMBalls4-v0", path, episodes=5, max_steps=11, **OPTIONS)
    return path


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "crowd"
    record("rmr/RNEMBalls6to8-v0", path, episodes=2, max_steps=11, **OPTIONS)
    return path


@pytest.fixture(autouse=True)
def _copier(monkeypatch):
    entry = WorldEntry(
        lambda shape, sizes, actions: Copier(shape), dict.fromkeys(WORLD_PRESETS, TINY)
    )
    monkeypatch.setitem(presets.WORLD_MODELS, "copier", entry)


@pytest.fixture
def task(recorded, tmp_path):
    return WorldTask(recorded, tmp_path / "store", "rnem", TINY)


@pytest.fixture
def donor(tmp_path):
    sizes = BallsModel(dim=8, passes=1)
    processor = make_balls_processor(sizes, 0)
    tensors = {f"processor.{name}": tensor for name, tensor in processor.state_dict().items()}
    record = {"model": as_json(sizes), "processor_hash": parameter_hash(processor)}
    store.write_artifact(tmp_path / "donor", store.Artifact(record, tensors))
    return tmp_path / "donor"


@pytest.mark.parametrize("name", [*WORLD_MODELS])
def test_every_entry_is_trained_and_scored(task, donor, name):
    task = replace(task, model=name, processor=donor if WORLD_MODELS[name].arm else None)
    artifact = world_models.trained(task, 0)
    clips = rollouts.test_clips(task, None, 4)
    model = world_models.restored(task, clips, 0, artifact)
    assert isinstance(model, WorldModel)
    row = scores.scored(task, 0)
    assert set(scores.ROW) <= set(row)
    assert all(row[key] > 0 for key in scores.ROW if key.endswith("bce"))
    assert (row["ari"] is not None) == WORLD_MODELS[name].grouped
    assert set(row["simulation"]) == set(scores.Simulation._fields)
    assert {len(curve) for curve in row["simulation"].values()} == {TINY.ahead}
    assert scores.scored(task, 0) == row


def test_copying_is_as_good_as_copying(task):
    row = scores.scored(replace(task, model="copier"), 0)
    assert row["relative_bce"] == row["relative_relational_bce"] == 1
    assert row["relative_rollout_bce"] == 1
    assert row["relational_bce"] < row["bce"]
    simulation = row["simulation"]
    assert simulation["bce"] == simulation["copied"]
    assert simulation["f1"] == simulation["f1_copied"]
    assert 0 < row["rollout_f1"] < 1
    assert -0.2 < row["ari"] < 0.9


def test_the_truth_beats_copying_and_its_inverse_does_not(task, recorded, monkeypatch):
    found = {}
    for name, honest in (("prophet", True), ("liar", False)):
        entry = replace(
            WORLD_MODELS["copier"],
            make=lambda shape, sizes, actions, honest=honest: Prophet(recorded, honest=honest),
        )
        monkeypatch.setitem(presets.WORLD_MODELS, name, entry)
        found[name] = scores.scored(replace(task, model=name), 0)
    kinds = ("bce", "relational_bce", "rollout_bce")
    assert all(found["prophet"][kind] < 0.01 for kind in kinds)
    assert all(found["prophet"][f"relative_{kind}"] < 0.01 for kind in kinds)
    assert all(found["liar"][f"relative_{kind}"] > 1 for kind in kinds)
    assert (found["prophet"]["rollout_f1"], found["liar"]["rollout_f1"]) == (1, 0)
    assert found["prophet"]["ari"] == 1, "groups of the first frame do not count"
    assert found["prophet"]["ari_last"] == 1


def test_simulations_of_gray_frames_are_not_cut(task):
    clips = rollouts.test_clips(task, None, 4)
    gray = replace(clips, frames=clips.frames // 2)
    artifact = world_models.trained(task, 0)
    for shown, cut, used in ((clips, 0.3, 0.3), (clips, 0.0, 0.0), (gray, 0.3, 0.0)):
        chosen = replace(task, preset=replace(task.preset, cut=cut))
        assert rollouts.ready_model(chosen, 0, shown, artifact, None).cut == used


def test_simulations_hang_on_the_cut_and_trainings_do_not(task):
    soft = replace(task, preset=replace(task.preset, cut=0.0))
    assert world_models.training_key(task, 0) == world_models.training_key(soft, 0)
    assert scores.scoring_key(task, 0, None, None) != scores.scoring_key(soft, 0, None, None)
    with pytest.raises(RMRError, match="a cut from 0 to less than 1, got 1"):
        replace(TINY, cut=1.0)


def test_f1_of_a_simulation_pools_the_pixels_of_all_sequences(task, monkeypatch):
    monkeypatch.setattr(scores, "SCORE_BATCH", 3)
    clips = rollouts.test_clips(task, None, TINY.seen + TINY.ahead)
    frames, _ = clips.shown(np.arange(len(clips.rows)), torch.device("cpu"))
    row = scores.scored(replace(task, model="copier"), 0)["simulation"]
    for ahead in range(TINY.ahead):
        said, lit = frames[:, TINY.seen - 1] > 0.5, frames[:, TINY.seen + ahead] > 0.5
        both = 2 * (said & lit).sum().item()
        assert row["f1"][ahead] == pytest.approx(both / (said.sum() + lit.sum()).item())
        bce = frame_bce(frames[:, TINY.seen - 1], frames[:, TINY.seen + ahead]).mean().item()
        assert row["bce"][ahead] == pytest.approx(bce)
    assert len(clips.rows) > 3


@pytest.mark.parametrize(("said", "f1"), [(0.55, 1.0), (0.45, 0.0)])
def test_what_is_predicted_above_a_half_counts_as_lit(task, recorded, monkeypatch, said, f1):
    class Doubter(Prophet):
        def decode(self, state):
            sure = super().decode(state)
            return sure._replace(frame=sure.frame * said)

    entry = replace(
        WORLD_MODELS["copier"], make=lambda shape, sizes, actions: Doubter(recorded, honest=True)
    )
    monkeypatch.setitem(presets.WORLD_MODELS, "doubter", entry)
    assert scores.scored(replace(task, model="doubter"), 0)["rollout_f1"] == f1


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 0.0},
        {"learning_rate": np.nan},
        {"learning_rate": np.inf},
        {"validation_share": 1.0},
    ],
)
def test_a_training_that_cannot_be_is_told(changed):
    with pytest.raises(RMRError, match="a learning rate above 0 and a validation share between"):
        replace(TINY, **changed)


@pytest.mark.parametrize("name", ["groups", "processor.dim"])
def test_sizes_that_have_a_field_of_the_task_are_not_changed_elsewhere(task, name):
    with pytest.raises(RMRError, match=f"expected no {name.split('.')[0]} among sizes"):
        replace(task, resized=((name, 3),))


def test_the_memoryless_control_learns_fast_enough_to_be_one():
    rates = {name: presets.find_world_preset("laptop", name).learning_rate for name in WORLD_MODELS}
    assert rates.pop("memoryless") == pytest.approx(10 * rates["rnem"])


def test_scores_are_means_over_the_last_predictions(task):
    clips = rollouts.test_clips(task, None, TINY.length + 1)
    frames, _ = clips.shown(np.arange(len(clips.rows)), torch.device("cpu"))
    wrong = (frames[:, 1:] != frames[:, :-1]).float().sum(dim=(2, 3, 4))[:, -TINY.last :]
    row = scores.scored(replace(task, model="copier"), 0)
    assert row["bce"] == pytest.approx(wrong.mean().item() * -np.log(1e-6), rel=1e-2)


def test_a_prediction_that_is_no_number_is_told_with_its_step(task, monkeypatch):
    def broken(model, frames, actions, generator):
        nothing = torch.full_like(frames, torch.nan)
        return torch.nn.functional.binary_cross_entropy(nothing, frames)

    monkeypatch.setattr(world_models, "sequence_loss", broken)
    with pytest.raises(DivergedError, match="step 1"):
        world_models.train_model(task, 0)


def test_training_reads_no_truth(task, monkeypatch):
    asked, load = [], TransitionDataset.load

    def spied(self, columns, **options):
        asked.append(tuple(columns))
        return load(self, columns=columns, **options)

    monkeypatch.setattr(TransitionDataset, "load", spied)
    world_models.trained(task, 0)
    assert set(asked) == {("pixels",)}


@pytest.fixture
def episodes_read(monkeypatch):
    """Episodes that sequences were shown of, by the data set's name: forgotten when cleared."""
    loaded, read = {}, {}

    def spied(dataset, episodes, *arguments, **options):
        clips = load_clips(dataset, episodes, *arguments, **options)
        loaded[id(clips.frames)] = (clips, dataset, list(episodes))
        return clips

    shown = Clips.shown

    def watched(self, index, device):
        clips, dataset, episodes = loaded[id(self.frames)]
        each = len(clips.frames) // len(episodes)
        read.setdefault(dataset.path.name, set()).update(
            episodes[row // each] for row in self.rows[index].flat
        )
        return shown(self, index, device)

    for module in (world_models, rollouts):
        monkeypatch.setattr(module, "load_clips", spied)
    monkeypatch.setattr(Clips, "shown", watched)
    return read


def test_what_is_trained_on_decides_and_scores_nothing(task, crowd, episodes_read, monkeypatch):
    split = balls.open_balls(task.data, TINY.validation_share)
    training, held_out = set(split.training), set(split.validation)
    assert (len(training), len(held_out), training & held_out) == (3, 2, set())
    looked, look = set(), world_models.validation_loss

    def apart(*arguments):
        before = set(episodes_read.get("balls", ()))
        episodes_read.clear()
        loss = look(*arguments)
        looked.update(episodes_read["balls"])
        episodes_read["balls"] = before
        return loss

    monkeypatch.setattr(world_models, "validation_loss", apart)
    world_models.trained(task, 0)
    assert episodes_read == {"balls": training}
    assert looked == held_out
    episodes_read.clear()
    scores.scored(task, 0)
    assert episodes_read == {"balls": held_out}
    episodes_read.clear()
    scores.scored(task, 0, crowd)
    assert episodes_read == {"crowd": {0, 1}}


def test_noise_is_new_at_every_step_and_the_same_at_every_look(task, monkeypatch):
    drawn, loss = {True: [], False: []}, world_models.sequence_loss

    def spied(model, frames, actions, generator):
        drawn[model.training].append(generator.initial_seed())
        return loss(model, frames, actions, generator)

    monkeypatch.setattr(world_models, "sequence_loss", spied)
    world_models.trained(task, 0)
    assert len(set(drawn[True])) == TINY.steps
    first, second = np.split(np.array(drawn[False]), 2)
    np.testing.assert_array_equal(first, second)
    before = {*drawn[True]}
    world_models.trained(task, 1)
    assert len(before | {*drawn[True]}) == 2 * TINY.steps


def test_a_stopped_run_ends_as_an_unbroken_one(task, tmp_path, monkeypatch):
    whole = world_models.trained(task, 0)
    again = replace(task, store=tmp_path / "again")

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("rmr_gym.protocol.training.SAVE_EVERY_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        world_models.trained(again, 0, stop)
    steps = []
    resumed = world_models.trained(again, 0, lambda done, total: steps.append(done))
    assert steps == [4]
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(value, resumed.tensors[name]) for name, value in whole.tensors.items())
    assert whole.record["looks"] == resumed.record["looks"]
    other = world_models.trained(again, 1)
    assert any(not torch.equal(v, whole.tensors[name]) for name, v in other.tensors.items())


def test_the_best_look_is_kept_and_patience_ends(task, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.0])
    weights = []

    def validation_loss(model, clips, batch):
        del clips, batch
        weights.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(world_models, "validation_loss", validation_loss)
    eager = replace(TINY, steps=50, check_every=1, patience=2)
    artifact = world_models.trained(replace(task, preset=eager), 0)
    assert [look["validation_loss"] for look in artifact.record["looks"]] == [3.0, 1.0, 2.0, 2.5]
    assert artifact.record["step"] == 2
    best = artifact.part("best")
    assert all(torch.equal(value, best[name]) for name, value in weights[1].items())


def test_more_balls_and_more_groups_without_training_again(task, crowd, monkeypatch):
    world_models.trained(task, 0)
    monkeypatch.setattr(world_models, "train_model", None)
    few = scores.scored(task, 0, crowd)
    many = scores.scored(task, 0, crowd, groups=8)
    assert (few["groups"], many["groups"]) == (3, 8)
    assert few["bce"] != many["bce"]
    assert scores.scored(task, 0)["bce"] != few["bce"]


def test_groups_that_cannot_be(task):
    for groups in (0, 1):
        with pytest.raises(RMRError, match="2 groups or more"):
            replace(task, groups=groups)
    with pytest.raises(RMRError, match="2 groups or more"):
        replace(task, model="lstm", groups=4)
    assert replace(task, groups=4).sizes.groups == 4
    with pytest.raises(RMRError, match="rnem"):
        replace(task, model="r-nem")


def test_sequences_to_draw_are_in_line(task):
    sheets = rollouts.drawn(replace(task, model="copier"), 0, 2, seen=3, ahead=3)
    assert len(sheets) == 2
    for sheet in sheets:
        assert sheet.truth.shape == (4, 16, 16)
        assert sheet.seen == 2
        np.testing.assert_array_equal(sheet.predicted[1:3], sheet.truth[:2])
        np.testing.assert_array_equal(sheet.predicted[3], sheet.truth[1])
        assert sheet.shares.shape == (4, 2, 16, 16)
        assert sheet.pictures is None
    sheet = rollouts.drawn(task, 0, 1, seen=3, ahead=3)[0]
    assert sheet.pictures.shape == sheet.shares.shape == (4, 3, 16, 16)
    np.testing.assert_allclose(sheet.pictures.max(axis=1), sheet.predicted)
    assert sheet.attention.shape == (4, 3, 3)
    with pytest.raises(RMRError, match="2 frames or more"):
        rollouts.drawn(task, 0, 1, seen=1, ahead=3)
    with pytest.raises(RMRError, match="sequences to draw"):
        rollouts.drawn(task, 0, 100, seen=3, ahead=3)


def test_presets_that_cannot_be():
    for wrong in ({"steps": 0}, {"last": 5}):
        with pytest.raises(RMRError, match="expected counts"):
            replace(TINY, **wrong)
    assert WORLD_PRESETS["paper"].checkpoints[0] == 781
    with pytest.raises(RMRError, match="laptop"):
        presets.find_world_preset("labtop")
