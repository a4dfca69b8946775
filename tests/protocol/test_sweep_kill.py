"""Sweeps while processes are killed: nothing finished is lost or computed twice."""

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from rmr_gym.core.errors import RMRError
from rmr_gym.protocol.sweep import Cell, run_cells
from rmr_gym.protocol.sweep_folder import ATTEMPTS, SweepFolder

PATIENCE = 120
"""Seconds after which something hangs, on a busy machine too."""

ENVIRONMENT = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}


def slow_square(value, seconds, running):
    """Leave a file with the process's id while at work, and a line for every time it finished."""
    marker = Path(running) / f"{value}"
    marker.write_text(str(os.getpid()))
    time.sleep(seconds)
    with (Path(running) / "computed").open("a") as file:
        file.write(f"{value}\n")
    marker.unlink()
    return {"square": value * value / 7}


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def cells_of(running, count=24, seconds=0.15):
    running.mkdir(exist_ok=True)
    return [Cell(f"square {n}", slow_square, (n, seconds, str(running))) for n in range(count)]


def table_of(outcomes):
    return "".join(f"{outcome.key},{outcome.value['square']!r}\n" for outcome in outcomes)


def kill_some(running, times, stopped):
    """Kill the process of a random running cell, again and again, never twice for one cell."""
    rng, killed = random.Random(0), set()
    while len(killed) < times and not stopped.is_set():
        time.sleep(0.02)
        markers = [path for path in running.glob("[0-9]*") if path.name not in killed]
        if markers:
            chosen = rng.choice(markers)
            try:
                os.kill(int(chosen.read_text()), signal.SIGKILL)
            except (OSError, ValueError):
                continue
            killed.add(chosen.name)
            chosen.unlink(missing_ok=True)
    return killed


def states(folder):
    with (folder / "jobs.csv").open(newline="") as file:
        return {row["key"]: row for row in csv.DictReader(file)}


def test_killing_random_workers_changes_no_byte(tmp_path):
    undisturbed = table_of(run_cells(cells_of(tmp_path / "a", seconds=0), folder=tmp_path / "one"))
    cells, killed, stopped = cells_of(tmp_path / "b"), set(), threading.Event()
    killer = threading.Thread(
        target=lambda: killed.update(kill_some(tmp_path / "b", 20, stopped)), daemon=True
    )
    killer.start()
    outcomes = run_cells(cells, workers=2, folder=tmp_path / "two")
    stopped.set()
    killer.join()
    assert len(killed) == 20
    assert table_of(outcomes) == undisturbed
    computed = (tmp_path / "b" / "computed").read_text().split()
    assert len(computed) <= len(cells) + len(killed)
    assert sum(int(row["attempts"]) for row in states(tmp_path / "two").values()) > len(cells)


def test_a_poisoned_cell_is_reported_and_stops_no_other(tmp_path):
    cells = [Cell("poison", kill_self, ()), *cells_of(tmp_path / "a", 3, 0)]
    outcomes = run_cells(cells, workers=2, folder=tmp_path / "out")
    assert f"died {ATTEMPTS} times in a row" in str(outcomes[0].error)
    assert [outcome.error for outcome in outcomes[1:]] == [None] * 3
    assert states(tmp_path / "out")["poison"]["state"] == "failed"
    assert states(tmp_path / "out")["poison"]["attempts"] == str(ATTEMPTS)


SCRIPT = """
    import os, signal, sys, time
    from pathlib import Path
    from rmr_gym.protocol.sweep import Cell, run_cells

    def square(value, seconds, out):
        with (Path(out) / "starts").open("a") as file:
            file.write(f"{value}\\n")
        time.sleep(seconds)
        with (Path(out) / "computed").open("a") as file:
            file.write(f"{value}\\n")
        return value * value

    def kill_self():
        os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        out, workers, poison, *scheduler = sys.argv[1:]
        Path(out).mkdir(exist_ok=True)
        cells = [Cell("poison", kill_self, ())] if poison == "poison" else []
        cells += [Cell(f"square {n}", square, (n, 0.3, out)) for n in range(6)]
        outcomes = run_cells(
            cells, workers=int(workers), folder=Path(out),
            scheduler=scheduler[0] if scheduler else None,
        )
        print([outcome.value for outcome in outcomes])
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "squares.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env=ENVIRONMENT | {"PYTHONPATH": f".:{Path(arguments[0]).parent}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for_records(out, count):
    deadline = time.monotonic() + PATIENCE
    while len(list(out.glob("cells/*.json"))) < count:
        assert time.monotonic() < deadline, "the sweep does not go on"
        time.sleep(0.02)


def computed(out):
    return sorted(map(int, (out / "computed").read_text().split()))


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_then_the_rest_on_the_next_run(script, tmp_path, workers):
    out = tmp_path / "out"
    process = start(script, out, workers, "", start_new_session=True)
    wait_for_records(out, 2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    before = {path.name: path.read_bytes() for path in out.glob("cells/*.json")}
    assert 2 <= len(before) < 6
    assert not any(SweepFolder(out).crashes(f"square {n}") for n in range(6))
    assert sum(row["state"] == "done" for row in states(out).values()) == len(before)
    again = start(script, out, workers, "")
    assert again.communicate(timeout=PATIENCE)[0] == "[0, 1, 4, 9, 16, 25]\n"
    assert computed(out) == list(range(6))
    for name, content in before.items():
        assert (out / "cells" / name).read_bytes() == content


def test_a_killed_driver_goes_on_where_it_was(script, tmp_path):
    out = tmp_path / "out"
    process = start(script, out, 2, "")
    wait_for_records(out, 2)
    process.kill()
    process.communicate()
    assert start(script, out, 2, "").communicate(timeout=PATIENCE)[0] == "[0, 1, 4, 9, 16, 25]\n"
    assert set(computed(out)) == set(range(6))
    kept = [json.loads(path.read_bytes()) for path in out.glob("cells/*.json")]
    assert len(kept) == 6


def test_a_cell_that_kills_the_only_process_comes_last_and_is_reported_in_the_end(script, tmp_path):
    out = tmp_path / "out"
    for _ in range(ATTEMPTS):
        process = start(script, out, 1, "poison")
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL
    assert computed(out) == list(range(6))
    assert (
        start(script, out, 1, "poison").communicate(timeout=PATIENCE)[0]
        == "[None, 0, 1, 4, 9, 16, 25]\n"
    )
    assert "died" in states(out)["poison"]["error"]


def test_a_killed_scheduler_is_said_and_the_rest_comes_on_the_next_run(script, tmp_path):
    out = tmp_path / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = "from distributed.cli.dask_{0} import main; main()"

    worker_options = ("--nthreads", "1", "--no-dashboard", "--death-timeout", "20")

    options = ("--port", str(port), "--host", "127.0.0.1", "--dashboard-address", ":0")
    scheduler, worker = (
        subprocess.Popen(
            [sys.executable, "-c", dask.format(part), *arguments],
            env=ENVIRONMENT | {"PYTHONPATH": f".:{tmp_path}"},
            stderr=subprocess.DEVNULL,
        )
        for part, arguments in (("scheduler", options), ("worker", (address, *worker_options)))
    )
    try:
        driver = start(script, out, 1, "", address)
        wait_for_records(out, 2)
        scheduler.kill()
        error = driver.communicate(timeout=PATIENCE)[1]
        assert driver.returncode != 0
        assert "went away: start it again" in error
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    rerun = start(script, out, 1, "").communicate(timeout=PATIENCE)
    assert rerun[0] == "[0, 1, 4, 9, 16, 25]\n"
    assert len(computed(out)) <= 7


def test_no_scheduler_at_the_address_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("rmr_gym.protocol.sweep_cluster.CONNECT_SECONDS", 0.5)
    cells = cells_of(tmp_path / "a", 1)
    with pytest.raises(RMRError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_cells(cells, scheduler="tcp://127.0.0.1:9", folder=tmp_path / "out")
    with pytest.raises(RMRError, match="expected an address like tcp://host:8786"):
        run_cells(cells, scheduler="nonsense", folder=tmp_path / "out")
