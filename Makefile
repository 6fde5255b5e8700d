# `make demo` and `make test` are all that a fresh machine with Python 3.11+ needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# RecBole needs numpy 1, mmattn's other companions numpy 2: an environment each.
HOSTS := .venv-hosts

.PHONY: demo test test-hosts lint bench clean
demo: $(READY)
	$(BIN)/mmattn demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered

test-hosts: $(HOSTS)/.ready
	OMP_NUM_THREADS=1 $(HOSTS)/bin/python -m pytest tests/hosts

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=examples/recipes $(BIN)/mypy examples/recipes/*.py
	$(BIN)/python -m tests.lint_docstrings
	$(BIN)/vulture

bench: $(READY)
	$(BIN)/python -m tests.benchmarks

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mmattn needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

$(HOSTS)/.ready: pyproject.toml constraints-hosts.txt tests/hosts/requirements.txt
	$(PYTHON) -m venv $(HOSTS)
	$(HOSTS)/bin/python -m pip install --quiet --upgrade pip
	$(HOSTS)/bin/python -m pip install --quiet --constraint constraints-hosts.txt --requirement tests/hosts/requirements.txt
	$(HOSTS)/bin/python -m pip install --quiet --constraint constraints-hosts.txt --no-deps recbole --editable .
	@touch $(HOSTS)/.ready

clean:
	rm -rf $(VENV) $(HOSTS) build dist runs .mypy_cache .ruff_cache .pytest_cache
