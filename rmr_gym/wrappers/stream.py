"""What single, vector and SB3 form of the RMR features share: encoding and history of episodes."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Int, Shaped, UInt8

from rmr_gym.core.errors import RMRError, unknown_name
from rmr_gym.envs.atari.games import ACTION_NAMES, Game, find_game
from rmr_gym.models.pretrained import BallsEncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.pipeline import find_device
from rmr_gym.models.rmr.processors import PassiveProcessor
from rmr_gym.wrappers.screens import FrameReader, PictureReader

Encoder = str | os.PathLike[str] | PretrainedEncoder
"""Folder of an artifact, name of a shipped one, or one that was read already."""

OUTPUTS = ("slots", "flat", "processed", "frames")
NO_OPERATION = 0
_CLIP = "what the encoder sees"
"""Under this name the frames are remembered that an encoder sees at once."""

Remember = Callable[[str, np.ndarray], np.ndarray]
"""From the name of an entry and its rows now to its history, the rows included."""


@dataclass(frozen=True)
class Options:
    """What the three forms take alike; see `rmr_gym.wrappers.features.RMRObservationWrapper`.

    Raises:
        RMRError: An option is unknown, or RAM would be stacked.
    """

    output: str = "slots"
    device: str = "auto"
    keep: Sequence[str] = ()
    strict: bool = False
    history: int | Mapping[str, int] | None = None
    pixels: str = "auto"

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise unknown_name("output", str(self.output), OUTPUTS)
        if self.pixels not in ("auto", "gray", "palette"):
            raise unknown_name("kind of pixels", str(self.pixels), ("auto", "gray", "palette"))
        if isinstance(self.keep, str):
            raise RMRError(f"expected a list of names as keep, for instance [{self.keep!r}]")
        if self.own_name in self.keep:
            raise RMRError(f"the entry {self.own_name!r} cannot be kept: the wrapper makes its own")
        for name, length in self.lengths().items():
            if name not in (self.own_name, *self.keep):
                raise unknown_name("entry to stack", name, (self.own_name, *self.keep))
            if name == "ram":
                raise RMRError("RAM is not stacked: it is the whole state of the machine already")
            if type(length) is not int or length < 1:
                raise RMRError(f"expected a history of 1 or more steps of {name}, found {length!r}")

    @property
    def own_name(self) -> str:
        """Name of what the wrapper makes, where the observation is a Dict."""
        return "frames" if self.output == "frames" else "features"

    def lengths(self) -> dict[str, int]:
        """Return how many observations are stacked, by entry; entries not named are not."""
        if self.history is None:
            return {"frames": 1} if self.output == "frames" else {}
        if isinstance(self.history, Mapping):
            default = {"frames": 1} if self.output == "frames" else {}
            return default | dict(self.history)
        return {self.own_name: self.history}


class FeatureStream:
    """Many episodes side by side: observations and actions in, features with history out.

    Args:
        encoder: The encoder.
        options: What to show.
        space: Observation space of one environment.
        count: Number of environments.
        game: Name of the environments' game, if known.
        palette: Screens of one channel hold palette indices.
        action_names: What each action presses, in ALE's words; needed for ``processed``.
        emulator: The ALE underneath, where there is just one environment.

    Attributes:
        space: Of one environment's features.

    Raises:
        RMRError: See `rmr_gym.wrappers.features.RMRObservationWrapper`.
    """

    def __init__(
        self,
        encoder: Encoder,
        options: Options,
        space: spaces.Space[Any],
        *,
        count: int = 1,
        game: str | None = None,
        palette: bool = False,
        action_names: Sequence[str] | None = None,
        emulator: Any = None,
    ):
        if not isinstance(encoder, PretrainedEncoder):
            encoder = PretrainedEncoder.from_pretrained(encoder)
        self._config = config = encoder.config
        if isinstance(config, BallsEncoderConfig):
            self._frames = PictureReader(space, config.resolution)
        else:
            palette = options.pixels == "palette" or (options.pixels == "auto" and palette)
            sizes = (config.height, config.width)
            self._frames = FrameReader(space, *sizes, palette=palette, emulator=emulator)
        _compare_games(config.game, game, options.strict)
        self._options = options
        self._lengths = options.lengths() | {_CLIP: config.instants}
        self._place = _find_place(options.device)
        self._encoder, self._processor = deepcopy((encoder.encoder, encoder.processor))
        self._index_of: np.ndarray | None = None
        if options.output == "processed":
            if self._processor is None:
                raise RMRError(
                    "expected an encoder with P for output='processed', found one without: export "
                    "it with its processor, or use output='slots'"
                )
            if not isinstance(self._processor, PassiveProcessor):
                self._index_of = _indices_of(action_names)
        for part in (self._encoder, self._processor):
            if part is not None:
                part.to(self._place).eval()
        self.space = self._make_space(space)
        self._stacks: dict[str, np.ndarray] = {}
        self._count, self._actions = count, np.full(count, NO_OPERATION)

    def begin(
        self, observations: Any, chosen: Bool[np.ndarray, " batch"] | None = None
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Return the features of first observations.

        Args:
            observations: Of all environments.
            chosen: Those whose episode begins; the others are shown as before. None: all.
        """
        begun = np.ones(self._count, bool) if chosen is None else chosen
        self._actions = np.where(begun, NO_OPERATION, self._actions)

        def remember(name: str, rows: np.ndarray) -> np.ndarray:
            first = self._repeated(name, rows)
            self._stacks[name] = np.where(_over(begun, first), first, self._stacks.get(name, first))
            return self._stacks[name]

        return self._look(observations, self._actions, remember)

    def step(
        self,
        observations: Any,
        actions: Shaped[np.ndarray, "batch *each"],
        begun: Bool[np.ndarray, " batch"],
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Return the features after a step.

        Args:
            observations: Of all environments.
            actions: That were taken.
            begun: Environments whose observation is the first of an episode.
        """
        self._actions = np.where(begun, NO_OPERATION, self._pressed(actions))

        def remember(name: str, rows: np.ndarray) -> np.ndarray:
            after = _appended(self._stacks[name], rows)
            if begun.any():
                after[begun] = self._repeated(name, rows)[begun]
            self._stacks[name] = after
            return after

        return self._look(observations, self._actions, remember)

    def last(
        self,
        observations: Any,
        actions: Shaped[np.ndarray, "few *each"],
        chosen: Int[np.ndarray, " few"],
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Return the features that episodes ended with, before `step` shows what follows them.

        Args:
            observations: A row for each episode that ended.
            actions: That ended them.
            chosen: Their environments.
        """

        def remember(name: str, rows: np.ndarray) -> np.ndarray:
            return _appended(self._stacks[name][chosen], rows)

        return self._look(observations, self._pressed(actions), remember)

    def _pressed(self, actions: Any) -> np.ndarray:
        """Return P's index of each action; actions do not matter without P, or one of balls."""
        if self._index_of is None:
            return np.full(len(actions), NO_OPERATION)
        return self._index_of[np.asarray(actions)]

    def _look(
        self, observations: Any, actions: np.ndarray, remember: Remember
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Return what is shown; what is stacked as a copy, since the stacks go on."""
        clip = remember(_CLIP, self._frames(observations))
        frames = clip.reshape(len(clip), *self._config.frame_shape)
        own = frames if self._options.output == "frames" else self._encode(frames, actions)
        shown = {self._options.own_name: own}
        shown |= {name: np.asarray(observations[name]) for name in self._options.keep}
        for name in shown.keys() & self._lengths.keys():
            shown[name] = remember(name, shown[name]).copy()
        if self._options.output == "frames":
            stack = shown["frames"]
            shown["frames"] = stack.reshape(len(stack), -1, *stack.shape[-2:])
        return shown if self._options.keep else shown[self._options.own_name]

    @torch.inference_mode()
    def _encode(self, frames: UInt8[np.ndarray, "batch *frame"], actions: np.ndarray) -> np.ndarray:
        latents = self._encoder(torch.from_numpy(frames).to(self._place))
        if self._options.output == "processed":
            assert self._processor is not None
            pressed = torch.from_numpy(actions).to(self._place)
            latents = self._processor(latents, pressed)
        if self._options.output == "flat":
            latents = latents.flatten(1)
        return latents.cpu().numpy()

    def _repeated(self, name: str, rows: np.ndarray) -> np.ndarray:
        return np.repeat(rows[:, None], self._lengths[name], axis=1)

    def _make_space(self, space: spaces.Space[Any]) -> spaces.Space[Any]:
        slots, dim = self._config.slots, self._config.dim
        shape = (slots * dim,) if self._options.output == "flat" else (slots, dim)
        own = spaces.Box(-np.inf, np.inf, shape, np.float32)
        if self._options.output == "frames":
            *channels, height, width = self._config.frame_shape
            stacked = prod(channels) * self._lengths["frames"]
            own = spaces.Box(0, 255, (stacked, height, width), np.uint8)
        entries: dict[str, Any] = {self._options.own_name: own}
        for name in self._options.keep:
            if not isinstance(space, spaces.Dict):
                raise RMRError(
                    f"expected a Dict observation to keep {name!r} of, found {space}: put "
                    "PairedObservation around the environment first"
                )
            if name not in space.spaces:
                raise unknown_name("entry of the observation", name, space.spaces)
            entries[name] = space[name]
        stacked = {name: self._stacked_space(name, entry) for name, entry in entries.items()}
        return spaces.Dict(stacked) if self._options.keep else stacked[self._options.own_name]

    def _stacked_space(self, name: str, entry: Any) -> Any:
        if name not in self._lengths or name == "frames" == self._options.output:
            return entry
        low, high = (
            np.repeat(bound[None], self._lengths[name], 0) for bound in (entry.low, entry.high)
        )
        return spaces.Box(low, high, dtype=entry.dtype)


def name_of_game(unwrapped: Any, spec: Any) -> str | None:
    """Return the name of the game that an environment plays, as far as it tells."""
    game = getattr(unwrapped, "game", None)
    if isinstance(game, Game):
        return game.name
    if spec is None:
        return None
    told = spec.kwargs.get("game")
    try:
        return find_game(told or spec.id).name
    except RMRError:
        return spec.name if told or spec.namespace in ("ALE", "rmr") else None


def shows_palette(unwrapped: Any, spec: Any) -> bool:
    """Tell whether an environment's screens of one channel hold palette indices."""
    shown = getattr(unwrapped, "pixels", None)
    if spec is not None:
        shown = spec.kwargs.get("pixels", shown)
        for wrapper in spec.additional_wrappers:
            shown = (wrapper.kwargs or {}).get("pixels", shown)
    return shown == "palette"


def _compare_games(trained_on: str, played: str | None, strict: bool) -> None:
    if played == trained_on or (played is None and not strict):
        return
    message = (
        f"the encoder was trained on {trained_on}, the environment plays "
        f"{played or 'a game that it does not name'}: its features may mean nothing there"
    )
    if strict:
        raise RMRError(f"{message}; use an encoder of that game, or strict=False")
    warnings.warn(message, stacklevel=4)


def _find_place(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return find_device(device)


def _indices_of(action_names: Sequence[str] | None) -> np.ndarray:
    """Return, for each action of the environment, its index among P's 18."""
    if action_names is None or not set(action_names) <= set(ACTION_NAMES):
        raise RMRError(
            "expected discrete actions with ALE's names (get_action_meanings) for "
            f"output='processed', found {action_names}: use output='slots'"
        )
    return np.array([ACTION_NAMES.index(name) for name in action_names], np.int64)


def _over(begun: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return begun.reshape(-1, *[1] * (rows.ndim - 1))


def _appended(stack: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.concatenate((stack[:, 1:], rows[:, None]), axis=1)
