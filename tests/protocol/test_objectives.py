import json

import pandas as pd
import pytest

from rmr_gym.analysis.objectives_report import above_untrained
from rmr_gym.analysis.run import load_run
from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.reports import write_report
from rmr_gym.protocol import stages
from rmr_gym.protocol.compare import NATURAL_COLUMNS
from rmr_gym.protocol.computing import Computing
from rmr_gym.protocol.objectives import study_objectives, variants


@pytest.fixture(autouse=True)
def _forget_loaded_data():
    yield
    for cached in (stages.open_episodes, stages.natural_data, stages.probe_sets):
        cached.cache_clear()


def test_every_objective_has_its_arms_and_the_report_draws_them(task, tmp_path):
    out = tmp_path / "out"
    how = Computing("test")
    chosen = {"arms": ("rmr", "untrained"), "episodes": (None, 2)}
    assert study_objectives([task], ["cswm", "infonce_aligned"], [0], out, how, **chosen) == []
    table = pd.read_csv(out / "natural.csv")
    assert tuple(table.columns) == NATURAL_COLUMNS
    labels = {"cswm", "cswm/2", "infonce_aligned", "infonce_aligned/2"}
    found = set(zip(table.objective, table.arm, table.step, strict=True))
    arms = {("rmr", 2), ("rmr", 4), ("untrained", 0)}
    assert found == {(label, *arm) for label in labels for arm in arms}
    described = json.loads((out / "run.json").read_text())
    assert (described["kind"], described["natural_episodes"]) == ("objectives", [None, 2])
    assert described["objective"] == "cswm, infonce_aligned"
    path, text = write_report(out)
    assert "infonce_aligned/2" in path.read_text()
    assert "infonce_aligned/2, rmr, less untrained: Pong" in text
    assert (out / "figures" / "objectives_rmr.svg").is_file()
    above = above_untrained(load_run(out))
    last = table[(table.objective == "cswm") & (table.step == 4) & (table.probe == "ridge")]
    start = table[(table.objective == "cswm") & (table.step == 0) & (table.probe == "ridge")]
    found = above[(above.objective == "cswm") & (above.step == 4)].above.item()
    assert found == pytest.approx(last.micro_f1.item() - start.micro_f1.item())


def test_a_variant_differs_in_its_natural_training_alone(task):
    found = variants(task, ["cswm", "infonce"], [None, 3])
    assert list(found) == ["cswm", "cswm/3", "infonce", "infonce/3"]
    assert found["infonce/3"].preset.natural.episodes == 3
    assert {variant.preset.model for variant in found.values()} == {task.preset.model}


def test_what_cannot_be_studied_is_refused(task, tmp_path):
    with pytest.raises(RMRError, match="at least one game, one objective"):
        study_objectives([task], [], [0], tmp_path, Computing("test"))
    with pytest.raises(RMRError, match="did you mean 'infonce'"):
        study_objectives([task], ["infonse"], [0], tmp_path, Computing("test"))
    with pytest.raises(RMRError, match="did you mean 'rmr'"):
        study_objectives([task], ["cswm"], [0], tmp_path, Computing("test"), arms=("rmm",))
    with pytest.raises(RMRError, match="'cswm' stands twice"):
        study_objectives([task], ["cswm", "cswm"], [0], tmp_path, Computing("test"))
