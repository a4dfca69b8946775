"""The command: compute, write the page, say in short what it shows."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # loading takes some seconds; workers read this file too
    print("Recording, P, RAM from pixels, RMR beside C-SWM, an agent: about 90 s on two cores.")
    sys.stdout.flush()

from demo.grid import Demo
from demo.report import demo
from rmr_gym.commands.console import progress_bars, warn
from rmr_gym.core.errors import RMRError
from rmr_gym.core.processes import keep_freed_memory
from rmr_gym.experiments.base import run
from rmr_gym.report.page import write_report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="demo", description=Demo.__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of what is written")
    parser.add_argument("--workers", type=int, help="processes side by side; default: one a core")
    keep_freed_memory()
    try:
        experiment = Demo(**Demo.proposals(), **vars(parser.parse_args(arguments)))
        with progress_bars() as progress_for:
            out, problems = run(experiment, progress_for, "make demo")
        page, text = write_report(out, demo)
    except RMRError as error:
        warn(f"demo: {error}", style="bold red")
        sys.exit(2)
    except KeyboardInterrupt:
        warn("stopped; run the same command again and it goes on where it was")
        sys.exit(130)
    print(f"\n{text}\n", *(f"note: {problem}" for problem in problems), f"page: {page}", sep="\n")


if __name__ == "__main__":
    main()
