"""World models, scored on frames: next frames, groups, simulations, on test sets over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rmr_gym.core.errors import RMRError
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_distinct
from rmr_gym.experiments.frames import HELD_OUT, WorldExperiment, check_lengths, check_tests
from rmr_gym.stages.world_model import PlannedModel, RecordedFrames


@dataclass(frozen=True, kw_only=True)
class WorldModels(WorldExperiment):
    """Train world models and score them on the validation episodes and on test sets.

    Attributes:
        models: rnem, rnem_no_attention, rnnem, nem, rnn, lstm, rims, rims_lstm, memoryless, s2gru,
            s2rmc, crops_lstm, crops_rims, crops_rmc, crops_oracle, or with a P inside: rnem_ or
            rims_ and rmr, fresh_p, random_p or shuffled_p.
        groups: Number of groups (K) in training; default: the preset's.
        test_groups: Number of groups while scoring on tests, for models that have several: one for
            all of them, or one for each.
        processor: Folder of `rmr-gym pretrain` on balls, for the models with a P inside.
    """

    folder_name = "{0.preset}-world-models"

    models: tuple[str, ...] = ("rnem", "rnnem", "rnn", "lstm")
    groups: int | None = None
    test_groups: tuple[int, ...] = ()
    processor: Path | None = None

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        require_distinct("model", self.models)
        seeds = self.seed_list
        counts = self._test_groups()
        models = self.planned(self.models, progress_for, self.groups, self.processor)
        tests = self.found(self.tests, progress_for)
        check_tests(models, tests)
        for model in models:
            check_lengths(model, tests, model.preset.horizon)
        trials = [(None, None), *zip(tests, counts, strict=True)]
        rows = [
            part
            for model, seed, trial in product(models, seeds, trials)
            for part in score_rows(model, seed, *trial)
        ]
        facts = {
            "tests": {
                test.label: test.summary() | {"groups": k}
                for test, k in zip(tests, counts, strict=True)
            }
        }
        return self.world_plan(rows, models, tests, kind="world_models", facts=facts)

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


EXPERIMENT = WorldModels
