"""Print the lowest version that pyproject.toml allows of every direct dependency, as constraints.

python .ci/lowest.py [EXTRA ...] > lowest.txt
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = [project["optional-dependencies"][extra] for extra in sys.argv[1:]]
for requirement in (*project["dependencies"], *(line for extra in extras for line in extra)):
    name, lowest = re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", requirement).groups()
    print(f"{name}=={lowest}")
