"""World models of crops, scored with fewer crops, fewer modules, more balls."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_distinct, write_arrays
from rmr_gym.experiments.frames import HELD_OUT, WorldExperiment, check_lengths, check_tests
from rmr_gym.models.world.s2rm import S2RM_MODELS
from rmr_gym.runs.store import Store
from rmr_gym.stages.world_model import PlannedModel, RecordedFrames, enclaves


@dataclass(frozen=True, kw_only=True)
class Views(WorldExperiment):
    """Train models of crops and score them where they see less.

    A row of views.csv is a model, seed, test set, number of crops and number of dropped modules;
    enclaves_MODEL_SEED.npz says of each S2RM which pixels its modules attend to (attended) and
    which modules can hear which (heard).

    Attributes:
        models: s2gru, s2rmc, s2gru_input_local, s2gru_input_nonlocal, s2gru_cells_local,
            s2gru_cells_nonlocal, crops_lstm, crops_rims, crops_rmc, crops_oracle.
        seen: Numbers of crops that are seen, beside as many as in training, which is always scored.
        dropped: Numbers of modules to take out, with all crops, beside none; models without so many
            have no such rows.
    """

    folder_name = "{0.preset}-world-views"

    models: tuple[str, ...] = ("s2gru", "crops_rims", "crops_rmc", "crops_lstm", "crops_oracle")
    seen: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_distinct("model", self.models)
        seeds = self.seed_list
        wrong = [name for name in self.models if name not in S2RM_MODELS]
        if wrong:
            raise RMRError(
                f"expected models of crops out of {', '.join(S2RM_MODELS)}, got {', '.join(wrong)}"
            )
        models = self.planned(self.models, progress_for)
        parts = [max(1, model.parts) for model in models]
        crops = models[0].preset.sizes.views
        self._check_counts(crops, max(parts) - 1)
        tests = self.found(self.tests, progress_for)
        check_tests(models, tests)
        for model in models:
            check_lengths(model, tests, model.preset.training.unroll + 1)
        rows = [
            view_rows(model, seed, test, views, dropped)
            for model, most in zip(models, parts, strict=True)
            for seed in seeds
            for test, views, dropped in self._conditions(tests, crops)
            if dropped < most
        ]
        return self.world_plan(
            rows,
            models,
            tests,
            kind="views",
            finish=lambda out, store: self._write_enclaves(out, store, models),
        )

    def _check_counts(self, crops: int, most: int) -> None:
        """Make sure that models have so many crops to see and so many modules to take out."""
        for count in self.seen:
            if not 1 <= count <= crops:
                raise RMRError(
                    f"expected 1 to {crops} crops that are seen, all in training, got {count}: "
                    "choose another number or leave it out"
                )
        for count in self.dropped:
            if not 0 <= count <= most:
                raise RMRError(
                    f"expected 0 to {most} modules to take out, all that these models can spare, "
                    f"got {count}: choose another number or leave it out"
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


EXPERIMENT = Views
