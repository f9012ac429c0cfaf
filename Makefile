# `make help` lists what there is. Everything runs in .venv, which is made from pyproject.toml.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := worker operator tests examples scripts benchmarks
JOBS ?= auto
ARGS ?=
SEEDS ?= 300

# The images, and the cluster of e2e and playground. Other machines have other commands.
DOCKER_BUILD ?= docker build
TAG ?= dev
CLUSTER ?= penstock
CLUSTER_KUBECONFIG ?= $(CURDIR)/.kube/$(CLUSTER)
NODE_IMAGE ?= kindest/node:v1.34.0
KIND_UP ?= kind create cluster --name $(CLUSTER) --image $(NODE_IMAGE) --config kind-config.yaml --wait 120s
KIND_DOWN ?= kind delete cluster --name $(CLUSTER)
S3_IMAGE ?= versity/versitygw:v1.8.0
E2E ?= e2e
E2E_JOBS ?= 2
CLUSTER_ENV = CLUSTER="$(CLUSTER)" KUBECONFIG="$(CLUSTER_KUBECONFIG)" KIND_UP="$(KIND_UP)" \
  KIND_DOWN="$(KIND_DOWN)" S3_IMAGE="$(S3_IMAGE)" TAG="$(TAG)" E2E="$(E2E)" \
  E2E_JOBS="$(E2E_JOBS)"

.DEFAULT_GOAL := help
.PHONY: help demo test quick check format docs crds sim bench clean images locks e2e playground playground-down

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

crds: $(STAMP) ## Draw the CustomResourceDefinitions anew from the models
	@$(BIN)/python scripts/crds.py

sim: $(STAMP) ## Whole jobs on fake time, network and store: make sim SEEDS=5000, or ARGS="--seed 7"
	@$(BIN)/python -m penstock.testing.simulation --seeds $(SEEDS) $(ARGS)

bench: $(STAMP) ## What is measured: codec and channels on this machine
	@for file in codec_micro channel_micro; do \
	  echo "$$file"; $(BIN)/python benchmarks/$$file.py || exit 1; done

images: ## Build penstock-worker:dev and penstock-operator:dev (TAG=..., DOCKER_BUILD=...)
	@$(DOCKER_BUILD) -f worker/Dockerfile -t penstock-worker:$(TAG) .
	@$(DOCKER_BUILD) -f operator/Dockerfile -t penstock-operator:$(TAG) .

locks: $(STAMP) ## Newest versions of what the images install, with their hashes
	@$(COMPILE) pyproject.toml --upgrade -o worker/requirements.lock
	@$(COMPILE) operator/requirements.in -c worker/requirements.lock --upgrade -o operator/requirements.lock
COMPILE = $(BIN)/uv pip compile -q --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
  --generate-hashes --no-header --no-annotate

e2e: $(STAMP) images ## A cluster by kind with chart and S3, the tests of tests/e2e, and down again
	@$(DOCKER_BUILD) -f tests/e2e/image/Dockerfile -t penstock-e2e-job:$(TAG) \
	  --build-arg WORKER_IMAGE=penstock-worker:$(TAG) tests/e2e/image
	@$(CLUSTER_ENV) PENSTOCK_E2E_JOB_IMAGE=penstock-e2e-job:$(TAG) $(BIN)/python scripts/cluster.py e2e $(ARGS)

playground: images ## The same cluster, kept: docs/tutorials/kubernetes.md walks through it
	@$(CLUSTER_ENV) $(PYTHON) scripts/cluster.py up
	@echo
	@echo "A cluster with Penstock and an S3 server. What to do with it: docs/tutorials/kubernetes.md"
	@echo "  export KUBECONFIG=$(CLUSTER_KUBECONFIG)"
	@echo "Down again: make playground-down"

playground-down: ## Take that cluster down
	@$(CLUSTER_ENV) $(PYTHON) scripts/cluster.py down

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
