import json
from dataclasses import replace

import pytest

from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.games import find_game
from rmr_gym.runs.store import Store
from rmr_gym.stages.chain import GameTasks
from rmr_gym.stages.games import GameData
from rmr_gym.stages.natural import pretrain
from rmr_gym.stages.presets import (
    PRESETS,
    AtariPreset,
    Natural,
    Pretraining,
    Probing,
    as_json,
    find_preset,
)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_presets_are_json_and_name_real_games(preset):
    assert json.loads(json.dumps(as_json(preset))) == as_json(preset)
    assert preset.games == ("all",) or [find_game(game).name for game in preset.games]
    assert "ridge" in preset.probing.probes


def test_the_paper_preset_is_the_papers():
    paper = PRESETS["paper"]
    assert (paper.model.height, paper.model.width, paper.model.trunk) == (210, 160, "anand2019")
    assert (paper.model.dim, paper.natural.batch, paper.natural.learning_rate) == (64, 50, 1e-3)
    assert (paper.recording.train_episodes, paper.recording.validation_episodes) == (48, 48)
    assert (paper.seeds, paper.games) == (20, ("all",))


@pytest.mark.parametrize("name", PRESETS)
def test_options_of_a_preset_are_the_preset_until_they_are_changed(name):
    options = AtariPreset(**AtariPreset.proposals(name))
    assert options.chosen == PRESETS[name]
    natural = replace(options.natural, objective="infonce")
    assert replace(options, natural=natural).chosen == replace(PRESETS[name], natural=natural)


def test_the_default_options_are_those_of_the_default_preset():
    assert AtariPreset() == AtariPreset(**AtariPreset.proposals("laptop"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: find_preset(PRESETS, "smok"), "did you mean 'smoke'"),
        (lambda: AtariPreset.proposals("smok"), "did you mean 'smoke'"),
        (lambda: Natural(cnn="fp23"), "did you mean 'fp32'"),
        (lambda: Natural(objective="cswn"), "did you mean 'cswm'"),
        (lambda: Natural(negatives="papr"), "did you mean 'paper'"),
        (lambda: Natural(checkpoints=()), "checkpoints must be rising"),
        (lambda: Natural(checkpoints=(5, 3)), "checkpoints must be rising"),
        (lambda: Pretraining(steps=10, checkpoints=(5,)), "end at 10"),
        (lambda: Probing(probes=("ridg",)), "did you mean 'ridge'"),
    ],
)
def test_bad_configurations_are_refused(make, message):
    with pytest.raises(RMRError, match=message):
        make()


def test_jobs_of_other_cores_and_widths_have_other_titles(tmp_path):
    preset = PRESETS["smoke"]
    data = GameData.of("Pong", tmp_path, preset.recording)
    models = [preset.model, replace(preset.model, dim=2), replace(preset.model, core="mlp")]
    titles = {pretrain(data, model, preset.pretraining).title for model in models}
    assert titles == {
        "pretrain Pong mpnn dim 64",
        "pretrain Pong mpnn dim 2",
        "pretrain Pong mlp dim 64",
    }


@pytest.mark.parametrize("name", ["enduro", "ALE/Enduro-v5"])
def test_the_chain_of_a_game_that_no_table_knows(tiny_preset, tmp_path, name):
    """Only the paper's tables know 24 games; labels alone need one of them."""
    data = record(name, tmp_path / "d", episodes=6, max_steps=30)
    game = GameTasks(GameData.of("Enduro", data.path, tiny_preset.recording), tiny_preset)
    store = Store(tmp_path / "store")
    rows = store.compute(game.probed(game.trained("rmr", 0))).record["rows"]
    assert {row["step"] for row in rows} == {2, 4}
    assert all(0 <= row["micro_f1"] <= 1 for row in rows)
    assert store.compute(game.ranked(game.trained("rmr", 0))).record["rows"]
    with pytest.raises(RMRError, match="Enduro"):
        store.compute(game.labelled(game.pixels))
