# Two commands on a fresh machine: `make demo` and `make test`. Needs git, make, Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

LOWEST := .venv-lowest
CORE := tests/test_cli.py tests/test_facade.py tests/test_import.py tests/core tests/data tests/envs tests/wrappers \
  tests/agents/test_record.py tests/agents/sb3 tests/commands tests/report/test_page.py

.PHONY: demo test test-lowest check docs clean

demo: $(VENV)/.installed
	PYTHONPATH=examples $(BIN)/python -m demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -q -rs

test-lowest: $(LOWEST)/.installed  # with the lowest version of every direct dependency that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest -n auto -q -rs -o filterwarnings=default $(CORE)

check: $(VENV)/.installed-dev docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/size.py

docs: $(VENV)/.installed-dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@

$(LOWEST)/.installed: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) .ci/lowest.py test > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) docs/_build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
