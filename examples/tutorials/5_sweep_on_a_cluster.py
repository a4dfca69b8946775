"""
Run a sweep on a cluster
========================

An experiment is a set of tasks, and the same command computes them on one core, on all cores of a
machine or on a Dask cluster. This page shows the job script for a cluster and runs the local
form.

On a cluster
------------
Under SLURM one allocation holds the scheduler, the workers and the sweep. The run folder must lie
on a file system that all machines see.

.. code-block:: bash

    #!/bin/bash
    #SBATCH --ntasks=64 --cpus-per-task=1 --mem-per-cpu=4G --time=24:00:00
    export OMP_NUM_THREADS=1
    dask scheduler --port 8786 &
    sleep 10
    srun dask worker "tcp://$(hostname):8786" --nthreads 1 --nworkers 1 --memory-limit 0 &
    rmr-gym run table2 --games all --seeds 5 --root "$SCRATCH/runs" \\
        --scheduler "tcp://$(hostname):8786"

When the time is up, submit the script again: what is finished is found and not computed again.

On this machine
---------------
Without ``--scheduler`` the same experiment runs here, in ``--workers`` processes. In Python an
experiment is an object, and its options are those of the command line.
"""

import tempfile
from pathlib import Path

import pandas as pd

from rmr_gym.experiments import write_report
from rmr_gym.experiments.base import run
from rmr_gym.experiments.studies.grid import Table2

root = Path(tempfile.mkdtemp())  # everything on this page is written here
options = Table2.proposals("smoke") | {"games": ("Pong",), "seeds": 1, "workers": 1, "root": root}
folder, problems = run(Table2(**options))
print(folder.name, problems)

# %%
# The run folder says what became of each job. ``rmr-gym status FOLDER`` counts them at any time,
# from any machine that sees the folder, and ``rmr-gym status FOLDER --serve`` shows them in a
# browser.
jobs = pd.read_csv(folder / "jobs.csv")
print(jobs[["title", "state"]].to_string(index=False))

# %%
# The tables are plain CSV files, and ``rmr-gym report FOLDER`` makes a page of them.
print(sorted(path.name for path in folder.glob("*.csv")))
page, summary = write_report(folder)
print(summary)

# %%
# Run again, everything is found in the store, and nothing is computed.
_, problems = run(Table2(**options))
print(problems)

# %%
# :doc:`/sweeps` says what is in the folder, and what happens when a job, a worker or the disk
# fails.
