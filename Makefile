# Everything here works from a fresh clone: each target first builds .venv from requirements.lock (once).
.DEFAULT_GOAL := help
SHELL := /bin/bash
.DELETE_ON_ERROR:

PYTHON   ?= python3
SCALE    ?= cpu
LAUNCHER ?= joblib
ARGS     ?=
DATA     ?= all
BIN      := .venv/bin
STAMP    := .venv/.complete
FIGURES  := $(patsubst configs/experiment/%.yaml,%,$(wildcard configs/experiment/*.yaml))

.PHONY: help env data $(FIGURES) plots report smoke test lint bench ci clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z$$()A-Z%]+:.*## / {sub(/\$$\(FIGURES\)/, "figN", $$1); printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  figures: $(FIGURES)"
	@echo "  options: SCALE=smoke|cpu|paper  LAUNCHER=local|joblib|slurm  DATA=mnist,cifar10,...  ARGS=\"any Hydra override\""

env: $(STAMP)  ## build .venv from requirements.lock (every other target does this too)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Python 3.11, 3.12 or 3.13 is needed, not {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --clear .venv
	@awk '/^uv==/ {on = 1} on {print} on && !/\\$$/ {exit}' requirements.lock > .venv/uv.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@
