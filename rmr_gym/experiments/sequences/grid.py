"""Sequence tasks: RIMs against an LSTM, tested on spans, or perturbation, that they did not see."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from rmr_gym.agents import imitation
from rmr_gym.domains.sequences import digit_images
from rmr_gym.experiments import base
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.runs.store import Place, Store, Task
from rmr_gym.stages.presets import as_json
from rmr_gym.stages.sequences import SEQUENCE_MODELS, SequencePreset, SequenceTask, sequences


@dataclass(frozen=True)
class SequencesRun(SequencePreset, base.Experiment):
    """Train RIMs and an LSTM on a sequence task, and test them on longer sequences.

    They repeat digits after a pause, read images of digits pixel by pixel, add marked numbers, or
    imitate an expert that runs as a half-cheetah, and then run while their joints are moved.

    Source: RIMs, section 4.1, Table 1, and Appendix C.7.
    Differs: see `rmr_gym.stages.sequences.sequences` and `rmr_gym.agents.imitation`.
    """

    kind = "sequences"

    @property
    def config(self) -> dict[str, Any]:
        """The task and what is trained."""
        named = (*self.models, self.task.kind)
        parts = [name for name in (*SEQUENCE_MODELS, "imitation") if name in named]
        return {part: as_json(getattr(self, part)) for part in ("task", *parts)}

    def plan(self, progress_for: base.ProgressFor) -> base.Plan:
        """Return what is to be computed."""
        find_device(self.device)
        if self.task.kind == "digits":
            digit_images()
        base.require_known("model", self.models, SEQUENCE_MODELS)
        base.require_distinct("strength", self.imitation.strengths)
        place = Place((self.root / "experts" / str(self.imitation.steps)).resolve())
        shown = imitation.expert(imitation.CONFIG, self.imitation, place)
        shown = shown if self.task.kind == "imitation" else None
        tasks = {
            (name, seed): sequences(self.task, name, getattr(self, name), seed, self.device, shown)
            for seed, name in product(self.seed_list, self.models)
        }
        active = {"rims": self.rims.active}
        rows = [
            base.Rows(table, task, {"model": name, "active": active.get(name, 0), "seed": seed}, of)
            for (name, seed), task in tasks.items()
            for table, of in (("sequences", "rows"), ("sequences_curves", "curve"))
        ]
        if shown is not None:
            rows += [base.Rows("returns", shown, {"model": "expert", "seed": 0})]
            rows += [self._returns(*of, task) for of, task in tasks.items()]
        facts = {"preset": self.preset, "task": self.task.kind, "models": list(self.models)}
        finish = partial(write_activity, tasks=tasks, task=self.task)
        return base.Plan(rows, facts, finish=finish)

    def _returns(self, model: str, seed: int, task: Task) -> base.Rows:
        """Return what a trained model earns while the joints of the half-cheetah are moved."""
        of = (self.imitation, self.task, model, getattr(self, model), seed, task)
        return base.Rows("returns", imitation.imitator(*of), {"model": model, "seed": seed})


def write_activity(
    out: Path, store: Store, tasks: dict[tuple[str, int], Task], task: SequenceTask
) -> None:
    """Write which RIMs are active when, over the longest test span: one array a seed and measure.

    ``pattern_SEED`` is of one sequence, ``share_SEED`` of all; ``begins`` holds the instants at
    which blanks and recall begin, and is empty where nothing is copied.
    """
    span = max(task.test_spans)
    begins = [task.digits, task.digits + span] if task.kind == "copying" else []
    arrays: dict[str, Any] = {"begins": np.array(begins, int)}
    for (_, seed), own in tasks.items():
        artifact = store.find(own)
        if artifact is not None and artifact.part("activity"):
            for name, part in (("pattern", "pattern"), ("share", "activity")):
                tensor = artifact.tensors[f"{part}.{span}"]
                arrays[f"{name}_{seed}"] = tensor.float().numpy()
    base.write_arrays(out / "activity.npz", arrays)
