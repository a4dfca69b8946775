"""Pretrained encoders and beliefs as folders: weights, configuration, a card; nothing is run."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from jinja2 import Template
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, known_name, letters
from rmr_gym.core.files import AnyPath, replacing, require_free
from rmr_gym.models.objects import CellFeatures, FrameStackEncoder, SlotEncoder
from rmr_gym.models.rmr import processors
from rmr_gym.models.rmr.belief import CompactReader, Filter
from rmr_gym.models.rmr.pipeline import TRUNKS, SlotCNN, single_precision

CONFIG, WEIGHTS, CARD = "config.json", "weights.safetensors", "README.md"
FORMAT_VERSION = 1
_HERE = Path(str(files("rmr_gym.models")))
_CARD = _HERE / "card.md.j2"
SHIPPED = _HERE / "weights"
"""Folder of the encoders that come with the package, a folder a game."""

_CHOICES = {
    "trunk": ("trunk", TRUNKS),
    "core": ("processor", processors.CORES),
    "aggregation": ("aggregation", ("max", "sum", "mean")),
    "precision": ("precision", ("fp32", "bf16")),
}
"""By the field that names a choice: its kind and the choices."""
_JSON_BYTES = 1 << 20
_NEVER_READ = (".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")


@dataclass(frozen=True)
class _GameConfig:
    """What encoders of a game's screens and beliefs over its RAM share.

    Attributes:
        game: Name of the game whose screens were seen in training, for instance "Pong".
        height: Rows of the gray frame that is seen, shrunk from the screen's 210 by area.
        width: Columns of that frame, shrunk from the screen's 160 by area.
        slots: Number of slots.
        dim: Width of a slot's latent vector.
        core: Core of P, a name in `rmr_gym.models.rmr.processors.CORES`; None without P.
        aggregation: Aggregation of P's messages: max, sum or mean.
        precision: Arithmetic of P's messages: fp32 or bf16.
        actions: Number of actions that P knows.
    """

    game: str
    height: int = 84
    width: int = 84
    slots: int = 128
    dim: int = 64
    core: str | None = None
    aggregation: str = "max"
    precision: str = "fp32"
    actions: int = 18

    def __post_init__(self) -> None:
        sizes = {"slots": 1024, "maps": 64, "dim": 4096, "actions": 1024}
        _check(self, height=210, width=160, **sizes, rank=1024, frameskip=1024, instants=16)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the bytes that the encoder takes: one gray frame."""
        return (self.height, self.width)

    def _processor(self) -> processors.Processor:
        options = {"aggregation": self.aggregation, "precision": self.precision}
        return processors.make_processor(
            str(self.core), slots=self.slots, actions=self.actions, dim=self.dim, **options
        )


@dataclass(frozen=True)
class EncoderConfig(_GameConfig):
    """What must be known to rebuild an encoder, and P if the artifact holds one.

    Attributes:
        game: Name of the game, and sizes, actions and P as every artifact of a game has them.
        maps: Feature maps a slot.
        trunk: A name in `rmr_gym.models.rmr.pipeline.TRUNKS`.
        affine: Whether an affine map a slot follows, as after an aligned start.

    Raises:
        RMRError: A value is of another type, unknown or out of range.
    """

    kind: ClassVar[str] = "rmr_gym encoder"
    instants: ClassVar[int] = 1

    maps: int = 1
    trunk: str = "nature"
    affine: bool = False

    def encoder(self) -> SlotCNN:
        """Make an encoder of these sizes, with weights from torch's own generator."""
        names = ("height", "width", "slots", "maps", "dim", "trunk", "affine")
        return SlotCNN(**{name: getattr(self, name) for name in names})

    def processor(self) -> processors.Processor | None:
        """Make P of these sizes, with weights from torch's own generator; None without P."""
        return None if self.core is None else self._processor()


@dataclass(frozen=True)
class BallsEncoderConfig:
    """What must be known to rebuild an encoder of bouncing balls, and its P if there is one.

    Attributes:
        game: Name of the world whose frames the encoder was trained on, for instance
            "BouncingBalls".
        resolution: Height and width of the frames that it sees, in pixels.
        instants: Number of successive frames that it sees at once.
        slots: Number of slots: the balls', and spare ones.
        dim: Width of a slot's latent vector.
        slot_dim: Width of a slot of Slot Attention.
        channels: Of the encoder's convolutions.
        cell: Height and width in pixels of a cell that slots compete for.
        first_rounds: Rounds of attention on the first of the frames.
        later_rounds: Rounds of attention on every other.
        core: Core of P, a name in `rmr_gym.models.rmr.processors.CORES`; None without P.
        aggregation: Aggregation of P's messages: max, sum or mean.
        passes: Passes of P.
        precision: Arithmetic of P's messages: fp32 or bf16; the encoder always computes in fp32.

    Raises:
        RMRError: A value is of another type, unknown or out of range.
    """

    kind: ClassVar[str] = "rmr_gym balls encoder"

    game: str
    resolution: int = 32
    instants: int = 3
    slots: int = 4
    dim: int = 128
    slot_dim: int = 64
    channels: int = 32
    cell: int = 4
    first_rounds: int = 3
    later_rounds: int = 1
    core: str | None = None
    aggregation: str = "max"
    passes: int = 2
    precision: str = "fp32"

    def __post_init__(self) -> None:
        largest = {"resolution": 256, "instants": 16, "slots": 64, "dim": 4096, "slot_dim": 1024}
        rounds = {"first_rounds": 64, "later_rounds": 64}
        _check(self, **largest, channels=512, cell=64, **rounds, passes=16)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the bytes that the encoder takes: the frames' colours, oldest frame first."""
        return (3 * self.instants, self.resolution, self.resolution)

    def encoder(self) -> FrameStackEncoder:
        """Make an encoder of these sizes, with weights from torch's own generator."""
        cells = CellFeatures(self.resolution, self.channels, self.slot_dim, self.cell)
        rounds = (self.first_rounds, self.later_rounds)
        slots = SlotEncoder(cells, self.slot_dim, self.slots, rounds)
        return FrameStackEncoder(slots, nn.Linear(self.instants * slots.width, self.dim))

    def processor(self) -> processors.PassiveProcessor | None:
        """Make P of these sizes, with weights from torch's own generator; None without P."""
        if self.core is None:
            return None
        sizes = processors.ProcessorSizes(self.dim, self.core, self.aggregation, self.passes)
        return sizes.make(self.slots, self.precision)


@dataclass(frozen=True)
class BeliefConfig(_GameConfig):
    """What must be known to rebuild a belief over a game's RAM, whose bytes are the slots.

    Attributes:
        game: Name of the game, and sizes, actions and P as every artifact of a game has them.
        rank: Directions of the frames that the reader looks along.
        frameskip: Emulated frames of a step.
        instants: Number of successive frames that are read at once, one below the other.

    Raises:
        RMRError: A value is of another type, unknown or out of range.
    """

    kind: ClassVar[str] = "rmr_gym belief"
    bits: ClassVar[int] = 8

    rank: int = 64
    frameskip: int = 4
    instants: int = 1

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of the bytes that the reader takes: gray frames, the last one lowest."""
        return (self.instants * self.height, self.width)

    def encoder(self) -> CompactReader:
        """Make a reader of these sizes."""
        pixels = self.instants * self.height * self.width
        return CompactReader(pixels, self.rank, self.slots, self.bits)

    def processor(self) -> Filter:
        """Make a filter of these sizes, with weights from torch's own generator."""
        return Filter(self._processor(), self.slots, self.bits, self.dim)


AnyEncoderConfig = EncoderConfig | BallsEncoderConfig | BeliefConfig

CONFIGS: dict[str, type[AnyEncoderConfig]] = {
    config.kind: config for config in (EncoderConfig, BallsEncoderConfig, BeliefConfig)
}
"""Configurations by the kind of artifact that they describe."""


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder, the P that it was trained through (or none), and where they come from.

    Of a belief the two are a `rmr_gym.models.rmr.belief.CompactReader` and a
    `rmr_gym.models.rmr.belief.Filter`.

    Attributes:
        config: Sizes and the game, or the world of balls; its class tells the kinds apart.
        encoder: From bytes ``[batch, *frame_shape]`` to slots ``[batch, slots, dim]``.
        processor: P, or None; it takes latents and actions, which P of balls does not heed.
        provenance: Plain JSON for the card: ``data``, ``training``, ``metrics``, ``versions``.

    Example:
        >>> from rmr_gym.models.pretrained import PretrainedEncoder
        >>> PretrainedEncoder.from_pretrained("pong").config.dim
        64
    """

    config: AnyEncoderConfig
    encoder: nn.Module
    processor: nn.Module | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def save_pretrained(self, folder: AnyPath, *, overwrite: bool = False) -> Path:
        """Write the folder, as a whole or not at all.

        It holds ``weights.safetensors``, ``config.json`` and ``README.md``, a card for people.

        Args:
            folder: Where to write.
            overwrite: Replace an artifact that is there; anything else is never replaced.

        Raises:
            RMRError: The folder exists, or cannot be written; P is missing, or one too many.
        """
        folder = Path(folder)
        if (self.processor is None) != (self.config.core is None):
            raise RMRError(
                f"expected {'no P' if self.config.core is None else 'a P'}, as the configuration "
                f"has core={self.config.core!r}: give encoder and P as they were configured"
            )
        if folder.exists():
            _require_replaceable(folder, overwrite)
        versions = {name: version(name) for name in ("torch", "numpy", "safetensors")}
        provenance = {"versions": versions, **self.provenance}
        with replacing(folder) as hidden:
            tensors = _together(self.encoder, self.processor).state_dict()
            weights = save({name: part.cpu().contiguous() for name, part in tensors.items()})
            record = {
                "format": self.config.kind,
                "version": FORMAT_VERSION,
                "config": asdict(self.config),
                "provenance": provenance,
                "weights_sha256": sha256(weights).hexdigest(),
                "config_sha256": _config_sha256(asdict(self.config), provenance),
            }
            (hidden / WEIGHTS).write_bytes(weights)
            (hidden / CONFIG).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
            (hidden / CARD).write_text(replace(self, provenance=provenance).card())
        return folder

    @classmethod
    def from_pretrained(cls, folder_or_name: AnyPath) -> "PretrainedEncoder":
        """Read an artifact: a folder, or the name of a game whose encoder is shipped ("pong").

        Only JSON and safetensors are read, and sizes are compared before memory is taken.

        Raises:
            RMRError: There is no such folder or name; it is damaged, of another kind, of a newer
                version; or its weights are not those of its configuration.
        """
        folder = find_artifact(folder_or_name)
        record = read_record(folder)
        config = _config_of(record, folder)
        with torch.device("meta"), single_precision():
            expected = _together(config.encoder(), config.processor()).state_dict()
        tensors = _read_tensors(folder, expected, record.get("weights_sha256"))
        provenance = record.get("provenance") or {}
        if record.get("config_sha256") != _config_sha256(record["config"], provenance):
            raise _damaged(folder / CONFIG, "config and provenance are not those of its sha256")
        with torch.random.fork_rng(devices=[]), single_precision():
            encoder, processor = config.encoder(), config.processor()
        _together(encoder, processor).eval().load_state_dict(tensors)
        return cls(config, encoder, processor, provenance)

    @classmethod
    def of(
        cls,
        given: "AnyPath | PretrainedEncoder | None",
        *,
        of_ram: bool = False,
        game: str | None = None,
    ) -> "PretrainedEncoder":
        """Return what a folder or name stands for, or what was read before.

        Args:
            given: The folder, the name, or what was read; None: what is shipped for the game.
            of_ram: Whether it shall be a belief over RAM, which nothing else shall be.
            game: What is played, as far as it is known.

        Raises:
            RMRError: It is of the other kind, or cannot be read; or nothing is shipped, and the
                message says what makes it.
        """
        kind, option = ("belief", " --arm belief") if of_ram else ("encoder", "")
        given = given or find_shipped(f"{game} belief" if of_ram else str(game))
        if given is None:
            raise RMRError(
                f"no {kind} of {game or 'an unnamed game'} comes with the package: make one of a "
                f"game with `rmr-gym encoder train --game {game or 'NAME'}{option}`, of balls with "
                "`rmr-gym train --data FOLDER`, and give its folder as encoder"
            )
        read = given if isinstance(given, PretrainedEncoder) else cls.from_pretrained(given)
        if isinstance(read.config, BeliefConfig) is not of_ram:
            raise RMRError(
                f"expected {'a belief' if of_ram else 'an encoder'}, found an artifact of the kind "
                f"{read.config.kind!r}: RMRBeliefWrapper takes beliefs, all else takes encoders"
            )
        return read

    def card(self) -> str:
        """Return the card in Markdown: what it is, what it was made from, how good it is."""
        return card_of(self.config, self.provenance)


def card_of(config: Any, provenance: dict[str, Any]) -> str:
    """Return the card of an artifact, which may be an agent, by its configuration and origins."""
    template = Template(_CARD.read_text(encoding="utf-8"), trim_blocks=True, lstrip_blocks=True)
    return template.render(config=config, provenance=provenance)


def find_artifact(folder_or_name: AnyPath) -> Path:
    """Return the folder of an artifact.

    Args:
        folder_or_name: A folder, or a game's name in any spelling without a path separator.

    Raises:
        RMRError: It is neither; the message names what is shipped of that game or a similar name.
    """
    if not isinstance(folder_or_name, str | os.PathLike):
        raise RMRError(
            "expected the folder of a pretrained encoder, the name of a shipped one, or a "
            f"PretrainedEncoder, found {_short(folder_or_name)}: give one of these"
        )
    given = Path(folder_or_name)
    if given.is_dir():
        return given
    if isinstance(folder_or_name, str) and (found := find_shipped(folder_or_name)):
        return found
    name, by_letters = letters(given.name), {letters(known): known for known in shipped_encoders()}
    near = set(get_close_matches(name, by_letters)) if name else set()
    near |= {known for known in by_letters if name and (name in known or known in name)}
    shown = " or ".join(repr(by_letters[known]) for known in sorted(near))
    raise RMRError(
        "expected the folder of a pretrained encoder or the name of a shipped one, found neither "
        f"at {str(folder_or_name)!r}: {f'did you mean {shown}? ' if near else ''}"
        "`rmr-gym encoder list` shows what is shipped, `rmr-gym encoder train` writes a folder"
    )


def find_shipped(name: str) -> Path | None:
    """Return the folder of the shipped encoder of a name in any spelling, or None."""
    by_letters = {letters(known): folder for known, folder in shipped_encoders().items()}
    return by_letters.get(letters(name))


def shipped_encoders() -> dict[str, Path]:
    """Return the folders of the encoders that come with the package, by the game's name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob(f"*/{CONFIG}"))}


def _check(config: "_GameConfig | BallsEncoderConfig", **largest: int) -> None:
    """Check the sizes, of which these are the largest, the game's name and what names a choice."""
    values = vars(config)
    for name, limit in ((name, largest[name]) for name in largest if name in values):
        if type(values[name]) is not int or not 1 <= values[name] <= limit:
            raise RMRError(f"expected {name} from 1 to {limit}, found {values[name]!r}")
    if not isinstance(config.game, str) or not re.fullmatch(r"\w{1,64}", config.game):
        raise RMRError(f"expected the name of a game, for instance 'Pong', found {config.game!r}")
    for name, (kind, choices) in _CHOICES.items():
        if name in values and (name, values[name]) != ("core", None):
            known_name(kind, values[name], choices)


def _config_sha256(config: dict[str, Any], provenance: dict[str, Any]) -> str:
    """Return what tells whether the sizes, the game or the origins of an artifact were altered."""
    return sha256(json.dumps([config, provenance], sort_keys=True).encode()).hexdigest()


def _together(encoder: nn.Module, processor: nn.Module | None) -> nn.ModuleDict:
    """Return both as one module, whose tensors have the names of the file."""
    return nn.ModuleDict({"encoder": encoder} | ({"processor": processor} if processor else {}))


def _require_replaceable(folder: Path, overwrite: bool) -> None:
    require_free(folder, overwrite)
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
    if not inside <= {CONFIG, WEIGHTS, CARD}:
        raise RMRError(
            f"{folder} holds more than a pretrained encoder ({', '.join(sorted(inside))}): it is "
            "not replaced; choose another folder"
        )


def read_record(folder: Path) -> dict[str, Any]:
    """Return the configuration file of an artifact, of a kind and version that can be read.

    Raises:
        RMRError: There is none, or one of another kind or version.
    """
    path = folder / CONFIG
    if not path.is_file():
        holds = f"no {CONFIG}"
        if (folder / "record.json").is_file():
            holds = "a P and no encoder (`rmr-gym train --processor` trains one through it)"
        raise RMRError(f"{folder} holds {holds}: expected the folder of a pretrained encoder")
    record = _json(_bytes_of(path, _JSON_BYTES), path)
    if record.get("format") not in tuple(CONFIGS):
        raise RMRError(
            f"{path} is not of a pretrained encoder: expected format "
            f"{' or '.join(map(repr, CONFIGS))}, found {_short(record.get('format'))}"
        )
    number = record.get("version")
    if type(number) is not int or number < 1:
        raise RMRError(f"{path} is damaged: expected a version from 1, found {_short(number)}")
    if number > FORMAT_VERSION:
        raise RMRError(
            f"{folder} is of version {number}, newer than this rmr-gym reads ({FORMAT_VERSION}): "
            "upgrade rmr-gym"
        )
    return record


def _config_of(record: dict[str, Any], folder: Path) -> AnyEncoderConfig:
    config, values = CONFIGS[record["format"]], record.get("config")
    types = {option.name: option.type for option in fields(config)}
    try:
        if not isinstance(values, dict) or set(values) != set(types):
            raise RMRError(f"expected config with {', '.join(sorted(types))}")
        for name, kind in types.items():
            if kind in (str, str | None, bool) and not isinstance(values[name], cast(Any, kind)):
                raise RMRError(f"expected {'true or false' if kind is bool else 'text'} for {name}")
        if not isinstance(record.get("provenance", {}), dict):
            raise RMRError("expected provenance as a JSON object")
        return config(**values)
    except RMRError as error:
        raise RMRError(f"{folder / CONFIG} is damaged: {error}") from error


def _read_tensors(folder: Path, expected: Mapping[str, Tensor], checksum: Any) -> dict[str, Tensor]:
    """Read the weights, if they are just the tensors expected.

    Args:
        folder: Of the artifact.
        expected: Tensors of the right shapes and types by name, on the meta device.
        checksum: Sha256 that the file shall have.

    Raises:
        RMRError: They are missing, damaged, of other names or shapes, or not finite.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix in _NEVER_READ)
        never = f"; {', '.join(pickles)} can run code and is never read" if pickles else ""
        raise RMRError(f"{folder} holds no {WEIGHTS}{never}: write the artifact again")
    numbers = sum(4 * tensor.numel() for tensor in expected.values())
    content = _bytes_of(path, 8 + _JSON_BYTES + numbers)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type that torch lacks
        raise _damaged(path, str(error)) from error
    shapes, there = (
        {name: f"{part.dtype}{[*part.shape]}" for name, part in parts.items()}
        for parts in (expected, tensors)
    )
    if wrong := sorted(name for name in there | shapes if there.get(name) != shapes.get(name)):
        first = wrong[0]
        raise RMRError(
            f"{path} does not fit {CONFIG}: expected {shapes.get(first)} as {_short(first)}, found "
            f"{there.get(first)} ({len(wrong)} tensors differ); nothing was loaded"
        )
    broken = sorted(name for name, part in tensors.items() if not bool(part.isfinite().all()))
    if broken:
        raise RMRError(f"{path} holds numbers that are not finite, in {', '.join(broken[:3])}")
    if sha256(content).hexdigest() != checksum:
        raise _damaged(path, f"its sha256 is not the one in {CONFIG}")
    return tensors


def _json(content: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, type(error).__name__) from error
    if not isinstance(value, dict):
        raise _damaged(path, "expected a JSON object")
    return value


def _bytes_of(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise RMRError(f"cannot read {path}: {error.strerror or error}") from error
    if len(content) > limit:
        raise _damaged(path, f"expected at most {limit} bytes")
    return content


def _damaged(path: Path, what: str) -> RMRError:
    return RMRError(f"{path} is damaged ({what}): write the artifact again")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
