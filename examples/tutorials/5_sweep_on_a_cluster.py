"""
Run a sweep on a cluster
========================

An experiment is a set of tasks, and the same command computes them on one core, on all cores of a
machine or on a Dask cluster. This page shows the job script for a cluster and runs the local
form, with the smallest experiment there is: RIMs and an LSTM learn to copy digits.

On a cluster
------------
Under SLURM one allocation holds the scheduler, the workers and the sweep. The run folder must lie
on a file system that all machines see.

.. code-block:: bash

    #!/bin/bash
    #SBATCH --ntasks=10 --cpus-per-task=1 --mem-per-cpu=4G --time=24:00:00
    export OMP_NUM_THREADS=1
    dask scheduler --port 8786 &
    sleep 10
    srun dask worker "tcp://$(hostname):8786" --nthreads 1 --nworkers 1 --memory-limit 0 &
    rmr-gym run sequences --preset laptop --seeds 5 --root "$SCRATCH/runs" \\
        --scheduler "tcp://$(hostname):8786"

When the time is up, submit the script again: finished jobs are not computed again, and trainings
continue from their last saved state.

On this machine
---------------
Without ``--scheduler`` the experiment runs here, in ``--workers`` processes:
``rmr-gym run sequences --preset smoke --seeds 2``. In Python an experiment is an object, and its
options are those of the command line.
"""

import tempfile
from pathlib import Path

import pandas as pd

from rmr_gym.experiments import write_report
from rmr_gym.experiments.base import run
from rmr_gym.experiments.sequences.grid import SequencesRun

root = Path(tempfile.mkdtemp())  # everything on this page is written here
options = SequencesRun.proposals("smoke") | {"seeds": 2, "workers": 1, "root": root}
folder, problems = run(SequencesRun(**options))
print(folder.name, problems)

# %%
# The run folder lists the jobs and their states. ``rmr-gym status FOLDER`` counts them at any time,
# from any machine that sees the folder, and ``rmr-gym status FOLDER --serve`` shows a live page.
jobs = pd.read_csv(folder / "jobs.csv")
print(jobs[["key", "state", "attempts"]].to_string(index=False))

# %%
# The tables are CSV files, and ``rmr-gym report FOLDER`` makes a page of them.
print(sorted(path.name for path in folder.glob("*.csv")))
page, summary = write_report(folder)
print(summary)

# %%
# When the same run is started again, all results are found in the store, and nothing is computed.
before = (folder / "timings.csv").read_text()
run(SequencesRun(**options))
print("nothing was computed again:", (folder / "timings.csv").read_text() == before)

# %%
# :doc:`/sweeps` describes the run folder, and what happens when a job, a worker or the disk fails.
