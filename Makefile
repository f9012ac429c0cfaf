# `make help` lists what there is. Everything runs in .venv, which is made from pyproject.toml.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := worker operator tests examples scripts benchmarks
JOBS ?= auto
ARGS ?=
SEEDS ?= 300

.DEFAULT_GOAL := help
.PHONY: help demo test quick check format docs sim bench clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## Count Shakespeare's words with two workers; one of them is killed on the way
	@$(BIN)/python scripts/demo.py

test: $(STAMP) ## Every test that this machine can run (PENSTOCK_REQUIRE=s3: no skips about S3)
	@$(BIN)/python -m pytest -q -n $(JOBS) $(ARGS)

quick: $(STAMP) ## The tests that take seconds
	@$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow and not process" $(ARGS)

check: $(STAMP) ## Lint, format, types, layers
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy worker/penstock operator/penstock_operator
	@$(BIN)/lint-imports

format: $(STAMP) ## Let ruff put everything into shape
	@$(BIN)/ruff check --fix -q $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

docs: $(STAMP) ## Draw the reference pages anew from the code
	@$(BIN)/python scripts/reference.py

sim: $(STAMP) ## Whole jobs on fake time, network and store: make sim SEEDS=5000, or ARGS="--seed 7"
	@$(BIN)/python -m penstock.testing.simulation --seeds $(SEEDS) $(ARGS)

bench: $(STAMP) ## What is measured: codec and channels on this machine
	@for file in codec_micro channel_micro; do \
	  echo "$$file"; $(BIN)/python benchmarks/$$file.py || exit 1; done

clean: ## Remove the virtual environment, caches and the demo's folder
	@rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# uv resolves in seconds; where it cannot be had, pip does the same.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, $(PYTHON) is older"; \
	  echo "  do     make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; } >&2
	@echo "Installing into $(VENV); again only when pyproject.toml changes." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@{ $(BIN)/python -m pip install -q uv \
	   && VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install -q -e . --group dev; } \
	|| { $(BIN)/python -m pip install -q --upgrade 'pip>=25.1' \
	     && $(BIN)/python -m pip install -q -e . --group dev; }
	@touch $(STAMP)
