"""`rmr-gym pretrain`, `train`, `probe`, `encoder`: the chain stage by stage."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from rmr_gym import facade
from rmr_gym.commands import console
from rmr_gym.core.errors import RMRError, letters
from rmr_gym.core.files import require_free
from rmr_gym.experiments.atari import game_names
from rmr_gym.experiments.belief.grid import Belief
from rmr_gym.experiments.worlds import is_of_balls
from rmr_gym.models.pretrained import SHIPPED, PretrainedEncoder, find_shipped, shipped_encoders
from rmr_gym.runs.store import read_artifact
from rmr_gym.stages.balls import KIND as BALLS_KIND
from rmr_gym.stages.balls import BallsPreset
from rmr_gym.stages.export import pretrained_belief, pretrained_encoder
from rmr_gym.stages.presets import AtariPreset


@dataclass(frozen=True, kw_only=True)
class OnData:
    """Options of every command on a data set.

    Attributes:
        data: Folder of a recorded data set.
        root: Folder of finished stages; what is found there is not computed again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """

    data: Path
    root: Path = Path("runs")
    device: str = "cpu"

    @property
    def places(self) -> dict[str, Any]:
        """What every function of the facade takes."""
        return {"preset": self, "root": self.root, "device": self.device}


@dataclass(frozen=True, kw_only=True)
class Trained(OnData):
    """Options of every command that trains on a data set and writes a folder.

    Attributes:
        seed: Fixes initial weights and batches.
        force: Overwrite what is there.
    """

    seed: int = 0
    force: bool = False

    @property
    def places(self) -> dict[str, Any]:
        """What every function of the facade takes that trains."""
        return super().places | {"seed": self.seed, "overwrite": self.force}


SCORES = {
    facade.KIND: ("model", "step", "slot_accuracy", "bit_f1"),
    BALLS_KIND: ("model", "mse_1", "ratio_1", "mse_10", "ratio_10", "outside", "energy"),
}
"""Scores of P that are printed, by the kind of the folder that holds it."""


@dataclass(frozen=True, kw_only=True)
class Pretraining(Trained):
    """Options of every command that trains a processor.

    Attributes:
        out: Folder of the artifact to write.
    """

    out: Path

    def execute(self) -> None:
        """Carry the command out."""
        with console.progress_bar(f"pretraining on {self.data}") as progress:
            folder = facade.pretrain(self.data, self.out, **self.places, progress=progress)
        console.say(f"written: {folder}")
        record = read_artifact(folder).record
        console.print_rows(record["scores"], SCORES[record["kind"]])


@dataclass(frozen=True, kw_only=True)
class Pretrain(Pretraining, AtariPreset):
    """Train a processor on a data set's RAM and write it as an artifact folder.

    A data set of bouncing balls has options of its own: name it with --data before --help.
    """


@dataclass(frozen=True, kw_only=True)
class PretrainBalls(Pretraining, BallsPreset):
    """Train a processor on the positions of balls and write it as an artifact folder."""


@dataclass(frozen=True, kw_only=True)
class Train(Trained, AtariPreset):
    """Train a pixel encoder through P, on pixels alone, and write it as a pretrained encoder.

    The folder is what wrappers, agents, `rmr-gym probe` and `rmr-gym encoder show` read. A data set
    of bouncing balls has options of its own: name it with --data before --help.

    Attributes:
        out: Folder of the encoder to write; default: ROOT/encoders/GAME-ARM-SEED-STEP, where
            `rmr-gym run agents` looks for it.
        arm: rmr, cswm, random_p, shuffled_p, no_p, supervised or untrained.
        processor: Folder of `rmr-gym pretrain`; default: pretrained now, where the arm needs one.
        step: Checkpoint to write; default: the last.
    """

    out: Path | None = None
    arm: str = "rmr"
    processor: Path | None = None
    step: int | None = None

    def execute(self) -> None:
        """Carry the command out."""
        _train(self, step=self.step)


@dataclass(frozen=True, kw_only=True)
class OnArmOfBalls(OnData, BallsPreset):
    """Options of every command on an arm of balls.

    Attributes:
        arm: rmr (frozen pretrained P), cswm (P trained end to end), random_p, shuffled_p, no_p,
            tuned_p (pretrained, then trained); with _aligned behind, the abstract encoder and
            decoder are handed over too; where an encoder is written, also untrained.
        processor: Folder of `rmr-gym pretrain` in the same world, of the preset's sizes; default: P
            is pretrained on the positions of this data set, where the arm needs one.
    """

    arm: str = "rmr"
    processor: Path | None = None


@dataclass(frozen=True, kw_only=True)
class TrainBalls(Trained, OnArmOfBalls):
    """Train an encoder of frames of balls through P and write it as a pretrained encoder.

    The folder is what wrappers, agents and `rmr-gym encoder show` read.

    Attributes:
        out: Folder of the encoder to write; default: ROOT/encoders/WORLD-ARM-SEED-STEP, where
            `rmr-gym run agents` looks for it.
    """

    out: Path | None = None

    def execute(self) -> None:
        """Carry the command out."""
        folder = _train(self)
        rows = facade.load_encoder(folder).provenance["metrics"]
        console.print_rows(rows, ("arm", "step", "mse", "ratio_to_copy", "ari"))


def _train(options: Train | TrainBalls, **further: Any) -> Path:
    given = {"arm": options.arm, "processor": options.processor, **options.places, **further}
    with console.progress_bar(f"training the {options.arm} encoder on {options.data}") as progress:
        folder = facade.train(options.data, options.out, **given, progress=progress)
    console.say(f"written: {folder}")
    return folder


@dataclass(frozen=True, kw_only=True)
class Probe(OnData, AtariPreset):
    """Read RAM bits linearly off a frozen encoder.

    Attributes:
        encoder: Folder of a pretrained encoder, or the name of a shipped one.
        strict: Refuse an encoder of another game, which is otherwise only warned of.
    """

    encoder: str
    strict: bool = False

    def execute(self) -> None:
        """Carry the command out."""
        given = {"strict": self.strict, **self.places}
        with console.progress_bar("probing") as progress:
            rows = facade.probe(self.data, self.encoder, **given, progress=progress)
        console.print_rows(
            rows, ("probe", "micro_f1", "macro_f1", "slot_accuracy", "effective_rank")
        )


@dataclass(frozen=True, kw_only=True)
class TrainEncoder(Belief):
    """Make an encoder of any game of ALE with its P, or a belief, as a folder that wrappers read.

    The game is recorded, P pretrained on its RAM, the encoder trained on its pixels and probed; of
    what stands in ROOT nothing is computed again. Proposed are InfoNCE, under which encoders keep
    most of what they see, and the P that `rmr-gym run belief` pretrains.

    Attributes:
        game: Name of the game, for instance Enduro; or all, for the paper's 24 one by one.
        arm: rmr, cswm, random_p, shuffled_p, no_p, supervised or untrained; or belief, that of the
            most labels, with the game's own P.
        seed: Of the encoder; of a belief also of P and the labels.
        step: Checkpoint of an encoder; default: the last.
        ship: Write into the installed package instead, to be found by the game's name.
        force: Overwrite what is there.
    """

    game: str
    arm: str = "rmr"
    seed: int = 0
    step: int | None = None
    ship: bool = False
    force: bool = False

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes."""
        proposed = Belief.proposals(name)
        return proposed | {"natural": replace(proposed["natural"], objective="infonce")}

    def execute(self) -> None:
        """Carry the command out."""
        names = game_names([self.game])
        if self.out is not None and (self.ship or len(names) > 1):
            other = "--ship" if self.ship else "--game all"
            raise RMRError(f"expected either --out or {other}, found both")
        folders = {name: require_free(self._folder(name), self.force) for name in names}
        self._announce(len(names))
        for name, folder in folders.items():
            with console.progress_bars() as progress_for:
                encoder = self._made(name, progress_for)
            console.say(f"written: {encoder.save_pretrained(folder, overwrite=self.force)}")
            console.print_rows(encoder.provenance["metrics"])

    @property
    def _last(self) -> int:
        """The checkpoint that is written; of a belief its labels."""
        if self.arm == "belief":
            return max(self.labels)
        return facade.checkpoint_of(self.chosen, self.arm, self.step)

    def _folder(self, game: str) -> Path:
        folder = self.root / "encoders" / f"{game}-{self.arm}-{self.seed}-{self._last}"
        if self.ship:
            name = letters(game) + "_belief" * (self.arm == "belief")
            folder = find_shipped(name) or SHIPPED / name
        return self.out or folder

    def _announce(self, games: int) -> None:
        """Say how long it takes at most, and refuse a disk that is too small."""
        steps = self.recording.episodes * self.recording.max_steps
        trained = sum(part.steps * part.batch for part in (self.pretraining, self.natural))
        minutes = games * (steps * 0.5e-3 + trained * 1.5e-3 + 40) / 60
        console.say(
            f"about {minutes:.0f} minutes on an idle core at the sizes of the preset laptop, less "
            f"what {self.root} holds; stop it at will, the same command goes on where it was"
        )
        there = next(part for part in (self.root, *self.root.absolute().parents) if part.exists())
        free, needed = shutil.disk_usage(there).free / 1e9, games * (steps * 1e-6 + 0.05)
        if free < needed:
            raise RMRError(
                f"expected {needed:.1f} GB of free disk for {self.root}, found {free:.1f}: make "
                "room or name a folder on another disk with --root"
            )

    def _made(self, name: str, progress_for: console.ProgressFor) -> PretrainedEncoder:
        (game,) = self.recorded(progress_for, [name])
        progress = progress_for(f"training {game.name}, {self.arm}")
        given = {"store": facade.store_in(self.root), "progress": progress}
        if self.arm != "belief":
            return pretrained_encoder(game, self.arm, self.seed, step=self._last, **given)
        (row,) = self.tracked([game], self._last, "rmr", self.seed)
        return pretrained_belief(game, row.task, **given)


@dataclass(frozen=True, kw_only=True)
class Export(TrainEncoder):
    """Write an encoder that a comparison trained, with its P, as a folder that wrappers read.

    As `rmr-gym encoder train`, but for what is proposed: objective and P of `rmr-gym run compare`.
    """

    @staticmethod
    def proposals(name: str) -> dict[str, Any]:
        """Return the fields that a preset proposes."""
        return Belief.proposals(name) | AtariPreset.proposals(name)

    def execute(self) -> None:
        """Carry the command out."""
        if self.arm == "belief":
            raise RMRError("no comparison trains a belief: make it with `rmr-gym encoder train`")
        super().execute()


def pretrain(arguments: Sequence[str]) -> None:
    """Carry `rmr-gym pretrain` out."""
    options = PretrainBalls if _names_balls(arguments) else Pretrain
    console.carry_out(options, arguments, "rmr-gym pretrain")


def train(arguments: Sequence[str]) -> None:
    """Carry `rmr-gym train` out."""
    options = TrainBalls if _names_balls(arguments) else Train
    console.carry_out(options, arguments, "rmr-gym train")


def _names_balls(arguments: Sequence[str]) -> bool:
    """Tell whether the data set that was named is one of balls, which has options of its own."""
    data = console.value_of("--data", arguments)
    return data is not None and is_of_balls(Path(data))


def show(artifact: tyro.conf.Positional[str]) -> None:
    """Print the card of an encoder; of a P, its sizes and scores.

    Args:
        artifact: Folder of `rmr-gym train`, `rmr-gym encoder train` or `rmr-gym pretrain`, or the
            name of a shipped encoder.
    """
    folder = Path(artifact)
    if not (folder / "record.json").is_file():
        console.say(facade.load_encoder(artifact).card())
        return
    record = read_artifact(folder).record
    console.say(
        f"P of {record.get('game', 'bouncing balls')}, without an encoder: "
        f"`rmr-gym train --processor {folder}` trains one through it",
        *(f"- {name}: {value}" for name, value in record["model"].items()),
    )
    console.print_rows(record["scores"], SCORES[record["kind"]])


def list_shipped() -> None:
    """List the encoders that come with the package, with the probe's bit F1 of each.

    Beside it stands that of the encoder before training, and of the pixels themselves.
    """
    rows = []
    shown = {"F1": "this encoder", "untrained": "untrained encoder", "pixels": "pixels through PCA"}
    for name, folder in shipped_encoders().items():
        read = PretrainedEncoder.from_pretrained(folder)
        training = {"arm": "?", "objective": "-", "step": "-"} | read.provenance.get("training", {})
        row = {"name": name} | {part: training[part] for part in ("arm", "objective", "step")}
        metrics = read.provenance.get("metrics", [])[::-1]  # of several probes the first counts
        scores = {part["features"]: part["micro_f1"] for part in metrics if "features" in part}
        rows.append(row | {part: scores.get(features, "-") for part, features in shown.items()})
    console.print_rows(rows)


ENCODER = {"train": TrainEncoder, "export": Export, "show": show, "list": list_shipped}
