"""Sweeps while processes are killed: nothing finished is lost or computed twice."""

import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from squares import kill_self, lines, square, total

from rmr_gym.core.errors import RMRError
from rmr_gym.runs.store import Place, Store
from rmr_gym.runs.sweep import ATTEMPTS, Job, run_tasks, traces_of

PATIENCE = 120
"""Seconds after which something hangs, on a busy machine too."""

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(Path(__file__).parent)]),
    "OMP_NUM_THREADS": "1",
}


def traces(store, task):
    return traces_of(store, Job(task.key, task.title, (task,)))


def bytes_of(store, tasks):
    """What results consist of, without the time that each took."""
    records = [store.record(task) | {"seconds": 0} for task in tasks]
    tensors = [(store.folder(task) / "tensors.safetensors").read_bytes() for task in tasks]
    return records, tensors


def kill_some(folder, times, stopped, seed):
    """Kill the process of a random running job, again and again, never twice for one job.

    Returns:
        The jobs that were at work when they were killed, and how many processes were killed late.
    """
    rng, killed, late = random.Random(seed), set(), 0
    while len(killed) + late < times and not stopped.is_set():
        time.sleep(0.02)
        markers = [path for path in folder.glob("running *") if path.name not in killed]
        if markers:
            chosen = rng.choice(markers)
            try:
                os.kill(int(chosen.read_text()), signal.SIGKILL)
            except (OSError, ValueError):
                continue
            time.sleep(0.02)
            if chosen.exists():
                killed.add(chosen.name)
                chosen.unlink()
            else:
                late += 1
    return killed, late


@pytest.mark.parametrize("seed", [0, 1])
def test_killing_random_workers_changes_no_byte(store, tmp_path, seed):
    """As often as one job may die: those that wait for a killed worker count as dead with it."""
    here, stopped, kills = Place(tmp_path), threading.Event(), ATTEMPTS - 1
    other = Store(tmp_path / "undisturbed")
    parts = [square(value, here, 0.3) for value in range(16)]
    tasks = [total(parts), *parts]
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill_some, tmp_path, kills, stopped, seed)
        outcomes = run_tasks(tasks, store, workers=2)
        stopped.set()
        killed, late = killer.result()
    assert len(killed) + late == kills
    assert all(outcome.error is None for outcome in outcomes.values())
    attempts = {task.title: traces(store, task).attempts for task in parts}
    assert 0 <= sum(attempts.values()) - len(parts) - len(killed) <= late
    assert len(lines(tmp_path)) <= len(parts) + kills
    run_tasks(tasks, other)
    assert bytes_of(store, tasks) == bytes_of(other, tasks)


def test_a_poisoned_job_is_reported_and_stops_no_other(store, tmp_path):
    """Its first deaths are taken for granted, to save the time of the workers' restarts."""
    tasks = [kill_self(), *(square(value, Place(tmp_path)) for value in range(3))]
    for _ in range(ATTEMPTS - 3):
        traces(store, tasks[0]).start()
    outcomes = run_tasks(tasks, store, workers=2)
    assert f"died {ATTEMPTS} times in a row" in str(outcomes[tasks[0].key].error)
    assert [outcomes[task.key].error for task in tasks[1:]] == [None] * 3
    assert traces(store, tasks[0]).attempts == ATTEMPTS
    assert f"died {ATTEMPTS} times" in traces(store, tasks[0]).failure


SCRIPT = """
    import sys
    from pathlib import Path
    from squares import kill_self, square
    from rmr_gym.runs.store import Place, Store
    from rmr_gym.runs.sweep import run_tasks

    if __name__ == "__main__":
        folder, workers, poison, *scheduler = sys.argv[1:]
        store, here = Store(Path(folder) / "store"), Place(Path(folder))
        tasks = [kill_self()] if poison == "poison" else []
        tasks += [square(value, here, 0.2) for value in range(6)]
        run_tasks(
            tasks, store, workers=int(workers), scheduler=scheduler[0] if scheduler else None
        )
"""


@pytest.fixture
def start(tmp_path):
    script = tmp_path / "drive.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def process(workers, poison="", *scheduler, **options):
        arguments = [sys.executable, script, tmp_path, workers, poison, *scheduler]
        return subprocess.Popen(
            list(map(str, arguments)),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    return process


def results(store):
    return {path: path.read_bytes() for path in store.root.glob("square/[!.]*/*")}


def wait_for_results(store, count):
    deadline = time.monotonic() + PATIENCE
    while len(list(store.root.glob("square/[!.]*/record.json"))) < count:
        assert time.monotonic() < deadline, "the sweep does not go on"
        time.sleep(0.02)


def computed(folder):
    return sorted(map(int, lines(folder)))


def squares(folder):
    return [square(value, Place(folder), 0.2) for value in range(6)]


def finish(store, folder):
    """Run the same sweep again; all is there in the end."""
    run_tasks(squares(folder), store)
    assert all(store.has(task) for task in squares(folder))


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_then_the_rest_on_the_next_run(start, store, tmp_path, workers):
    process = start(workers, start_new_session=True)
    wait_for_results(store, 2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    before = results(store)
    assert 2 <= len({path.parent for path in before}) < 6
    assert not any(traces(store, task).crashes for task in squares(tmp_path))
    finish(store, tmp_path)
    assert computed(tmp_path) == list(range(6))
    assert results(store).items() >= before.items()


def test_a_killed_driver_goes_on_where_it_was(start, store, tmp_path):
    process = start(2)
    wait_for_results(store, 2)
    process.kill()
    process.communicate()
    before = results(store)
    finish(store, tmp_path)
    assert set(computed(tmp_path)) == set(range(6))
    assert results(store).items() >= before.items()


def test_a_job_that_kills_the_only_process_comes_last_and_is_reported_in_the_end(
    start, store, tmp_path
):
    """The first death costs the sweep; from then on that job comes last."""
    deadly = traces(store, kill_self())
    for deaths, done in ((1, []), (2, list(range(6)))):
        process = start(1, "poison")
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL
        assert (deadly.crashes, computed(tmp_path)) == (deaths, done)
    while deadly.crashes < ATTEMPTS:
        deadly.start()
    run_tasks([kill_self()], store)
    assert f"died {ATTEMPTS} times in a row" in deadly.failure


def test_a_killed_scheduler_is_said_and_the_rest_comes_on_the_next_run(start, store, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = "from distributed.cli.dask_{0} import main; main()"
    own = ("--port", str(port), "--host", "127.0.0.1", "--dashboard-address", ":0")
    worker_own = (address, "--nthreads", "1", "--no-dashboard", "--death-timeout", "20")
    scheduler, worker = (
        subprocess.Popen(
            [sys.executable, "-c", dask.format(part), *options],
            env=ENVIRONMENT,
            stderr=subprocess.DEVNULL,
        )
        for part, options in (("scheduler", own), ("worker", (*worker_own, "--no-nanny")))
    )
    try:
        driver = start(1, "", address)
        wait_for_results(store, 2)
        scheduler.kill()
        error = driver.communicate(timeout=PATIENCE)[1]
        assert driver.returncode != 0
        assert "went away: start it again" in error
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
    finish(store, tmp_path)
    assert len(computed(tmp_path)) <= 7


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:9", r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        ("nonsense", "expected an address like tcp://host:8786"),
    ],
)
def test_no_scheduler_at_the_address_is_said(store, tmp_path, monkeypatch, address, message):
    monkeypatch.setattr("rmr_gym.runs.cluster.CONNECT_SECONDS", 0.5)
    with pytest.raises(RMRError, match=message):
        run_tasks([square(1, Place(tmp_path))], store, scheduler=address)
