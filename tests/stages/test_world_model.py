"""World models: trained once a session each; what decides, what is scored, what may not differ."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.clips import Clips, load_clips, true_groups
from rmr_gym.models.rmr.processors import parameter_hash
from rmr_gym.models.world.crops import Asked, ViewGeometry
from rmr_gym.models.world.frames import (
    WITH_ACTIONS,
    FrameSizes,
    MemorylessSizes,
    Prediction,
    WorldModel,
    frame_bce,
)
from rmr_gym.models.world.nem import NEMSizes
from rmr_gym.models.world.s2rm import S2RM_MODELS
from rmr_gym.runs import training as loop
from rmr_gym.runs.store import Store
from rmr_gym.runs.training import DivergedError
from rmr_gym.stages import world_model as stages
from rmr_gym.stages.balls import BallsFolder, given_balls
from rmr_gym.stages.world_model import (
    SCORES,
    WORLD_MODELS,
    PlannedModel,
    RecordedFrames,
    WorldEntry,
    WorldScoring,
    WorldTraining,
    check_groups,
    chosen_preset,
    drawn,
    find_world_preset,
    pixel_scores,
    to_draw,
    world_scores,
)

TINY = {"training.steps": 4, "training.batch": 2, "training.check_every": 2}
LAST, SEEN, AHEAD, UNROLL = 2, 3, 2, 5
INSIDE = ("rmr", "fresh_p", "random_p", "shuffled_p")
LOSSES = ("bce", "relational_bce", "rollout_bce")


@pytest.fixture(autouse=True)
def _forget(forget_loaded):
    yield
    forget_loaded()


@pytest.fixture
def plan(frames_of, donor_of_balls):
    """Plan a tiny training of a model, with a P inside where it has one."""

    def planned(model, data=None, **overrides):
        entry, recorded = WORLD_MODELS[model], RecordedFrames(data or frames_of("four"), 0.4)
        changes = TINY | {name.replace("_", ".", 1): value for name, value in overrides.items()}
        preset = chosen_preset(model, "smoke", changes)
        if entry.arm is None:
            return PlannedModel(recorded, model, preset)
        sizes = stages.donor_sizes(BallsFolder(donor_of_balls).read())
        preset = replace(preset, sizes=preset.sizes.with_processor(sizes))
        donor = given_balls(BallsFolder(donor_of_balls)) if entry.arm.pretrained else None
        return PlannedModel(recorded, model, preset, donor)

    return planned


def add_model(monkeypatch, name, make):
    entry = WorldEntry(lambda shape, sizes, actions: make(shape), {"smoke": MemorylessSizes()})
    monkeypatch.setitem(WORLD_MODELS, name, entry)


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

    def losses(self, frames, actions, generator):
        del actions, generator
        return frame_bce(frames[:, :-1], frames[:, 1:]) + self.nothing.square()


class Prophet(nn.Module):
    """Knows every frame of some data: predicts what ``say`` makes of the next. Groups are balls.

    In the first frame of a sequence it takes all for one group.
    """

    cut = 0.0

    def __init__(self, data, say):
        super().__init__()
        dataset = TransitionDataset(data)
        clips = load_clips(dataset, range(len(dataset.episodes)), 2, truth=True)
        frames = torch.from_numpy(clips.frames).float() / 255
        owners = true_groups(clips, np.arange(len(frames))).astype(np.int64)
        self.frames, self.owners, self.say = frames, torch.from_numpy(owners), say
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
        owners = self.owners[rows] if steps else torch.zeros_like(self.owners[rows])
        groups = nn.functional.one_hot(owners, int(self.owners.max()) + 1).movedim(-1, 1).float()
        return Prediction(self.say(self.frames[rows + 1]), groups)

    def losses(self, frames, actions, generator):
        del actions, generator
        return frame_bce(self.say(frames[:, 1:]), frames[:, 1:]) + self.nothing.square()


@pytest.fixture
def copier(monkeypatch, plan):
    add_model(monkeypatch, "copier", Copier)
    return plan("copier")


@pytest.fixture
def row_of(chain):
    """Return the row of scores of a plan and the curves of its simulation."""

    def scores(planned, *arguments):
        record = chain.compute(planned.scored(0, *arguments)).record
        curves = {
            key: [row[key] for row in record["simulation"]] for key in record["simulation"][0]
        }
        return record["rows"][0], curves

    return scores


@pytest.fixture
def prophecy(monkeypatch, plan, row_of, frames_of):
    def scores(name, say):
        add_model(monkeypatch, name, lambda shape: Prophet(frames_of("four"), say))
        return row_of(plan(name))[0]

    return scores


@pytest.mark.parametrize("name", [*WORLD_MODELS])
def test_every_entry_is_trained_and_scored(plan, chain, row_of, name):
    planned = plan(name)
    artifact = chain.compute(planned.trained(0))
    assert isinstance(planned.network(artifact), WorldModel)
    row, curves = row_of(planned)
    assert set(row) == set(SCORES)
    assert all(row[key] > 0 for key in SCORES if key.endswith("bce"))
    assert (not np.isnan(row["ari"])) == WORLD_MODELS[name].grouped
    assert {len(curve) for curve in curves.values()} == {AHEAD}


def test_copying_is_as_good_as_copying(copier, row_of):
    row, simulation = row_of(copier)
    assert row["relative_bce"] == row["relative_relational_bce"] == 1
    assert row["relative_rollout_bce"] == 1
    assert row["relational_bce"] < row["bce"]
    assert simulation["bce"] == simulation["copied"]
    assert simulation["f1"] == simulation["f1_copied"]
    assert simulation["f1_moving"] == simulation["f1_moving_copied"]
    assert 0 < row["rollout_f1"] == row["rollout_f1_copied"] < row["rollout_f1_velocities"] < 1
    assert row["rollout_f1_moving"] <= row["rollout_f1"]
    assert row["gain"] == pytest.approx(0, abs=1e-6)
    assert row["changed_bce"] == pytest.approx(13.8155, rel=1e-3)
    assert -0.2 < row["ari"] < 0.9


def test_the_truth_beats_copying_and_its_inverse_does_not(prophecy):
    prophet = prophecy("prophet", lambda frames: frames)
    liar = prophecy("liar", lambda frames: 1 - frames)
    assert all(prophet[kind] < 0.01 for kind in LOSSES)
    assert all(prophet[f"relative_{kind}"] < 0.01 for kind in LOSSES)
    assert all(liar[f"relative_{kind}"] > 1 for kind in LOSSES)
    assert (prophet["rollout_f1"], liar["rollout_f1"]) == (1, 0)
    assert prophet["gain"] == pytest.approx(1)
    assert prophet["changed_bce"] < 1e-5
    assert prophet["ari"] == 1, "groups of the first frame do not count"
    assert prophet["ari_last"] == 1


def test_a_ball_that_is_predicted_halfway_moves_half_as_far(copier):
    clips = copier.data.scored(UNROLL + 1, 8)
    model = Copier(clips.shape)
    said = iter([clips.frames[clips.rows[:, t : t + 2]].mean(axis=1) / 255 for t in range(UNROLL)])
    model.decode = lambda state: Prediction(torch.from_numpy(next(said)).float())
    scores = stages.score_frames(model, clips)
    assert scores["along"].sum() / scores["moved"].sum() == pytest.approx(0.5, abs=0.02)


def test_the_noisy_twin_sees_what_is_flipped(plan):
    clean, noisy = (plan(name).initial(0) for name in ("memoryless", "memoryless_noisy"))
    frame = torch.zeros(1, 16, 16, 1)
    seen = [
        model.step(model.init_state(1, torch.Generator().manual_seed(0)), frame, None).frame
        for model in (clean, noisy)
    ]
    assert not seen[0].any()
    assert 0.1 < seen[1].mean() < 0.3


@pytest.mark.parametrize(("said", "f1"), [(0.55, 1.0), (0.45, 0.0)])
def test_what_is_predicted_above_a_half_counts_as_lit(prophecy, said, f1):
    assert prophecy(f"doubter{said}", lambda frames: frames * said)["rollout_f1"] == f1


def test_f1_of_a_simulation_pools_the_pixels_of_all_sequences(copier, monkeypatch):
    monkeypatch.setattr(stages, "SCORE_BATCH", 3)
    clips = copier.data.scored(SEEN + AHEAD, 8)
    frames, _ = clips.shown(np.arange(len(clips.rows)), torch.device("cpu"))
    simulation = stages.score_simulation(Copier(clips.shape), clips, SEEN)
    for ahead in range(AHEAD):
        said, lit = frames[:, SEEN - 1] > 0.5, frames[:, SEEN + ahead] > 0.5
        both = 2 * (said & lit).sum().item()
        assert simulation["f1"][ahead] == pytest.approx(both / (said.sum() + lit.sum()).item())
        bce = frame_bce(frames[:, SEEN - 1], frames[:, SEEN + ahead]).mean().item()
        assert simulation["bce"][ahead] == pytest.approx(bce)
    assert len(clips.rows) > 3


def test_scores_are_means_over_the_last_predictions(copier, row_of):
    clips = copier.data.scored(UNROLL + 1, 8)
    frames, _ = clips.shown(np.arange(len(clips.rows)), torch.device("cpu"))
    wrong = (frames[:, 1:] != frames[:, :-1]).float().sum(dim=(2, 3, 4))[:, -LAST:]
    assert row_of(copier)[0]["bce"] == pytest.approx(wrong.mean().item() * 13.8155, rel=1e-2)


def test_a_ratio_to_what_is_never_wrong_is_none(plan, chain, monkeypatch):
    planned, scored = plan("rnn"), RecordedFrames.scored
    trained = chain.compute(planned.trained(0))

    def row(lit):
        def still(*arguments):
            clips = scored(*arguments)
            frames = np.zeros_like(clips.frames)
            frames[clips.rows[0, -1], 0, :lit] = 255
            return replace(clips, frames=frames)

        monkeypatch.setattr(RecordedFrames, "scored", still)
        how = (planned, trained, planned.data, planned.preset.scoring)
        return world_scores.function(*how).record["rows"][0]

    never, once, twice = row(0), row(1), row(2)
    assert np.isnan([never["relative_bce"], never["relative_rollout_bce"]]).all()
    assert never["bce"] > 0
    assert once["relative_bce"] == pytest.approx(twice["relative_bce"] * 2, rel=0.1)


def test_simulations_of_gray_frames_are_not_cut(plan, chain, monkeypatch):
    planned = plan("rnem")
    clips, networks, simulate = planned.data.scored(5, 8), [], stages.score_simulation

    def spied(network, *arguments):
        networks.append(network)
        return simulate(network, *arguments)

    monkeypatch.setattr(stages, "score_simulation", spied)
    gray = replace(clips, frames=clips.frames // 2)
    artifact = chain.compute(planned.trained(0))
    for shown, cut, used in ((clips, 0.3, 0.3), (clips, 0.0, 0.0), (gray, 0.3, 0.0)):
        monkeypatch.setattr(RecordedFrames, "scored", lambda *arguments, clips=shown: clips)
        soft = replace(planned.preset.scoring, cut=cut)
        networks.clear()
        world_scores.function(planned, artifact, planned.data, soft)
        assert [network.cut for network in networks] == [used]


def test_simulations_hang_on_the_cut_and_trainings_do_not(plan):
    hard, soft = plan("rnem"), plan("rnem", scoring_cut=0.0)
    assert hard.trained(0).key == soft.trained(0).key
    assert hard.scored(0).key != soft.scored(0).key


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.steps", 0, "counts of 1 or more in WorldTraining, got steps=0"),
        ("training.learning_rate", 0.0, r"learning_rate in \(0, inf\)"),
        ("training.patience", 0, "counts of 1 or more in WorldTraining, got patience=0"),
        ("scoring.ahead", 0, "counts of 1 or more in WorldScoring, got ahead=0"),
        ("training.end", 1.5, r"end in \[0, 1\] in WorldTraining, got end=1.5"),
        ("scoring.last", 5, "fewer last predictions than all of a sequence, got 5 and 5"),
        ("scoring.cut", 1.0, r"cut in \[0, 1\) in WorldScoring, got cut=1"),
        ("validation_share", 1.0, r"validation_share in \(0, 1\)"),
        ("sizes.groups", 1, "2 groups or more in a model that has groups, got 1 and rnem"),
    ],
)
def test_a_preset_that_cannot_be_is_refused(path, value, message):
    with pytest.raises(RMRError, match=message):
        chosen_preset("rnem", "smoke", {path: value})


def test_an_option_that_no_model_has_is_refused():
    stages.refuse_unknown(["rnem", "rims"], "smoke", {"sizes.dim": 3, "sizes.rims.active": 2})
    with pytest.raises(RMRError, match=r"'sizes\.dims': did you mean 'sizes\.dim'"):
        stages.refuse_unknown(["rnem"], "smoke", {"sizes.dims": 3})
    with pytest.raises(RMRError, match=r"2 groups or more .*, got 3 and rnn"):
        stages.refuse_unknown(["rnn"], "smoke", {"sizes.groups": 3})


def test_rates_that_are_no_number_are_refused():
    for rate in (np.nan, np.inf):
        with pytest.raises(RMRError, match=r"learning_rate in \(0, inf\)"):
            WorldTraining(1, rate)


def test_names_that_are_not_there():
    with pytest.raises(RMRError, match="did you mean 'laptop'"):
        find_world_preset("labtop", "s2gru")
    with pytest.raises(RMRError, match="did you mean 'rnem'"):
        find_world_preset("laptop", "r-nem")
    with pytest.raises(RMRError, match="got 3 and lstm"):
        check_groups("lstm", 3)


def test_presets_follow_the_papers():
    paper = find_world_preset("paper", "s2gru")
    assert (paper.training.batch, paper.training.learning_rate) == (32, 3e-4)
    assert (paper.scoring.seen, paper.scoring.ahead) == (20, 25)
    whole = find_world_preset("paper", "rnem")
    assert whole.training.batch == 64
    assert whole.training.checkpoints[0] == 781
    assert find_world_preset("laptop", "memoryless").training.learning_rate == 1e-2
    assert whole.horizon == 31
    assert replace(whole, scoring=WorldScoring(seen=30, ahead=5)).horizon == 35


def test_the_rate_rises_and_falls():
    training = WorldTraining(100, learning_rate=2.0, warmup=10, end=0.5)
    rates = [training.rate(step) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.2, rel=0.01)
    assert 1.9 < max(rates) == rates[9]
    assert rates[49] == pytest.approx(1.5)
    assert rates[-1] == pytest.approx(1.0)
    assert WorldTraining(100).rate(77) == 1e-3


def test_the_optimizer_is_told_the_rate(plan, monkeypatch, tmp_path):
    rates, step = [], torch.optim.Adam.step

    def spied(self, *arguments, **options):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", spied)
    planned = plan("memoryless", training_warmup=2, training_end=0.0, training_learning_rate=1.0)
    Store(tmp_path).compute(planned.trained(0))
    assert rates == pytest.approx([planned.preset.training.rate(step) for step in (1, 2, 3, 4)])
    assert rates[-1] == 0


def test_a_prediction_that_is_no_number_is_told_with_its_step(plan, monkeypatch, tmp_path):
    def broken(model, batch):
        return frame_bce(torch.full_like(batch.frames, torch.nan), batch.frames).mean()

    monkeypatch.setattr(stages, "sequence_loss", broken)
    with pytest.raises(DivergedError, match="step 1"):
        Store(tmp_path).compute(plan("rnem").trained(0))


def test_training_reads_no_truth(plan, monkeypatch, tmp_path):
    asked, load = [], TransitionDataset.load

    def spied(self, columns, **options):
        asked.append(tuple(columns))
        return load(self, columns=columns, **options)

    monkeypatch.setattr(TransitionDataset, "load", spied)
    Store(tmp_path).compute(plan("rnn").trained(0))
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
        length = len(clips.frames) // len(episodes)
        read.setdefault(dataset.path.name, set()).update(
            episodes[row // length] for row in self.rows[index].flat
        )
        return shown(self, index, device)

    monkeypatch.setattr(stages.domain, "load_clips", spied)
    monkeypatch.setattr(Clips, "shown", watched)
    return read


def test_what_is_trained_on_decides_and_scores_nothing(
    plan, frames_of, episodes_read, monkeypatch, tmp_path
):
    planned, store = plan("rnn"), Store(tmp_path)
    split = planned.data.open()
    training, held_out = set(split.training), set(split.validation)
    assert (len(training), len(held_out), training & held_out) == (3, 2, set())
    validated, loss = set(), stages.validation_loss

    def apart(*arguments):
        before = set(episodes_read.get("four", ()))
        episodes_read.clear()
        value = loss(*arguments)
        validated.update(episodes_read["four"])
        episodes_read["four"] = before
        return value

    monkeypatch.setattr(stages, "validation_loss", apart)
    store.compute(planned.trained(0))
    assert episodes_read == {"four": training}
    assert validated == held_out
    episodes_read.clear()
    store.compute(planned.scored(0))
    assert episodes_read == {"four": held_out}
    episodes_read.clear()
    store.compute(planned.scored(0, RecordedFrames(frames_of("crowd"))))
    assert episodes_read == {"crowd": {0, 1}}


def test_noise_is_new_at_every_step_and_the_same_at_every_validation(plan, monkeypatch, tmp_path):
    noise, loss, store = {True: [], False: []}, stages.sequence_loss, Store(tmp_path)

    def spied(model, batch):
        noise[model.training].append(batch.noise.initial_seed())
        return loss(model, batch)

    monkeypatch.setattr(stages, "sequence_loss", spied)
    store.compute(plan("rnn").trained(0))
    assert len(set(noise[True])) == 4
    first, second = np.split(np.array(noise[False]), 2)
    np.testing.assert_array_equal(first, second)
    before = {*noise[True]}
    store.compute(plan("rnn").trained(1))
    assert len(before | {*noise[True]}) == 8


def test_a_stopped_run_ends_as_an_unbroken_one(plan, chain, tmp_path, monkeypatch):
    task, again = plan("rnem").trained(0), Store(tmp_path)
    whole = chain.compute(task)

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        again.compute(task, stop)
    steps = []
    resumed = again.compute(task, lambda done, total: steps.append(done))
    assert steps == [4]
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(value, resumed.tensors[name]) for name, value in whole.tensors.items())
    assert whole.record["validations"] == resumed.record["validations"]
    other = again.compute(plan("rnem").trained(1))
    assert any(not torch.equal(v, whole.tensors[name]) for name, v in other.tensors.items())


def test_the_best_weights_are_kept_and_patience_ends(plan, monkeypatch, tmp_path):
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.0])
    weights = []

    def validation_loss(model, clips, batch):
        del clips, batch
        weights.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(stages, "validation_loss", validation_loss)
    eager = {"training_steps": 50, "training_check_every": 1, "training_patience": 2}
    artifact = Store(tmp_path).compute(plan("rnn", **eager).trained(0))
    validated = [point["validation_loss"] for point in artifact.record["validations"]]
    assert validated == [3.0, 1.0, 2.0, 2.5]
    assert artifact.record["step"] == 2
    assert all(torch.equal(value, artifact.tensors[name]) for name, value in weights[1].items())


def test_more_balls_and_more_groups_without_training_again(
    plan, chain, row_of, frames_of, monkeypatch
):
    planned, crowd = plan("rnem"), RecordedFrames(frames_of("crowd"))
    chain.compute(planned.trained(0))
    monkeypatch.setattr(stages, "train_phase", None)
    few, many = row_of(planned, crowd)[0], row_of(planned, crowd, 8)[0]
    assert (few["groups"], many["groups"]) == (3, 8)
    assert few["bce"] != many["bce"]
    assert row_of(planned)[0]["bce"] != few["bce"]


def test_sequences_to_draw_are_in_line(plan, chain, copier):
    clips = to_draw(copier.data, 8, 2, seen=3, ahead=3)
    sheets = drawn(Copier(clips.shape), clips, 2, 3)
    assert len(sheets) == 2
    for sheet in sheets:
        assert sheet.truth.shape == (4, 16, 16)
        assert sheet.seen == 2
        np.testing.assert_array_equal(sheet.predicted[1:3], sheet.truth[:2])
        np.testing.assert_array_equal(sheet.predicted[3], sheet.truth[1])
        assert sheet.shares.shape == (4, 2, 16, 16)
        assert sheet.pictures is None
    planned = plan("rnem")
    model = planned.network(chain.compute(planned.trained(0)))
    sheet = drawn(model, clips, 1, 3)[0]
    assert sheet.pictures.shape == sheet.shares.shape == (4, 3, 16, 16)
    np.testing.assert_allclose(sheet.pictures.max(axis=1), sheet.predicted)
    assert sheet.attention.shape == (4, 3, 3)
    with pytest.raises(RMRError, match="2 frames or more"):
        to_draw(copier.data, 8, 1, seen=1, ahead=3)
    with pytest.raises(RMRError, match="sequences to draw"):
        to_draw(copier.data, 8, 100, seen=3, ahead=3)
    with pytest.raises(RMRError, match="20 frames or more"):
        to_draw(copier.data, 8, 1, seen=10, ahead=10)


def test_one_thread_computes_what_is_drawn(copier, monkeypatch):
    clips, threads = to_draw(copier.data, 8, 2, seen=3, ahead=3), []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    drawn(Copier(clips.shape), clips, 1, 3)
    assert threads == [1, torch.get_num_threads()]


@pytest.mark.parametrize("family", ["rnem", "rims"])
def test_a_pretrained_processor_inside_stays_as_it_was(plan, chain, donor_of_balls, family):
    plans = {arm: plan(f"{family}_{arm}") for arm in INSIDE}
    donor = BallsFolder(donor_of_balls).read()
    hashes = {
        arm: chain.compute(planned.trained(0)).record["processor_hash"]
        for arm, planned in plans.items()
    }
    assert hashes["rmr"] == donor.record["processor_hash"]
    assert len({*hashes.values()}) == len(INSIDE)
    begun = {arm: p.initial(0, donor) for arm, p in plans.items()}
    fresh = stages.inner_processor(begun["fresh_p"])
    assert hashes["random_p"] == parameter_hash(fresh) != hashes["fresh_p"]
    outside = [
        {name: w for name, w in model.state_dict().items() if ".processor." not in name}
        for model in begun.values()
    ]
    for other in outside[1:]:
        assert all(torch.equal(w, other[name]) for name, w in outside[0].items())


@pytest.mark.parametrize(
    ("side", "channels"), [(64, 3), (48, 3), (52, 2), (10, 1), (15, 1), (96, 3)]
)
def test_convolutions_are_as_many_as_a_frame_can_be_halved(side, channels):
    whole = NEMSizes()
    fitted = whole.fitted((side, side, 1), 0)
    assert fitted == replace(whole, channels=whole.channels[:channels])
    assert whole.fitted((side, 8 * side, 1), 18) == replace(fitted, noise=WITH_ACTIONS)
    assert FrameSizes().fitted((side, side, 1), 18).channels == fitted.channels


def test_nothing_is_fitted_for_balls():
    for name in WORLD_MODELS:
        assert chosen_preset(name, "smoke", {}, ((16, 16, 1), 0)) == find_world_preset(
            "smoke", name
        )


def test_models_of_a_game_fit_its_screens(recorded):
    data = RecordedFrames(recorded("Pong"), 0.4)
    assert data.frames[0] == data.training("training", 6).shape == (84, 84, 1)
    preset = chosen_preset("rnem", "paper", {}, data.frames)
    assert (preset.sizes.noise, preset.sizes.channels) == (WITH_ACTIONS, (16, 32))
    for name in ("rnem", "rims", "rims_lstm"):
        preset = chosen_preset(name, "smoke", {}, data.frames)
        assert (preset.sizes.channels, preset.sizes.hidden) == ((16, 32), 250)
        PlannedModel(data, name, preset).initial(0)
    assert chosen_preset("rnem", "paper", {"sizes.noise": 0.1}, data.frames).sizes.noise == 0.1


@pytest.mark.parametrize("name", ["rnem", "rims", "memoryless"])
def test_models_are_trained_and_scored_on_a_game(recorded, chain, name):
    data = RecordedFrames(recorded("Breakout"), 0.4)
    preset = chosen_preset(
        name, "smoke", {"training.steps": 2, "scoring.sequences": 2}, data.frames
    )
    model = PlannedModel(data, name, preset)
    (scores,) = chain.compute(model.scored(0)).record["rows"]
    assert scores["relative_bce"] > 0
    assert scores["changed_bce"] > 0
    assert np.isnan(scores["gain"]), "a game has no balls whose place is known"


def test_one_episode_cannot_be_split(frames_of):
    with pytest.raises(RMRError, match=r"2 episodes or more in .*one, .* found 1: record more"):
        RecordedFrames(frames_of("one"), 0.4).key()


def test_balanced_accuracy_and_f1_by_hand():
    balanced, f1 = pixel_scores(np.array([14, 2, 3, 6]))
    assert balanced == pytest.approx((6 / 9 + 14 / 16) / 2)
    precision, recall = 6 / 8, 6 / 9
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert np.isnan(pixel_scores(np.array([5, 0, 0, 0]))[1])
    assert np.isnan(pixel_scores(np.array([0, 0, 3, 2]))[0])


@pytest.fixture
def s2gru(plan, frames_of):
    return plan("s2gru", frames_of("balls3"))


def test_scores_where_less_is_seen_train_once(s2gru, chain, frames_of, monkeypatch):
    chain.compute(s2gru.trained(0))
    monkeypatch.setattr(stages, "train_phase", None)
    met, count = [], stages.count_pixels

    def counted(model, clips):
        met.append((model.views, int((~model.spatial.present).sum())))
        return count(model, clips)

    monkeypatch.setattr(stages, "count_pixels", counted)
    balls5 = RecordedFrames(frames_of("balls5"))
    conditions = ((None, 4, 0), (None, 1, 0), (None, 4, 2), (balls5, 4, 0))
    tasks = [s2gru.scored_crops(0, *condition) for condition in conditions]
    rows = [chain.compute(task).record["rows"][0] for task in tasks]
    assert met == [(4, 0), (1, 0), (4, 2), (4, 0)], "crops that are seen, modules that are gone"
    assert [(row["views"], row["dropped"]) for row in rows] == met
    assert len({row["balanced_accuracy"] for row in rows}) > 1
    assert all(0 <= row["balanced_accuracy"] <= 1 for row in rows)
    with pytest.raises(RMRError, match="fewer than all 3"):
        chain.compute(s2gru.scored_crops(0, None, 4, 3))


class Seer(nn.Module):
    """Says of the queried crops what ``say`` makes of the truth."""

    cut = 0.5

    def __init__(self, say, places):
        super().__init__()
        self.say, self.places = say, places
        self.nothing = nn.Parameter(torch.zeros(()))
        self.geometry = ViewGeometry(16, 16, 1, 2, 5)

    def asked(self, frames, generator):
        drawn = [self.geometry.draw(len(frames), generator) for _ in range(frames.shape[1] - 1)]
        queries = torch.stack(drawn, dim=1)
        self.places.append(queries)
        truth = self.geometry.look(frames[:, 1:], queries)
        return Asked(2 * self.say(truth) - 1, truth, queries)


def test_pixels_are_counted_at_the_same_places_for_every_model(s2gru):
    clips = s2gru.data.scored(UNROLL + 1, 8)
    places = [], [], []
    (right, moving), (wrong, _), (lit, _) = (
        stages.count_pixels(Seer(say, seen), clips)
        for say, seen in zip(
            (lambda truth: truth, lambda truth: 1 - truth, torch.ones_like), places, strict=True
        )
    )
    assert pixel_scores(right) == (1, 1)
    assert pixel_scores(wrong) == (0, 0)
    assert 0 < moving[3] < right[3], "a fixed ball is lit throughout"
    assert sum(right) == sum(moving) == sum(wrong) == len(clips.rows) * UNROLL * 2 * 25
    assert right[0] != right[3]
    assert lit.tolist() == [0, right[0], 0, right[3]]
    assert wrong.tolist() == [0, right[0], right[3], 0]
    assert all(torch.equal(*pair) for pair in zip(*places[:2], strict=True))


def test_those_that_go_first_are_gone_when_more_go(s2gru, plan, chain, frames_of):
    model = s2gru.initial(0)
    assert s2gru.parts == model.parts == 3
    one, two = (stages.dropped_parts(model, count) for count in (1, 2))
    assert len(set(two)) == 2
    assert two[:1] == one
    lstm = plan("crops_lstm", frames_of("balls3"))
    assert lstm.parts == 0
    with pytest.raises(RMRError, match="none to drop"):
        chain.compute(lstm.scored_crops(0, None, 4, 1))


def test_enclaves_of_s2rms_alone(s2gru, plan, chain, frames_of):
    enclaves = stages.enclaves(s2gru, chain.compute(s2gru.trained(0)))
    attended, heard = enclaves["attended"], enclaves["heard"]
    assert attended.shape == (3, 16, 16)
    assert 0 <= attended.min() < attended.max() <= 1
    np.testing.assert_allclose(heard, heard.T, atol=1e-6)
    lstm = plan("crops_lstm", frames_of("balls3"))
    assert stages.enclaves(lstm, chain.compute(lstm.trained(0))) == {}


def test_crops_larger_than_the_frame(s2gru):
    sizes = replace(s2gru.preset.sizes, size=17)
    wide = replace(s2gru, preset=replace(s2gru.preset, sizes=sizes))
    assert {"s2gru", "crops_lstm"} <= {*S2RM_MODELS}
    with pytest.raises(RMRError, match="smaller crops"):
        wide.initial(0)


def test_sequences_longer_than_the_episodes(s2gru, tmp_path):
    training = replace(s2gru.preset.training, unroll=14)
    longer = replace(s2gru, preset=replace(s2gru.preset, training=training))
    with pytest.raises(RMRError, match="15 frames or more, found at most 12"):
        Store(tmp_path).compute(longer.trained(0))
