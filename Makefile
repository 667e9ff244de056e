# Everything a developer or CI runs; `make` lists it. pip is configured from outside, with PIP_* or pip.conf.

PYTHON ?= python3.11 python3.12 python3# the first of these that fits builds the venv
VENV ?= .venv
TESTS ?= tests
PYTEST_ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --no-deps --no-build-isolation
LOCKS := requirements/cpu.lock requirements/dev.lock
LOCKED := $(VENV)/.stamp-locked
INSTALLED := $(VENV)/.stamp-installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv test test-all test-quick chaos check check-fast docs lock lock-check upstream-check demo quickstart doctor wheel clean distclean

help: ## this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / {printf "  make %-14s  %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(INSTALLED) ## .venv with the locked CPU environment and this checkout, editable

$(PY):
	@for python in $(PYTHON); do \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1 || continue; \
	  $$python -c 'import ensurepip, venv' >/dev/null 2>&1 || { lacks="$$lacks $$python"; continue; }; \
	  echo "== $(VENV): $$($$python --version)"; exec $$python -m venv $(VENV); \
	done; \
	if [ -n "$$lacks" ]; then echo "make: no venv/ensurepip module in:$$lacks (Debian, Ubuntu: apt install python3-venv)" >&2; \
	else echo "make: Python 3.11 or 3.12 is needed; tried: $(PYTHON) (name another: make PYTHON=/path/to/python)" >&2; fi; \
	exit 1

# torch comes first: if it is the wrong build, that shows before everything else is downloaded.
$(LOCKED): $(LOCKS) | $(PY)
	@echo "== 1/4 build backend and torch"
	$(PIP) --no-compile $$(grep -hE '^(setuptools|torch)==' $(LOCKS))
	@$(PY) -c 'import importlib.metadata as m, sys; sys.exit(sys.platform == "linux" and not m.version("torch").endswith("+cpu"))' || { \
	  $(PY) -m pip uninstall --quiet --yes torch; \
	  echo "make: pip found no CPU build of torch: point PIP_EXTRA_INDEX_URL at the PyTorch project's CPU wheel index, or PIP_FIND_LINKS at a folder of CPU wheels" >&2; \
	  exit 1; }
	@echo "== 2/4 locked packages"
	$(PIP) --no-compile $(LOCKS:%=-r %)
	@echo "== 3/4 byte code (all processors; without it the first run spends minutes importing)"
	@$(PY) -m compileall -qq -j 0 "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  || echo "   (torch ships a file for newer Pythons only, which is left out)"
	@touch $@

$(INSTALLED): $(LOCKED) pyproject.toml setup.py
	@echo "== 4/4 this checkout"
	$(PIP) --editable .
	@touch $@

# Two workers: one for the training runs (tests/e2e), which come first, and one for the rest.
PYTEST := $(PY) -m pytest -n 2 --dist loadscope --no-loadscope-reorder -q

test: venv ## all tests but the slow ones
	$(PYTEST) $(TESTS) -m "not slow" $(PYTEST_ARGS)

test-all: venv ## all tests
	$(PYTEST) $(TESTS) $(PYTEST_ARGS)

test-quick: venv ## the unit tests that take less than about a second each
	$(PYTEST) tests/unit -m "not slow and not medium" $(PYTEST_ARGS)

chaos: venv ## kill real runs at random instants; CHAOS_KILLS=6 CHAOS_SEED=1, about a minute a kill
	$(PY) -m pytest -q -s tests/chaos $(PYTEST_ARGS)

check: check-fast ## lint, format, types, contract with verl, the docs site, quick tests
	$(PY) -m mypy
	VERL_PLATFORM=cpu $(PY) -m verl_pipeline.verl_adapter.contract
	$(MAKE) --no-print-directory docs
	$(MAKE) --no-print-directory test-quick

check-fast: venv ## the part of check that takes seconds: lint, format, links
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -q -p no:cacheprovider tests/unit/packaging/test_docs.py

demo: venv ## every schedule on the same work, on emulated GPUs: a table and a page, in seconds
	$(VENV)/bin/verl-pipeline demo

quickstart: venv ## SmolLM2-135M learns to write small Python functions, one-off pipelined, on CPUs
	$(PY) -m verl_pipeline.quickstart

docs: venv ## build/site: the docs by task, with generated reference; strict
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(CURDIR) $(PY) -m mkdocs build --strict --quiet
	@echo "build/site/index.html; with its search: $(PY) -m http.server -d build/site"

doctor: venv ## what this machine can run, and whether the plugin is active
	$(VENV)/bin/verl-pipeline doctor --cpu

lock: venv ## resolve pyproject.toml afresh into requirements/*.lock (downloads about 1 GB)
	$(PY) requirements/lock.py write

lock-check: venv ## the locks agree with pyproject.toml and with what is installed
	$(PY) requirements/lock.py check

upstream-check: venv ## what another verl changes of the names we use: make upstream-check VERL=x.y.z
	$(PY) requirements/upstream_check.py $(VERL)

wheel: venv ## dist/*.whl
	$(PY) -m build --wheel --no-isolation

clean: ## remove what builds and checks leave (not .venv, outputs, checkpoints)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path ./$(VENV) -prune -o -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)
