"""`rmr-gym pretrain`, `train`, `probe`, `encoder export`: the chain stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmr_gym.commands.console import (
    err_console,
    out_console,
    parsed,
    print_rows,
    progress_bars,
    value_of,
)
from rmr_gym.core.errors import RMRError
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.atari import AtariModel
from rmr_gym.envs.atari.games import find_game
from rmr_gym.experiments.atari import AtariExperiment
from rmr_gym.experiments.base import require_known
from rmr_gym.experiments.worlds import balls_world, is_of_balls
from rmr_gym.models.pretrained import SHIPPED, PretrainedEncoder, find_artifact
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.runs.store import Artifact, Store, Task, read_artifact, write_artifact
from rmr_gym.stages.balls import BALLS_ARMS, BallsFolder, BallsPreset, BallsWorld, given_balls
from rmr_gym.stages.chain import ENCODERS, UNTRAINED, Game
from rmr_gym.stages.export import (
    EncoderReference,
    folder_donor,
    pretrained_balls_encoder,
    pretrained_encoder,
)
from rmr_gym.stages.games import GameData
from rmr_gym.stages.presets import AtariPreset, as_json, find_arm

KIND = "processor"


@dataclass(frozen=True, kw_only=True)
class GameCommand(AtariPreset):
    """Options of every command on the data set of a game.

    Attributes:
        data: Folder of a recorded data set.
        root: Folder of finished stages; what is found there is not computed again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """

    data: Path
    root: Path = Path("runs")
    device: str = "cpu"

    @property
    def store(self) -> Store:
        """Where finished stages are."""
        return Store(self.root / "store")

    def game(self, model: AtariModel | None = None) -> Game:
        """Return the game of the data under the preset, with other sizes if they are given.

        Raises:
            RMRError: The data are missing or of no game, or there is no such device.
        """
        find_device(self.device)
        name = TransitionDataset(self.data).manifest.game
        if name is None:
            raise RMRError(
                f"{self.data} is not of an Atari game: record one with `rmr-gym record --game NAME`"
            )
        preset = self.chosen if model is None else replace(self.chosen, model=model)
        return Game(GameData.of(name, self.data, preset.recording), preset, self.device)


@dataclass(frozen=True, kw_only=True)
class Pretrain(GameCommand):
    """Train a processor on a data set's RAM and write it as an artifact folder.

    A data set of bouncing balls has options of its own: name it with --data before --help.

    Attributes:
        out: Folder of the artifact to write.
        seed: Fixes initial weights and batches.
        force: Overwrite an artifact that is there.
    """

    out: Path
    seed: int = 0
    force: bool = False

    def execute(self) -> None:
        """Carry the command out."""
        game = self.game()
        refuse_existing(self.out, self.force)
        with progress_bars() as progress_for:
            progress = progress_for(f"pretraining on {game.name} RAM")
            artifact = self.store.compute(game.pretrained(self.seed), progress)
        facts = {"kind": KIND, "game": game.name, "model": as_json(game.preset.model)}
        described = Artifact(artifact.record | facts, artifact.tensors)
        write_artifact(self.out, described, overwrite=self.force)
        out_console.print(f"written: {self.out}", markup=False, soft_wrap=True)
        rows = artifact.record["copy"] + artifact.record["rows"]
        print_rows(rows, ("model", "step", "slot_accuracy", "bit_f1"))


@dataclass(frozen=True, kw_only=True)
class Train(GameCommand):
    """Train a pixel encoder through P, on pixels alone, and write it as a pretrained encoder.

    The folder is what wrappers, agents, `rmr-gym probe` and `rmr-gym encoder show` read. A data set
    of bouncing balls has options of its own: name it with --data before --help.

    Attributes:
        out: Folder of the encoder to write.
        processor: Artifact of `rmr-gym pretrain`; default: pretrained now, where the arm needs one.
        arm: rmr, cswm, random_p, shuffled_p, no_p, supervised or untrained.
        seed: Fixes initial weights and batches.
        step: Checkpoint to write; default: the last.
        force: Overwrite an encoder that is there.
    """

    out: Path
    processor: Path | None = None
    arm: str = "rmr"
    seed: int = 0
    step: int | None = None
    force: bool = False

    def execute(self) -> None:
        """Carry the command out."""
        if self.arm not in ("supervised", "untrained"):
            find_arm(self.arm)
        model = _model_of(self.processor) if self.processor else None
        game = self.game(model)
        refuse_existing(self.out, self.force)
        given = self.processor
        donor = folder_donor(str(given), given, game.preset.model) if given else None
        with progress_bars() as progress_for:
            progress = progress_for(f"training the {self.arm} encoder on {game.name} pixels")
            encoder = pretrained_encoder(
                game, self.arm, self.seed, self.store, donor=donor, step=self.step,
                progress=progress,
            )  # fmt: skip
        encoder.save_pretrained(self.out, overwrite=self.force)
        out_console.print(f"written: {self.out}", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Probe(GameCommand):
    """Read RAM bits linearly off a frozen encoder.

    Attributes:
        encoder: Folder of a pretrained encoder, or the name of a shipped one.
        strict: Refuse an encoder of another game, which is otherwise only warned of.
    """

    encoder: str
    strict: bool = False

    def execute(self) -> None:
        """Carry the command out."""
        folder = find_artifact(self.encoder)
        config = PretrainedEncoder.from_pretrained(folder).config
        game = self.game(_sizes_of(config, self.chosen.model, folder))
        self._look_at(config.game, game.name)
        with progress_bars() as progress_for:
            task = game.probed(EncoderReference(folder, self.device))
            rows = self.store.compute(task, progress_for("probing")).record["rows"]
        columns = ("probe", "micro_f1", "macro_f1", "slot_accuracy", "effective_rank")
        print_rows(rows, columns)

    def _look_at(self, trained_on: str, game: str) -> None:
        if trained_on == game:
            return
        text = f"this encoder was trained on {trained_on}, the data are of {game}"
        if self.strict:
            raise RMRError(f"{text}: choose an encoder of {game}, or leave --strict out")
        err_console.print(f"note: {text}", style="yellow", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Export(AtariExperiment):
    """Write an encoder of a game, with its P, as a folder that wrappers and agents read.

    What a comparison left in ROOT/store is found there; what it did not is recorded and trained
    now.

    Attributes:
        game: Name of the game, for instance Pong.
        arm: rmr, cswm, random_p, shuffled_p, no_p, supervised or untrained.
        seed: Seed of the comparison.
        step: Checkpoint; default: the last.
        ship: Write into the installed package instead, to be found by the game's name.
        force: Overwrite an encoder that is there.
    """

    game: str
    arm: str = "rmr"
    seed: int = 0
    step: int | None = None
    ship: bool = False
    force: bool = False

    def execute(self) -> None:
        """Carry the command out."""
        if self.ship and self.out is not None:
            raise RMRError("expected either --out or --ship, found both")
        row = find_game(self.game)
        require_known("arm", [self.arm], ENCODERS)
        with progress_bars() as progress_for:
            (game,) = self.recorded(progress_for, [row.name])
            progress = progress_for(f"training the {self.arm} encoder on {game.name} pixels")
            store = Store(self.root / "store")
            encoder = pretrained_encoder(
                game, self.arm, self.seed, store, step=self.step, progress=progress
            )
        reached = encoder.provenance["training"]["step"]
        folder = self.out or (
            self.root / "encoders" / f"{row.name}-{self.arm}-{self.seed}-{reached}"
        )
        target = SHIPPED / row.rom if self.ship else folder
        written = encoder.save_pretrained(target, overwrite=self.force)
        out_console.print(f"written: {written}", markup=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class BallsCommand(BallsPreset):
    """Options of every command on a data set of bouncing balls.

    Attributes:
        data: Folder of a recorded data set.
        seed: Fixes initial weights and batches.
        root: Folder of finished stages; what is found there is not computed again.
        device: Where to compute: cpu, cuda, cuda:1 ...
    """

    data: Path
    seed: int = 0
    root: Path = Path("runs")
    device: str = "cpu"

    @property
    def store(self) -> Store:
        """Where finished stages are."""
        return Store(self.root / "store")

    def world(self) -> BallsWorld:
        """Return the data set under the preset; see `rmr_gym.experiments.worlds.balls_world`."""
        return balls_world(self.data, self, self.device)


@dataclass(frozen=True, kw_only=True)
class ArmOfBalls(BallsCommand):
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

    @property
    def donor(self) -> Task | None:
        """The task that reads the processor, if one is given."""
        return given_balls(BallsFolder(self.processor)) if self.processor else None


@dataclass(frozen=True, kw_only=True)
class PretrainBalls(BallsCommand):
    """Train a processor on the positions of balls and write it as an artifact folder.

    Attributes:
        out: Folder of the artifact to write.
        force: Overwrite an artifact that is there.
    """

    out: Path
    force: bool = False

    def execute(self) -> None:
        """Carry the command out."""
        world = self.world()
        refuse_existing(self.out, self.force)
        task = world.pretrained(self.seed)
        with progress_bars() as progress_for:
            artifact = self.store.compute(task, progress_for("pretraining on positions"))
        described = Artifact(artifact.record | {"preset": self.preset}, artifact.tensors)
        write_artifact(self.out, described, overwrite=self.force)
        out_console.print(f"written: {self.out}", markup=False, soft_wrap=True)
        scored = (world.rolled_out(), world.rolled_out(task))
        rows = [row for part in scored for row in self.store.compute(part).record["rows"]]
        _print_errors(
            rows, ("model", "mse_1", "ratio_1", "mse_10", "ratio_10", "outside", "energy")
        )


@dataclass(frozen=True, kw_only=True)
class TrainBalls(ArmOfBalls):
    """Train an encoder of frames of balls through P and write it as a pretrained encoder.

    The folder is what wrappers, agents and `rmr-gym encoder show` read.

    Attributes:
        out: Folder of the encoder to write; default: ROOT/encoders/WORLD-ARM-SEED-STEP, where
            `rmr-gym agent` looks for it.
        force: Overwrite an encoder that is there.
    """

    out: Path | None = None
    force: bool = False

    def execute(self) -> None:
        """Carry the command out."""
        require_known("arm", [self.arm], (*BALLS_ARMS, UNTRAINED))
        world = self.world()
        steps = 0 if self.arm == UNTRAINED else sum(p.steps for p in self.prediction.phases)
        name = f"{world.data.label}-{self.arm}-{self.seed}-{steps}"
        out = self.out or self.root / "encoders" / name
        refuse_existing(out, self.force)
        with progress_bars() as progress_for:
            progress = progress_for(f"{self.arm}, seed {self.seed}")
            encoder = pretrained_balls_encoder(
                world, self.arm, self.seed, self.store, donor=self.donor, progress=progress
            )
        encoder.save_pretrained(out, overwrite=self.force)
        out_console.print(f"written: {out}", markup=False, soft_wrap=True)
        _print_errors(encoder.provenance["metrics"], ("arm", "step", "mse", "ratio_to_copy", "ari"))


def _print_errors(rows: Sequence[Mapping[str, Any]], columns: tuple[str, ...]) -> None:
    """Print errors in powers of ten, which four places would hide."""
    print_rows(
        [{c: f"{row[c]:.2e}" if "mse" in c else row[c] for c in columns} for row in rows], columns
    )


def _sizes_of(config: Any, model: AtariModel, folder: Path) -> AtariModel:
    if not hasattr(config, "trunk"):
        raise RMRError(f"{folder} holds an encoder of balls: expected one of a game")
    return replace(model, height=config.height, width=config.width, dim=config.dim)


def _model_of(folder: Path) -> AtariModel:
    """Return the sizes of a pretrained P.

    Raises:
        RMRError: The folder holds something else.
    """
    record = read_artifact(folder).record
    if record.get("kind") != KIND:
        raise RMRError(f"{folder} holds no processor: expected a folder from `rmr-gym pretrain`")
    try:
        return AtariModel(**record["model"])
    except (KeyError, TypeError) as error:
        raise RMRError(
            f"{folder} does not say what model it holds: expected one from `rmr-gym pretrain` on "
            "a game"
        ) from error


def refuse_existing(out: Path, force: bool) -> None:
    """Refuse to write over something, unless it was asked for.

    Raises:
        RMRError: Something is there.
    """
    if out.exists() and not force:
        raise RMRError(f"{out} exists already: choose another folder or add --force")


def pretrain(arguments: Sequence[str]) -> None:
    """Carry `rmr-gym pretrain` out."""
    options = PretrainBalls if _names_balls(arguments) else Pretrain
    parsed(options, arguments, "rmr-gym pretrain").execute()


def train(arguments: Sequence[str]) -> None:
    """Carry `rmr-gym train` out."""
    options = TrainBalls if _names_balls(arguments) else Train
    parsed(options, arguments, "rmr-gym train").execute()


def probe(arguments: Sequence[str]) -> None:
    """Carry `rmr-gym probe` out."""
    parsed(Probe, arguments, "rmr-gym probe").execute()


def _names_balls(arguments: Sequence[str]) -> bool:
    """Tell whether the data set that was named is one of balls, which has options of its own."""
    data = value_of("--data", arguments)
    return data is not None and is_of_balls(Path(data))
