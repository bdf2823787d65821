# Needs python3 (3.10 or newer, with venv), gcc and make; everything else is installed into VENV. The
# native kernels are built where a C++ compiler is found, their CUDA half where nvcc is.

VENV   ?= .venv
PYTHON ?= python3
SRC    ?=
DATA   ?=
LIMIT  ?=
ARGS   ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/.rirf-installed

CXX  ?= g++
NVCC := $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
KERNELS         := $(VENV)/.rirf-kernels-installed
KERNELS_SOURCES := $(shell find kernels -type f -not -path 'kernels/build/*' -not -name '*.md')
# What tests and type checks want of the kernels: nothing where they cannot be built.
KERNELS_IF_ANY  := $(if $(shell command -v $(CXX) 2>/dev/null),kernels)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv kernels demo test lint format types bench eval gpu-check clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  VENV=.venv  PYTHON=python3   where, and with which interpreter, the environment is made'
	@echo '  ARGS="..."                   more arguments for test, bench, eval and gpu-check'

venv: $(STAMP)  ## Make the development environment (again only when its requirements change)

# torch goes first and constrained: resolving it together with the rest may pick another build.
$(STAMP): pyproject.toml constraints.txt
	@echo '[venv] $(VENV): creating with $(PYTHON)'
	@"$(BIN)/python" -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv "$(VENV)"
	@echo '[venv] $(VENV): installing torch'
	@"$(BIN)/python" -m pip install -qq --constraint constraints.txt torch
	@echo '[venv] $(VENV): installing rirf[dev], editable'
	@"$(BIN)/python" -m pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch "$@"

kernels: $(KERNELS)  ## Build and install the native kernels (CUDA too where nvcc is found)
	@"$(BIN)/python" -c 'import rirf_kernels; b = rirf_kernels.build_info(); \
	  print("[kernels] installed: CPU (%s), CUDA %s" % (b["isa"], b["cuda_architectures"] or "not built"))'

# Each environment has a build folder of its own: what is in it names the environment's tools.
$(KERNELS): $(STAMP) $(KERNELS_SOURCES)
	@echo '[kernels] $(CXX): $(or $(shell command -v $(CXX) 2>/dev/null),not found); nvcc: $(or $(NVCC),not found)'
	@command -v $(CXX) >/dev/null 2>&1 || { echo '[kernels] needs a C++ compiler: install g++, or name yours with CXX=' >&2; exit 2; }
	@CXX='$(CXX)' $(if $(NVCC),CUDACXX='$(NVCC)') "$(BIN)/python" -m pip install -qq --no-deps --config-settings=build-dir='$(abspath $(VENV))/kernels-build' ./kernels
	@touch "$@"

demo: venv  ## Degrade and restore a packaged photo, or restore yours: make demo SRC=photo.jpg
	@"$(BIN)/python" -m rirf.demo $(if $(SRC),"$(SRC)") -o demo

test: venv $(KERNELS_IF_ANY)  ## Run the tests
	@echo '[test] pytest $(ARGS)'
	@"$(BIN)/python" -m pytest $(ARGS)

lint: venv  ## Check style and formatting
	@echo '[lint] ruff check, ruff format --check'
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .

format: venv  ## Mend what ruff can mend
	@echo '[format] ruff check --fix, ruff format'
	@"$(BIN)/ruff" check --fix .
	@"$(BIN)/ruff" format .

types: venv $(KERNELS_IF_ANY)  ## Check types (mypy, strict)
	@echo '[types] mypy'
	@"$(BIN)/mypy"

bench: venv  ## Measure the runtime's speed and memory
	@"$(BIN)/python" benchmarks/runtime_overhead.py $(ARGS)

eval: venv  ## Run the evaluation protocol: make eval DATA=folder [LIMIT=n]
	@test -n "$(DATA)" || { echo 'make eval: got no DATA; give the data folder: make eval DATA=../shared/data' >&2; exit 2; }
	@mkdir -p runs
	@"$(BIN)/rirf" eval --data "$(DATA)" --protocol v1 --json runs/eval-v1.json $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)

gpu-check: venv $(KERNELS_IF_ANY)  ## Check and measure on the GPU, and say why anything was skipped
	@echo '[gpu-check] pytest -m gpu -rs'
	@"$(BIN)/python" -m pytest -m gpu -rs $(ARGS)
	@echo '[gpu-check] benchmarks/degradation.py --device cuda'
	@mkdir -p runs
	@"$(BIN)/python" benchmarks/degradation.py --device cuda --json runs/degradation-gpu.json

# Runs and data are somebody's work and stay; so does the environment, which is slow to make again.
clean:  ## Remove caches, builds and demo pictures
	@echo '[clean] caches, dist/, demo/'
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo kernels/build
	@find sdk export training kernels benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
