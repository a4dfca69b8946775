"""The demonstration: what the package does, in about a minute and a half.

Run it: `make demo`, or `PYTHONPATH=examples python -m demo` (`--root FOLDER`, `--workers 2`). Run
again after Ctrl-C, it goes on where it was. It is an experiment as those of the package are, from
outside of it: `grid` says what is computed, `report` and the templates what is shown.
"""
