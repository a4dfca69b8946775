"""Belief: RAM tracked from pixels and actions, with P or a control as the transition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from rmr_gym.core.errors import RMRError, known_name, whole_number
from rmr_gym.experiments.atari import AtariExperiment, abstract_rows
from rmr_gym.experiments.base import Plan, ProgressFor, Rows, require_distinct, require_known
from rmr_gym.runs.store import Task
from rmr_gym.runs.training import Phase
from rmr_gym.stages import belief as stages
from rmr_gym.stages.belief import BELIEFS, STARTS, STRICT, Believing, Strict
from rmr_gym.stages.chain import GameTasks
from rmr_gym.stages.games import PROBE_SEED
from rmr_gym.stages.presets import AtariPreset, read_values

REGIMES = {"pairs": (*BELIEFS, "gru", "supervised"), "strict": STRICT}
"""The arms of each regime: few labelled frames, or pixels and actions alone."""

GRU = Phase(steps=2000, learning_rate=2e-3, batch=16, unroll=32)
FRAMES = Phase(steps=1000, learning_rate=1e-3, batch=50)
"""How networks are trained: the GRU, the encoder of single frames."""

WITHOUT_P = ("copy", "pixels", "instants")
OF_SINGLE_FRAMES = ("pixels", "p_alone", "supervised")


def _read(game: GameTasks, config: Believing, labels: int, seed: int, frames: int) -> Task:
    """Return the task that reads all frames, so many at once."""
    common = (game.data, game.preset.model)
    read = stages.evidence(*common, config.hidden, labels, seed)
    return stages.instants(*common, labels, seed, read, frames) if frames > 1 else read


def _donors(
    game: GameTasks, other: GameTasks, labels: int, arm: str, seed: int, read: Task
) -> tuple[Task | None, Task | None]:
    """Return the tasks of the pipeline of a belief, and of another game's."""
    if arm in WITHOUT_P:
        return None, None
    if arm == "scratch_p":
        configs = (game.preset.model, game.preset.pretraining, labels, seed)
        return stages.scratch(game.data, *configs, read, game.device), None
    return game.pretrained(seed), other.pretrained(seed) if arm == "foreign_p" else None


@dataclass(frozen=True)
class Belief(AtariExperiment):
    """Track RAM from pixels, actions and a known start, with P or a control as the transition.

    Source: none in the paper; it asks of P what the natural pipeline does not: to carry on what no
    frame shows.

    Attributes:
        regime: pairs (few labelled frames are learned from) or strict (pixels and actions alone;
            a linear probe reads the beliefs afterwards).
        arms: rmr (the game's own P), shuffled_p, random_p, foreign_p (that of another game of the
            run), scratch_p (a P that pixels taught), copy, pixels (no memory), p_alone (no
            frames), gru (a GRU in the place of P and fusion; strict: of P), and of pairs
            instants (successive frames, no memory beyond), supervised (an encoder of single
            frames), of strict no_memory (the encoder that learned with P); default: all.
        labels: Numbers of labelled frames; strict: those that the probe is fitted on.
        donors: Whose P also stands between the own encoder and decoder, as those of a transfer;
            not in the strict regime.
        start: known (the true RAM) or unknown (what is read of the first frame; strict: learned).
        frames: Successive frames that are read together; strict: each is seen by itself.
        belief: How beliefs are learned and scored.
        gru: How the GRU is trained.
        supervised: How the encoder of single frames is trained.
        strict: How beliefs of the strict regime are learned and scored.
    """

    kind = "belief"

    regime: str = "pairs"
    arms: tuple[str, ...] = ()
    labels: tuple[int, ...] = (3000,)
    donors: tuple[str, ...] = ()
    start: str = "known"
    frames: int = 4
    belief: Believing = field(default_factory=Believing)
    gru: Phase = GRU
    supervised: Phase = FRAMES
    strict: Strict = field(default_factory=Strict)

    @property
    def config(self) -> dict[str, Any]:
        """As that of others, and the regime: no folder holds both."""
        return super().config | ({"regime": "strict"} if self.regime == "strict" else {})

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes.

        Raises:
            RMRError: There is no such preset.
        """
        return AtariPreset.proposals(name) | read_values("belief", Belief).get(name, {})

    def plan(self, progress_for: ProgressFor) -> Plan:
        """Return what is to be computed; a single game has no other game's P."""
        every = REGIMES[known_name("regime", self.regime, REGIMES)]
        require_known("belief", self.arms or every, every)
        known_name("start", self.start, STARTS)
        require_distinct("number of labels", self.labels)
        whole_number("frames that are read together", self.frames, at_least=1)
        whole_number("number of labelled frames", min(self.labels), at_least=2 * stages.FOLDS)
        seeds, strictly = self.seed_list, self.regime == "strict"
        if self.donors and strictly:
            raise RMRError("expected no --donors in the strict regime: they are of the other one")
        donors = {seed: self.donors_named(self.donors, progress_for, seed) for seed in seeds}
        games = self.recorded(progress_for)
        arms = [arm for arm in self.arms or every if arm != "foreign_p" or len(games) > 1]
        rows = [row for game, seed in product(games, seeds) for row in abstract_rows(game, seed)]
        for labels, seed, arm in product(self.labels, seeds, arms):
            if strictly:
                rows += [self.tracked_strictly(game, labels, arm, seed) for game in games]
            else:
                rows += self.tracked(games, labels, arm, seed)
        for labels, seed, game in product(self.labels, seeds, games):
            rows += self.transferred(game, labels, seed, donors[seed])
        facts = {"arms": arms, "labels": list(self.labels), "start": self.start}
        facts |= {"donors": list(donors[seeds[0]]), "frames": self.frames, "regime": self.regime}
        return self.atari_plan(rows, games, **facts)

    def tracked(self, games: Sequence[GameTasks], labels: int, arm: str, seed: int) -> list[Rows]:
        """Return where the rows of an arm come from, on every game.

        Args:
            games: Under one preset. The P of the game before stands in for that of another one.
            labels: Labelled frames.
            arm: A name in `REGIMES`; "pixels" reads single frames.
            seed: Of P, of the labelled frames, and of what is drawn for a control.
        """
        names = {"labels": labels, "arm": arm, "seed": seed}
        rows = []
        for game, other in zip(games, [games[-1], *games], strict=False):
            common = (game.data, game.preset.model)
            frames = 1 if arm in OF_SINGLE_FRAMES else self.frames
            read = _read(game, self.belief, labels, seed, frames)
            given = (labels, seed, read)
            if arm == "gru":
                task = stages.recurrent(*common, self.belief, self.gru, *given, self.start)
            elif arm == "supervised":
                task = stages.supervised_frames(*common, self.belief, self.supervised, *given)
            else:
                donors = (*_donors(game, other, labels, arm, seed, read), self.start)
                task = stages.belief(*common, self.belief, labels, arm, seed, read, *donors)
            rows.append(Rows("belief", task, {"game": game.name} | names))
        return rows

    def transferred(
        self, game: GameTasks, labels: int, seed: int, donors: Mapping[str, Task]
    ) -> list[Rows]:
        """Return where the rows of a game's beliefs with each donor's P come from; not its own."""
        common = (game.data, game.preset.model)
        read, own = _read(game, self.belief, labels, seed, self.frames), game.pretrained(seed)
        given = (*common, self.belief, labels, "foreign_p", seed, read, own)
        names = {"game": game.name, "labels": labels, "seed": seed}
        return [
            Rows("belief", stages.belief(*given, donor, self.start), names | {"arm": name})
            for name, donor in donors.items()
            if name != game.name
        ]

    def tracked_strictly(self, game: GameTasks, labels: int, arm: str, seed: int) -> Rows:
        """Return where the rows of an arm of the strict regime come from; see `tracked`."""
        common = (game.data, game.preset.model)
        read = stages.evidence(*common, self.strict.scoring.hidden, labels, PROBE_SEED)
        given = (labels, arm, seed, read, game.pretrained(seed), self.start)
        task = stages.strict(*common, self.strict, *given)
        return Rows("belief", task, {"game": game.name, "labels": labels, "arm": arm, "seed": seed})
