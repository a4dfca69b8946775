"""Many copies of a game stepped at once in worker processes."""

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.arguments import all_actions, all_seeds, limit, processors, whole_number
from rmr_gym.envs.atari.env import PairedAtariEnv
from rmr_gym.envs.atari.games import ACTION_NAMES
from rmr_gym.envs.atari.workers import FINAL, INFO, Plan, make_copies


class PairedAtariVectorEnv(VectorEnv[Any, Any, Any]):
    """Many `rmr_gym.envs.atari.env.PairedAtariEnv` in one, bit-equal to as many single ones.

    Environment i of ``reset(seed=s)`` behaves as the single environment after
    ``reset(seed=s + i)``, episode after episode. What the observation, the actions, the rewards and
    info hold is described there; here each entry has one row an environment, and info's entries
    come with Gymnasium's masks (``_lives`` and so on).

    ALE holds Python's lock, so the copies are shared out among processes. They write their
    observations into memory that all processes share; only a few bytes a step go through a pipe.
    The number of processes changes no bit of the result. A process that dies or raises is an error
    that names it, and ends the others; so does Ctrl-C in the middle of a step. None of them
    outlives this one, whatever ends it.

    A script that makes worker processes needs its ``if __name__ == "__main__":`` guard.

    Autoreset, as Gymnasium's own vectors do it: ``"NextStep"``: the step after the last one of an
    episode ignores the action, begins the next episode, and returns its first observation with
    reward 0. ``"SameStep"``: the last step of an episode returns the first observation and info of
    the next; its own are in ``info["final_obs"]`` (one dict an environment, or None) and
    ``info["final_info"]``. ``"Disabled"``: environments whose episode is over must be reset with
    ``reset(options={"reset_mask": mask})``.

    Args:
        game: The game, in any spelling that `rmr_gym.envs.atari.games.find_game` understands.
        num_envs: Number of environments, 1 or more.
        max_episode_steps: Steps after which an episode is truncated; None for no limit beyond
            ``max_num_frames_per_episode``.
        workers: Number of processes, at most ``num_envs`` of which are used; None for one a
            processor; with 0 or 1, everything happens in this process.
        copy: Return new arrays at every step; without it, observations are views of the shared
            memory, overwritten by the next step and not to be written into.
        autoreset_mode: ``"NextStep"``, ``"SameStep"`` or ``"Disabled"``, or Gymnasium's
            ``AutoresetMode``.
        **options: Fields of `rmr_gym.envs.atari.env.AtariOptions`.

    Raises:
        RMRError: As `rmr_gym.envs.atari.env.PairedAtariEnv`, a number out of range, a dead worker.

    Example:
        >>> import gymnasium as gym
        >>> import rmr_gym
        >>> envs = gym.make_vec("rmr/Pong-v0", num_envs=4, workers=0)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations["ram"].shape, observations["pixels"].shape
        ((4, 128), (4, 210, 160, 1))
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        **PairedAtariEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        game: str,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        workers: int | None = None,
        copy: bool = True,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **options: Any,
    ):
        self.num_envs = whole_number("num_envs", num_envs, at_least=1)
        steps = limit("max_episode_steps", max_episode_steps)
        workers = processors() if workers is None else whole_number("workers", workers)
        single = PairedAtariEnv(game, **options)
        self.game, self.pixels = single.game, single.options.pixels
        self.render_mode = single.render_mode
        self._mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**single.metadata, "autoreset_mode": self._mode}
        space: Any = single.observation_space
        self.single_observation_space, self.single_action_space = space, single.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._copy, self._begun = copy, False
        plan = Plan(self.game.name, self.num_envs, self._mode, steps, options)
        self._copies = make_copies(plan, plan.space(space), min(workers, self.num_envs))
        self._arrays = self._copies.arrays

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode in every environment.

        Args:
            seed: Of environment 0, environment i having seed + i; or one seed an environment; None
                to go on with the generators as they are.
            options: ``reset_mask``: bool[num_envs], the environments to be reset; the others stay
                where they are.
        """
        self._check_open()
        mask = self._reset_mask(options or {})
        seeds = all_seeds(seed, self.num_envs)
        self._copies.reset({i: seeds[i] for i in np.flatnonzero(mask).tolist()})
        self._begun = True
        return self._observations(), self._infos(mask)

    def step(
        self, actions: Any
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take one step in every environment; see the class for what follows an episode's end."""
        self._check_open()
        if not self._begun:
            raise ResetNeeded("call reset() before step()")
        chosen = all_actions(actions, self.num_envs, len(ACTION_NAMES))
        arrays = self._arrays
        over = arrays["terminated"] | arrays["truncated"]
        if self._mode is AutoresetMode.DISABLED and over.any():
            raise RMRError(
                f"expected episodes that run, found {np.flatnonzero(over).tolist()} over: reset "
                'those with reset(options={"reset_mask": mask}) before step()'
            )
        arrays["actions"][:] = chosen
        self._copies.step()
        flags = arrays["terminated"].copy(), arrays["truncated"].copy()
        infos = self._infos(np.ones(self.num_envs, bool))
        if self._mode is AutoresetMode.SAME_STEP:
            infos |= self._final(flags[0] | flags[1])
        return self._observations(), arrays["rewards"].copy(), *flags, infos

    def render(self) -> tuple[Any, ...] | None:
        """Return the screens of all environments in RGB; None without a render mode."""
        self._check_open()
        return None if self.render_mode is None else tuple(self._copies.render())

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes."""
        self._copies.close()

    def get_action_meanings(self) -> list[str]:
        """Return the names of the 18 actions of one environment."""
        return list(ACTION_NAMES)

    def _observations(self) -> dict[str, np.ndarray]:
        shown = {name: self._arrays[name] for name in ("ram", "pixels")}
        return {name: array.copy() for name, array in shown.items()} if self._copy else shown

    def _infos(self, mask: np.ndarray, prefix: str = "") -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for name in INFO:
            infos[name] = np.where(mask, self._arrays[prefix + name], 0)
            infos[f"_{name}"] = mask.copy()
        return infos

    def _final(self, over: np.ndarray) -> dict[str, Any]:
        """Return the last observations and infos of the episodes that this step ended."""
        if not over.any():
            return {}
        shown = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(over):
            shown[i] = {name: self._arrays[FINAL + name][i].copy() for name in ("ram", "pixels")}
        final = {"final_obs": shown, "final_info": self._infos(over, FINAL)}
        return {**final, "_final_obs": over, "_final_info": over.copy()}

    def _check_open(self) -> None:
        if self.closed:
            raise RMRError("expected environments that are open, found closed ones: make new ones")

    def _reset_mask(self, options: dict[str, Any]) -> np.ndarray:
        unknown = sorted(set(options) - {"reset_mask"})
        if unknown:
            raise RMRError(f"expected no reset option but 'reset_mask', found {unknown}")
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise RMRError(
                f"expected a reset_mask of {self.num_envs} booleans, at least one of them True, "
                f"found {mask!r}"
            )
        if not self._begun and not mask.all():
            raise ResetNeeded("the first reset() must reset every environment: leave out the mask")
        return mask


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        choices = ", ".join(repr(choice.value) for choice in AutoresetMode)
        raise RMRError(f"expected an autoreset_mode of {choices}, found {mode!r}") from error
