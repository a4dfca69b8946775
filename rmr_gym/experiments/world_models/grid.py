"""World models, scored on frames (next frames, groups, simulations) and on crops of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_known, write_arrays
from rmr_gym.experiments.worlds import HELD_OUT, WorldExperiment
from rmr_gym.models.world.s2rm import S2RM_MODELS
from rmr_gym.runs.store import Store
from rmr_gym.stages.world_model import WORLD_MODELS, PlannedModel, RecordedFrames, enclaves


@dataclass(frozen=True, kw_only=True)
class WorldModels(WorldExperiment):
    """Train world models and score them on the validation episodes and on test sets.

    Attributes:
        models: rnem, rnem_no_attention, rnnem, nem, rnn, lstm, rims, rims_lstm, memoryless,
            memoryless_noisy, s2gru, crops_lstm, crops_rims, crops_rmc, crops_oracle, or with a P
            inside: ``rnem_`` or ``rims_`` and rmr, fresh_p, random_p or shuffled_p.
        groups: Number of groups (K) in training; default: the preset's.
        test_groups: Number of groups while scoring on tests, for models that have several: one for
            all of them, or one for each.
        processor: Folder of `rmr-gym pretrain` on balls, for the models with a P inside.
    """

    kind = "world_models"
    folder_name = "{0.preset}-world-models"

    models: tuple[str, ...] = ("rnem", "rnnem", "rnn", "lstm")
    groups: int | None = None
    test_groups: tuple[int, ...] = ()
    processor: Path | None = None

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("world model", self.models, WORLD_MODELS)
        len(self.seed_list)
        counts = self._test_groups()
        models = self.planned(self.models, progress_for, self.groups, self.processor)
        horizons = [model.preset.horizon for model in models]
        tests = self.test_sets(models, horizons, progress_for)
        trials, rows = list(zip(tests, counts, strict=True)), []
        for model, seed, trial in product(models, self.seed_list, [(None, None), *trials]):
            rows += score_rows(model, seed, *trial)
        summaries = {test.label: test.summary() | {"groups": groups} for test, groups in trials}
        return self.world_plan(rows, models, summaries)

    def _test_groups(self) -> Sequence[int | None]:
        """Return K of every test set; None: as in training."""
        given, tests = self.test_groups, len(self.tests)
        if given and len(given) not in {min(1, tests), tests}:
            raise RMRError(
                "expected one number of --test-groups for all --tests or one for each, got "
                f"{len(given)} for {tests} test sets"
            )
        if given and min(given) < 2:
            raise RMRError(f"expected 2 groups or more while scoring, got {min(given)}")
        return given if len(given) == tests else tests * (given or (None,))


def score_rows(
    model: PlannedModel, seed: int, test: RecordedFrames | None, groups: int | None
) -> list[Rows]:
    """Return where the rows of a trained model's scores come from; None: validation episodes."""
    task, data = model.scored(seed, test, groups), test or model.data
    names = {"test": test.label if test else HELD_OUT, "model": model.label, "seed": seed}
    scores = Rows("world_models", task, names | {"balls": data.balls})
    return [scores, Rows("simulations", task, names, "simulation")]


@dataclass(frozen=True, kw_only=True)
class Views(WorldExperiment):
    """Train models of crops and score them where they see less.

    A row of views.csv is a model, seed, test set, number of crops and number of dropped modules;
    enclaves_MODEL_SEED.npz says of each S2RM which pixels its modules attend to (attended) and
    which modules can hear which (heard).

    Attributes:
        models: s2gru, s2gru_input_local, s2gru_input_nonlocal, s2gru_cells_local,
            s2gru_cells_nonlocal, crops_lstm, crops_rims, crops_rmc, crops_oracle.
        seen: Numbers of crops that are seen, beside as many as in training, which is always scored.
        dropped: Numbers of modules to take out, with all crops, beside none; models without so many
            have no such rows.
    """

    kind = "views"
    folder_name = "{0.preset}-world-views"

    models: tuple[str, ...] = ("s2gru", "crops_rims", "crops_rmc", "crops_lstm", "crops_oracle")
    seen: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_known("model of crops", self.models, S2RM_MODELS)
        models = self.planned(self.models, progress_for)
        parts = [max(1, model.parts) for model in models]
        crops = models[0].preset.sizes.views
        self._check_counts(crops, max(parts) - 1)
        lengths = [model.preset.scoring.length + 1 for model in models]
        tests = self.test_sets(models, lengths, progress_for)
        rows, conditions = [], self._conditions(tests, crops)
        spared = list(zip(models, parts, strict=True))
        for (model, most), seed, where in product(spared, self.seed_list, conditions):
            if where[-1] < most:
                rows.append(view_rows(model, seed, *where))
        plan = self.world_plan(rows, models, {test.label: test.summary() for test in tests})
        return replace(plan, finish=lambda out, store: self._write_enclaves(out, store, models))

    def _check_counts(self, crops: int, most: int) -> None:
        """Make sure that models have so many crops to see and so many modules to take out."""
        seen = f"1 to {crops} crops that are seen, all in training"
        spared = f"0 to {most} modules to take out, all that these models can spare"
        counts = [(count, 1, crops, seen) for count in self.seen]
        counts += [(count, 0, most, spared) for count in self.dropped]
        for count, low, high, expected in counts:
            if not low <= count <= high:
                raise RMRError(
                    f"expected {expected}, got {count}: choose another number or leave it out"
                )

    def _conditions(
        self, tests: Sequence[RecordedFrames], crops: int
    ) -> list[tuple[RecordedFrames | None, int, int]]:
        """Return test sets with numbers of crops and no module gone, then with all crops and some.

        All crops and all modules, as in training, are always among them: all else is compared with
        it.
        """
        where = (None, *tests)
        whole = product(where, dict.fromkeys((*self.seen, crops)), (0,))
        less = product(where, (crops,), [gone for gone in dict.fromkeys(self.dropped) if gone])
        return [*whole, *less]

    def _write_enclaves(self, out: Path, store: Store, models: Sequence[PlannedModel]) -> None:
        for model, seed in product(models, self.seed_list):
            artifact = store.find(model.trained(seed))
            if artifact and (arrays := enclaves(model, artifact)):
                write_arrays(out / f"enclaves_{model.label}_{seed}.npz", arrays)


def view_rows(
    model: PlannedModel, seed: int, test: RecordedFrames | None, views: int, dropped: int
) -> Rows:
    """Return where a row of a trained model's scores comes from; None: validation episodes."""
    names = {"model": model.label, "seed": seed, "test": test.label if test else HELD_OUT}
    balls = (test or model.data).balls
    return Rows("views", model.scored_crops(seed, test, views, dropped), names | {"balls": balls})
