"""Copies of a game that are stepped here or in worker processes and write into shared arrays."""

import signal
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import (
    create_empty_array,
    create_shared_memory,
    read_from_shared_memory,
)
from gymnasium.wrappers import Autoreset, TimeLimit

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.env import PairedAtariEnv

INFO = ("lives", "episode_frame_number", "frame_number")
OUTCOME = ("rewards", "terminated", "truncated")
FINAL = "final_"
"""Beginning of the names of the arrays of an episode's last observation and info (SAME_STEP)."""

_COUNT = spaces.Box(0, np.iinfo(np.int64).max, (), np.int64)
_REWARD = spaces.Box(-np.inf, np.inf, (), np.float64)
_FLAG = spaces.Box(0, 1, (), np.dtype(bool))  # pyright: ignore
_SECONDS_TO_END = 5.0
_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True)
class Plan:
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

    def space(self, observation: Mapping[str, spaces.Space[Any]]) -> spaces.Space[Any]:
        """Return the space of all that one copy reads and writes, beside its observation."""
        shown: dict[str, Any] = {**observation, **dict.fromkeys(INFO, _COUNT)}
        if self.autoreset is AutoresetMode.SAME_STEP:
            shown |= {f"{FINAL}{name}": part for name, part in shown.items()}
        outcome = dict(zip(OUTCOME, (_REWARD, _FLAG, _FLAG), strict=True))
        return spaces.Dict({**shown, "actions": _COUNT, **outcome})


class Copies:
    """Some of the copies, stepped one after another in this process.

    Args:
        plan: How each copy is made and played.
        indices: Which of the plan's copies these are.
        shared: Memory for what they read and write; None for memory of this process.

    Attributes:
        arrays: What the copies read and write.
    """

    def __init__(self, plan: Plan, indices: Sequence[int], shared: Any = None):
        self._plan = plan
        self._envs = {i: _make(plan) for i in indices}
        shown: Any = self._envs[indices[0]].observation_space
        space, count = plan.space(shown), plan.copies
        self.arrays: Any = (
            read_from_shared_memory(space, shared, count)
            if shared is not None
            else create_empty_array(space, count)
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


def _make(plan: Plan) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = PairedAtariEnv(plan.game, **plan.options)
    if plan.max_episode_steps is not None:
        env = TimeLimit(env, plan.max_episode_steps)
    return Autoreset(env) if plan.autoreset is AutoresetMode.NEXT_STEP else env


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

    def __init__(self, plan: Plan, space: spaces.Space[Any], workers: int):
        self._plan = plan
        self._context = get_context("spawn")
        shared: Any = create_shared_memory(space, plan.copies, self._context)
        self.arrays: Any = read_from_shared_memory(space, shared, plan.copies)
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
                with self._deaths_named(worker):
                    pipe.send((command, () if arguments is None else (arguments[worker],)))
            return self._answers()
        except BaseException:
            self._finish()
            raise

    def _answers(self) -> list[Any]:
        answers = []
        for worker, pipe in enumerate(self._pipes):
            with self._deaths_named(worker):
                done, answer = pipe.recv()
            if not done:
                raise RMRError(
                    f"{self._name(worker)} failed: {answer}; all of them were ended: make the "
                    "environments again"
                )
            answers.append(answer)
        return answers

    @contextmanager
    def _deaths_named(self, worker: int) -> Iterator[None]:
        """Turn a broken pipe into the error that names the worker."""
        try:
            yield
        except (EOFError, OSError) as error:
            process = self._processes[worker]
            process.join(_SECONDS_TO_END)
            raise RMRError(
                f"{self._name(worker)} died with exit code {process.exitcode} (killed, out of "
                'memory, or started by a script without `if __name__ == "__main__":`); all of them '
                "were ended: make the environments again, with workers=0 for no other process"
            ) from error

    def _name(self, worker: int) -> str:
        share = self._shares[worker]
        return (
            f"worker process {worker} of {len(self._shares)} that plays {self._plan.game} "
            f"(environments {share[0]} to {share[-1]})"
        )


def make_copies(plan: Plan, space: spaces.Space[Any], workers: int) -> Copies | CopiesInProcesses:
    """Return all copies, in this process alone where more than one worker is not asked for."""
    if workers > 1:
        return CopiesInProcesses(plan, space, workers)
    return Copies(plan, range(plan.copies))


def _serve(pipe: Connection, plan: Plan, indices: Sequence[int], shared: Any) -> None:
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
