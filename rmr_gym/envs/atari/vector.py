"""Many copies of a game stepped at once, here or in worker processes, into shared arrays."""

import signal
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import current_process
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode, VectorEnv, utils

from rmr_gym.core.actions import ACTION_NAMES
from rmr_gym.core.errors import RMRError, known_name, limit, whole_number
from rmr_gym.core.processes import worker_context
from rmr_gym.envs import arguments
from rmr_gym.envs.arguments import Arrays, Info, Seeds
from rmr_gym.envs.atari.env import PairedAtariEnv

INFO = ("lives", "episode_frame_number", "frame_number")
OUTCOME = ("rewards", "terminated", "truncated")
FINAL = "final_"
"""Beginning of the names of the arrays of an episode's last observation and info (SAME_STEP)."""

_COUNT = gym.spaces.Box(0, np.iinfo(np.int64).max, (), np.int64)
_REWARD = gym.spaces.Box(-np.inf, np.inf, (), np.float64)
_FLAG = gym.spaces.Box(0, 1, (), np.dtype(bool))  # pyright: ignore
_SECONDS_TO_END = 5.0
_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True)
class CopyPlan:
    """How each copy is made and played.

    Attributes:
        game: Name of the game.
        copies: Number of them.
        autoreset: What happens after an episode's end.
        max_episode_steps: Steps after which an episode is truncated; None for no limit.
        options: Further arguments of `rmr_gym.envs.atari.env.PairedAtariEnv`.
    """

    game: str
    copies: int
    autoreset: AutoresetMode
    max_episode_steps: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def space(self, observation: Mapping[str, gym.spaces.Space[Any]]) -> gym.spaces.Space[Any]:
        """Return the space of all that one copy reads and writes, beside its observation."""
        shown: dict[str, Any] = {**observation, **dict.fromkeys(INFO, _COUNT)}
        if self.autoreset is AutoresetMode.SAME_STEP:
            shown |= {f"{FINAL}{name}": part for name, part in shown.items()}
        outcome = dict(zip(OUTCOME, (_REWARD, _FLAG, _FLAG), strict=True))
        return gym.spaces.Dict({**shown, "actions": _COUNT, **outcome})


class Copies:
    """Some of the copies, stepped one after another in this process.

    Args:
        plan: How each copy is made and played.
        indices: Which of the plan's copies these are.
        shared: Memory for what they read and write; None for memory of this process.

    Attributes:
        arrays: What the copies read and write.
    """

    def __init__(self, plan: CopyPlan, indices: Sequence[int], shared: Any = None):
        self._plan = plan
        self._envs = {i: _make(plan) for i in indices}
        shown: Any = self._envs[indices[0]].observation_space
        space, count = plan.space(shown), plan.copies
        self.arrays: Any = (
            utils.create_empty_array(space, count)
            if shared is None
            else utils.read_from_shared_memory(space, shared, count)
        )

    def reset(self, seeds: Mapping[int, int | None]) -> None:
        """Begin an episode in each copy that is named."""
        for i, seed in seeds.items():
            self._begin(i, seed)
            self._end(i, 0.0, False, False)

    def step(self) -> None:
        """Move every copy on by the action that the shared array holds for it."""
        for i, env in self._envs.items():
            observation, *outcome, info = env.step(self.arrays["actions"][i])
            if self._plan.autoreset is AutoresetMode.SAME_STEP and (outcome[1] or outcome[2]):
                self._show(FINAL, i, observation, info)
                self._begin(i)
            else:
                self._show("", i, observation, info)
            self._end(i, *outcome)

    def render(self) -> list[Any]:
        """Return what each copy renders."""
        return [env.render() for env in self._envs.values()]

    def close(self) -> None:
        """Close the copies."""
        for env in self._envs.values():
            env.close()

    def _begin(self, i: int, seed: int | None = None) -> None:
        self._show("", i, *self._envs[i].reset(seed=seed))

    def _show(self, prefix: str, i: int, observation: Mapping[str, Any], info: Any) -> None:
        for name, value in (*observation.items(), *((name, info[name]) for name in INFO)):
            self.arrays[prefix + name][i] = value

    def _end(self, i: int, *outcome: Any) -> None:
        for name, value in zip(OUTCOME, outcome, strict=True):
            self.arrays[name][i] = value


def _make(plan: CopyPlan) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = PairedAtariEnv(plan.game, **plan.options)
    if plan.max_episode_steps is not None:
        env = gym.wrappers.TimeLimit(env, plan.max_episode_steps)
    return gym.wrappers.Autoreset(env) if plan.autoreset is AutoresetMode.NEXT_STEP else env


class CopiesInProcesses:
    """All copies, shared out among worker processes; none of them outlives this object.

    A worker that dies or raises ends them all.

    Args:
        plan: How each copy is made and played.
        space: Of what one of them reads and writes.
        workers: Number of processes, from 1 to the number of copies.

    Attributes:
        arrays: What the copies read and write, in memory that all processes share.
    """

    def __init__(self, plan: CopyPlan, space: gym.spaces.Space[Any], workers: int):
        self._plan = plan
        self._context = worker_context()
        shared: Any = utils.create_shared_memory(space, plan.copies, self._context)
        self.arrays: Any = utils.read_from_shared_memory(space, shared, plan.copies)
        self._shares = [part.tolist() for part in np.array_split(np.arange(plan.copies), workers)]
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._finish = weakref.finalize(self, _end_all, self._pipes, self._processes)
        try:
            for share in self._shares:
                self._start(share, shared)
            self._answers()
        except BaseException:
            self._finish()
            raise

    def reset(self, seeds: Mapping[int, int | None]) -> None:
        """Begin an episode in each copy that is named."""
        self._ask("reset", [{i: seeds[i] for i in own if i in seeds} for own in self._shares])

    def step(self) -> None:
        """Move every copy on by the action that the shared array holds for it."""
        self._ask("step")

    def render(self) -> list[np.ndarray | None]:
        """Return what each copy renders."""
        return [frame for frames in self._ask("render") for frame in frames]

    def close(self) -> None:
        """End the processes."""
        self._finish()

    def _start(self, share: list[int], shared: Any) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._plan, share, shared), daemon=True
        )
        self._pipes.append(ours)
        try:
            process.start()
        finally:
            theirs.close()
        self._processes.append(process)

    def _ask(self, command: str, arguments: Sequence[Any] | None = None) -> list[Any]:
        """Send a command to every worker and return what they answer.

        Whatever cuts this short, Ctrl-C included, ends the workers: their answers would be taken
        for those to the next command.
        """
        if not self._finish.alive:
            raise RMRError("the worker processes were ended: make the environments again")
        try:
            for worker, pipe in enumerate(self._pipes):
                with suppress(OSError):  # a dead worker is named where its answer is missed
                    pipe.send((command, () if arguments is None else (arguments[worker],)))
            return self._answers()
        except BaseException:
            self._finish()
            raise

    def _answers(self) -> list[Any]:
        answers = []
        for worker, pipe in enumerate(self._pipes):
            try:
                done, answer = pipe.recv()
            except (EOFError, OSError) as error:
                process = self._processes[worker]
                process.join(_SECONDS_TO_END)
                raise RMRError(
                    f"{self._name(worker)} died with exit code {process.exitcode} (killed, out of "
                    'memory, or started by a script without `if __name__ == "__main__":`); all of '
                    "them were ended: make the environments again, with workers=0 for no other "
                    "process"
                ) from error
            if not done:
                raise RMRError(
                    f"{self._name(worker)} failed: {answer}; all of them were ended: make the "
                    "environments again"
                )
            answers.append(answer)
        return answers

    def _name(self, worker: int) -> str:
        share = self._shares[worker]
        return (
            f"worker process {worker} of {len(self._shares)} that plays {self._plan.game} "
            f"(environments {share[0]} to {share[-1]})"
        )


def _serve(pipe: Connection, plan: CopyPlan, indices: Sequence[int], shared: Any) -> None:
    """Do what the pipe asks for until it is closed, also by its owner's death.

    The arguments are small: where they fill the pipe that starts a process, starting one that dies
    at once would never return.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(*_GONE):
        try:
            copies = Copies(plan, indices, shared)
            commands = {name: getattr(copies, name) for name in ("reset", "step", "render")}
            pipe.send((True, None))
            while True:
                command, arguments = pipe.recv()
                pipe.send((True, commands[command](*arguments)))
        except _GONE:
            raise
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


def _end_all(pipes: list[Connection], processes: list[Any]) -> None:
    """Close the pipes, which ends the processes; kill one that does not listen."""
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.join(_SECONDS_TO_END)
        if process.is_alive():
            process.kill()
            process.join()


def _processes(workers: int | None) -> int:
    """Return the number of processes that is asked for; a daemonic one may start none."""
    if workers is None and current_process().daemon:
        return 0
    return arguments.parallel("workers", workers, at_least=0)


class PairedAtariVectorEnv(VectorEnv[Any, Any, Any], EzPickle):
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
            processor, in a daemonic process, which may not start others, for 0; with 0 or 1,
            everything happens in this process.
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

    metadata: dict[str, Any] = PairedAtariEnv.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}

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
        own = {"workers": workers, "copy": copy, "autoreset_mode": autoreset_mode, **options}
        EzPickle.__init__(self, game, num_envs, max_episode_steps=max_episode_steps, **own)
        self.num_envs = whole_number("num_envs", num_envs, at_least=1)
        steps = limit("max_episode_steps", max_episode_steps)
        workers = min(_processes(workers), self.num_envs)
        single = PairedAtariEnv(game, **options)
        self.game, self.pixels = single.game, single.options.pixels
        self.render_mode = single.render_mode
        name = getattr(autoreset_mode, "value", autoreset_mode)
        modes = [mode.value for mode in AutoresetMode]
        self._mode = AutoresetMode(known_name("autoreset_mode", name, modes))
        self.metadata = {**single.metadata, "autoreset_mode": self._mode}
        space: Any = single.observation_space
        self.single_observation_space, self.single_action_space = space, single.action_space
        self.observation_space = utils.batch_space(space, self.num_envs)
        self.action_space = utils.batch_space(single.action_space, self.num_envs)
        self._copy, self._begun = copy, False
        plan = CopyPlan(self.game.name, self.num_envs, self._mode, steps, options)
        self._copies = (
            CopiesInProcesses(plan, plan.space(space), workers)
            if workers > 1
            else Copies(plan, range(self.num_envs))
        )
        self._arrays = self._copies.arrays

    def reset(self, *, seed: Seeds = None, options: Info | None = None) -> tuple[Arrays, Info]:
        """Begin an episode in every environment.

        Args:
            seed: Of environment 0, environment i having seed + i; or one seed an environment; None
                to go on with the generators as they are.
            options: ``reset_mask``: bool[num_envs], the environments to be reset; the others stay
                where they are.
        """
        arguments.check_open(self)
        mask = self._reset_mask(options or {})
        seeds = arguments.all_seeds(seed, self.num_envs)
        self._copies.reset({i: seeds[i] for i in np.flatnonzero(mask).tolist()})
        self._begun = True
        return self._observations(), self._infos(mask)

    def step(self, actions: Any) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Take one step in every environment; see the class for what follows an episode's end."""
        arguments.check_open(self)
        if not self._begun:
            raise ResetNeeded("call reset() before step()")
        chosen = arguments.all_actions(actions, self.num_envs, len(ACTION_NAMES))
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
        arguments.check_open(self)
        return None if self.render_mode is None else tuple(self._copies.render())

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes."""
        self._copies.close()

    def get_action_meanings(self) -> list[str]:
        """Return the names of the 18 actions of one environment."""
        return list(ACTION_NAMES)

    def _observations(self) -> dict[str, np.ndarray]:
        views = {name: self._arrays[name] for name in ("ram", "pixels")}
        return {name: array.copy() for name, array in views.items()} if self._copy else views

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
        last = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(over):
            last[i] = {name: self._arrays[FINAL + name][i].copy() for name in ("ram", "pixels")}
        final = {"final_obs": last, "_final_obs": over, "_final_info": over.copy()}
        return {**final, "final_info": self._infos(over, FINAL)}

    def _reset_mask(self, options: dict[str, Any]) -> np.ndarray:
        for name in options:
            known_name("reset option", name, ["reset_mask"])
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise RMRError(
                f"expected a reset_mask of {self.num_envs} booleans, at least one of them True, "
                f"found {mask!r}"
            )
        if not self._begun and not mask.all():
            raise ResetNeeded("the first reset() must reset every environment: leave out the mask")
        return mask
