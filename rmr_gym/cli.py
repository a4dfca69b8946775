"""`rmr-gym`: the command line; a command's modules are imported when it is called."""

import os
import select
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Union

from rmr_gym.commands.console import carry_out, err_console, say, warn, write_any_sign
from rmr_gym.core.errors import RMRError, known_name
from rmr_gym.core.processes import keep_freed_memory


class Command(NamedTuple):
    """A command: its module in `rmr_gym.commands`, what carries it out, and a line about it.

    Attributes:
        module: Name of the module.
        what: Name of what `rmr_gym.commands.console.carry_out` takes.
        about: For the list of commands.
        words: Whether it is a function of what was typed instead.
    """

    module: str
    what: str
    about: str
    words: bool = False


COMMANDS = {
    "record": Command("dataset", "record", "record a game or another environment, losslessly"),
    "pretrain": Command("stages", "pretrain", "train a processor P on a data set's RAM", True),
    "train": Command("stages", "train", "train a pixel encoder through P", True),
    "probe": Command("stages", "Probe", "read RAM bits linearly off an encoder"),
    "run": Command("experiments", "run", "run an experiment; `rmr-gym run` lists them", True),
    "status": Command("experiments", "status", "tell how far a run is"),
    "report": Command("experiments", "report", "write tables, figures and a page of a run"),
    "dataset": Command("dataset", "DATASET", "look into, check, exchange and join data sets"),
    "players": Command("players", "PLAYERS", "train, measure and list the recorded players"),
    "encoder": Command("stages", "ENCODER", "make, show and list pretrained encoders"),
    "agent": Command("agent", "AGENT", "train, measure and watch agents"),
    "pictures": Command(
        "pictures", "PICTURES", "films of balls, rollouts of arms, world models at work"
    ),
    "doctor": Command("doctor", "doctor", "tell what this machine has and what a lack costs"),
}
"""Commands by name, in the order of the help."""

COMPLETION, SHELLS = "--tyro-print-completion", ("bash", "zsh", "tcsh", "fish")
"""What asks for a script of completion, and of which shells tyro has one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `rmr-gym`.

    The exit code is 2 for input that the user can mend, 130 after Ctrl-C, and 141, in silence,
    where whoever read the output has closed it, as in ``rmr-gym --help | head -1``.
    """
    words = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            _run([_with_home(word) for word in words])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _output_closed():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        sys.exit(141)


def _with_home(word: str) -> str:
    """Expand ``--out=~/x``, in which shells leave ~ as it is."""
    option, equals, value = word.partition("=")
    return f"{option}={Path(value).expanduser()}" if equals and value.startswith("~") else word


def _output_closed() -> bool:
    """Tell this from other broken pipes, such as that of a worker which died."""
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


def _run(arguments: Sequence[str]) -> None:
    keep_freed_memory()
    write_any_sign()
    try:
        _dispatch(arguments)
    except RMRError as error:
        warn(f"rmr-gym: {error}", style="bold red")
        sys.exit(2)
    except KeyboardInterrupt:
        err_console.print("stopped; run the same command again and it goes on where it was")
        sys.exit(130)


def _dispatch(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help()
        sys.exit(0)
    if arguments[0] == "--version":
        from rmr_gym import __version__  # noqa: PLC0415

        say(f"rmr-gym {__version__}")
        return
    name, *rest = arguments
    if name == COMPLETION:
        _print_completion(known_name("shell", "".join(rest), SHELLS))
        return
    if name == "--tensorboard":
        if len(rest) < 2:
            raise RMRError("expected a folder and a command behind --tensorboard")
        os.environ["RMR_GYM_TENSORBOARD"], name, *rest = str(Path(rest[0]).absolute()), *rest[1:]
    command = COMMANDS[known_name("command", name, COMMANDS)]
    what: Any = getattr(_module(command), command.what)
    if command.words:
        what(rest)
    else:
        carry_out(what, rest, f"rmr-gym {name}")


def _module(command: Command) -> Any:
    return import_module(f"rmr_gym.commands.{command.module}")


def _print_completion(shell: str) -> None:
    """Let tyro print the script of all commands, as it does for one."""
    import tyro  # noqa: PLC0415

    from rmr_gym.experiments import experiments, part_of  # noqa: PLC0415

    def choice(commands: Mapping[str, Any]) -> Any:
        named = (
            Annotated[choice(command), tyro.conf.subcommand(name)]
            if isinstance(command, Mapping)
            else Annotated[Any, tyro.conf.subcommand(name, constructor=command)]
            for name, command in commands.items()
        )
        return Union[tuple(named)]  # noqa: UP007

    parts: dict[str, Any] = {
        name: getattr(_module(command), name.capitalize() if command.words else command.what, None)
        for name, command in COMMANDS.items()
    }
    parts["run"] = {name.replace("_", "-"): part_of(name, "grid") for name in experiments()}
    tyro.cli(choice(parts), prog="rmr-gym", args=[COMPLETION, shell])


def _print_help() -> None:
    say(
        "usage: rmr-gym COMMAND [options]",
        "",
        "Reasoning-Modulated Representations: record, train, probe, compare.",
        "`rmr-gym COMMAND --help` tells the options of a command, `rmr-gym --version` the version,",
        "`rmr-gym --tyro-print-completion bash` (zsh, tcsh, fish) prints what completes them,",
        "`rmr-gym --tensorboard FOLDER COMMAND ...` logs every training for TensorBoard.",
        "",
        *(f"  {name:13}{command.about}" for name, command in COMMANDS.items()),
    )


if __name__ == "__main__":
    main()
