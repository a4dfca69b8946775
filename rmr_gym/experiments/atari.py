"""What experiments over Atari games share: options, recorded games, rows of their tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rmr_gym.agents.players.graded import PLAYER, game_name
from rmr_gym.agents.record import record
from rmr_gym.core.errors import RMRError, limit
from rmr_gym.domains.dynamics import DYNAMICS
from rmr_gym.envs.atari.games import GAMES
from rmr_gym.experiments.base import Experiment, Plan, ProgressFor, Rows, require_distinct
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.runs.store import Store, Task
from rmr_gym.stages import export
from rmr_gym.stages.chain import PIXELS, UNTRAINED, GameTasks
from rmr_gym.stages.games import PRETRAIN_SEED, GameData
from rmr_gym.stages.presets import AtariPreset, Recording, as_json
from rmr_gym.stages.stacked import stacking


def abstract_rows(game: GameTasks, seed: int) -> list[Rows]:
    """Return where the rows of a pretraining come from, and those of the copy baseline."""
    model = {"model": game.preset.model.core}
    names, task = {"game": game.name, **model, "seed": seed}, game.pretrained(seed)
    return [
        Rows("abstract", task, names, "copy", shared=True),
        Rows("abstract", task, names),
        Rows("abstract_curves", task, names, "curve"),
    ]


def paired_arms(seeds: Sequence[int], arms: Sequence[str]) -> list[tuple[int, str]]:
    """Return every arm with every seed; what has no seed with the first alone."""
    seedless = (PIXELS, PLAYER)
    pairs = product(seeds, arms)
    return [(seed, arm) for seed, arm in pairs if arm not in seedless or seed == seeds[0]]


def natural_rows(game: GameTasks, arm: str, seed: int, objective: str | None = None) -> list[Rows]:
    """Return where the rows of an arm or a reference come from.

    Args:
        game: Under a preset.
        arm: An arm or a reference.
        seed: Of the arm.
        objective: What the objective is called in the tables; None: by its name.
    """
    objective = objective or game.preset.natural.objective
    names = {"game": game.name, "objective": objective, "arm": arm, "seed": seed}
    rows = [Rows("natural", game.scored(arm, seed), names)]
    if arm not in (PIXELS, UNTRAINED):
        rows.append(Rows("natural_curves", game.trained(arm, seed), names, "curve"))
    return rows


@dataclass(frozen=True)
class AtariExperiment(AtariPreset, Experiment):
    """Options of experiments over Atari games; those of the stages come from the preset.

    Attributes:
        games: Names of games, or "all" for the paper's 24; default: the preset's.
        data: Folder of data sets, called GAME or GAME-EPISODESxSTEPS; default: ROOT/data. What is
            not there is recorded.
        stack: Trainings that run as one model; default: 40 on a GPU, 1 elsewhere.
    """

    games: tuple[str, ...] = ()
    data: Path | None = None
    stack: int | None = None

    @property
    def seed_list(self) -> range:
        """The paired seeds, as many as the preset says where no number was asked for."""
        return range(limit("seeds", self.seeds) or self.chosen.seeds)

    @property
    def config(self) -> dict[str, Any]:
        """The preset without what it only proposes, which decides no result."""
        preset = as_json(self.chosen)
        return {name: value for name, value in preset.items() if name not in ("games", "seeds")}

    def recorded(
        self, progress_for: ProgressFor, names: Sequence[str] | None = None
    ) -> list[GameTasks]:
        """Return the games under the preset; data sets that are not there are recorded.

        Args:
            progress_for: Gives progress callbacks by title.
            names: Which games; None: those of the options.

        Raises:
            RMRError: An unknown game or device, or data of another game.
        """
        find_device(self.device)
        len(self.seed_list)  # refuses numbers that cannot be, before anything is recorded for them
        limit("stack", self.stack)
        preset, workers = self.chosen, self.worker_count
        chosen = game_names(names or self.games or preset.games)
        if self.data is not None and not self.data.is_dir():
            raise RMRError(
                f"expected a folder of data sets in {self.data}, found no folder: make it, or "
                "leave --data out, and games are recorded into ROOT/data"
            )
        folder, recording, games = self.data or self.root / "data", preset.recording, []
        for name in chosen:
            path = recorded_folder(name, recording, folder, workers, progress_for)
            games.append(GameTasks(GameData.of(name, path, recording), preset, self.device))
        return games

    def donors_named(
        self, names: Sequence[str], progress_for: ProgressFor, seed: int = PRETRAIN_SEED
    ) -> dict[str, Task]:
        """Return the tasks that give a P each, in their order; games may be told by "all".

        Args:
            names: Of games, a name in `DYNAMICS`, amplified_random, or NAME=FOLDER of a
                pretrained P.
            progress_for: Gives progress callbacks by title.
            seed: Of the games' pretraining.

        Raises:
            RMRError: One is unknown, not there or named twice; nothing was recorded.
        """
        donors: dict[str, Any] = {}
        game_names(self.games or self.chosen.games)  # refuses these too before donors are recorded
        if names:
            require_distinct("donor", [name.partition("=")[0] for name in names])
        for name in names:
            label, equals, folder = name.partition("=")
            if equals:
                donors[label] = export.folder_donor(label, Path(folder), self.model)
            elif name in DYNAMICS:
                donors[name] = export.dynamics_donor(name, self.chosen, self.device)
            elif name == export.AMPLIFIED_RANDOM:
                donors[name] = export.amplified_random(self.model)
            else:
                donors |= dict.fromkeys(game_names([name]))
        missing = [name for name, task in donors.items() if task is None]
        recorded = self.recorded(progress_for, missing) if missing else []
        return donors | {game.name: game.pretrained(seed) for game in recorded}

    def atari_plan(self, rows: Sequence[Rows], games: Sequence[GameTasks], **facts: Any) -> Plan:
        """Return the plan of a run over games, with what run.json says of all and further facts.

        Args:
            rows: Where the rows of the tables come from.
            games: Under one preset.
            **facts: Said beside, or instead.
        """
        preset, summaries = self.chosen, {game.name: game.data.summary() for game in games}
        facts = {
            "preset": self.preset,
            "games": [game.name for game in games],
            "objective": preset.natural.objective,
            "checkpoints": list(preset.natural.checkpoints),
            "probes": list(preset.probing.probes),
            "datasets": summaries,
            "slots": {name: summary["slots"] for name, summary in summaries.items()},
        } | facts
        return Plan(rows, facts, group=stacking(Store(self.root / "store"), self.stack))


def game_names(games: Sequence[str]) -> list[str]:
    """Return the names that were meant, "all" being the paper's 24.

    Raises:
        RMRError: An unknown game, or one named twice.
    """
    if tuple(games) == ("all",):
        return list(GAMES)
    names = [game_name(game) for game in games]
    require_distinct("game", names)
    return names


def recorded_folder(
    game: str, recording: Recording, folder: Path, workers: int, progress_for: ProgressFor
) -> Path:
    """Return a game's data set in a folder; it is recorded where it is not there."""
    if (folder / game / "manifest.json").is_file():
        return folder / game
    path = folder / f"{game}-{recording.episodes}x{recording.max_steps}"
    names = ("episodes", "max_steps", "players", "frameskip", "repeat_action_probability")
    given = {name: getattr(recording, name) for name in names}
    record(game, path, **given, workers=workers, progress=progress_for(f"recording {game}"))
    return path
