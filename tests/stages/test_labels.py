from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.data.ram import byte_entropy, ram_to_bits
from rmr_gym.domains.atari_labels import label_values, labels_of
from rmr_gym.stages import labels as labels_module
from rmr_gym.stages.games import probe_sets
from rmr_gym.stages.labels import ALL_CATEGORIES, ALL_LABELS, AVERAGE, SCORES, averages, label_sets
from rmr_gym.stages.probe import Features, targets


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
        assert (ram_to_bits(part.ram)[:, game.data.slots] == part.bits).all()
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
    pixels = chain.compute(game.labelled_reference(game.pixels)).record["rows"]
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
                values = label_values(data.ram, labels_of("Pong"))
                values = np.eye(256, dtype=np.float32)[values].reshape(len(values), -1)
            drawn = rng.normal(size=values.shape) if self.noise else values
            parts.append(
                Features(torch.from_numpy(drawn.astype(np.float32)), targets(data), data.episode)
            )
        return tuple(parts)


def test_the_labels_themselves_as_features_score_far_above_noise(game, chain):
    scores = []
    for noise in (False, True):
        rows = chain.compute(game.labelled_reference(Given(noise, one_hot=True))).record["rows"]
        scores += [row["accuracy"] for row in rows if row["category"] == ALL_LABELS]
    assert scores[0] > scores[1] + 0.2


def test_given_features_are_probed_for_bits(game, chain):
    ram, noise = (
        chain.compute(game.probed_reference(Given(noise))).record["rows"] for noise in (False, True)
    )
    assert ram[0]["micro_f1"] > noise[0]["micro_f1"]
    assert ram[0]["dead_slots"] == 0


def test_no_varied_label_is_said(game, monkeypatch):
    constant = tuple(label for label in labels_of("Pong") if label.name == "player_x")
    monkeypatch.setattr(labels_module, "labels_of", lambda game: constant)
    label_sets.cache_clear()
    with pytest.raises(RMRError, match=r"more than 0.6 nats of entropy, found at most 0\."):
        labels_in(game)
