"""The experiments over Atari games: what each computes, and what it refuses."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.atari import AtariExperiment, game_names
from rmr_gym.experiments.base import no_progress, run
from rmr_gym.experiments.belief.grid import Belief
from rmr_gym.experiments.compare.grid import Compare
from rmr_gym.experiments.studies.grid import (
    CARRIED,
    CARRYING,
    MODELS,
    Bottleneck,
    Measures,
    Objectives,
    Table2,
)
from rmr_gym.experiments.transfer.grid import CONTROLS, Transfer
from rmr_gym.experiments.transfer.report import KEY
from rmr_gym.report.arms import SCORES
from rmr_gym.runs.store import Store
from rmr_gym.runs.sweep import ATTEMPTS
from rmr_gym.stages import natural as natural_module
from rmr_gym.stages.chain import REFERENCES
from rmr_gym.stages.measures import AHEAD, FORECAST, HORIZONS
from rmr_gym.stages.presets import ARMS, PRESETS

EXPERIMENTS = (Compare, Table2, Transfer, Bottleneck, Objectives, Measures)


@pytest.fixture
def options(tiny):
    """Make the options of a tiny run."""

    def make(experiment, **changes):
        return experiment(**(experiment.proposals("tiny") | tiny | changes))

    return make


@pytest.fixture
def quick(tiny, monkeypatch):
    """One checkpoint and one probe: what a matrix needs to be checked."""
    preset = PRESETS["tiny"]
    quick_preset = replace(
        preset,
        pretraining=replace(preset.pretraining, steps=3, checkpoints=(3,)),
        natural=replace(preset.natural, checkpoints=(2,)),
        probing=replace(preset.probing, probes=("ridge",)),
    )
    monkeypatch.setitem(PRESETS, "tiny", quick_preset)


def table(out, name):
    return pd.read_csv(out / f"{name}.csv", keep_default_na=False)


def described(out):
    return json.loads((out / "run.json").read_text())


def columns_of(frame, *names):
    return {tuple(row) for row in frame[list(names)].itertuples(index=False)}


def planned(experiment):
    """Return the rows of a plan; nothing is computed."""
    return experiment.plan(no_progress).rows


class TestCompare:
    def test_it_holds_every_arm_checkpoint_probe_and_seed(self, options, tiny_preset):
        out, problems = run(options(Compare, seeds=2))
        assert problems == []
        natural = table(out, "natural")
        steps = natural.groupby(["arm", "seed"])["step"].agg(lambda steps: sorted(set(steps)))
        for arm in (*ARMS, "supervised"):
            assert steps[arm, 0] == steps[arm, 1] == [2, 4]
        assert steps["untrained", 0] == steps["untrained", 1] == steps["pca", 0] == [0]
        assert ("pca", 1) not in steps
        assert set(natural["arm"]) == {*ARMS, *REFERENCES}
        assert set(natural["probe"]) == set(tiny_preset.probing.probes)
        assert natural["micro_f1"].between(0, 1).all()
        assert list(table(out, "abstract")["model"]) == ["copy", "mpnn", "mpnn"]
        curves = table(out, "natural_curves")
        assert set(curves["arm"]) == {*ARMS, "supervised"}
        info = described(out)
        assert (info["kind"], info["preset"], info["seeds"]) == ("compare", "tiny", [0, 1])
        assert info["datasets"]["Pong"]["transitions"] > 0
        assert info["datasets"]["Pong"]["probe_test_rows"] > 0
        frames = np.load(out / "frames.npz")
        assert frames["Pong_rgb"].shape == (4, 210, 160, 3)
        assert frames["Pong_ram"].shape == (4, 128)

    def test_a_failing_arm_is_reported_and_the_others_stay(self, options, tmp_path, monkeypatch):
        train = natural_module.natural.function

        def fail(data, model, config, arm, *rest, **more):
            if arm == "no_p":
                raise RMRError("broken on purpose")
            return train(data, model, config, arm, *rest, **more)

        monkeypatch.setattr(natural_module.natural, "function", fail)
        out, problems = run(options(Compare, root=tmp_path / "root"))
        arm = "natural Pong mpnn dim 4 cswm no_p 0"
        assert problems == [
            f"{arm}: broken on purpose",
            f"probe Pong mpnn dim 4 (natural cswm no_p 0): it needs '{arm}', which failed",
        ]
        assert set(table(out, "natural")["arm"]) == {*ARMS, *REFERENCES} - {"no_p"}

    def test_a_loss_that_is_no_number_stops_that_arm_alone(self, options, tmp_path, monkeypatch):
        objective, calls = natural_module.OBJECTIVES["cswm"], []

        def broken(config, latents):
            calls.append(1)
            terms = objective.terms(config, latents)
            return terms._replace(loss=terms.loss * torch.nan) if len(calls) == 1 else terms

        changed = objective._replace(terms=broken)
        monkeypatch.setitem(natural_module.OBJECTIVES, "cswm", changed)
        root = tmp_path / "root"
        out, problems = run(options(Compare, root=root))
        assert len(problems) == 2
        assert "the loss became nan at step 1" in problems[0]
        logs = [path.read_text() for path in (root / "store" / "natural").glob("*.log")]
        assert sum("DivergedError" in log for log in logs) == 1
        assert run(options(Compare, root=root))[1] == []
        assert set(table(out, "natural")["arm"]) == {*ARMS, *REFERENCES}

    def test_a_collapsed_arm_is_told_in_run_json(self, options, tmp_path, monkeypatch):
        monkeypatch.setattr(natural_module, "count_dead_slots", lambda encoder, data: 100)
        out, problems = run(options(Compare, root=tmp_path / "root"))
        assert len(problems) == len(ARMS)
        assert "rmr 0 (pretrain): the encoder of arm 'rmr'" in problems[0]
        assert described(out)["problems"] == problems
        rows = table(out, "natural")
        assert set(rows[rows["arm"] == "rmr"]["step"]) == {2}

    def test_a_run_killed_while_stages_compute_ends_with_the_same_tables(
        self, options, tmp_path, monkeypatch
    ):
        """Kill the process at two moments, go on, and compare with an unbroken run."""
        whole, _ = run(options(Compare))
        broken = options(Compare, root=tmp_path / "root", out=tmp_path / "broken")
        (tmp_path / "options").write_bytes(pickle.dumps((PRESETS["tiny"], broken)))
        code = f"""
            import pathlib, pickle
            from rmr_gym.runs import training
            from rmr_gym.stages.presets import PRESETS
            training.SAVE_EVERY_SECONDS = 0
            PRESETS["tiny"], options = pickle.loads(
                pathlib.Path({str(tmp_path / "options")!r}).read_bytes()
            )
            from rmr_gym.experiments.base import run
            run(options)
        """
        store, unfinished = tmp_path / "root" / "store", set()
        for stage_name, results in (("pretrain", 0), ("natural", 2)):
            process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(code)],
                env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            )
            deadline = time.monotonic() + 100
            while process.poll() is None and time.monotonic() < deadline:
                done = list(store.glob(f"{stage_name}/*/record.json"))
                if list(store.glob(f"{stage_name}/*.part")) and len(done) >= results:
                    process.send_signal(signal.SIGKILL)
                time.sleep(0.005)
            assert process.wait() == -signal.SIGKILL
            unfinished |= {path.name for path in store.glob("*/*.part")}
        assert unfinished
        _, problems = run(broken)
        assert problems == []
        assert not list(store.glob("*/*.part"))
        for name in ("abstract", "abstract_curves", "natural", "natural_curves"):
            first, second = (out / f"{name}.csv" for out in (whole, broken.out))
            assert first.read_bytes() == second.read_bytes(), name
        attempts = pd.read_csv(broken.out / "jobs.csv")["attempts"]
        assert 1 < attempts.max() < ATTEMPTS


class TestTable2:
    def test_every_model_and_seed_and_the_copy_baseline_once(self, options, game, chain):
        out, problems = run(options(Table2, games=("Pong",), seeds=2))
        assert problems == []
        rows = table(out, "abstract")
        counted = rows.groupby(["model", "seed"])["step"].agg(list).to_dict()
        trained = {(model, seed): [3, 6] for model in MODELS for seed in (0, 1)}
        assert counted == {("copy", 0): [0], ("copy", 1): [0], **trained}
        assert not rows.duplicated(["game", "model", "seed", "step"]).any()
        curves = table(out, "abstract_curves")
        first = curves[curves["step"] == 1].pivot_table("loss", "model", "seed")
        assert (first[0] != first[1]).all()
        assert len(table(out, "timings")) == 12
        horizons = table(out, "abstract_horizons")
        ahead = horizons.groupby(["model", "seed"])["k"].agg(list).to_dict()
        assert set(ahead) == set(counted)
        assert all(steps == list(HORIZONS) for steps in ahead.values())
        info = described(out)
        assert (info["kind"], info["models"]) == ("table2", ["copy", *MODELS])
        assert info["slots"]["Pong"] == len(game.data.scored_bytes)
        assert chain.has(game.pretrained(1)), "found by every other command"

    def test_a_carried_model_learns_from_its_own_predictions(self, options):
        rows = planned(options(Table2, games=("Pong",), models=("mpnn", CARRIED)))
        assert [(row.table, row.names["model"]) for row in rows][-2:] == [
            ("abstract_horizons", "mpnn"),
            ("abstract_horizons", CARRIED),
        ]
        plain, carried = (row.task.arguments["pretrained"].arguments for row in rows[-2:])
        assert replace(plain["config"], **CARRYING) == carried["config"]
        assert plain["model"] == carried["model"]

    def test_a_failing_model_is_reported_and_the_others_stay(self, options, tmp_path, monkeypatch):
        from rmr_gym.stages.natural import pretrain

        train = pretrain.function

        def fail(data, model, *rest, **more):
            if model.core == "mlp":
                raise RMRError("broken on purpose")
            return train(data, model, *rest, **more)

        monkeypatch.setattr(pretrain, "function", fail)
        root = tmp_path / "root"
        out, problems = run(options(Table2, games=("Pong",), root=root))
        assert problems[0] == "pretrain Pong mlp dim 4: broken on purpose"
        assert set(table(out, "abstract")["model"]) == {"copy", "deep_sets", "mpnn"}
        with pytest.raises(RMRError, match=r"every job failed.*broken on purpose"):
            run(options(Table2, games=("Pong",), root=root, models=("mlp",), out=tmp_path / "no"))


class TestTransfer:
    @pytest.mark.usefixtures("quick")
    def test_the_matrix_has_every_pair_and_the_controls_once(self, options, two_games):
        donors = ("Pong", "breakout", "random_dynamics")
        chosen = options(Transfer, games=("Pong", "Breakout"), data=two_games, donors=donors)
        out, problems = run(chosen)
        assert problems == []
        rows = table(out, "transfer")
        assert tuple(rows.columns) == (*KEY, *SCORES)
        pairs = columns_of(rows, "recipient", "donor", "arm")
        names = ("Pong", "Breakout", "random_dynamics")
        assert pairs == {
            *((game, name, "rmr") for game in ("Pong", "Breakout") for name in names),
            *((game, "", arm) for game in ("Pong", "Breakout") for arm in CONTROLS),
        }
        assert "pca" in CONTROLS
        assert len(rows) == len(pairs)
        info = described(out)
        assert (info["kind"], info["donors"]) == ("transfer", list(names))
        assert set(table(out, "jobs").state) == {"done"}
        before = (out / "transfer.csv").read_bytes()
        assert run(chosen) == (out, [])
        assert (out / "transfer.csv").read_bytes() == before

    @pytest.mark.usefixtures("quick")
    def test_headroom_is_measured_of_every_field(self, options):
        chosen = options(Transfer, headroom=True)
        out, problems = run(chosen)
        assert problems == []
        rows = table(out, "headroom")
        assert set(rows["arm"]) == {"rmr", *CONTROLS}
        able = {"rmr", *CONTROLS} - {"untrained", "pca"}
        assert set(rows[rows["measure"] == "forecast"]["arm"]) == able
        assert set(rows[rows["measure"] == "ceiling"]["at"]) == set(FORECAST)
        assert rows["micro_f1"].replace("", np.nan).astype(float).dropna().between(0, 1).all()

    def test_own_donors_are_the_arms_of_a_comparison(self, options):
        rows = planned(options(Transfer))
        transferred = {row.task for row in rows if row.names["arm"] in ("rmr", "cswm")}
        assert transferred < {row.task for row in planned(options(Compare))}

    def test_results_of_other_settings_are_refused(self, options):
        chosen = options(Transfer, donors=("amplified_random",))
        run(chosen)
        with pytest.raises(RMRError, match=r"natural\.batch was 8, is 6; choose another folder"):
            run(replace(chosen, natural=replace(chosen.natural, batch=6)))

    @pytest.mark.parametrize(
        ("donors", "message"),
        [
            (("Pongg",), "did you mean"),
            (("random_dynamics",) * 2, "each donor may be named once, got random_dynamics"),
            (("pong=a", "pong=b"), "each donor may be named once, got pong"),
            (("balls=nowhere",), r"holds no record\.json and is no folder"),
        ],
    )
    @pytest.mark.parametrize("experiment", [Transfer, Belief])
    def test_bad_donors_are_said_before_anything_is_recorded(
        self, options, tmp_path, experiment, donors, message
    ):
        chosen = options(experiment, donors=donors, data=None, root=tmp_path)
        with pytest.raises(RMRError, match=message):
            run(chosen)
        assert list(tmp_path.iterdir()) == []

    def test_unknown_games_are_said_before_donors_are_recorded(self, options, tmp_path):
        chosen = options(Transfer, games=("Pongg",), donors=("Pong",), data=None, root=tmp_path)
        with pytest.raises(RMRError, match="Pongg"):
            run(chosen)
        assert list(tmp_path.iterdir()) == []


class TestBottleneck:
    def test_every_width_has_its_arms_and_its_own_pretraining(self, options, game, chain):
        out, problems = run(options(Bottleneck, dims=(2, 4)))
        assert problems == []
        steps = {"rmr": (2, 4), "cswm": (2, 4), "untrained": (0,), "pca": (0,)}
        assert columns_of(table(out, "bottleneck"), "dim", "arm", "step") == {
            (dim, arm, step) for dim in (2, 4) for arm in steps for step in steps[arm]
        }
        abstract = table(out, "bottleneck_abstract")
        pairs = list(zip(abstract.dim, abstract.step, strict=True))
        assert pairs == [(2, 3), (2, 6), (4, 3), (4, 6)]
        narrow = game.with_preset(model={"dim": 2}).pretrained()
        curve = chain.record(narrow)["curve"]
        assert abstract.loss[0] == next(point["loss"] for point in curve if point["step"] == 3)
        assert (described(out)["kind"], described(out)["dims"]) == ("bottleneck", [2, 4])

    def test_only_the_width_changes(self, game):
        narrow = game.with_preset(model={"dim": 2})
        model = replace(game.preset.model, dim=2)
        assert narrow == replace(game, preset=replace(game.preset, model=model))
        assert game.with_preset(model={"dim": 4}).pretrained() == game.pretrained()

    @pytest.mark.parametrize(
        ("dims", "message"),
        [
            ((2, 2), "each width may be named once"),
            ((), "one width"),
            ((0,), "counts of 1 or more"),
        ],
    )
    def test_bad_widths_are_refused(self, options, dims, message):
        with pytest.raises(RMRError, match=message):
            run(options(Bottleneck, dims=dims))


class TestObjectives:
    def test_every_objective_and_number_of_episodes_has_its_arms(self, options):
        chosen = {"objectives": ("cswm", "infonce"), "arms": ("rmr", "untrained")}
        out, problems = run(options(Objectives, **chosen, episodes=(2, 3)))
        assert problems == []
        labels = ("cswm/2", "cswm/3", "infonce/2", "infonce/3")
        arms = (("rmr", 2), ("rmr", 4), ("untrained", 0))
        assert columns_of(table(out, "natural"), "objective", "arm", "step") == {
            (label, *arm) for label in labels for arm in arms
        }
        titles = list(table(out, "jobs")["key"])
        assert len(set(titles)) == len(titles)
        assert "natural Pong mpnn dim 4 cswm/2 rmr 0 (pretrain)" in titles
        info = described(out)
        assert (info["kind"], info["natural_episodes"]) == ("objectives", [2, 3])
        assert info["objective"] == "cswm, infonce"

    def test_a_variant_differs_in_its_natural_training_alone(self, options):
        rows = planned(options(Objectives, objectives=("cswm", "infonce"), episodes=(3,)))
        tasks = {row.names["objective"]: row.task for row in rows if row.names["arm"] == "cswm"}
        assert list(tasks) == ["cswm/3", "infonce/3"]
        configs = [task.arguments["config"] for task in tasks.values()]
        assert [config.episodes for config in configs] == [3, 3]
        assert replace(configs[1], objective="cswm") == configs[0]

    def test_all_episodes_are_the_arms_of_a_comparison(self, options):
        rows = planned(options(Objectives, objectives=("cswm",)))
        assert {row.task for row in rows} < {row.task for row in planned(options(Compare))}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"objectives": ()}, "expected one objective or more"),
            ({"objectives": ("infonse",)}, "did you mean 'infonce'"),
            ({"objectives": ("cswm", "cswm")}, "each objective may be named once"),
            ({"arms": ("rmm",)}, "did you mean 'rmr'"),
            ({"episodes": (50,)}, "there are 4 for training"),
        ],
    )
    def test_what_cannot_be_studied_is_refused(self, options, tmp_path, changes, message):
        with pytest.raises(RMRError, match=message):
            run(options(Objectives, root=tmp_path / "root", **changes))


class TestMeasures:
    def test_every_arm_is_measured_at_its_checkpoints(self, options, tiny_preset):
        arms = ("rmr", "cswm", "untrained", "supervised", "pca", "player")
        out, problems = run(options(Measures, arms=arms, seeds=2))
        assert problems == []
        labels = table(out, "labels")
        steps = labels.groupby(["arm", "seed"])["step"].unique().map(sorted).to_dict()
        both = {(arm, seed): [2, 4] for arm in ("rmr", "cswm", "supervised") for seed in (0, 1)}
        once = {("pca", 0): [0], ("player", 0): [0]}
        assert steps == both | once | {("untrained", 0): [0], ("untrained", 1): [0]}
        assert {"ball_x", "average"} <= set(labels["label"])
        assert not labels.duplicated(["game", "arm", "seed", "step", "label", "category"]).any()
        ranking = table(out, "ranking")
        assert set(ranking["similarity"]) == {"euclidean"}
        assert ranking.groupby(["arm", "seed", "step"])["ahead"].agg(list).to_dict() == {
            (arm, seed, step): list(AHEAD)
            for arm in ("rmr", "cswm")
            for seed in (0, 1)
            for step in (2, 4)
        }
        headroom = table(out, "headroom")
        assert set(headroom["arm"]) == set(arms) - {"player"}
        assert set(headroom[headroom["arm"] == "rmr"]["step"]) == {4}
        references = table(out, "references")
        assert set(references["arm"]) == {"player"}
        assert list(references["probe"]) == list(tiny_preset.probing.probes)
        assert (described(out)["kind"], described(out)["arms"]) == ("measures", list(arms))

    def test_one_measure_alone_trains_what_it_needs(self, options, tmp_path):
        chosen = options(
            Measures, arms=("cswm", "pca"), measures=("ranking",), root=tmp_path / "root"
        )
        out, _ = run(chosen)
        assert set(table(out, "ranking")["arm"]) == {"cswm"}
        assert not (out / "labels.csv").exists()
        store = Store(tmp_path / "root" / "store")
        assert sorted(path.name for path in store.root.iterdir()) == ["natural", "ranking"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"arms": ("rm",)}, "did you mean 'rmr'"),
            ({"measures": ("label",)}, "did you mean 'labels'"),
            ({"arms": ("pca",), "measures": ("ranking",)}, "leave nothing to compute"),
            ({"measures": ()}, "expected one measure or more"),
        ],
    )
    def test_unknown_names_and_nothing_to_do_are_refused(self, options, changes, message):
        with pytest.raises(RMRError, match=message):
            run(options(Measures, **changes))


class TestAll:
    def test_all_stands_for_the_papers_games(self):
        assert len(game_names(["all"])) == 24
        assert game_names(["pong", "ms_pacman"]) == ["Pong", "MsPacman"]

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"games": ("Pong", "pong")}, "each game may be named once"),
            ({"games": ("Pongo",)}, "did you mean"),
            ({"seeds": 0}, "at least 1 as seeds"),
            ({"device": "tpu"}, "tpu"),
            ({"stack": 0}, "at least 1 as stack, found 0"),
        ],
    )
    def test_bad_input_is_said_before_anything_is_written(
        self, options, tmp_path, experiment, changes, message
    ):
        chosen = options(experiment, **({"data": tmp_path / "data"} | changes))
        with pytest.raises(RMRError, match=message):
            run(chosen)
        assert list(tmp_path.iterdir()) == [], "nothing was recorded for it, either"

    def test_data_that_are_not_there_are_recorded(self, options, tmp_path):
        (tmp_path / "data").mkdir()
        chosen = options(AtariExperiment, data=tmp_path / "data")
        short = replace(chosen.recording, max_steps=12)
        (game,) = replace(chosen, recording=short).recorded(no_progress)
        assert game.data.path == tmp_path / "data" / "Pong-6x12"
        assert (game.data.path / "manifest.json").is_file()

    def test_a_stack_is_told_and_gives_the_same_tables(self, options, tmp_path):
        chosen = {"games": ("Pong",), "models": ("mpnn",), "seeds": 2}
        plain, _ = run(options(Table2, **chosen))
        changed = {"root": tmp_path / "root", "out": tmp_path / "stacked", "stack": 4}
        stacked, problems = run(options(Table2, **chosen, **changed))
        assert problems == []
        one, other = (table(out, "abstract") for out in (plain, stacked))
        assert set(one) ^ set(other) <= {"loss"}
        assert len(one) == len(other)
        assert (one["bit_f1"] - other["bit_f1"]).abs().max() < 0.02
