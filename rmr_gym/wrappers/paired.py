"""RAM and pixels of the same instant around any ALE environment."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.emulator import Pixels, ScreenAndRAM
from rmr_gym.wrappers.describe import ale_of, require


class PairedObservation(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Replaces the observation by the pair of RAM and screen, read from the ALE underneath.

    Observation: ``Dict(ram: uint8[128], pixels: uint8[height, width, 1 or 3])``, both read when the
    wrapped environment has returned, so after the last frame that it emulated; ``height`` and
    ``width`` are the screen's own (210 x 160 in the paper's games). Action, reward, end and time
    step are those of the wrapped environment.

    What the wrapped environment makes of its observation does not matter: RGB, gray or RAM,
    `gymnasium.wrappers.AtariPreprocessing` or stacked frames. Max-pooling, resizing and stacking in
    there do not touch what is read here: the pixels are the unpooled screen of the last frame in
    full size, the instant that the RAM belongs to. A wrapper that shows the past (delayed
    observations) is therefore undone: the pair is always of now.

    Differs: ALE's own environments repeat actions with probability 0.25 unless told otherwise, and
    their reset without a seed remembers some of the last episode in some games; neither is changed
    here. `rmr_gym.envs.PairedAtariEnv` does neither by default.

    Args:
        env: A Gymnasium environment over ALE, wrapped or not, for instance
            ``gym.make("ALE/Pong-v5", repeat_action_probability=0.0, full_action_space=True)``.
        pixels: ``"gray"``, ``"palette"`` (palette indices) or ``"rgb"``.

    Raises:
        RMRError: The environment has no ALE underneath, or ``pixels`` is none of the three.

    Example:
        >>> import ale_py
        >>> import gymnasium as gym
        >>> from rmr_gym.wrappers import PairedObservation
        >>> gym.register_envs(ale_py)
        >>> env = PairedObservation(gym.make("ALE/Alien-v5", obs_type="ram"))
        >>> observation, info = env.reset(seed=0)
        >>> observation["ram"].shape, observation["pixels"].shape
        ((128,), (210, 160, 1))
    """

    def __init__(self, env: gym.Env, pixels: Pixels = "gray"):
        RecordConstructorArgs.__init__(self, pixels=pixels)
        reader = ScreenAndRAM(_ale_of(env), pixels)
        super().__init__(env)
        self._reader = reader
        self.observation_space = reader.space

    def observation(self, observation: Any) -> dict[str, np.ndarray]:
        """Return RAM and screen of this instant; ``observation`` is not looked at."""
        return self._reader.read()


def _ale_of(env: object) -> Any:
    advice = "wrap each environment before they are put into a vector"
    ale = ale_of(require(gym.Env, env, advice))
    if ale is None:
        raise RMRError(
            "expected an environment over ALE, for instance gym.make('ALE/Pong-v5'), found "
            f"{env}: it has no emulator whose RAM could be read"
        )
    return ale
