"""RMR features, or beliefs over RAM, instead of screens, around single and vector environments."""

import os
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from rmr_gym.core.actions import ACTION_NAMES, ale_actions
from rmr_gym.core.errors import RMRError, from_options, known_name, whole_number
from rmr_gym.data.sampling import ram_to_bits
from rmr_gym.envs.arguments import Info, Seed, Seeds, plain_seed
from rmr_gym.models.pretrained import AnyEncoderConfig, BallsEncoderConfig, PretrainedEncoder
from rmr_gym.models.rmr.belief import log_odds
from rmr_gym.models.rmr.pipeline import Latents, find_device
from rmr_gym.models.rmr.processors import PassiveProcessor
from rmr_gym.wrappers import describe
from rmr_gym.wrappers.describe import AnyEnv, Source, ale_of, batch_of, row_of
from rmr_gym.wrappers.screens import FrameReader, PictureReader

if hasattr(os, "register_at_fork"):
    # OpenMP, once it ran several threads, hangs in a fork, as Gymnasium makes them for its vectors.
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))

Encoder = str | os.PathLike[str] | PretrainedEncoder
"""Folder of an artifact, name of a shipped one, or one that was read already."""

Given = Encoder | None
"""An artifact, or the shipped one of the game."""

VECTORS = (("RMRVectorObservation", "RMRVecEnv"), ("RMRVectorBelief", "RMRVecBelief"))
"""What goes around vectors, Gymnasium's and Stable-Baselines3's: features, and beliefs."""

OUTPUTS = ("slots", "flat", "processed", "lookahead", "frames")
MOST_AHEAD = 16
NO_OPERATION = 0
_CLIP = "what the encoder sees"
"""Under this name the frames are remembered that an encoder sees at once."""

Shown = np.ndarray | dict[str, np.ndarray]
"""What the environments show: one entry alone, or several by name."""


class Turn(NamedTuple):
    """Whose observations are looked at, and what happened to them.

    Attributes:
        begun: Those whose episode begins with this observation.
        moved: Whether the others made a step.
        rows: Numbers of the environments, of which nothing is remembered; None: all.
    """

    begun: Bool[np.ndarray, " batch"]
    moved: bool = True
    rows: Int[np.ndarray, " batch"] | None = None


class RMRObservationWrapper(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Shows what a pretrained encoder makes of the screen.

    Observation, by ``output``, float32 but for the last:

    - ``"slots"``: ``Box[slots, dim]``, one vector a slot.
    - ``"flat"``: ``Box[slots * dim]``, the same in one row.
    - ``"processed"``: ``Box[slots, dim]``, P applied to the slots with the action that led here:
      where the world goes if that action is held. After a reset the action is no operation.
    - ``"lookahead"``: ``Box[slots + actions, dim]``, the slots, then a row for each action of the
      environment: what P makes of the slots if that action is held for ``ahead`` steps, the mean
      over slots. Of balls ``Box[2 * slots, dim]``: their P knows no actions, so that one future
      follows the slots, unpooled. See `look_ahead`.
    - ``"frames"``: ``Box[history, height, width]`` of bytes, the frames that the encoder would see,
      channels first. For replay buffers, with
      `rmr_gym.agents.sb3.policies.RMRFeaturesExtractor`. Of balls
      ``Box[history * 9, height, width]``: the colours of three frames, oldest first.

    With ``keep`` it is a Dict of ``features`` (``frames``) and the entries kept. Action, reward,
    end and time step are those of the wrapped environment.

    The screen is the observation, or its entry ``pixels``, where that is a whole screen of bytes
    (RGB, gray or palette indices, 210 x 160): what wrappers inside did to it (a curtain, for
    instance) is seen by the encoder. Where it is not (RAM, cropped, resized, scaled or stacked
    frames), the screen of this instant is read from the emulator underneath, which undoes what was
    done to it. Either way it becomes gray and is shrunk by area, byte-equal to what the encoder was
    trained on.

    Around bouncing balls, with their encoder (`rmr_gym.models.pretrained.BallsEncoderConfig`),
    the picture is the observation or its entry ``pixels``: square RGB bytes, shrunk by area where
    they are larger than what the encoder was trained on. It sees the last three of them, as in
    training (the first one three times after a reset), and begins anew with each three, from the
    same learned slots; nothing is drawn at random. P knows no actions there: ``"processed"`` is
    where the balls go if nobody pushes.

    Which slot shows which ball: within the three frames a slot stays with its ball. From one step
    to the next nothing enforces it: which ball a slot takes is settled by the balls' looks alone.
    So balls of distinct colours that the encoder was trained on keep their slots, from step to step
    and over episodes, as far as training made slots and colours one to one; balls of one colour may
    change slots at any step. Slots of a game's encoder are fixed parts of it.

    Args:
        env: An environment over ALE, or of bouncing balls.
        encoder: Folder of an artifact, or the name of a shipped one, for instance ``"pong"``; both
            travel in an `EnvSpec`. Or a `rmr_gym.models.pretrained.PretrainedEncoder`. None: the
            shipped one of the game.
        output: ``"slots"``, ``"flat"``, ``"processed"``, ``"lookahead"`` or ``"frames"``.
        **options: Further fields of `Options`.

    Raises:
        RMRError: No emulator and no whole screen; no square picture as large as an encoder of balls
            sees; an artifact that cannot be read; an encoder of another game under ``strict``; an
            unknown option or entry; ``"processed"`` or ``"lookahead"`` without P or with actions
            that are not ALE's.

    Example:
        >>> import ale_py
        >>> import gymnasium as gym
        >>> from rmr_gym.wrappers.features import RMRObservationWrapper
        >>> gym.register_envs(ale_py)
        >>> env = RMRObservationWrapper(gym.make("ALE/Pong-v5"), "pong")
        >>> env.reset(seed=0)[0].shape
        (128, 64)
    """

    of_ram: ClassVar[bool] = False

    def __init__(self, env: AnyEnv, encoder: Given = None, output: str = "", **options: Any):
        advice = "around a vector, use {}; around SB3's, {}".format(*VECTORS[self.of_ram])
        super().__init__(describe.require(gym.Env, env, advice))
        self._stream = stream_of(env, encoder, output, options, of_ram=self.of_ram)
        folder = os.fspath(encoder) if isinstance(encoder, os.PathLike) else encoder
        gym.utils.RecordConstructorArgs.__init__(self, encoder=folder, **asdict(self._stream.shown))
        self.observation_space = self._stream.space

    def reset(self, *, seed: Seed = None, options: Info | None = None) -> tuple[Any, Info]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=plain_seed(seed), options=options)
        return row_of(self._stream.begin(batch_of([observation])), 0), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, Info]:
        """Step the wrapped environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        shown = self._stream.step(batch_of([observation]), np.array([action]), np.zeros(1, bool))
        return row_of(shown, 0), reward, terminated, truncated, info


class RMRVectorObservation(gym.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """`RMRObservationWrapper` around a vector of environments, with one forward for all of them.

    The observations must hold whole screens, since the emulators of a vector may be in other
    processes: RGB or gray of ALE's own environments, the pair of ours; or pictures of balls. All
    three autoreset modes are handled: histories, and the frames that an encoder of balls looks back
    on, begin anew with each episode, and ``info["final_obs"]`` holds features.

    Args:
        env: A vector environment.
        encoder: As in `RMRObservationWrapper`, like all that follow.
        output: As there.
        **options: Further fields of `Options`.

    Raises:
        RMRError: As `RMRObservationWrapper`, or the vector declares no autoreset mode.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> from rmr_gym.wrappers.features import RMRVectorObservation
        >>> envs = gym.make_vec("rmr/Pong-v0", num_envs=16)
        >>> envs = RMRVectorObservation(envs, "pong")
    """

    of_ram: ClassVar[bool] = False

    def __init__(self, env: AnyEnv, encoder: Given = None, output: str = "", **options: Any):
        single = "RMRBeliefWrapper" if self.of_ram else "RMRObservationWrapper"
        advice = f"around a single one, use {single}; around SB3's, {VECTORS[self.of_ram][1]}"
        super().__init__(describe.require(gym.vector.VectorEnv, env, advice))
        self._mode = describe.autoreset_mode(self.env)
        self._stream = stream_of(env, encoder, output, options, of_ram=self.of_ram)
        self.single_observation_space = self._stream.space
        self.observation_space = gym.vector.utils.batch_space(self._stream.space, self.num_envs)
        self._over = np.zeros(self.num_envs, bool)

    def reset(self, *, seed: Seeds = None, options: Info | None = None) -> tuple[Any, Info]:
        """Begin an episode in every environment, or in those of ``options["reset_mask"]``."""
        chosen = (options or {}).get("reset_mask")
        observations, infos = self.env.reset(seed=plain_seed(seed), options=options)
        self._over = np.zeros(self.num_envs, bool) if chosen is None else self._over & ~chosen
        return self._stream.begin(observations, chosen), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Info]:
        """Step every environment."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        over = np.asarray(terminated) | np.asarray(truncated)
        begun = np.zeros(self.num_envs, bool)
        if self._mode is gym.vector.AutoresetMode.NEXT_STEP:
            begun = self._over
        elif self._mode is gym.vector.AutoresetMode.SAME_STEP:
            begun = over
            infos = describe.with_final(infos, over, partial(self._stream.last, actions))
        self._over = over
        shown = self._stream.step(observations, np.asarray(actions), begun)
        return shown, rewards, terminated, truncated, infos


@dataclass(frozen=True)
class Options:
    """What to show, in the single form, the vector's and Stable-Baselines3's alike.

    Args:
        output: ``"slots"``, ``"flat"``, ``"processed"``, ``"lookahead"`` or ``"frames"``.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` ...
        keep: Entries of a Dict observation to show as well.
        strict: Raise, rather than warn, where the encoder is of another game.
        history: Stack so many of the last features (``frames``), oldest first, along a new first
            axis; or a number by entry, ``{"features": 4, "pixels": 4}``. After a reset the first
            observation is repeated. RAM is never stacked. None: no stack, no axis.
        pixels: Whether screens of one channel hold ``"gray"`` levels or ``"palette"`` indices, and
            that three channels around a picture of one are colours, ``"rgb"``, and no stacked
            frames, which are refused; ``"auto"`` asks the environment.
        ahead: With ``"lookahead"``, 1 to 16 steps that each action is held; else 1.

    Raises:
        RMRError: An option is unknown or out of range, or RAM would be stacked.
    """

    outputs: ClassVar[tuple[str, ...]] = OUTPUTS

    output: str = "slots"
    device: str = "auto"
    keep: Sequence[str] = ()
    strict: bool = False
    history: int | Mapping[str, int] | None = None
    pixels: str = "auto"
    ahead: int = 1

    def __post_init__(self) -> None:
        known_name("output", self.output, self.outputs)
        most = MOST_AHEAD if self.output == "lookahead" else 1
        if whole_number("ahead", self.ahead, 1) > most:
            raise RMRError(
                f"expected ahead=1 to {MOST_AHEAD} with 'lookahead', 1 with all else, found "
                f"{self.ahead} with {self.output!r}"
            )
        known_name("kind of pixels", self.pixels, ("auto", "gray", "palette", "rgb"))
        if isinstance(self.keep, str):
            raise RMRError(f"expected a list of names as keep, for instance [{self.keep!r}]")
        if self.own_name in self.keep:
            raise RMRError(f"the entry {self.own_name!r} cannot be kept: the wrapper makes its own")
        for name, length in self.lengths().items():
            known_name("entry to stack", name, (self.own_name, *self.keep))
            if name == "ram":
                raise RMRError("RAM is not stacked: it is the whole state of the machine already")
            whole_number(f"history of {name}", length, 1)

    @property
    def own_name(self) -> str:
        """Name of what the wrapper makes, where the observation is a Dict."""
        return "frames" if self.output == "frames" else "features"

    def lengths(self) -> dict[str, int]:
        """Return how many observations are stacked, by entry; entries not named are not."""
        default = {"frames": 1} if self.output == "frames" else {}
        given = {} if self.history is None else self.history
        return default | (dict(given) if isinstance(given, Mapping) else {self.own_name: given})


class FeatureStream:
    """Many episodes side by side: observations and actions in, features with history out.

    Args:
        encoder: The encoder.
        options: What to show.
        source: The environments.

    Attributes:
        shown: The options.
        space: Of one environment's features.

    Raises:
        RMRError: See `RMRObservationWrapper`.
    """

    of_ram: ClassVar[bool] = False
    options: ClassVar[type[Options]] = Options

    def __init__(self, encoder: Given, options: Options, source: Source):
        encoder = PretrainedEncoder.of(encoder, of_ram=self.of_ram, game=source.game)
        self._config: Any = (config := encoder.config)
        self._frames = _reader(config, options, source)
        _compare_games(config, source.game, options.strict)
        self.shown = options
        self._lengths = options.lengths() | {_CLIP: config.instants}
        best = "cuda" if torch.cuda.is_available() else "cpu"
        self._place = find_device(best if options.device == "auto" else options.device)
        self._encoder: Any = deepcopy(encoder.encoder)
        self._processor: Any = deepcopy(encoder.processor)
        self._index_of = self._indices(source)
        self._considered = np.zeros(1, int) if self._index_of is None else self._index_of
        for part in filter(None, (self._encoder, self._processor)):
            part.to(self._place).eval()
        self.space = self._make_space(source.space)
        self._stacks: dict[str, np.ndarray] = {}
        self._count, self._actions = source.count, np.full(source.count, NO_OPERATION)

    def begin(self, observations: Any, chosen: Bool[np.ndarray, " batch"] | None = None) -> Shown:
        """Return the features of first observations.

        Args:
            observations: Of all environments.
            chosen: Those whose episode begins; the others are shown as before. None: all.
        """
        begun = np.ones(self._count, bool) if chosen is None else chosen
        self._actions = np.where(begun, NO_OPERATION, self._actions)
        return self._look(observations, self._actions, Turn(begun, moved=False))

    def step(
        self,
        observations: Any,
        actions: Shaped[np.ndarray, "batch *each"],
        begun: Bool[np.ndarray, " batch"],
    ) -> Shown:
        """Return the features after a step.

        Args:
            observations: Of all environments.
            actions: That were taken.
            begun: Environments whose observation is the first of an episode.
        """
        self._actions = np.where(begun, NO_OPERATION, self._pressed(actions))
        return self._look(observations, self._actions, Turn(begun))

    def last(self, actions: Any, observations: Any, chosen: Int[np.ndarray, " few"]) -> Shown:
        """Return the features that episodes ended with, before `step` shows what follows them.

        Args:
            actions: That were taken, of all environments.
            observations: One for each episode that ended.
            chosen: Those whose episodes ended.
        """
        pressed = self._pressed(np.asarray(actions)[chosen])
        turn = Turn(np.zeros(len(chosen), bool), rows=chosen)
        return self._look(observations, pressed, turn)

    def _pressed(self, actions: Any) -> np.ndarray:
        """Return P's index of each action; actions do not matter without P, or one of balls."""
        if self._index_of is None:
            return np.full(len(actions), NO_OPERATION)
        return self._index_of[np.asarray(actions)]

    def _look(self, observations: Any, actions: np.ndarray, turn: Turn) -> Shown:
        """Return what is shown; what is stacked as a copy, since the stacks go on."""
        clip = self._remember(_CLIP, self._frames(observations), turn)
        frames = clip.reshape(len(clip), *self._config.frame_shape)
        own = self._own(frames, actions, observations, turn)
        shown = {self.shown.own_name: own}
        shown |= {name: np.asarray(observations[name]) for name in self.shown.keep}
        for name in shown.keys() & self._lengths.keys():
            shown[name] = self._remember(name, shown[name], turn).copy()
        if self.shown.output == "frames":
            stack = shown["frames"]
            shown["frames"] = stack.reshape(len(stack), -1, *stack.shape[-2:])
        return shown if self.shown.keep else shown[self.shown.own_name]

    @torch.inference_mode()
    def _own(self, frames: Any, actions: Any, observations: Any, turn: Turn) -> np.ndarray:
        """Return what the stream makes of frames, and of what happened beside them."""
        if self.shown.output == "frames":
            return frames
        latents = self._encoder(torch.from_numpy(frames).to(self._place))
        if self.shown.output == "processed":
            latents = self._processor(latents, torch.from_numpy(actions).to(self._place))
        if self.shown.output == "lookahead":
            considered = torch.from_numpy(self._considered).to(self._place)
            latents = look_ahead(latents, considered, self._processor, self.shown.ahead)
        if self.shown.output == "flat":
            latents = latents.flatten(1)
        return latents.cpu().numpy()

    def _remember(self, name: str, rows: np.ndarray, turn: Turn) -> np.ndarray:
        """Return, and remember, a history that begins with this observation where one does."""
        if turn.rows is not None:
            return _appended(self._stacks[name][turn.rows], rows)
        stack = self._stacks.get(name)
        if stack is None or turn.begun.all():
            stack = np.repeat(rows[:, None], self._lengths[name], axis=1)
        else:
            stack = _appended(stack, rows) if turn.moved else stack
            stack[turn.begun] = rows[turn.begun][:, None]
        self._stacks[name] = stack
        return stack

    def _indices(self, source: Source) -> np.ndarray | None:
        """Return, for each action of the environments, its index among P's 18, where P is asked."""
        output, with_p = self.shown.output, ("processed", "lookahead")
        if output not in with_p or isinstance(self._processor, PassiveProcessor):
            return None
        if self._processor is None:
            raise RMRError(
                f"expected an encoder with P for output={output!r}, found one without: export "
                "it with its processor, or use output='slots'"
            )
        if self._config.actions != len(ACTION_NAMES):
            raise RMRError(
                f"expected P of ALE's {len(ACTION_NAMES)} actions for output={output!r}, found "
                f"one of {self._config.actions}, whose names it does not tell: use output='slots'"
            )
        return ale_actions(source.action_names(), "use output='slots', which asks for no action")

    def _own_space(self) -> spaces.Box:
        slots, dim = self._config.slots, self._config.dim
        if self.shown.output in ("bits", "evidence"):
            return spaces.Box(0, 1, (slots, self._config.bits), np.float32)
        if self.shown.output == "frames":
            *channels, height, width = self._config.frame_shape
            stacked = int(np.prod(channels)) * self._lengths["frames"]
            return spaces.Box(0, 255, (stacked, height, width), np.uint8)
        if self.shown.output == "lookahead":
            pressed = len(self._considered)
            slots += pressed if pressed > 1 else slots
        shape = (slots * dim,) if self.shown.output == "flat" else (slots, dim)
        return spaces.Box(-np.inf, np.inf, shape, np.float32)

    def _make_space(self, space: spaces.Space[Any]) -> spaces.Space[Any]:
        entries: dict[str, Any] = {self.shown.own_name: self._own_space()}
        for name in self.shown.keep:
            if not isinstance(space, spaces.Dict):
                raise RMRError(
                    f"expected a Dict observation to keep {name!r} of, found {space}: put "
                    "PairedObservation around the environment first"
                )
            entries[name] = space[known_name("entry of the observation", name, space.spaces)]
        stacked = {name: self._stacked_space(name, entry) for name, entry in entries.items()}
        return spaces.Dict(stacked) if self.shown.keep else stacked[self.shown.own_name]

    def _stacked_space(self, name: str, entry: Any) -> Any:
        if name not in self._lengths or name == "frames" == self.shown.output:
            return entry
        return gym.vector.utils.batch_space(entry, self._lengths[name])


def look_ahead(
    latents: Latents, actions: Int[Tensor, " actions"], processor: nn.Module, steps: int
) -> Float[Tensor, "batch rows dim"]:
    """Return slots, and after them what P makes of them if each action is held for some steps.

    Between two steps the latents are scaled to the length of the slots (all of a state as one
    vector): P meets latents of the size that it was trained on; without it they grow 3 to 23
    times a step in games. A row an action is the mean over slots, since 18 futures of 128 slots
    of 64 numbers are too many for a policy to learn from. The future of a single action is whole.

    Source: none; in the paper P is applied once.

    Args:
        latents: Slots of the frames.
        actions: P's indices of the actions.
        processor: P.
        steps: How long each action is held.
    """
    taken = actions.repeat(len(latents))
    after = start = latents.repeat_interleave(len(actions), 0)
    for step in range(steps):
        if step:
            sizes = [state.flatten(1).norm(dim=1)[:, None, None] for state in (start, after)]
            after = after * (sizes[0] / sizes[1].clamp_min(1e-12))
        after = processor(after, taken)
    after = after.unflatten(0, (len(latents), len(actions)))
    return torch.cat([latents, after.mean(2) if len(actions) > 1 else after[:, 0]], 1)


@dataclass(frozen=True)
class BeliefOptions(Options):
    """What to show of a belief; the other fields are those of `Options`.

    Args:
        output: ``"bits"``, ``"latents"`` or ``"evidence"``.
        start: ``"known"``: from the RAM of a reset; ``"unknown"``: from its frame.
    """

    outputs: ClassVar[tuple[str, ...]] = ("bits", "latents", "evidence")

    output: str = "bits"
    start: str = "known"


class BeliefStream(FeatureStream):
    """Beliefs of many episodes side by side; see `RMRBeliefWrapper`."""

    of_ram: ClassVar[bool] = True
    options: ClassVar[type[Options]] = BeliefOptions

    def __init__(self, encoder: Given, options: Any, source: Source):
        super().__init__(encoder, options, source)
        fitted, self._env = self._config.frameskip, cast(Any, source.env)
        if source.frameskip not in (None, fitted):
            raise RMRError(
                f"the belief was fitted to steps of {fitted} frames, the environment's have "
                f"{source.frameskip}: make it with frameskip={fitted}"
            )
        if source.noop_max:
            warnings.warn(
                f"episodes begin after up to {source.noop_max} frames without input, between the "
                "steps that the belief learned from, so that more of its bits will be wrong: make "
                "the environment with noop_max=0",
                stacklevel=3,
            )
        self._from_ram = known_name("start", options.start, ("known", "unknown")) == "known"
        shows_ram = isinstance(source.space, spaces.Dict) and "ram" in source.space.spaces
        if self._from_ram and not shows_ram and (self._env is None or ale_of(self._env) is None):
            raise RMRError(
                "expected RAM to begin from, as entry 'ram' of the observation or in an emulator, "
                "found neither: put PairedObservation around each environment, or say "
                "start='unknown'"
            )
        self._belief = self._alone = self._encoder.mean.repeat(source.count, 1, 1)
        self._age = torch.zeros(source.count, dtype=torch.long, device=self._place)

    def _indices(self, source: Source) -> np.ndarray:
        return ale_actions(source.action_names(), "P must know what is pressed")

    @torch.no_grad()
    def _own(self, frames: Any, actions: Any, observations: Any, turn: Turn) -> np.ndarray:
        rows = slice(None) if turn.rows is None else turn.rows
        belief, alone = self._belief[rows].clone(), self._alone[rows].clone()
        age = self._age[rows] + turn.moved
        evidence = self._encoder(torch.from_numpy(frames).to(self._place))
        if self.shown.output == "evidence":
            return (self._encoder.mean + evidence).clamp(0, 1).cpu().numpy()
        begun = torch.from_numpy(turn.begun)
        moved = ~begun & turn.moved
        if moved.any():
            pressed = torch.from_numpy(actions)[moved].to(self._place)
            belief[moved], alone[moved] = self._processor(
                belief[moved], alone[moved], pressed, evidence[moved], age[moved]
            )
        if begun.any():
            known = self._ram_in(observations) if self._from_ram else self._encoder.mean + evidence
            belief[begun] = alone[begun] = log_odds(known)[begun]
            age[begun] = 0
        if turn.rows is None:
            self._belief, self._alone, self._age = belief, alone, age
        shown = torch.sigmoid(belief)
        if self.shown.output == "latents":
            shown = self._processor.pipeline.encoder(shown)
        return shown.cpu().numpy()

    def _ram_in(self, observations: Any) -> torch.Tensor:
        shown = isinstance(observations, Mapping) and "ram" in observations
        ram = observations["ram"] if shown else ale_of(self._env).getRAM()[None]
        return torch.from_numpy(ram_to_bits(ram)).to(self._place).float()


class RMRBeliefWrapper(RMRObservationWrapper):
    """Shows what pixels and actions tell of a game's RAM, tracked from step to step.

    The belief holds a probability a bit. P predicts it from the belief before and the action; the
    frame corrects it. Observation, by ``output``, float32:

    - ``"bits"``: ``Box[128, 8]`` in [0, 1], the probability of each bit, most significant first.
    - ``"latents"``: ``Box[128, dim]``, the slots that P sees: the abstract encoder's of these
      probabilities, which are the expected slots since it is linear.
    - ``"evidence"``: ``Box[128, 8]`` in [0, 1], what the last frames tell without memory, as a
      control: no P and no correction.

    RAM is read at a reset alone, where the simulated world is known, and with ``start="unknown"``
    never: then the belief begins with what the first frame shows. Where an environment shows no
    ``ram``, the emulator underneath is asked for it. Action, reward, end and time step are those of
    the wrapped environment.

    Source: none in the paper; see `rmr_gym.models.rmr.belief`.

    Args:
        env: A game, as for `RMRObservationWrapper`.
        encoder: The belief: folder of `rmr-gym encoder train --arm belief`, the name of a shipped
            one (``"pong_belief"``), or one that was read; None: the shipped one of the game.
        output: ``"bits"``, ``"latents"`` or ``"evidence"``; default: bits.
        **options: Further fields of `BeliefOptions`.

    Raises:
        RMRError: As `RMRObservationWrapper`; another game, another frame skip or other
            actions than ALE's; a known start in an environment that shows no RAM.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> from rmr_gym.wrappers.features import RMRBeliefWrapper
        >>> env = RMRBeliefWrapper(gym.make("rmr/Pong-v0"))
        >>> env.reset(seed=0)[0].shape
        (128, 8)
    """

    of_ram: ClassVar[bool] = True


class RMRVectorBelief(RMRVectorObservation):
    """`RMRBeliefWrapper` around a vector of environments, with one forward for all of them.

    A belief begins anew with each episode, under all three autoreset modes and with
    ``options["reset_mask"]``; ``info["final_obs"]`` holds the belief at an episode's end. With a
    known start the environments must show ``ram``, as `rmr_gym`'s do. Arguments are those of
    `RMRBeliefWrapper`.
    """

    of_ram: ClassVar[bool] = True


def stream_of(
    env: Any, encoder: Given, output: str, options: Mapping[str, Any], *, of_ram: bool
) -> FeatureStream:
    """Return the stream of features, or of beliefs, of an environment or a vector.

    Raises:
        RMRError: As `RMRObservationWrapper` and `RMRBeliefWrapper`.
    """
    kind = BeliefStream if of_ram else FeatureStream
    named = {"output": output} if output else {}
    return kind(encoder, from_options(kind.options, {**options, **named}), describe.source_of(env))


def _compare_games(config: AnyEncoderConfig, played: str | None, strict: bool) -> None:
    if played == config.game or (played is None and not strict):
        return
    noun = config.kind.rsplit(" ", maxsplit=1)[-1]
    message = (
        f"the {noun} was trained on {config.game}, the environment plays "
        f"{played or 'a game that it does not name'}: its features may mean nothing there"
    )
    if strict or noun == "belief":
        raise RMRError(
            f"{message}; use the {noun} of that game{', or strict=False' * (noun != 'belief')}"
        )
    warnings.warn(message, stacklevel=4)


def _reader(
    config: AnyEncoderConfig, options: Options, source: Source
) -> FrameReader | PictureReader:
    """Return what reads off observations what the encoder sees."""
    if source.stacked and options.pixels != "rgb":
        raise RMRError(
            "expected colours, found three channels around a picture of one channel, as frame "
            "stacks make them: stack what this wrapper shows (history=3) and not what it sees, or "
            "say pixels='rgb' if they are colours"
        )
    if isinstance(config, BallsEncoderConfig):
        return PictureReader(source.space, config.resolution)
    palette = source.palette if options.pixels == "auto" else options.pixels == "palette"
    return FrameReader(source.space, config.height, config.width, palette=palette, env=source.env)


def _appended(stack: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.concatenate((stack[:, 1:], rows[:, None]), axis=1)
