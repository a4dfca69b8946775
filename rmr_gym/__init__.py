"""Reasoning-Modulated Representations as Gymnasium environments, wrappers and a measured protocol.

Importing the package registers the environments (``rmr/Pong-v0`` and the others) and loads neither
torch nor ALE: each environment is imported when it is first made, and so are the functions of the
chain: ``record``, ``pretrain``, ``train``, ``probe`` and ``load_encoder``, see `rmr_gym.facade`.

Example:
    >>> import gymnasium as gym
    >>> import rmr_gym
    >>> env = gym.make("rmr/Pong-v0")
    >>> observation, info = env.reset(seed=0)
    >>> observation["ram"].shape, observation["pixels"].shape
    ((128,), (210, 160, 1))

Gymnasium finds no environment by itself: either import ``rmr_gym`` first, as above, or name it in
the id, ``gym.make("rmr_gym:rmr/Pong-v0")``.
"""

from typing import TYPE_CHECKING

from rmr_gym.core import lazy_names
from rmr_gym.envs import register_envs

if TYPE_CHECKING:
    from rmr_gym.agents.record import record
    from rmr_gym.facade import load_encoder, pretrain, probe, train

__all__ = ["__version__", "load_encoder", "pretrain", "probe", "record", "train"]
__version__ = "0.1.0"
__getattr__ = lazy_names(
    __name__, {"agents.record": "record", "facade": "load_encoder pretrain probe train"}
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_envs()
