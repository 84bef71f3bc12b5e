# Everything here works from a fresh clone: a target that needs .venv builds it from requirements.lock first, once.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
# A shell that switches bytecode off (containers often do) makes every start of Python seconds slower.
unexport PYTHONDONTWRITEBYTECODE

# Without a home to write to, matplotlib would list its fonts anew at every start, and say so each time.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export MPLCONFIGDIR ?= $(CURDIR)/.venv/matplotlib
endif

PYTHON   ?= python3
SCALE    ?= cpu
LAUNCHER ?= $(if $(filter smoke,$(SCALE)),local,joblib)
DATA     ?= all
ARGS     ?=
RUN      := .venv/bin/python -m experiments.run -m
# $(call PYTEST,an environment), with a process more than there are cores, for some tests wait for others' clocks; more
# than eight would wait for the slowest.
PYTEST    = OMP_NUM_THREADS=1 $1/bin/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 8 --dist loadgroup
STAMP    := .venv/.complete
LAYERED  := .venv-frameworks/.complete
SITED    := .venv-site/.complete
FIGURES  := $(patsubst configs/experiment/%.yaml,%,$(wildcard configs/experiment/*.yaml))
DRAWN    := $(filter-out __init__ $(FIGURES),$(patsubst experiments/figures/%.py,%,$(wildcard experiments/figures/*.py)))

.PHONY: help env again data $(FIGURES) $(DRAWN) status plots report evidence site smoke check test \
        test-frameworks lint matrix bench gpu clean

help:  ## this list
	@echo "make TARGET [SCALE=smoke|cpu|paper] [LAUNCHER=local|joblib|slurm] [DATA=mnist,...] [ARGS=\"any Hydra override\" of a figure]"
	@awk -F ':.*## ' '/:.*## / && !/awk/ {sub(/^\$$\(FIGURES\).*/, "figN", $$1); printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  figures and tables: $(sort $(FIGURES) $(DRAWN))"

env: $(STAMP)  ## build .venv from requirements.lock (what needs it does, too)

$(STAMP): requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" scripts/env.sh

$(LAYERED): requirements-frameworks.lock $(STAMP)
	@scripts/env.sh frameworks

$(SITED): requirements-site.lock
	@PYTHON="$(PYTHON)" scripts/env.sh site

# A stamp counts while the Python that it names runs and finds its packages: until that is gone, or the checkout moved.
gone = $(shell test ! -e $(1) || "$$(cat $(1))" -I -c 'import pip' 2>/dev/null || echo gone)
ifneq ($(call gone,$(STAMP)),)
$(STAMP): again
endif
ifneq ($(and $(filter test-frameworks diagnostics,$(MAKECMDGOALS)),$(call gone,$(LAYERED))),)
$(LAYERED): again
endif
ifneq ($(and $(filter site test,$(MAKECMDGOALS)),$(call gone,$(SITED))),)
$(SITED): again
endif
again:

# what trains in seconds is not worth workers of its own, nor a place in W&B
ifeq ($(SCALE),smoke)
export WANDB_MODE ?= disabled
endif

$(FIGURES): $(STAMP)  ## train what is missing of a figure, judge its claims, draw it: make fig4
	@$(RUN) experiment=$@ scale=$(SCALE) hydra/launcher=$(LAUNCHER) $(ARGS)
	@$(if $(PANELS_$@),$(MAKE) --no-print-directory $(PANELS_$@))

# panels of a figure that are experiments of their own, and train after it
PANELS_fig3 := fig3b

# it takes times: one run after the other
table2: LAUNCHER = local

# some of its models are timm's
diagnostics: RUN := .venv-frameworks/bin/python -m experiments.run -m
diagnostics: $(LAYERED)

$(DRAWN): $(STAMP)  # from the runs of other figures, by the report that each of them ends with
	@names=$$(.venv/bin/python -m experiments.report --sources $@) && $(MAKE) --no-print-directory $$names

data: $(STAMP)  ## fetch data sets with checksums: make data DATA=mnist,fashion_mnist,cifar10,cifar100
	@.venv/bin/python scripts/data.py $(DATA)

status: $(STAMP)  ## what is committed, trained here and still to train, with the hours: make status FIG=fig5 ARGS="--set seed=0"
	@.venv/bin/python -m experiments.status $(FIG) --scale $(SCALE) $(ARGS)

plots: $(STAMP)  ## redraw all figures and reports from the committed tables, in seconds, without torch
	@.venv/bin/python -m experiments.report

report: plots  ## the same: results/REPORT.md has the paper in 26 statements, and every verdict

evidence: $(STAMP)  ## what the advice of syre.diagnose rests on, from the committed tables: syre/diagnostics/evidence.json
	@.venv/bin/python -m scripts.evidence $(ARGS)

site: $(SITED)  ## the results as pages to look at, from committed tables and without torch: site/index.html
	@NO_MKDOCS_2_WARNING=1 .venv-site/bin/python -m mkdocs build --strict --quiet
	@echo "open $(CURDIR)/site/index.html"

smoke: LAUNCHER = local
smoke: export WANDB_MODE ?= disabled
smoke: $(STAMP)  ## every experiment at its smallest scale, side by side, results under outputs/
	@.venv/bin/python -m scripts.smoke --launcher $(LAUNCHER)

check: $(STAMP)  ## lint, types and the fast tests, in a minute and a half
	@$(MAKE) --no-print-directory lint
	$(call PYTEST,.venv) -m "not slow and not slurm and not gpu" $(ARGS)

test: $(STAMP) $(SITED)  ## lint, types, every experiment at smoke scale, all tests: what CI runs, with SLURM=1 BROWSER=1 to install both
	@$(if $(filter 1,$(SLURM)),scripts/slurm_local.sh install || test $$? = 77)
	@$(if $(filter 1,$(BROWSER)),scripts/browser.sh install || test $$? = 77)
	@$(MAKE) --no-print-directory -j2 lint smoke
	$(call PYTEST,.venv) $(ARGS)

test-frameworks: $(LAYERED)  ## HF Trainer, Lightning, accelerate, timm, SB3 and PEFT, in .venv-frameworks over .venv
	$(call PYTEST,.venv-frameworks) tests/frameworks tests/core/test_any_model.py $(ARGS)

lint: $(STAMP)  ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

matrix: $(STAMP)  ## the library's tests on torch 2.4 to the newest, 5 GB each: ARGS=torch2.4 for one of them
	@.venv/bin/python -m scripts.matrix $(ARGS)

bench: $(STAMP)  ## step time, memory, ensembles and whole sweeps, as ratios measured in one run
	@.venv/bin/python -m scripts.bench $(ARGS)

gpu: $(STAMP)  ## train what is missing of some figures at paper scale, nine minutes on a GPU: ARGS="--minutes 30 --out FOLDER"
	@.venv/bin/python -m scripts.gpu_queue $(ARGS)

clean:  ## remove .venv, .venv-frameworks, .venv-site, site, .matrix and caches; results and outputs stay
	rm -rf .venv .venv-frameworks .venv-site site .matrix dist .pytest_cache .ruff_cache .mypy_cache *.egg-info
