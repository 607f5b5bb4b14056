# One set of commands for a person and for CI. Every target sets up what it needs: `.venv`, pip, constraints.txt.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PEERS ?= peers

.PHONY: help setup train test test-fast test-nightly check fix bench bench-gpu bench-peers docs clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing llm-training (a minute or two on the first run)"
	@$(PIP) torch
	@$(PIP) --editable '.[plots]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(PIP) --editable '.[plots,test,dev]'
	@touch $@

setup: $(VENV)/.installed-test  ## install everything for development

train: $(VENV)/.installed  ## run the main job: a model of the standard library's source in five minutes
	@$(BIN)/llm-train

test: $(VENV)/.installed-test  ## run the whole test suite
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not nightly"

test-fast: $(VENV)/.installed-test  ## the tests that take under two minutes together
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not nightly"

test-nightly: $(VENV)/.installed-test  ## long fault and soak runs
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m nightly

check: $(VENV)/.installed-test  ## lint, format, types, layers, generated texts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --config pyproject.toml
	@$(BIN)/pyright
	@$(BIN)/python scripts/make_texts.py --check

fix: $(VENV)/.installed-test  ## repair what the linter and formatter can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.installed-test  ## benchmarks of this machine (15 minutes at most)
	@$(BIN)/python -m benchmarks
	@$(BIN)/python scripts/make_texts.py  # the figures in the pages

bench-gpu:  ## benchmarks of a CUDA device (9 minutes at most)
	@PYTHONPATH=src$${PYTHONPATH:+:$$PYTHONPATH} $$( test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON) ) -m benchmarks.gpu

bench-peers: $(VENV)/.installed-test  ## the same work by other programs: make bench-peers PEERS=DIR
	@$(BIN)/python -m benchmarks.time_to_loss --peers $(PEERS)

docs: $(VENV)/.installed-test  ## write the generated pages: configuration table, command help
	@$(BIN)/python scripts/make_texts.py

clean:  ## remove build products, not runs or caches
	@rm -rf build dist src/*.egg-info .pytest_cache .ruff_cache
