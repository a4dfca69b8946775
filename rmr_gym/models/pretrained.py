"""Pretrained encoders as folders: weights, configuration and a card; nothing is executed."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.core.files import os_errors, sync_folder
from rmr_gym.models.artifact_files import CONFIG, WEIGHTS, read_config, read_tensors
from rmr_gym.models.card import card
from rmr_gym.models.encoder_config import (
    CONFIGS,
    AnyEncoderConfig,
    BallsEncoderConfig,
    EncoderConfig,
)
from rmr_gym.models.rmr.processors import load_weights

__all__ = [
    "AnyEncoderConfig",
    "BallsEncoderConfig",
    "EncoderConfig",
    "PretrainedEncoder",
    "find_artifact",
    "shipped_encoders",
]

FORMAT_VERSION = 1
CARD = "README.md"
SHIPPED = Path(str(files("rmr_gym.models") / "weights"))
"""Folder of the encoders that come with the package, a folder a game."""


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder, the P that it was trained through (or none), and where they come from.

    Attributes:
        config: Sizes and the game, or the world of balls; its class tells the two kinds apart.
        encoder: From bytes [batch, *frame_shape] to slots [batch, slots, dim].
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

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the folder, as a whole or not at all.

        It holds ``weights.safetensors``, ``config.json`` and ``README.md``, a card for people.

        Args:
            folder: Where to write.
            overwrite: Replace an artifact that is there; anything else is never replaced.

        Raises:
            RMRError: The folder exists, or cannot be written.
        """
        folder = Path(folder)
        if folder.exists():
            _require_replaceable(folder, overwrite)
        with os_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                self._fill(temporary)
                temporary.chmod(0o755)
                if folder.exists():
                    shutil.rmtree(folder)
                temporary.replace(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            sync_folder(folder.parent)
        return folder

    @classmethod
    def from_pretrained(cls, folder_or_name: str | os.PathLike[str]) -> "PretrainedEncoder":
        """Read an artifact: a folder, or the name of a game whose encoder is shipped ("pong").

        Only JSON and safetensors are read, and sizes are compared before memory is taken.

        Raises:
            RMRError: There is no such folder or name; it is damaged, of another kind, of a newer
                version; or its weights are not those of its configuration.
        """
        folder = find_artifact(folder_or_name)
        record = read_config(folder, tuple(CONFIGS), FORMAT_VERSION)
        config = _config_of(record, folder)
        with torch.device("meta"):
            expected = _tensors(config.encoder(), config.processor())
        tensors = read_tensors(folder, expected)
        with torch.random.fork_rng(devices=[]):
            encoder, processor = config.encoder(), config.processor()
        for name, part in (("encoder", encoder), ("processor", processor)):
            if part is not None:
                load_weights(part, _part(tensors, name), f"the {name} in {folder}")
                part.eval()
        return cls(config, encoder, processor, record.get("provenance") or {})

    def _fill(self, folder: Path) -> None:
        tensors = _tensors(self.encoder, self.processor)
        save_file({name: part.cpu().contiguous() for name, part in tensors.items()},
                  folder / WEIGHTS)  # fmt: skip
        record = {
            "format": self.config.kind,
            "version": FORMAT_VERSION,
            "config": asdict(self.config),
            "provenance": {"versions": _versions(), **self.provenance},
        }
        (folder / CONFIG).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        (folder / CARD).write_text(card(asdict(self.config), record["provenance"]))
        for name in (WEIGHTS, CONFIG, CARD):
            with (folder / name).open("rb") as file:
                os.fsync(file.fileno())


def find_artifact(folder_or_name: str | os.PathLike[str]) -> Path:
    """Return the folder of an artifact.

    Args:
        folder_or_name: A folder, or a game's name in any spelling without a path separator.

    Raises:
        RMRError: It is neither; the message lists what is shipped.
    """
    given = Path(folder_or_name)
    if given.is_dir():
        return given
    text = str(folder_or_name)
    shipped = shipped_encoders()
    if isinstance(folder_or_name, str) and _letters(text) in map(_letters, shipped):
        return next(path for name, path in shipped.items() if _letters(name) == _letters(text))
    if re.fullmatch(r"[\w' .*-]+", text) and shipped:
        raise unknown_name("folder or shipped encoder", text, shipped)
    raise RMRError(
        f"expected the folder of a pretrained encoder, found none at {text!r}: write one with "
        "`rmr-gym encoder export`"
        + (f", or use a shipped one: {', '.join(shipped)}" if shipped else "")
    )


def shipped_encoders() -> dict[str, Path]:
    """Return the folders of the encoders that come with the package, by the game's name."""
    if not SHIPPED.is_dir():
        return {}
    return {path.name: path for path in sorted(SHIPPED.iterdir()) if (path / CONFIG).is_file()}


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def _tensors(encoder: nn.Module, processor: nn.Module | None) -> dict[str, Tensor]:
    parts: dict[str, nn.Module] = {"encoder": encoder}
    if processor is not None:
        parts["processor"] = processor
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numpy", "safetensors")}


def _require_replaceable(folder: Path, overwrite: bool) -> None:
    if not overwrite:
        raise RMRError(f"{folder} exists already: choose another folder or overwrite it")
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
    if not inside <= {CONFIG, WEIGHTS, CARD}:
        raise RMRError(
            f"{folder} holds more than a pretrained encoder ({', '.join(sorted(inside))}): it is "
            "not replaced; choose another folder"
        )


def _config_of(record: dict[str, Any], folder: Path) -> AnyEncoderConfig:
    config, values = CONFIGS[record["format"]], record.get("config")
    known = {each.name for each in fields(config)}
    if not isinstance(values, dict) or set(values) != known:
        raise RMRError(
            f"{folder / CONFIG} is damaged: expected config with {', '.join(sorted(known))}"
        )
    texts: dict[str, Any] = {
        each.name: each.type for each in fields(config) if each.type in (str, str | None)
    }
    if wrong := [name for name, text in texts.items() if not isinstance(values[name], text)]:
        raise RMRError(f"{folder / CONFIG} is damaged: expected text for {', '.join(wrong)}")
    if not isinstance(record.get("provenance", {}), dict):
        raise RMRError(f"{folder / CONFIG} is damaged: expected provenance as a JSON object")
    try:
        return config(**values)
    except RMRError as error:
        raise RMRError(f"{folder / CONFIG} is damaged: {error}") from error
