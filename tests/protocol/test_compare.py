import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.arms import ARMS, REFERENCES
from rmr_gym.protocol.compare import compare
from rmr_gym.protocol.computing import Computing

TABLES = ("abstract.csv", "abstract_curves.csv", "natural.csv", "natural_curves.csv")


def test_the_run_folder_holds_every_arm_checkpoint_probe_and_seed(task, tmp_path):
    problems = compare([task], [0, 1], tmp_path / "out", Computing("test"))
    assert problems == []
    table = pd.read_csv(tmp_path / "out" / "natural.csv")
    counts = table.groupby(["arm", "seed"])["step"].agg(lambda steps: sorted(set(steps)))
    for arm in (*ARMS, "supervised"):
        assert counts[arm, 0] == counts[arm, 1] == [2, 4]
    assert counts["untrained", 0] == counts["pca", 0] == [0]
    assert set(table["arm"]) == {*ARMS, *REFERENCES}
    assert set(table["probe"]) == set(task.preset.probing.probes)
    assert table["micro_f1"].between(0, 1).all()
    abstract = pd.read_csv(tmp_path / "out" / "abstract.csv")
    assert list(abstract["model"]) == ["copy", "mpnn", "mpnn"]
    described = json.loads((tmp_path / "out" / "run.json").read_text())
    assert described["datasets"]["Pong"]["transitions"] > 0
    assert described["versions"]["torch"]
    frames = np.load(tmp_path / "out" / "frames.npz")
    assert frames["Pong_rgb"].shape == (4, 210, 160, 3)
    assert frames["Pong_ram"].shape == (4, 128)


def test_workers_change_no_byte(task, tmp_path):
    from dataclasses import replace

    compare([task], [0], tmp_path / "one", Computing("test"))
    other = replace(task, store=tmp_path / "store of two")
    compare([other], [0], tmp_path / "two", Computing("test", workers=2))
    for name in TABLES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_to_compare_is_refused(task, tmp_path):
    with pytest.raises(RMRError, match="at least one game and one seed"):
        compare([], [0], tmp_path, Computing("test"))
    with pytest.raises(RMRError, match="at least one game and one seed"):
        compare([task], [], tmp_path, Computing("test"))


def test_a_failing_arm_is_reported_and_the_others_stay(task, tmp_path, monkeypatch):
    from rmr_gym.protocol import stages

    trained = stages.trained_encoders

    def fail(task, arm, seed, *rest):
        if arm == "no_p":
            raise RMRError("broken on purpose")
        return trained(task, arm, seed, *rest)

    monkeypatch.setattr(stages, "trained_encoders", fail)
    problems = compare([task], [0], tmp_path / "out", Computing("test"))
    assert problems == ["natural Pong no_p 0: broken on purpose"]
    assert "no_p" not in set(pd.read_csv(tmp_path / "out" / "natural.csv")["arm"])


@pytest.mark.parametrize("delay", [1.5, 3.0, 4.5])
def test_a_killed_comparison_ends_with_the_same_tables(task, tmp_path, delay):
    """Kill the process at three stages, run it again, and compare with an unbroken run."""
    import pickle
    from dataclasses import replace

    compare([task], [0], tmp_path / "whole", Computing("test"))
    broken = replace(task, store=tmp_path / "broken store")
    (tmp_path / "task").write_bytes(pickle.dumps((broken, tmp_path / "broken")))
    code = textwrap.dedent(f"""
        import pickle, pathlib
        from rmr_gym.protocol.compare import compare
        from rmr_gym.protocol.computing import Computing
        task, out = pickle.loads(pathlib.Path({str(tmp_path / "task")!r}).read_bytes())
        compare([task], [0], out, Computing("test"))
    """)
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "."})
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": "."})
    for name in TABLES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
