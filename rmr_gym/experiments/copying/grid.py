"""The copying task: RIMs against an LSTM, tested on longer spans than they were trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from rmr_gym.experiments import base
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.runs.store import Store, Task
from rmr_gym.stages.copying import COPYING_MODELS, Copying, CopyingPreset, copying
from rmr_gym.stages.presets import as_json


@dataclass(frozen=True)
class CopyingRun(CopyingPreset, base.Experiment):
    """Train RIMs and an LSTM to repeat digits after a pause, and test them after longer pauses.

    Source: RIMs, section 4.1.1, Table 1. Differs: see `rmr_gym.stages.copying.copying`.

    Attributes:
        models: rims, lstm.
    """

    kind = "copying"

    models: tuple[str, ...] = tuple(COPYING_MODELS)

    @property
    def config(self) -> dict[str, Any]:
        """The task and what is trained."""
        parts = [name for name in COPYING_MODELS if name in self.models]
        return {part: as_json(getattr(self, part)) for part in ("task", *parts)}

    def plan(self, progress_for: base.ProgressFor) -> base.Plan:
        """Return what is to be computed."""
        del progress_for
        find_device(self.device)
        base.require_known("model", self.models, COPYING_MODELS)
        tasks = {
            (name, seed): copying(self.task, name, getattr(self, name), seed, self.device)
            for seed, name in product(self.seed_list, self.models)
        }
        active = {"rims": self.rims.active}
        rows = [
            base.Rows(table, task, {"model": name, "active": active.get(name, 0), "seed": seed}, of)
            for (name, seed), task in tasks.items()
            for table, of in (("copying", "rows"), ("copying_curves", "curve"))
        ]
        facts = {"preset": self.preset, "models": list(self.models), "seeds": list(self.seed_list)}
        finish = partial(write_activity, tasks=tasks, task=self.task)
        return base.Plan(rows, facts, finish=finish)


def write_activity(
    out: Path, store: Store, tasks: Mapping[tuple[str, int], Task], task: Copying
) -> None:
    """Write which RIMs are active when, over the longest test span: one array a seed and measure.

    ``pattern_SEED`` is of one sequence, ``share_SEED`` of all; ``begins`` holds the instants at
    which blanks and recall begin.
    """
    span = max(task.test_spans)
    arrays: dict[str, Any] = {"begins": np.array([task.digits, task.digits + span])}
    for (_, seed), own in tasks.items():
        artifact = store.find(own)
        if artifact is not None and artifact.part("activity"):
            for name, part in (("pattern", "pattern"), ("share", "activity")):
                tensor = artifact.tensors[f"{part}.{span}"]
                arrays[f"{name}_{seed}"] = tensor.float().numpy()
    base.write_arrays(out / "activity.npz", arrays)
