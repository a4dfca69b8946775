"""Run folders read back and shown: tables, tests, charts, findings and pages; needs no torch.

Figures are drawn by matplotlib's Agg whatever the environment names in MPLBACKEND. Where that is
not installed here, as a notebook's backend in its terminal, matplotlib would refuse to be imported.
"""

import os

try:
    import matplotlib
except ValueError:
    _unknown = os.environ.pop("MPLBACKEND")
    import matplotlib

    os.environ["MPLBACKEND"] = _unknown
del matplotlib
