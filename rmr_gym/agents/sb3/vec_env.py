"""RMR features instead of screens, around the vectors of Stable-Baselines3."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from rmr_gym.core.errors import RMRError, from_options
from rmr_gym.wrappers.describe import AnyEnv, Source, name_of_game, row_of, shows_palette
from rmr_gym.wrappers.features import Encoder, FeatureStream, Options


class RMRVecEnv(VecEnvWrapper):
    """`rmr_gym.wrappers.features.RMRVectorObservation` for Stable-Baselines3.

    One forward for all environments; ``infos[i]["terminal_observation"]`` holds features too.

    Args:
        venv: Environments that show whole screens or pictures of balls, alone or as entry
            ``pixels`` of a Dict.
        encoder: As in `rmr_gym.wrappers.features.RMRObservationWrapper`, like all that follow.
        output: ``"slots"``, ``"flat"``, ``"processed"`` or ``"frames"``.
        **options: Further fields of `rmr_gym.wrappers.features.Options`.

    Raises:
        RMRError: As `rmr_gym.wrappers.features.RMRVectorObservation`.

    Example:
        >>> from stable_baselines3 import PPO
        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> from rmr_gym.agents.sb3.vec_env import RMRVecEnv
        >>> venv = RMRVecEnv(make_vec_env("rmr/Pong-v0", 8), "pong")  # doctest: +SKIP
        >>> agent = PPO("MlpPolicy", venv)  # doctest: +SKIP
    """

    def __init__(
        self, venv: VecEnv | AnyEnv, encoder: Encoder, output: str = "flat", **options: Any
    ):
        if not isinstance(venv, VecEnv):
            raise RMRError(
                f"expected a VecEnv of Stable-Baselines3, found {type(venv).__name__}: make one "
                "with stable_baselines3.common.env_util.make_vec_env"
            )
        spec = venv.get_attr("spec", 0)[0]
        source = Source(
            venv.observation_space,
            count=venv.num_envs,
            game=name_of_game(None, spec),
            palette=shows_palette(None, spec),
            action_names=partial(_action_names, venv),
        )
        shown = from_options(Options, {"output": output, **options})
        self._stream = FeatureStream(encoder, shown, source)
        super().__init__(venv, observation_space=self._stream.space)
        self._taken = np.zeros(venv.num_envs, np.int64)

    def reset(self) -> Any:
        """Begin an episode in every environment."""
        return self._stream.begin(self.venv.reset())

    def step_async(self, actions: np.ndarray) -> None:
        """Send the actions."""
        self._taken = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """Return what the environments answered."""
        observations, rewards, dones, infos = self.venv.step_wait()
        infos = self._with_terminal_features(infos, np.flatnonzero(dones))
        return self._stream.step(observations, self._taken, dones), rewards, dones, infos

    def _with_terminal_features(self, infos: Any, ended: np.ndarray) -> Any:
        if not len(ended):
            return infos
        batch = stacked([infos[i]["terminal_observation"] for i in ended])
        features = self._stream.last(batch, self._taken[ended], ended)
        changed = list(infos)
        for row, i in enumerate(ended):
            changed[i] = {**infos[i], "terminal_observation": row_of(features, row)}
        return changed


def _action_names(venv: VecEnv) -> list[str] | None:
    discrete = isinstance(venv.action_space, spaces.Discrete)
    return venv.env_method("get_action_meanings", indices=0)[0] if discrete else None


def stacked(observations: Sequence[Any]) -> Any:
    """Return observations of single environments as one batch."""
    if isinstance(observations[0], Mapping):
        return {name: np.stack([each[name] for each in observations]) for name in observations[0]}
    return np.stack(observations)
