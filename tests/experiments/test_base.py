"""What every run folder holds, whose it is, and what becomes of jobs that fail."""

import json
from dataclasses import dataclass

import pandas as pd
import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.core.files import alone
from rmr_gym.experiments import base
from rmr_gym.experiments.base import (
    Experiment,
    Plan,
    Rows,
    require_distinct,
    require_known,
    run,
)
from rmr_gym.runs.status import read_plan
from rmr_gym.runs.store import Artifact, Place, stage


@stage(version=1)
def square(value: int, batch: int, place: Place):
    with (place.path / "computed").open("a") as file:
        file.write(f"{value} ")
    if value < 0:
        raise RMRError("broken on purpose")
    rows = [{"step": step, "square": value**step / 7} for step in (1, 2)]
    note = "the encoder collapsed" if value == 3 else None
    return Artifact({"rows": rows, "curve": [{"step": 1, "loss": 0.5}], "note": note})


@stage(version=1)
def double(part: Artifact):
    return Artifact({"rows": [{"step": 0, "square": 2 * part.record["rows"][1]["square"]}]})


@dataclass(frozen=True)
class Squares(Experiment):
    """Square numbers."""

    values: tuple[int, ...] = (1, 2)
    batch: int = 5
    doubled: bool = False
    kind: str = "squares"

    folder_name = "smoke-squares"

    @property
    def config(self):
        return {"natural": {"batch": self.batch}}

    def plan(self, progress_for):
        require_distinct("value", self.values)
        rows = []
        for value in self.values:
            task = square(value, self.batch, Place(self.root))
            names = {"game": "Pong", "arm": "rmr", "seed": value}
            rows.append(Rows("squares", double(task) if self.doubled else task, names))
            if not self.doubled:
                rows.append(Rows("curves", task, names, "curve"))
        return Plan(
            rows=rows,
            facts={"games": ["Pong"]},
            finish=lambda out, store: (out / "extra").write_text("finished"),
        )


@pytest.fixture
def here(tmp_path):
    (tmp_path / "root").mkdir()
    return {"root": tmp_path / "root", "workers": 1}


def computed(here):
    path = here["root"] / "computed"
    return path.read_text().split() if path.exists() else []


def described(out):
    return json.loads((out / "run.json").read_text())


def contents(out):
    tables = (*out.glob("*.csv"), out / "plan.json")
    return {path.name: path.read_bytes() for path in tables}


class TestFolder:
    def test_it_holds_tables_plan_jobs_and_the_description(self, here):
        out, problems = run(Squares(**here), command="typed")
        assert (out, problems) == (here["root"] / "smoke-squares", [])
        table = pd.read_csv(out / "squares.csv")
        assert table.columns.tolist() == ["game", "arm", "seed", "step", "square"]
        assert table.to_numpy().tolist() == [
            ["Pong", "rmr", 1, 1, 1 / 7],
            ["Pong", "rmr", 1, 2, 1 / 7],
            ["Pong", "rmr", 2, 1, 2 / 7],
            ["Pong", "rmr", 2, 2, 4 / 7],
        ]
        curves = pd.read_csv(out / "curves.csv")
        assert curves.columns.tolist() == ["game", "arm", "seed", "step", "loss"]
        assert curves["loss"].tolist() == [0.5, 0.5]
        timings = pd.read_csv(out / "timings.csv")
        assert timings[["game", "stage", "arm", "seed"]].to_numpy().tolist() == [
            ["Pong", "square", "rmr", 1],
            ["Pong", "square", "rmr", 2],
        ]
        jobs = pd.read_csv(out / "jobs.csv")
        assert (jobs.key.tolist(), set(jobs.state)) == (["square 1 5", "square 2 5"], {"done"})
        info = described(out)
        assert (info["kind"], info["command"], info["games"]) == ("squares", "typed", ["Pong"])
        assert (info["workers"], info["device"], info["problems"]) == (1, "cpu", [])
        assert info["versions"].keys() >= {"python", "torch", "rmr-gym"}
        assert info["machine"]["cores"]
        assert info["started"] <= info["finished"]
        assert (out / "extra").read_text() == "finished"

    def test_the_same_command_again_computes_nothing_and_changes_no_byte(self, here):
        out, _ = run(Squares(**here))
        before = contents(out)
        assert run(Squares(**here)) == (out, [])
        assert contents(out) == before
        assert computed(here) == ["1", "2"]

    def test_more_of_the_same_settings_goes_on_in_the_folder(self, here):
        run(Squares(**here))
        out, _ = run(Squares(**here, values=(1, 2, 4)))
        assert pd.read_csv(out / "squares.csv")["seed"].tolist() == [1, 1, 2, 2, 4, 4]
        assert computed(here) == ["1", "2", "4"]

    def test_another_folder_finds_the_results_of_the_same_root(self, here, tmp_path):
        first, _ = run(Squares(**here))
        second, _ = run(Squares(**here, out=tmp_path / "other"))
        assert contents(first) == contents(second)
        assert computed(here) == ["1", "2"]

    def test_results_of_other_settings_or_experiments_are_refused(self, here, tmp_path):
        out, _ = run(Squares(**here))
        before = contents(out)
        with pytest.raises(RMRError, match=r"natural\.batch was 5, is 6; choose another folder"):
            run(Squares(**here, batch=6))
        with pytest.raises(RMRError, match="kind was 'squares', is 'other'; choose another folder"):
            run(Squares(**here, kind="other"))
        assert contents(out) == before
        assert computed(here) == ["1", "2"]
        (out / "plan.json").unlink()
        with pytest.raises(RMRError, match="holds tables of an earlier version: choose another"):
            run(Squares(**here))

    def test_two_commands_in_one_folder_are_refused_while_both_run(self, here):
        out = here["root"] / "smoke-squares"
        with alone(out / ".lock"), pytest.raises(RMRError, match="no other command computes in"):
            run(Squares(**here))
        assert run(Squares(**here))[1] == []

    def test_what_cannot_go_on_is_refused_before_anything_is_planned(
        self, here, tmp_path, monkeypatch
    ):
        out, _ = run(Squares(**here))
        monkeypatch.setattr(Squares, "plan", lambda *_: pytest.fail("nothing may be recorded"))
        monkeypatch.setattr("rmr_gym.runs.cluster.CONNECT_SECONDS", 0.2)
        with alone(out / ".lock"), pytest.raises(RMRError, match="no other command computes in"):
            run(Squares(**here))
        with pytest.raises(RMRError, match=r"natural\.batch was 5, is 6; choose another folder"):
            run(Squares(**here, batch=6))
        with pytest.raises(RMRError, match="expected a folder for --out"):
            run(Squares(**here, out=tmp_path / "table.csv"))
        nowhere = tmp_path / "nowhere"
        with pytest.raises(RMRError, match="no Dask scheduler answers at tcp://127"):
            run(Squares(**here, out=nowhere, scheduler="tcp://127.0.0.1:9"))
        assert not nowhere.exists()

    def test_tables_grow_meanwhile(self, here, monkeypatch):
        monkeypatch.setattr(base, "WRITE_EVERY_SECONDS", 0.0)
        lengths, write = [], base.write_table

        def counted(path, rows):
            rows = list(rows)
            if path.name == "squares.csv":
                lengths.append(len(rows))
            return write(path, rows)

        monkeypatch.setattr(base, "write_table", counted)
        run(Squares(**here))
        assert lengths == [0, 2, 4, 4]

    def test_progress_is_told_under_the_experiments_name_and_folder(self, here):
        seen = []
        out, _ = run(Squares(**here), lambda title: lambda *values: seen.append((title, *values)))
        title = f"squares into {out}"
        assert seen == [(title, 1, 2), (title, 2, 2)]


class TestProblems:
    def test_a_failing_job_is_reported_and_the_others_stay(self, here):
        out, problems = run(Squares(**here, values=(-1, 2)))
        assert problems == ["square -1 5: broken on purpose"]
        assert described(out)["problems"] == problems
        assert set(pd.read_csv(out / "squares.csv")["seed"]) == {2}
        jobs = pd.read_csv(out / "jobs.csv")
        assert jobs[["state", "attempts", "error"]].iloc[0].tolist() == [
            "failed",
            1,
            "broken on purpose",
        ]
        (failed, _) = read_plan(out)
        assert "attempt 1 at square -1 5" in failed.log.read_text()
        run(Squares(**here, values=(-1, 2)))
        assert computed(here) == ["-1", "2", "-1"]

    def test_what_collapsed_is_told(self, here):
        out, problems = run(Squares(**here, values=(3, -1)))
        assert problems == ["square -1 5: broken on purpose", "square 3 5: the encoder collapsed"]
        assert run(Squares(**here, values=(3,)))[1] == ["square 3 5: the encoder collapsed"]
        assert described(out)["problems"] == ["square 3 5: the encoder collapsed"]

    def test_a_run_of_failures_alone_is_an_error(self, here):
        with pytest.raises(RMRError, match="every job failed; the first said: broken on purpose"):
            run(Squares(**here, values=(-1, -2)))
        problems = described(here["root"] / "smoke-squares")["problems"]
        assert problems == ["square -1 5: broken on purpose", "square -2 5: broken on purpose"]

    def test_that_jobs_which_serve_others_worked_is_no_result(self, here, monkeypatch):
        def fail(part):
            raise RMRError("no doubles")

        monkeypatch.setattr(double, "function", fail)
        with pytest.raises(RMRError, match="every job failed; the first said: no doubles"):
            run(Squares(**here, doubled=True))
        monkeypatch.undo()
        out, problems = run(Squares(**here, doubled=True, values=(-1, 2)))
        assert problems == [
            "square -1 5: broken on purpose",
            "double (square -1 5): it needs 'square -1 5', which failed",
        ]
        assert pd.read_csv(out / "squares.csv")["square"].tolist() == [8 / 7]

    def test_nothing_to_compute_is_said(self, here, monkeypatch):
        plan = Plan([], {})
        monkeypatch.setattr(Squares, "plan", lambda self, progress_for: plan)
        with pytest.raises(RMRError, match="leave nothing to compute"):
            run(Squares(**here))


class TestOptions:
    @pytest.mark.parametrize("name", ["a.csv", "a.html", "a.json", "a.png", "a.gif", "file"])
    def test_a_folder_is_wanted_for_out(self, here, tmp_path, name):
        (tmp_path / "file").write_text("")
        with pytest.raises(RMRError, match="expected a folder for --out"):
            run(Squares(**here, out=tmp_path / name))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"workers": 0}, "at least 1 as workers, found 0"),
            ({"values": ()}, "expected one value or more, got none"),
            ({"values": (2, 2)}, "each value may be named once, got 2 more than once"),
        ],
    )
    def test_bad_input_is_said_before_anything_is_written(self, here, options, message):
        with pytest.raises(RMRError, match=message):
            run(Squares(**(here | options)))
        assert list(here["root"].iterdir()) == []

    def test_seeds_and_known_names(self):
        assert list(Squares(seeds=2).seed_list) == [0, 1]
        assert list(Squares().seed_list) == [0]
        with pytest.raises(RMRError, match="at least 1 as seeds, found 0"):
            list(Squares(seeds=0).seed_list)
        require_known("arm", ["rmr"], ["rmr", "cswm"])
        with pytest.raises(RMRError, match="did you mean 'rmr'"):
            require_known("arm", ["rm"], ["rmr", "cswm"])

    def test_a_gpu_has_one_worker_unless_more_are_asked_for(self):
        assert Squares(device="cuda").worker_count == 1
        assert Squares(device="cuda", workers=3).worker_count == 3
        assert Squares().worker_count >= 1


def test_workers_change_no_byte(tmp_path, tiny):
    """Two workers compute what one computed; times and the way to the store may differ."""
    from rmr_gym.experiments.compare.grid import Compare

    tables = ("abstract.csv", "abstract_curves.csv", "natural.csv", "natural_curves.csv")
    one, _ = run(Compare(**Compare.proposals("tiny"), **tiny))
    changed = {"root": tmp_path / "root", "workers": 2, "out": tmp_path / "two"}
    two, problems = run(Compare(**Compare.proposals("tiny"), **(tiny | changed)))
    assert problems == []
    for name in tables:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
