import subprocess
import sys


def test_no_report_imports_torch_or_pyplot():
    code = """
import sys
from importlib import import_module
from rmr_gym.experiments import experiments_with
import rmr_gym.experiments
for name in experiments_with("report"):
    import_module(f"rmr_gym.experiments.{name}.report")
assert not {"matplotlib.pyplot", "torch", "mujoco"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
