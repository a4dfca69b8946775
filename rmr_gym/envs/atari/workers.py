"""Copies of a game that are stepped here or in worker processes and write into shared arrays."""

import signal
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from rmr_gym.core.errors import RMRError
from rmr_gym.envs.atari.env import PairedAtariEnv

Arrays = dict[str, np.ndarray]
Layout = Mapping[str, tuple[tuple[int, ...], str]]

INFO = ("lives", "episode_frame_number", "frame_number")
FINAL = "final_"
"""Beginning of the names of the arrays of an episode's last observation and info (SAME_STEP)."""

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

    def layout(self, observation: Mapping[str, tuple[int, ...]]) -> Layout:
        """Return shape and type of the arrays that the copies read and write.

        Args:
            observation: Shape of each part of a single observation; all are of bytes.
        """
        shown = {name: (shape, "uint8") for name, shape in observation.items()}
        rows = {**shown, **dict.fromkeys(INFO, ((), "int64"))}
        if self.autoreset is AutoresetMode.SAME_STEP:
            rows |= {f"{FINAL}{name}": row for name, row in rows.items()}
        rows |= {"actions": ((), "int64"), "rewards": ((), "float64")}
        rows |= {"terminated": ((), "bool"), "truncated": ((), "bool")}
        return {name: ((self.copies, *shape), dtype) for name, (shape, dtype) in rows.items()}


class Copies:
    """Some of the copies, stepped one after another in this process.

    Attributes:
        arrays: What the copies read and write.
    """

    def __init__(self, plan: Plan, arrays: Arrays, indices: Sequence[int]):
        self._plan, self.arrays = plan, arrays
        self._envs = {i: PairedAtariEnv(plan.game, **plan.options) for i in indices}
        self._elapsed = dict.fromkeys(indices, 0)

    def reset(self, seeds: Mapping[int, int | None]) -> None:
        """Begin an episode in each copy that is named."""
        for i, seed in seeds.items():
            self._begin(i, seed)

    def step(self) -> None:
        """Move every copy on by the action that the shared array holds for it."""
        for i, env in self._envs.items():
            if self._plan.autoreset is AutoresetMode.NEXT_STEP and self._over(i):
                self._begin(i)
            else:
                self._play(i, env)

    def render(self) -> list[np.ndarray | None]:
        """Return what each copy renders."""
        return [env.render() for env in self._envs.values()]

    def close(self) -> None:
        """Close the copies."""
        for env in self._envs.values():
            env.close()

    def _over(self, i: int) -> bool:
        return bool(self.arrays["terminated"][i] or self.arrays["truncated"][i])

    def _begin(self, i: int, seed: int | None = None) -> None:
        self._show("", i, *self._envs[i].reset(seed=seed))
        self._elapsed[i] = 0
        self._end(i, 0.0, False, False)

    def _play(self, i: int, env: PairedAtariEnv) -> None:
        observation, reward, terminated, truncated, info = env.step(self.arrays["actions"][i])
        self._elapsed[i] += 1
        truncated = truncated or self._elapsed[i] == self._plan.max_episode_steps
        if self._plan.autoreset is AutoresetMode.SAME_STEP and (terminated or truncated):
            self._show(FINAL, i, observation, info)
            self._begin(i)
        else:
            self._show("", i, observation, info)
        self._end(i, reward, terminated, truncated)

    def _show(self, prefix: str, i: int, observation: Mapping[str, Any], info: Any) -> None:
        for name, value in (*observation.items(), *((name, info[name]) for name in INFO)):
            self.arrays[prefix + name][i] = value

    def _end(self, i: int, reward: float, terminated: bool, truncated: bool) -> None:
        self.arrays["rewards"][i] = reward
        self.arrays["terminated"][i] = terminated
        self.arrays["truncated"][i] = truncated


class CopiesInProcesses:
    """All copies, shared out among worker processes; none of them outlives this object.

    A worker that dies or raises ends them all.

    Args:
        plan: How each copy is made and played.
        layout: Of the arrays.
        workers: Number of processes, from 1 to the number of copies.

    Attributes:
        arrays: What the copies read and write, in memory that all processes share.
    """

    def __init__(self, plan: Plan, layout: Layout, workers: int):
        self._plan = plan
        self._context = get_context("spawn")
        buffers = {name: self._context.RawArray("B", _size(*row)) for name, row in layout.items()}
        self.arrays = _views(layout, buffers)
        self._shares = [part.tolist() for part in np.array_split(np.arange(plan.copies), workers)]
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._finish = weakref.finalize(self, _end_all, self._pipes, self._processes)
        try:
            for share in self._shares:
                self._start(plan, layout, buffers, share)
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

    def _start(
        self, plan: Plan, layout: Layout, buffers: Mapping[str, Any], share: list[int]
    ) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, plan, layout, buffers, share), daemon=True
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


def make_copies(plan: Plan, layout: Layout, workers: int) -> Copies | CopiesInProcesses:
    """Return all copies, in this process alone where more than one worker is not asked for."""
    if workers > 1:
        return CopiesInProcesses(plan, layout, workers)
    arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.items()}
    return Copies(plan, arrays, range(plan.copies))


def _size(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _views(layout: Layout, buffers: Mapping[str, Any]) -> Arrays:
    return {
        name: np.frombuffer(buffers[name], dtype).reshape(shape)
        for name, (shape, dtype) in layout.items()
    }


def _serve(
    pipe: Connection, plan: Plan, layout: Layout, buffers: Mapping[str, Any], indices: Sequence[int]
) -> None:
    """Do what the pipe asks for until it is closed, also by its owner's death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(*_GONE):
        try:
            copies = Copies(plan, _views(layout, buffers), indices)
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
