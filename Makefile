# Every command that a person types. Each one sets up what it needs in .venv; a second call finds it done.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
# Half of pip's time is compiling modules that nobody imports: they are compiled when they are.
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-compile
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Compiled modules are kept even where an environment forbids it: tests start Python hundreds of times.
export PYTHONDONTWRITEBYTECODE :=

SEED ?= 0
SCALE ?= 1
ARGS ?=
CORE := CMakeLists.txt pyproject.toml $(shell find src/core src/bind -type f)

# Packages are installed while the compiler runs; several goals follow one another.
ifeq ($(filter-out 0 1,$(words $(MAKECMDGOALS)))$(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += --jobs=2
endif
.DEFAULT_GOAL := help
.PHONY: help demo test soak lint types bench asan docs symbols stubs build clean

help:  ## this list
	@echo "make COMMAND; each one sets up what it needs in .venv"
	@sed -n 's/^\([a-z]*\):.*## /\1#/p' $(MAKEFILE_LIST) | awk -F'#' '{ printf "  %-8s %s\n", $$1, $$2 }'

demo: $(VENV)/.nearly  ## index real data, ask for recall 0.95, see it delivered (DATA=FILE: your own)
	@$(BIN)/nearly demo --out build/demo $(if $(DATA),--data $(DATA)) $(ARGS)

test: $(VENV)/.test  ## the fast tests (ARGS="-k graph" picks some)
	@$(BIN)/python -m pytest --numprocesses auto --dist loadgroup $(ARGS)

soak: $(VENV)/.test  ## fuzzing, long property runs, sanitizers; up to 40 minutes (SCALE=0.1 SEED=7: a seeded tenth)
	@$(BIN)/python tools/soak.py --scale $(SCALE) --seed $(SEED) $(ARGS)

lint: $(VENV)/.dev  ## ruff: mistakes and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy --strict
	@$(BIN)/mypy

bench: $(VENV)/.nearly $(if $(filter all collections filtered_peers flat peers,$(Q)),$(VENV)/.peers)  ## one benchmark: Q=name of benchmarks/bench_NAME.py, DATA="data sets", ARGS=more
	@if [ ! -f "benchmarks/bench_$(Q).py" ]; then \
	  echo "make bench Q=NAME; there are:" `ls benchmarks | sed -n 's/^bench_\(.*\)\.py$$/\1/p'`; exit 1; fi
	@$(BIN)/python benchmarks/bench_$(Q).py $(if $(DATA),--data $(DATA)) $(ARGS)

asan: $(VENV)/.test  ## the fast tests under AddressSanitizer and UBSan
	@$(BIN)/python tools/soak.py --only asan --scale 2 --seed $(SEED) $(ARGS)

docs: $(VENV)/.docs  ## run every example, check every link, build the pages in build/docs
	@$(BIN)/python -m pytest tests/test_docs.py
	@$(BIN)/mkdocs build --strict --quiet --site-dir build/docs
	@echo "build/docs/index.html"

symbols: $(VENV)/.nearly  ## no code for a special CPU leaves its object file
	@$(BIN)/python tools/check_kernel_symbols.py

stubs: $(VENV)/.nearly  ## write src/nearly/_core.pyi from the built module (CHECK=1: only compare)
	@$(BIN)/python tools/make_stub.py $(if $(CHECK),--check)

build: $(VENV)/.nearly  ## build the extension after a change in src/core or src/bind

clean:  ## remove .venv and build
	rm -rf $(VENV) build

$(VENV)/.made:
	@python=`sh tools/find_python.sh` && echo "making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
	@$(PIP) "scikit-build-core>=0.10" "nanobind==3.1.0" "cmake>=3.26" "ninja>=1.11"  # nanobind writes the committed stub
	@touch $@

$(VENV)/.base: $(VENV)/.made pyproject.toml tools/requirements.py
	@$(PIP) `$(BIN)/python tools/requirements.py base`
	@touch $@

$(VENV)/.core: $(VENV)/.made $(CORE)
	@echo "building nearly (the first time takes a minute or two)"
	@MAKEFLAGS= $(PIP) --no-build-isolation --no-deps -e .  # ninja would ask for a share of jobs of which it is given none
	@touch $@

$(VENV)/.nearly: $(VENV)/.base $(VENV)/.core
	@touch $@

$(VENV)/.others: $(VENV)/.base pyproject.toml tools/requirements.py
	@$(PIP) `$(BIN)/python tools/requirements.py test`
	@$(BIN)/python -c "import duckdb, h5py, hypothesis.stateful, ml_dtypes, pandas, polars, pyarrow.parquet, pytest, \
	  rich.console, safetensors.numpy, scipy.sparse, typer, xdist.workermanage"  # once, not by each process of tests
	@$(BIN)/python -m compileall -q src/nearly
	@touch $@

$(VENV)/.test: $(VENV)/.nearly $(VENV)/.others
	@touch $@

$(VENV)/.dev: $(VENV)/.test pyproject.toml
	@$(PIP) `$(BIN)/python tools/requirements.py dev`
	@touch $@

$(VENV)/.peers: $(VENV)/.nearly pyproject.toml
	@for peer in `$(BIN)/python tools/requirements.py bench`; do \
	  $(PIP) "$$peer" || echo "no $$peer for this machine: it will be missing from the table"; done
	@touch $@

$(VENV)/.docs: $(VENV)/.test
	@$(PIP) "mkdocs>=1.6,<2" "mkdocstrings[python]>=0.29"
	@touch $@
