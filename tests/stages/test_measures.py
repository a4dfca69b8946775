from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rmr_gym.core.errors import RMRError
from rmr_gym.data.sampling import byte_entropy, ram_to_bits
from rmr_gym.domains import atari
from rmr_gym.domains.atari import ProbeData, label_values, ram_labels
from rmr_gym.models.rmr.pipeline import EncodeProcessDecode
from rmr_gym.models.rmr.processors import make_processor
from rmr_gym.stages import measures as measures_module
from rmr_gym.stages.games import ProbeSets, probe_sets
from rmr_gym.stages.measures import (
    AHEAD,
    ALL_CATEGORIES,
    ALL_LABELS,
    AVERAGE,
    COMPONENTS,
    FORECAST,
    HORIZONS,
    SCORES,
    SMALLEST,
    Paths,
    averages,
    best_slots,
    forecast_sets,
    horizons,
    label_sets,
    path_starts,
    predict_labels,
    rank_predictions,
    ranking_paths,
)
from rmr_gym.stages.presets import OBJECTIVES
from rmr_gym.stages.probe import Features, principal_components


def sets_of(game):
    return probe_sets(game.data, game.preset.model, game.preset.probing)


def labels_in(game):
    return label_sets(game.data, game.preset.model, game.preset.probing)


def test_labels_are_the_ram_behind_the_probes_frames(game):
    sets, labels = sets_of(game), labels_in(game)
    episodes = game.data.open()
    ram = episodes.dataset.load(columns=("ram",), episodes=episodes.training)["ram"]
    for column, label in enumerate(labels.labels):
        assert label.mask == 255
        assert (labels.training[:, column] == sets.training.ram[:, label.ram]).all()
        assert (labels.test[:, column] == sets.test.ram[:, label.ram]).all()
        assert byte_entropy(ram[:, [label.ram]])[0] > game.data.entropy_threshold
    assert {"ball_x", "ball_y"} <= {label.name for label in labels.labels}
    assert "player_x" not in {label.name for label in labels.labels}  # the paddle's, constant


def test_memory_is_row_by_row_that_of_the_probe(game):
    for part in sets_of(game)[:2]:
        assert (ram_to_bits(part.ram)[:, game.data.scored_bytes] == part.bits).all()
    everything = replace(game.preset.probing, train_rows=10**6)
    whole = probe_sets(game.data, game.preset.model, everything).training
    episodes = game.data.open()
    lengths = [episodes.dataset.episodes[i].length + 1 for i in episodes.training]
    assert sum(lengths) == len(whole.ram)
    first = np.isin(np.arange(len(whole.ram)), np.cumsum([0, *lengths[:-1]]))
    assert (whole.before[first] == whole.ram[first]).all()
    assert (whole.before[1:][~first[1:]] == whole.ram[:-1][~first[1:]]).all()


def test_rows_hold_labels_and_averages(game, chain):
    rows = chain.compute(game.labelled(game.trained("rmr", 0))).record["rows"]
    names = [label.name for label in labels_in(game).labels]
    named = [row for row in rows if row["label"] != AVERAGE]
    assert [(row["step"], row["label"]) for row in named] == [(s, n) for s in (2, 4) for n in names]
    assert all(0 <= row["macro_f1"] <= 1 for row in rows)
    pixels = chain.compute(game.labelled(game.pixels)).record["rows"]
    assert pixels[-1]["category"] == ALL_CATEGORIES


def test_averages_by_category_over_labels_and_over_categories():
    def row(name, category, score):
        scores = dict.fromkeys(SCORES, score)
        return {"label": name, "category": category, **scores, "classes": 2}

    rows = [row("a", "misc", 0.2), row("b", "misc", 0.4), row("c", "agent_localisation", 0.9)]
    means = {mean["category"]: mean["macro_f1"] for mean in averages(rows)}
    assert means == pytest.approx(
        {"agent_localisation": 0.9, "misc": 0.3, ALL_LABELS: 0.5, ALL_CATEGORIES: 0.6}
    )


class Given(NamedTuple):
    """Features of the RAM, or noise of the same shape."""

    noise: bool
    one_hot: bool = False
    slots: int = 0

    def key(self):
        return {"given": list(self)}

    def features(self, train, test):
        rng = np.random.default_rng(0)
        parts = []
        for data in (train, test):
            values = data.ram
            if self.one_hot:
                values = label_values(data.ram, ram_labels("Pong"))
                values = np.eye(256, dtype=np.float32)[values].reshape(len(values), -1)
            drawn = rng.normal(size=values.shape) if self.noise else values
            parts.append(torch.from_numpy(drawn.astype(np.float32)))
        return tuple(parts)


def test_the_labels_themselves_as_features_score_far_above_noise(game, chain):
    scores = []
    for noise in (False, True):
        rows = chain.compute(game.labelled(Given(noise, one_hot=True))).record["rows"]
        scores += [row["accuracy"] for row in rows if row["category"] == ALL_LABELS]
    assert scores[0] > scores[1] + 0.2


def test_given_features_are_probed_for_bits(game, chain):
    ram, noise = (
        chain.compute(game.probed(Given(noise))).record["rows"] for noise in (False, True)
    )
    assert ram[0]["micro_f1"] > noise[0]["micro_f1"]
    assert ram[0]["dead_slots"] == 0


def test_no_varied_label_is_said(game, monkeypatch):
    constant = tuple(label for label in ram_labels("Pong") if label.name == "player_x")
    monkeypatch.setattr(measures_module, "ram_labels", lambda game: constant)
    label_sets.cache_clear()
    with pytest.raises(RMRError, match=r"more than 0.6 nats of entropy, found at most 0\."):
        labels_in(game)


def clusters(rows, classes, width, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(classes, width))
    labels = rng.integers(0, classes, rows)
    values = centres[labels] + spread * rng.normal(size=(rows, width))
    return torch.from_numpy(values).float(), labels


def test_separable_labels_are_read_off_all_at_once():
    train, first = clusters(400, 6, 12)
    test, expected = clusters(100, 6, 12, seed=1)
    labels = np.stack([first * 40, first % 2 + 254], 1).astype(np.uint8)
    fit = np.arange(400) % 4 > 0
    predicted = predict_labels(train, labels, fit, test)
    assert predicted.shape == (100, 2)
    assert (predicted[:, 0] == expected * 40).mean() > 0.97
    assert (predicted[:, 1] == expected % 2 + 254).mean() > 0.97


def test_about_as_good_as_a_validated_logistic_regression():
    train, labels = clusters(600, 8, 10, spread=1.3)
    test, expected = clusters(400, 8, 10, seed=1, spread=1.3)
    fit = np.arange(600) % 4 > 0
    predicted = predict_labels(train, labels[:, None].astype(np.uint8), fit, test)
    other = LogisticRegression(max_iter=500).fit(train[fit].numpy(), labels[fit])
    ours, theirs = (predicted[:, 0] == expected).mean(), other.score(test.numpy(), expected)
    assert ours == pytest.approx(theirs, abs=0.03)


def test_fitting_stops_before_noise_is_learned_by_heart():
    """Wide noise around one informative direction: the last round is worse than the best."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).astype(np.uint8)
    values = rng.normal(size=(300, 400))
    values[:, 0] += 4 * (2.0 * labels - 1)
    held = rng.integers(0, 2, 400).astype(np.uint8)
    test = rng.normal(size=(400, 400))
    test[:, 0] += 4 * (2.0 * held - 1)
    fit = np.arange(300) % 4 > 0
    tensors = (torch.from_numpy(part).float() for part in (values, test))
    train, others = tensors
    predicted = predict_labels(train, labels[:, None], fit, others)
    assert (predicted[:, 0] == held).mean() > 0.95


def test_constant_features_predict_the_commonest_class():
    labels = np.array([3] * 9 + [5] * 3, np.uint8)[:, None]
    fit = np.arange(12) % 4 > 0
    predicted = predict_labels(torch.ones(12, 6), labels, fit, torch.ones(4, 6))
    assert (predicted == 3).all()


def test_projection_keeps_what_rows_say_of_each_other():
    train, _ = clusters(40, 4, 30)
    turned, test = principal_components(train, train[:5], COMPONENTS, SMALLEST, whitening=0.5)
    assert turned.shape == (40, 30)
    torch.testing.assert_close(turned[:5], test)
    deviation = turned.var(0, correction=0)
    original = (train - train.mean(0)).var(0, correction=0).sum()
    # each direction is divided by the root of its deviation, so squares of variances add up
    torch.testing.assert_close(deviation.square().sum(), original, rtol=1e-3, atol=1e-3)


def test_paths_follow_the_episodes(game):
    paths = ranking_paths(game.data, game.preset.model)
    episodes = game.data.open()
    data = atari.load_natural(episodes.dataset, episodes.validation, 84, 84)
    rows = len(paths.start)
    assert paths.action.shape == (rows, AHEAD[-1])
    lengths = [episodes.dataset.episodes[index].length for index in episodes.validation]
    assert rows == sum(max(0, length - AHEAD[-1] + 1) for length in lengths)
    starts = np.concatenate(
        [
            np.arange(max(0, length - AHEAD[-1] + 1)) + first
            for length, first in zip(lengths, np.cumsum([0, *lengths]), strict=False)
        ]
    )
    for ahead, frames in paths.later.items():
        assert torch.equal(frames, data.frames[data.current[starts] + ahead])
    assert torch.equal(paths.action[:, 4], data.action[starts + 4])


class Corner(torch.nn.Module):
    """Encodes a frame as the numbers that stand in its corner."""

    def __init__(self, width=1):
        super().__init__()
        self.none, self.width = torch.nn.Parameter(torch.zeros(1)), width

    def forward(self, frames):
        return frames[:, 0, : self.width].float()[:, None]


def adding_processor(weights):
    """A world in which what the action stands for is added to the state."""
    processor = make_processor("none", slots=1, actions=18, dim=len(weights))
    with torch.no_grad():
        processor.action_encoder.weight.copy_(weights)
        processor.action_encoder.bias.zero_()
    return processor


def test_predictions_are_unrolled_with_each_steps_own_action():
    rng = np.random.default_rng(0)
    start = torch.from_numpy(rng.permutation(100)[:40].astype(np.uint8))
    action = torch.from_numpy(rng.integers(0, 18, (40, 10)))
    frames = start[:, None, None].expand(40, 2, 2)
    later = {
        ahead: (frames + action[:, :ahead].sum(1)[:, None, None]).to(torch.uint8) for ahead in AHEAD
    }
    processor = adding_processor(torch.arange(18.0)[None])
    pipeline = EncodeProcessDecode(Corner(), processor, torch.nn.Identity())
    rows = rank_predictions(pipeline, Paths(frames, action, later))
    assert [row["ahead"] for row in rows] == list(AHEAD)
    assert all(row["hits_at_1"] == row["mrr"] == 1 and row["rows"] == 40 for row in rows)
    shifted = {ahead: frames.roll(1, 0) for ahead, frames in later.items()}
    worse = rank_predictions(pipeline, Paths(frames, action, shifted))
    assert all(row["mrr"] < 0.5 for row in worse)


def test_states_are_ranked_by_the_similarity_that_was_learnt_beside_the_copy():
    """By hand: P doubles the first number and keeps the second.

    The states (4, 1), (6, 2), (1, 4) are predicted to become (8, 1), (12, 2), (2, 4); what comes is
    (4, 0), (6, 1), (1, 2).
    """

    class Doubling(torch.nn.Module):
        def forward(self, latents, action):
            del action
            return latents * torch.tensor([2.0, 1.0])

    def frames(*corners):
        return torch.tensor(corners, dtype=torch.uint8)[:, None, :]

    start = frames((4, 1), (6, 2), (1, 4))
    true = frames((4, 0), (6, 1), (1, 2))
    pipeline = EncodeProcessDecode(Corner(2), Doubling(), torch.nn.Identity())
    paths = Paths(start, torch.zeros(3, 10, dtype=torch.long), {1: true})
    (cosine,) = rank_predictions(pipeline, paths, "cosine")
    (euclidean,) = rank_predictions(pipeline, paths, "euclidean")
    assert (cosine["similarity"], euclidean["similarity"]) == ("cosine", "euclidean")
    # cosine: (4,0) and (8,1) 1st; (6,1) and (12,2) 1st; (1,2) and (2,4) 1st
    assert (cosine["hits_at_1"], cosine["mrr"]) == (1.0, 1.0)
    # squared distance: (4,0) to (8,1) is 17, to (2,4) 20; (6,1) to (12,2) is 37, but to (8,1) 4
    # and to (2,4) 25; (1,2) to (2,4) is 5
    assert euclidean["hits_at_1"] == pytest.approx(2 / 3)
    assert euclidean["mrr"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    # copies, by distance: (4,0) to (4,1); (6,1) to (6,2); (1,2) to (1,4), each the nearest
    assert (euclidean["copy_hits_at_1"], euclidean["copy_mrr"]) == (1.0, 1.0)
    # by cosine (4,0) is as near to none as to (4,1); (6,1) is nearer to (4,1) than to (6,2)
    assert cosine["copy_hits_at_1"] == pytest.approx(2 / 3)
    assert cosine["copy_mrr"] == pytest.approx((1 + 1 / 2 + 1) / 3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_ranked_by_its_own_similarity(game, chain, objective):
    changed = game.with_preset(natural={"objective": objective, "checkpoints": (2,)})
    rows = chain.compute(changed.ranked(changed.trained("cswm", 0))).record["rows"]
    expected = "cosine" if objective.startswith("infonce") else "euclidean"
    assert [row["similarity"] for row in rows] == [expected] * len(AHEAD)
    assert [(row["step"], row["ahead"]) for row in rows] == [(2, ahead) for ahead in AHEAD]
    for row in rows:
        assert 0 < row["mrr"] <= 1
        assert 0 < row["copy_mrr"] <= 1
        assert 0 <= row["tied"] <= 1


def test_episodes_that_are_too_short_are_said(game, monkeypatch):
    monkeypatch.setattr(measures_module, "AHEAD", (1, 500))
    other = replace(game.data, entropy_threshold=0.61)
    with pytest.raises(RMRError, match="record longer episodes"):
        ranking_paths(other, game.preset.model)


def headroom_sets(rng, rows, episodes=4):
    """Frames without content whose bits are drawn: two bytes."""

    def drawn():
        bits = rng.integers(0, 2, (rows, 2, 8)).astype(np.uint8)
        frames, ram = torch.zeros(rows, 2, 2, dtype=torch.uint8), np.zeros((rows, 128), np.uint8)
        return ProbeData(frames, bits, np.arange(rows) % episodes, ram, ram)

    return ProbeSets(drawn(), drawn(), 0)


def test_each_byte_is_read_from_its_own_slot():
    """Slot 2 holds the first byte, slot 0 the second; slot 1 holds noise."""
    rng = np.random.default_rng(0)
    sets = headroom_sets(rng, 400)

    def latents(part):
        noise = rng.normal(size=(len(part.bits), 1, 8))
        slots = np.concatenate([part.bits[:, 1:], noise, part.bits[:, :1]], axis=1)
        return torch.from_numpy(slots).flatten(1).float()

    features = Features(latents(sets.training), latents(sets.test), 3)
    assert (best_slots(features, sets, 8) == (sets.test.bits > 0)).all()
    leading = features._replace(slots=0)  # the last eight numbers alone: the first byte
    read = best_slots(leading, sets, 8) == (sets.test.bits > 0)
    assert read[:, 0].all()
    assert 0.4 < read[:, 1].mean() < 0.6


def test_headroom_agrees_with_the_probe_where_both_measure(game, chain):
    """All labelled frames, all bytes: what the ridge probe says at the last checkpoint."""
    features = game.trained("rmr", 0)
    rows = chain.compute(game.measured(features)).record["rows"]
    probed = chain.compute(game.probed(features)).record["rows"]
    last = max(row["step"] for row in probed)
    ridge = next(row for row in probed if row["step"] == last and row["probe"] == "ridge")
    frames = {(row["at"], row["bytes"]): row for row in rows if row["measure"] == "frames"}
    count = len(sets_of(game).training.frames)
    assert {at for at, _ in frames} == {50, count}
    assert frames[count, "all"]["micro_f1"] == pytest.approx(ridge["micro_f1"])
    assert {row["step"] for row in rows} == {last}
    assert {row["measure"] for row in rows} == {"frames", "slot", "present", "forecast", "ceiling"}


def test_instants_of_a_forecast_are_so_many_steps_on(game):
    paths, instants = forecast_sets(game.data, game.preset.model)
    assert list(instants) == [0, *FORECAST]
    for path, part in zip(paths, ("training", "validation"), strict=True):
        known = game.data.abstract(part)
        name = {"training": "training", "validation": "test"}[part]
        start, later = (getattr(instants[ahead], name) for ahead in (0, 16))
        assert path.action.shape == (len(start.frames), 16)
        rows = path_starts(known.current, 16, 1000, "ranking paths")
        assert (later.ram == known.ram[known.current[rows] + 16]).all()
        assert (start.ram == known.ram[known.current[rows]]).all()


def test_starts_leave_room_in_their_episode():
    current = np.array([0, 1, 2, 4, 5, 6, 7, 9])  # episodes of 3, 4 and 1 steps
    assert path_starts(current, 3, 100, "x").tolist() == [0, 3, 4]
    assert path_starts(current, 4, 100, "x").tolist() == [3]
    assert len(path_starts(current, 1, 5, "x")) == 5
    with pytest.raises(RMRError, match="an episode of 5 steps"):
        path_starts(current, 5, 100, "x")


def test_horizons_score_what_is_predicted_step_by_step(game, chain, monkeypatch):
    """With a pipeline that copies, every horizon scores as the copied start does."""
    rows = chain.compute(game.rolled()).record["rows"]
    assert [row["k"] for row in rows if "model" not in row] == list(HORIZONS)
    monkeypatch.setattr(
        atari, "predict_ram", lambda pipeline, data: data.bits[data.current].astype(bool)
    )
    pretrained = chain.compute(game.pretrained())
    copied = horizons.function(game.data, game.preset.model, pretrained).record["rows"]
    for own, start in zip(copied[1::2], copied[::2], strict=True):
        assert start == {"model": "copy", **own}
    assert copied[::2] == rows[::2]
