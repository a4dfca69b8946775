import os
import subprocess
import sys

import pytest

from rmr_gym.core.processes import KEPT

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
