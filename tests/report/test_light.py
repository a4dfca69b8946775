import subprocess
import sys


def test_no_report_imports_torch_or_pyplot():
    code = """
import sys
from rmr_gym.experiments import experiments, part_of
for name in experiments():
    part_of(name, "report")
assert not {"matplotlib.pyplot", "torch", "mujoco"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
