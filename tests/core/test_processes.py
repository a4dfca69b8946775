import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rmr_gym.core import files
from rmr_gym.core.errors import RMRError
from rmr_gym.core.processes import KEPT, in_processes, interrupts_later

COUNT = """
import resource
import sys
import torch
if sys.argv[1] == "kept":
    from rmr_gym.core.processes import keep_freed_memory
    keep_freed_memory()
torch.set_num_threads(1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    (torch.ones(4_000_000) + 1).sum()
for _ in range(3):
    step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""


def faults(kind, environment):
    command = [sys.executable, "-c", COUNT, kind]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(printed.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_kept_memory_spares_page_faults():
    bare = {name: value for name, value in os.environ.items() if name not in KEPT}
    kept = {name: str(value) for name, value in KEPT.items()}
    usual = faults("default", bare | {"MALLOC_TRIM_THRESHOLD_": "65536"})  # as Dask has it
    assert usual > 100
    assert faults("kept", bare) < usual / 5
    assert faults("default", bare | kept) < usual / 5


def test_an_interrupt_waits_for_the_end():
    ended = []
    handler = signal.getsignal(signal.SIGINT)

    @interrupts_later()
    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))  # instructions between which an interrupt would come
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ended
    assert signal.getsignal(signal.SIGINT) is handler


def test_threads_and_handlers_of_others_are_left_alone():
    met = []

    def elsewhere():
        with interrupts_later():
            met.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert met == [signal.getsignal(signal.SIGINT)]


def hold_and_write(folder, turn):
    """End one process early; let the other take its time over a file, as a slow disk does."""
    if turn == 0:
        while not (folder / "begun").exists():
            time.sleep(0.01)
        os._exit(1)
    with files._writing:
        (folder / "begun").touch()
        time.sleep(1.0)
        (folder / "whole").touch()


def test_a_pool_that_broke_leaves_files_that_are_being_written_to_their_writers(tmp_path):
    with pytest.raises(RMRError, match="died"):
        list(in_processes(hold_and_write, [(tmp_path, 0), (tmp_path, 1)], 2, "wrote"))
    assert (tmp_path / "whole").exists()


def start_one_that_stays(kind):
    """Leave a process behind, as an environment does that was not closed."""
    multiprocessing.get_context(kind).Process(target=time.sleep, args=(60,), daemon=True).start()
    return kind


@pytest.mark.parametrize("kind", multiprocessing.get_all_start_methods())
def test_what_a_worker_started_ends_with_it(kind):
    begun = time.monotonic()
    assert list(in_processes(start_one_that_stays, [(kind,)] * 2, 2, "started")) == [kind] * 2
    assert time.monotonic() - begun < 50
