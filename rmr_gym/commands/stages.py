"""`rmr-gym pretrain`, `train`, `probe`, `encoder`: the chain stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from rmr_gym.commands.console import (
    carry_out,
    print_rows,
    progress_bar,
    progress_bars,
    say,
    value_of,
    warn,
)
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.data.dataset import TransitionDataset
from rmr_gym.domains.atari import AtariModel
from rmr_gym.envs.atari.games import find_game
from rmr_gym.experiments.atari import AtariExperiment
from rmr_gym.experiments.worlds import balls_world, is_of_balls
from rmr_gym.models.pretrained import (
    SHIPPED,
    PretrainedEncoder,
    find_artifact,
    shipped_encoders,
)
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
from rmr_gym.stages.presets import AtariPreset, as_json

KIND = "processor"


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
    def store(self) -> Store:
        """Where finished stages are."""
        return Store(self.root / "store")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Options of every command that trains and writes a folder.

    Attributes:
        seed: Fixes initial weights and batches.
        force: Overwrite what is there.
    """

    seed: int = 0
    force: bool = False

    def refuse_existing(self, out: Path) -> None:
        """Refuse to write over something, unless it was asked for.

        Raises:
            RMRError: Something is there.
        """
        if out.exists() and not self.force:
            raise RMRError(f"{out} exists already: choose another folder or add --force")


@dataclass(frozen=True, kw_only=True)
class ArmOfGame(Trained):
    """Options of every command that writes an encoder of a game.

    Attributes:
        arm: rmr, cswm, random_p, shuffled_p, no_p, supervised or untrained.
        step: Checkpoint to write; default: the last.
    """

    arm: str = "rmr"
    step: int | None = None

    def write_encoder(self, game: Game, store: Store, donor: Task | None, out: Path | None) -> None:
        """Write an arm's encoder of a game, trained now or found.

        Args:
            game: Under a preset.
            store: Of finished stages.
            donor: Whose P is used; None: the game's own.
            out: Where to; None: encoders/GAME-ARM-SEED-STEP beside the store.

        Raises:
            RMRError: See `rmr_gym.stages.export.pretrained_encoder`.
        """
        with progress_bar(f"training the {self.arm} encoder on {game.name} pixels") as progress:
            encoder = pretrained_encoder(
                game, self.arm, self.seed, store, donor=donor, step=self.step, progress=progress
            )
        reached = encoder.provenance["training"]["step"]
        name = f"{game.name}-{self.arm}-{self.seed}-{reached}"
        out = out or store.root.parent / "encoders" / name
        say(f"written: {encoder.save_pretrained(out, overwrite=self.force)}")


@dataclass(frozen=True, kw_only=True)
class GameCommand(OnData, AtariPreset):
    """Options of every command on the data set of a game."""

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
class Pretrain(Trained, GameCommand):
    """Train a processor on a data set's RAM and write it as an artifact folder.

    A data set of bouncing balls has options of its own: name it with --data before --help.

    Attributes:
        out: Folder of the artifact to write.
    """

    out: Path

    def execute(self) -> None:
        """Carry the command out."""
        game = self.game()
        self.refuse_existing(self.out)
        with progress_bar(f"pretraining on {game.name} RAM") as progress:
            artifact = self.store.compute(game.pretrained(self.seed), progress)
        facts = {"kind": KIND, "game": game.name, "model": as_json(game.preset.model)}
        described = Artifact(artifact.record | facts, artifact.tensors)
        say(f"written: {write_artifact(self.out, described, overwrite=self.force)}")
        rows = artifact.record["copy"] + artifact.record["rows"]
        print_rows(rows, ("model", "step", "slot_accuracy", "bit_f1"))


@dataclass(frozen=True, kw_only=True)
class Train(ArmOfGame, GameCommand):
    """Train a pixel encoder through P, on pixels alone, and write it as a pretrained encoder.

    The folder is what wrappers, agents, `rmr-gym probe` and `rmr-gym encoder show` read. A data set
    of bouncing balls has options of its own: name it with --data before --help.

    Attributes:
        out: Folder of the encoder to write.
        processor: Artifact of `rmr-gym pretrain`; default: pretrained now, where the arm needs one.
    """

    out: Path
    processor: Path | None = None

    def execute(self) -> None:
        """Carry the command out."""
        known_name("arm", self.arm, ENCODERS)
        given = self.processor
        game = self.game(_model_of(given) if given else None)
        self.refuse_existing(self.out)
        donor = folder_donor(str(given), given, game.preset.model) if given else None
        self.write_encoder(game, self.store, donor, self.out)


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
        task = game.probed(EncoderReference(folder, self.device))
        with progress_bar("probing") as progress:
            rows = self.store.compute(task, progress).record["rows"]
        columns = ("probe", "micro_f1", "macro_f1", "slot_accuracy", "effective_rank")
        print_rows(rows, columns)

    def _look_at(self, trained_on: str, game: str) -> None:
        if trained_on == game:
            return
        text = f"this encoder was trained on {trained_on}, the data are of {game}"
        if self.strict:
            raise RMRError(f"{text}: choose an encoder of {game}, or leave --strict out")
        warn(f"note: {text}")


@dataclass(frozen=True, kw_only=True)
class Export(ArmOfGame, AtariExperiment):
    """Write an encoder of a game, with its P, as a folder that wrappers and agents read.

    What a comparison left in ROOT/store is found there; what it did not is recorded and trained
    now.

    Attributes:
        game: Name of the game, for instance Pong.
        ship: Write into the installed package instead, to be found by the game's name.
    """

    game: str
    ship: bool = False

    def execute(self) -> None:
        """Carry the command out."""
        if self.ship and self.out is not None:
            raise RMRError("expected either --out or --ship, found both")
        row = find_game(self.game)
        known_name("arm", self.arm, ENCODERS)
        with progress_bars() as progress_for:
            (game,) = self.recorded(progress_for, [row.name])
        out = SHIPPED / row.rom if self.ship else self.out
        self.write_encoder(game, Store(self.root / "store"), None, out)


@dataclass(frozen=True, kw_only=True)
class BallsCommand(OnData, BallsPreset):
    """Options of every command on a data set of bouncing balls.

    Attributes:
        seed: Fixes initial weights and batches.
    """

    seed: int = 0

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
class PretrainBalls(Trained, BallsCommand):
    """Train a processor on the positions of balls and write it as an artifact folder.

    Attributes:
        out: Folder of the artifact to write.
    """

    out: Path

    def execute(self) -> None:
        """Carry the command out."""
        world = self.world()
        self.refuse_existing(self.out)
        task = world.pretrained(self.seed)
        with progress_bar("pretraining on positions") as progress:
            artifact = self.store.compute(task, progress)
        described = Artifact(artifact.record | {"preset": self.preset}, artifact.tensors)
        say(f"written: {write_artifact(self.out, described, overwrite=self.force)}")
        scored = (world.rolled_out(), world.rolled_out(task))
        rows = [row for part in scored for row in self.store.compute(part).record["rows"]]
        print_rows(rows, ("model", "mse_1", "ratio_1", "mse_10", "ratio_10", "outside", "energy"))


@dataclass(frozen=True, kw_only=True)
class TrainBalls(Trained, ArmOfBalls):
    """Train an encoder of frames of balls through P and write it as a pretrained encoder.

    The folder is what wrappers, agents and `rmr-gym encoder show` read.

    Attributes:
        out: Folder of the encoder to write; default: ROOT/encoders/WORLD-ARM-SEED-STEP, where
            `rmr-gym agent` looks for it.
    """

    out: Path | None = None

    def execute(self) -> None:
        """Carry the command out."""
        known_name("arm", self.arm, (*BALLS_ARMS, UNTRAINED))
        world = self.world()
        steps = 0 if self.arm == UNTRAINED else sum(p.steps for p in self.prediction.phases)
        name = f"{world.data.label}-{self.arm}-{self.seed}-{steps}"
        out = self.out or self.root / "encoders" / name
        self.refuse_existing(out)
        with progress_bar(f"{self.arm}, seed {self.seed}") as progress:
            encoder = pretrained_balls_encoder(
                world, self.arm, self.seed, self.store, donor=self.donor, progress=progress
            )
        say(f"written: {encoder.save_pretrained(out, overwrite=self.force)}")
        print_rows(encoder.provenance["metrics"], ("arm", "step", "mse", "ratio_to_copy", "ari"))


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


def pretrain(arguments: Sequence[str]) -> None:
    """Carry `rmr-gym pretrain` out."""
    options = PretrainBalls if _names_balls(arguments) else Pretrain
    carry_out(options, arguments, "rmr-gym pretrain")


def train(arguments: Sequence[str]) -> None:
    """Carry `rmr-gym train` out."""
    options = TrainBalls if _names_balls(arguments) else Train
    carry_out(options, arguments, "rmr-gym train")


def _names_balls(arguments: Sequence[str]) -> bool:
    """Tell whether the data set that was named is one of balls, which has options of its own."""
    data = value_of("--data", arguments)
    return data is not None and is_of_balls(Path(data))


def show(encoder: tyro.conf.Positional[str]) -> None:
    """Print the card of an encoder.

    Args:
        encoder: Its folder, or the name of a shipped one.
    """
    say(PretrainedEncoder.from_pretrained(encoder).card())


def list_shipped() -> None:
    """List the encoders that come with the package."""
    rows = []
    for name, folder in shipped_encoders().items():
        read = PretrainedEncoder.from_pretrained(folder)
        training = {"arm": "?", "step": "?"} | read.provenance.get("training", {})
        sizes = {"dim": read.config.dim, "P": read.config.core or "-"}
        rows.append({"name": name, "arm": training["arm"], "step": training["step"], **sizes})
    print_rows(rows, ("name", "arm", "step", "dim", "P"))


ENCODER = {"export": Export, "show": show, "list": list_shipped}
