"""RMR features instead of screens, around single and vector environments."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from rmr_gym.core.errors import RMRError
from rmr_gym.wrappers.describe import AnyEnv, ale_of
from rmr_gym.wrappers.stream import (
    Encoder,
    FeatureStream,
    Options,
    name_of_game,
    shows_palette,
)


class RMRObservationWrapper(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Shows what a pretrained encoder makes of the screen.

    Observation, by ``output``, float32 but for the last:

    - ``"slots"``: ``Box[slots, dim]``, one vector a slot.
    - ``"flat"``: ``Box[slots * dim]``, the same in one row.
    - ``"processed"``: ``Box[slots, dim]``, P applied to the slots with the action that led here:
      where the world goes if that action is held. After a reset the action is no operation.
    - ``"frames"``: ``Box[history, height, width]`` of bytes, the frames that the encoder would see,
      channels first. For replay buffers, with
      `rmr_gym.agents.sb3.extractor.RMRFeaturesExtractor`. Of balls
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
            travel in an `EnvSpec`. Or a `rmr_gym.models.pretrained.PretrainedEncoder`.
        output: ``"slots"``, ``"flat"``, ``"processed"`` or ``"frames"``.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` ...
        keep: Entries of a Dict observation to show as well.
        strict: Raise, rather than warn, where the encoder is of another game.
        history: Stack so many of the last features (``frames``), oldest first, along a new first
            axis; or a number by entry, ``{"features": 4, "pixels": 4}``. After a reset the first
            observation is repeated. RAM is never stacked. None: no stack, no axis.
        pixels: Whether screens of one channel hold ``"gray"`` levels or ``"palette"`` indices;
            ``"auto"`` asks the environment.

    Raises:
        RMRError: No emulator and no whole screen; no square picture as large as an encoder of balls
            sees; an artifact that cannot be read; an encoder of another game under ``strict``; an
            unknown option or entry; ``"processed"`` without P or with actions that are not ALE's.

    Example:
        >>> import ale_py
        >>> import gymnasium as gym
        >>> from rmr_gym.wrappers.features import RMRObservationWrapper
        >>> gym.register_envs(ale_py)
        >>> env = RMRObservationWrapper(gym.make("ALE/Pong-v5"), "pong")
        >>> env.reset(seed=0)[0].shape
        (128, 64)
    """

    def __init__(
        self,
        env: AnyEnv,
        encoder: Encoder,
        output: str = "slots",
        device: str = "auto",
        keep: Sequence[str] = (),
        strict: bool = False,
        history: int | Mapping[str, int] | None = None,
        pixels: str = "auto",
    ):
        RecordConstructorArgs.__init__(
            self,
            encoder=os.fspath(encoder) if isinstance(encoder, os.PathLike) else encoder,
            output=output,
            device=device,
            keep=keep,
            strict=strict,
            history=history,
            pixels=pixels,
        )
        if not isinstance(env, gym.Env):
            raise RMRError(
                f"expected a single Gymnasium environment, found {type(env).__name__}: around a "
                "vector, use RMRVectorObservation; around SB3's, RMRVecEnv"
            )
        super().__init__(env)
        names = getattr(env.unwrapped, "get_action_meanings", None)
        discrete = isinstance(env.action_space, spaces.Discrete)
        self._stream = FeatureStream(
            encoder,
            Options(output, device, keep, strict, history, pixels),
            env.observation_space,
            game=name_of_game(env.unwrapped, env.spec),
            palette=shows_palette(env.unwrapped, env.spec),
            action_names=names() if names is not None and discrete else None,
            emulator=ale_of(env),
        )
        self.observation_space = self._stream.space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return _first(self._stream.begin(_batch_of_one(observation))), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the wrapped environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        shown = self._stream.step(_batch_of_one(observation), np.array([action]), np.zeros(1, bool))
        return _first(shown), reward, terminated, truncated, info


class RMRVectorObservation(VectorWrapper[Any, Any, Any, Any, Any]):
    """`RMRObservationWrapper` around a vector of environments, with one forward for all of them.

    The observations must hold whole screens, since the emulators of a vector may be in other
    processes: RGB or gray of ALE's own environments, the pair of ours; or pictures of balls. All
    three autoreset modes are handled: histories, and the frames that an encoder of balls looks back
    on, begin anew with each episode, and ``info["final_obs"]`` holds features.

    Args:
        env: A vector environment.
        encoder: As in `RMRObservationWrapper`, like all that follow.
        output: ``"slots"``, ``"flat"``, ``"processed"`` or ``"frames"``.
        device: Where to compute.
        keep: Entries of a Dict observation to show as well.
        strict: Raise, rather than warn, where the encoder is of another game.
        history: How many observations are stacked.
        pixels: What screens of one channel hold.

    Raises:
        RMRError: As `RMRObservationWrapper`, or the vector declares no autoreset mode.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> from rmr_gym.wrappers.features import RMRVectorObservation
        >>> envs = gym.make_vec("rmr/Pong-v0", num_envs=16)
        >>> envs = RMRVectorObservation(envs, "pong")
    """

    def __init__(
        self,
        env: AnyEnv,
        encoder: Encoder,
        output: str = "slots",
        device: str = "auto",
        keep: Sequence[str] = (),
        strict: bool = False,
        history: int | Mapping[str, int] | None = None,
        pixels: str = "auto",
    ):
        if not isinstance(env, VectorEnv):
            raise RMRError(
                f"expected a Gymnasium vector environment, found {type(env).__name__}: around a "
                "single one, use RMRObservationWrapper; around SB3's, RMRVecEnv"
            )
        super().__init__(env)
        self._mode = env.metadata.get("autoreset_mode")
        if not isinstance(self._mode, AutoresetMode):
            raise RMRError(
                'expected a vector that declares metadata["autoreset_mode"] as one of Gymnasium\'s '
                f"AutoresetMode, found {self._mode!r}: histories could not be kept apart"
            )
        self._stream = FeatureStream(
            encoder,
            Options(output, device, keep, strict, history, pixels),
            env.single_observation_space,
            count=env.num_envs,
            game=name_of_game(env.unwrapped, env.spec),
            palette=shows_palette(env.unwrapped, env.spec),
            action_names=_action_names(env) if output == "processed" else None,
        )
        self.single_observation_space = self._stream.space
        self.observation_space = batch_space(self._stream.space, env.num_envs)
        self._over = np.zeros(env.num_envs, bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every environment, or in those of ``options["reset_mask"]``."""
        given: Any = seed
        chosen = (options or {}).get("reset_mask")
        observations, infos = self.env.reset(seed=given, options=options)
        self._over = np.zeros(self.num_envs, bool) if chosen is None else self._over & ~chosen
        return self._stream.begin(observations, chosen), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every environment."""
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        over = np.asarray(terminated) | np.asarray(truncated)
        begun = np.zeros(self.num_envs, bool)
        if self._mode is AutoresetMode.NEXT_STEP:
            begun = self._over
        elif self._mode is AutoresetMode.SAME_STEP:
            begun, infos = over, self._with_final_features(infos, actions, over)
        self._over = over
        shown = self._stream.step(observations, np.asarray(actions), begun)
        return shown, rewards, terminated, truncated, infos

    def _with_final_features(
        self, infos: dict[str, Any], actions: Any, over: np.ndarray
    ) -> dict[str, Any]:
        ended = np.flatnonzero(over)
        if "final_obs" not in infos or not len(ended):
            return infos
        given = [infos["final_obs"][i] for i in ended]
        space = self.env.single_observation_space
        batch = concatenate(space, given, create_empty_array(space, len(given)))
        features: Any = self._stream.last(batch, np.asarray(actions)[ended], ended)
        final = np.full(self.num_envs, None, dtype=object)
        for row, i in enumerate(ended):
            final[i] = row_of(features, row)
        return {**infos, "final_obs": final}


def row_of(batch: Any, row: int) -> Any:
    """Return one environment's part of a batch of observations."""
    if isinstance(batch, Mapping):
        return {name: rows[row] for name, rows in batch.items()}
    return batch[row]


def _first(batch: Any) -> Any:
    return row_of(batch, 0)


def _batch_of_one(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {name: np.asarray(entry)[None] for name, entry in observation.items()}
    return np.asarray(observation)[None]


def _action_names(env: VectorEnv[Any, Any, Any]) -> list[str] | None:
    """Return what each action presses, where one of the environments tells."""
    own = getattr(env.unwrapped, "get_action_meanings", None)
    if own is not None:
        return own()
    call = getattr(env.unwrapped, "call", None)
    discrete = isinstance(env.single_action_space, spaces.Discrete)
    return list(call("get_action_meanings")[0]) if call is not None and discrete else None
