"""Reasoning-Modulated Representations as Gymnasium environments, wrappers and a measured protocol.

Importing the package registers the environments (``rmr/Pong-v0`` and the others) and loads neither
torch nor ALE: each environment is imported when it is first made.

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

from rmr_gym.envs import register_envs

__all__ = ["__version__"]
__version__ = "0.1.0"

register_envs()
