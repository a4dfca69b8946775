"""The comparison: pretrain, train every arm with paired seeds, probe."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rmr_gym.core.palette import palette_to_rgb
from rmr_gym.experiments.atari import AtariExperiment, abstract_rows, natural_rows, paired_arms
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, write_arrays
from rmr_gym.models.rmr.message_passing import describe_backend
from rmr_gym.stages.chain import REFERENCES, GameTasks
from rmr_gym.stages.games import PRETRAIN_SEED, probe_sets
from rmr_gym.stages.presets import ARMS


def comparison(games: Sequence[GameTasks], seeds: Sequence[int]) -> list[Rows]:
    """Return where the rows of a comparison come from; pixels have no seed."""
    rows = []
    for game in games:
        rows += abstract_rows(game, PRETRAIN_SEED)
        for seed, arm in paired_arms(seeds, (*ARMS, *REFERENCES)):
            rows += natural_rows(game, arm, seed)
    return rows


@dataclass(frozen=True)
class Compare(AtariExperiment):
    """Record, pretrain, train every arm with paired seeds, probe, test and report.

    Source: RMR, section 5, Table 1. Differs: controls and references beside the two arms.
    """

    kind = "compare"
    folder_name = "{0.preset}-{0.natural.objective}"

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed."""
        games = self.recorded(progress_for)
        backend = describe_backend(self.device, self.model.precision)
        datasets = {game.name: game.data.summary() | _probe_summary(game) for game in games}
        rows, facts = comparison(games, self.seed_list), {"message_passing": backend}
        plan = self.atari_plan(rows, games, datasets=datasets, **facts)
        return replace(plan, finish=lambda out, _: _write_frames(out, games))


def _probe_summary(game: GameTasks) -> dict[str, Any]:
    sets = probe_sets(game.data, game.preset.model, game.preset.probing)
    return {
        "probe_train_rows": len(sets.training.frames),
        "probe_test_rows": len(sets.test.frames),
        "probe_test_rows_dropped": sets.dropped,
    }


def _write_frames(out: Path, games: Sequence[GameTasks]) -> None:
    arrays = {}
    for game in games:
        episodes = game.data.open()
        loaded = episodes.dataset.load(columns=("pixels", "ram"), episodes=episodes.validation[:1])
        rows = np.linspace(0, len(loaded["ram"]) - 1, 4).astype(int)
        arrays[f"{game.name}_rgb"] = palette_to_rgb(loaded["pixels"][rows])
        arrays[f"{game.name}_ram"] = loaded["ram"][rows]
    write_arrays(out / "frames.npz", arrays)
