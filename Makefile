# softrec: every target does all the set-up it needs on a fresh machine.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOCKS := requirements/cpu.txt requirements/dev.txt
# Two cores are what everything is planned for; set THREADS to use more.
export OMP_NUM_THREADS ?= $(or $(THREADS),2)

.PHONY: help setup demo test check bench lock clean

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

setup: $(INSTALLED)  ## Install the pinned locks into .venv

# --no-deps: the lock is complete, and leaves out what would break the CPU build (see requirements/cpu.txt).
$(INSTALLED): $(LOCKS) pyproject.toml
	@requirements/system.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "softrec needs Python 3.11; name it with make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps $(LOCKS:%=-r %)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## The whole story on a made-up shop, then the server (DIR=demo-shop; ARGS=--no-serve ends it)
	$(BIN)/softrec demo $(or $(DIR),demo-shop) $(ARGS)

# Two processes of one thread each: small models gain nothing from a second. A file's tests stay together, since files share
# what is dear (engines, trained shops).
test: setup  ## Linters, types, import contracts, then every test
	$(MAKE) --no-print-directory check
	@requirements/system.sh postgresql || echo "without it the Postgres tests are skipped" >&2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: setup  ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: setup  ## The benchmarks that need no real data, in their short form
	$(BIN)/python -m benchmarks.demo --quick

lock: setup  ## Pin the newest versions that pyproject.toml allows
	requirements/lock.sh

clean:  ## Remove the environment and the demo shop
	rm -rf $(VENV) demo-shop
