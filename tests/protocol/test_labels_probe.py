from dataclasses import replace

import numpy as np
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.data.ram import ram_to_bits, slot_entropy
from rmr_gym.domains.atari_labels import labels_of
from rmr_gym.protocol import labels_probe, stages
from rmr_gym.protocol.labels_probe import (
    ALL_CATEGORIES,
    ALL_LABELS,
    averages,
    label_sets,
    labelled,
    labelled_features,
    labelled_pixels,
)
from rmr_gym.protocol.memory_features import memory_sets, probed_features


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.natural_data, stages.probe_sets):
        cached.cache_clear()
    label_sets.cache_clear()
    memory_sets.cache_clear()


def test_labels_are_the_ram_behind_the_probes_frames(task):
    sets, memory = label_sets(task), memory_sets(task)
    episodes = stages.open_episodes(task)
    ram = episodes.dataset.load(columns=("ram",), episodes=episodes.training)["ram"]
    for column, label in enumerate(sets.labels):
        assert label.mask == 255
        assert (sets.training[:, column] == memory.training.ram[:, label.ram]).all()
        assert (sets.test[:, column] == memory.test.ram[:, label.ram]).all()
        assert slot_entropy(ram[:, [label.ram]])[0] > task.preset.probing.entropy_threshold
    assert {"ball_x", "ball_y"} <= {label.name for label in sets.labels}
    assert "player_x" not in {label.name for label in sets.labels}  # the paddle's, constant


def test_memory_is_row_by_row_that_of_the_probe(task):
    sets, memory, slots = (
        stages.probe_sets(task),
        memory_sets(task),
        stages.open_episodes(task).slots,
    )
    for part, data in ((memory.training, sets.training), (memory.test, sets.test)):
        assert (ram_to_bits(part.ram)[:, slots] == data.bits).all()
    whole = replace(task.preset.probing, train_rows=10**6)
    everything = replace(task, preset=replace(task.preset, probing=whole))
    found = memory_sets(everything).training
    lengths = [stages.open_episodes(task).dataset.episodes[i].length + 1 for i in range(4)]
    starts = np.cumsum([0, *lengths[:-1]])
    first = np.isin(np.arange(len(found.ram)), starts)
    assert sum(lengths) == len(found.ram)
    assert (found.before[first] == found.ram[first]).all()
    assert (found.before[1:][~first[1:]] == found.ram[:-1][~first[1:]]).all()


def test_rows_hold_labels_and_averages_and_are_found_again(task, monkeypatch):
    encoder = stages.untrained_encoder(task, 0)
    rows = labelled(task, encoder).record["rows"]
    named = [row for row in rows if row["label"] != labels_probe.AVERAGE]
    assert [row["label"] for row in named] == [label.name for label in label_sets(task).labels]
    assert all(0 <= row["macro_f1"] <= 1 for row in rows)
    monkeypatch.setattr(labels_probe, "label_rows", None)
    assert labelled(task, encoder).record["rows"] == rows
    with pytest.raises(TypeError):
        labelled(task, stages.untrained_encoder(task, 1))


def test_averages_by_category_over_labels_and_over_categories():
    def row(name, category, score):
        scores = dict.fromkeys(labels_probe.SCORES, score)
        return {"label": name, "category": category, **scores, "classes": 2}

    rows = [row("a", "misc", 0.2), row("b", "misc", 0.4), row("c", "agent_localisation", 0.9)]
    found = {each["category"]: each["macro_f1"] for each in averages(rows)}
    assert found == pytest.approx(
        {"agent_localisation": 0.9, "misc": 0.3, ALL_LABELS: 0.5, ALL_CATEGORIES: 0.6}
    )


def test_the_labels_themselves_as_features_score_far_above_noise(task):
    sets = label_sets(task)
    truth = [
        (np.eye(256, dtype=np.float32)[part]).reshape(len(part), -1)
        for part in (sets.training, sets.test)
    ]
    noise = [np.random.default_rng(0).normal(size=part.shape) for part in truth]
    scores = [
        next(
            row
            for row in labelled_features(task, *parts).record["rows"]
            if row["category"] == ALL_LABELS
        )
        for parts in (truth, noise)
    ]
    assert scores[0]["accuracy"] > scores[1]["accuracy"] + 0.2


def test_pixels_and_given_features_are_probed(task):
    assert labelled_pixels(task).record["rows"][-1]["category"] == ALL_CATEGORIES
    memory = memory_sets(task)
    features = [part.ram.astype(np.float32) for part in memory]
    (ridge, *_) = probed_features(task, *features).record["rows"]
    noise = [np.random.default_rng(1).normal(size=part.shape) for part in features]
    (other, *_) = probed_features(task, *noise).record["rows"]
    assert ridge["micro_f1"] > other["micro_f1"]
    assert ridge["dead_slots"] == 0


def test_no_varied_label_is_said(task, monkeypatch):
    constant = tuple(label for label in labels_of("Pong") if label.name == "player_x")
    monkeypatch.setattr(labels_probe, "labels_of", lambda game: constant)
    with pytest.raises(RMRError, match=r"more than 0.6 nats of entropy, found at most 0\."):
        label_sets(task)
