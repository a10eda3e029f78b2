# Every target that needs Python makes .venv first, from requirements.lock.
PYTHON ?= python3
UV ?= uv
BIN := .venv/bin
READY := .venv/.ready
STORM := .venv-storm/.ready

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test verify coverage storm bench kernel lab notebooks lock

help: ## list the targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 14

demo: $(READY) ## the comparison of all schemes: simulate, fit and draw the shipped grid into results/demo
	$(BIN)/reservelab sweep data/grids/demo.toml --store results/demo
	$(BIN)/reservelab fit results/demo
	$(BIN)/reservelab figures results/demo

test: $(READY) ## what CI checks: ruff, mypy, pytest with doctests
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

verify: $(READY) storm ## every test, with fresh examples, mutants and Storm; data/verification
	$(BIN)/pytest -m "not coverage" --hypothesis-profile=verify --seed=$$(date +%Y%m%d) \
	    --table=data/verification

coverage: $(READY) ## how often the intervals of rare hold the exact value; data/verification/rare
	$(BIN)/pytest -m coverage --table=data/verification/rare

storm: $(STORM) ## the model checker that verify and bench compare with, in .venv-storm

bench: $(READY) storm ## engine beside C and SimPy, splitting beside Monte Carlo, exact beside Storm
	$(BIN)/python -m tests.benchmarks.bench_engine
	$(BIN)/python -m tests.benchmarks.bench_rare
	$(BIN)/python -m tests.benchmarks.bench_storm

kernel: $(READY) ## the proposal in a real Linux: built, run on eight scenarios, held against the model
	$(BIN)/reservelab kernel build
	$(BIN)/reservelab kernel compare data/kernel/eight.toml --trials 1000

lab: $(READY) ## JupyterLab on the notebooks
	$(BIN)/reservelab lab

notebooks: $(READY) ## run every notebook with its real parameters: some minutes
	$(BIN)/pytest --nbmake --nbmake-timeout=180 -v notebooks/*.ipynb

lock: ## choose the versions in requirements.lock anew (needs uv)
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade \
	    --quiet --custom-compile-command "make lock" --output-file requirements.lock

# requirements.lock is complete, so pip resolves nothing (--no-deps), and hatchling is in it, so the
# package itself is built without fetching anything more (--no-build-isolation).
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "reservelab needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "making .venv from requirements.lock: about a minute with pip, seconds with uv"
	@$(PYTHON) -m venv .venv
	@if command -v uv > /dev/null; then install=(uv pip install --python $(BIN)/python); \
	    else install=($(BIN)/python -m pip install --progress-bar off); fi; \
	    "$${install[@]}" --quiet --no-deps -r requirements.lock; \
	    "$${install[@]}" --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Beside the project, for its licence and its size. Not every system has a wheel: then nothing is
# compared with Storm, the tests that would say that they were skipped, and so does their table.
$(STORM): tests/storm.lock
	@echo "making .venv-storm from tests/storm.lock"
	@$(PYTHON) -m venv .venv-storm
	@if .venv-storm/bin/python -m pip install --progress-bar off --quiet --no-deps \
	        --only-binary :all: -r tests/storm.lock; then touch $@; \
	    else echo "no Storm for this system: nothing will be compared with it" >&2; fi
