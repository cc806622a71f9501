# Turnout's commands. `make help` lists them. Nothing is done again that is up to date; `make -n` shows what would be.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PIP_QUIET := --quiet --disable-pip-version-check --no-input
SOURCES := core deploy examples sdk/python/turnout services tests $(wildcard bench)

# Arguments for the tool behind a target: make test ARGS="-k intervals", make dev ARGS="--port 7500".
ARGS ?=

# The sources are compiled once, not at every start of every process, whatever the caller's shell says of byte code.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo dev test lint format protos lock bench-peers doctor clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: .venv/.server .cache/.kafka ## Install everything that `turnout dev` and the demo need

demo: setup ## Tell the whole story on real data, a minute or two, then end
	@$(BIN)/python -m examples.demo $(ARGS)

dev: setup ## Run Kafka, PostgreSQL and the services until Ctrl-C
	@exec $(BIN)/python -m deploy.local $(ARGS)

# More processes than the two cores it is meant for: a test waits for leases and loops for half of its time.
test: .venv/.dev .cache/.kafka ## Run all tests on a real Kafka and a real PostgreSQL
	@$(BIN)/python -m pytest --numprocesses 3 --dist worksteal $(ARGS)

lint: .venv/.dev .venv-protos/.done ## Check style, types, the arrows between packages, and the contract
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "Some files are not formatted: run 'make format'." >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary $(SOURCES)
	@mkdir -p .cache
	@$(BIN)/lint-imports --no-logo >.cache/lint-imports.log || { cat .cache/lint-imports.log; exit 1; }
	@tools/lint_protos.sh
	@tools/generate_protos.sh --check

format: .venv/.dev ## Bring all files into the style that `make lint` checks
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

protos: .venv-protos/.done ## Generate the gRPC stubs anew from protos/
	@tools/generate_protos.sh

lock: ## Lock the newest versions of requirements/*.in, with hashes, into requirements/*.txt
	@command -v uv >/dev/null || { echo "uv is missing, which locks the requirements: install it (pip install uv)." >&2; exit 1; }
	@for name in server dev protos flink quix; do \
	    uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	        requirements/$$name.in -o requirements/$$name.txt || exit 1; \
	done

bench-peers: .venv-flink/.done .venv-quix/.done .cache/.flink ## Install Flink and Quix Streams, beside which `python -m bench replay` runs

doctor: ## Name what this machine lacks
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m deploy.local.doctor; else $(PYTHON) -m deploy.local.doctor; fi

clean: ## Remove what make has made (not the data of `turnout dev` in .turnout)
	@rm -rf .venv .venv-protos .venv-flink .venv-quix .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} + -o -name '*.egg-info' -type d -prune -exec rm -rf {} +

# --- what the targets above stand on; an empty file says that it is done ---

.venv/.python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or later." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$$($(PYTHON) --version) is too old: install 3.11 or later, then 'make PYTHON=python3.11 ...'." >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@touch $@

.venv/.server: requirements/server.txt pyproject.toml sdk/python/pyproject.toml | .venv/.python
	@echo "Installing the Python packages into .venv ..."
	@$(BIN)/pip install $(PIP_QUIET) --require-hashes -r requirements/server.txt
	@$(BIN)/pip install $(PIP_QUIET) --no-build-isolation --no-deps -e sdk/python -e .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.server
	@echo "Installing the packages for tests and lint into .venv ..."
	@$(BIN)/pip install $(PIP_QUIET) --require-hashes -r requirements/dev.txt
	@touch $@

.venv-protos/.done: requirements/protos.txt | .venv/.python
	@echo "Installing the generator of the gRPC stubs into .venv-protos ..."
	@$(BIN)/python -m venv .venv-protos
	@.venv-protos/bin/pip install $(PIP_QUIET) --require-hashes -r requirements/protos.txt
	@touch $@

.cache/.kafka: deploy/local/pom.xml | .venv/.server
	@echo "Fetching the Kafka broker with Maven ..."
	@$(BIN)/python -m deploy.local.kafka_jars
	@mkdir -p .cache && touch $@

.venv-flink/.done .venv-quix/.done: .venv-%/.done: requirements/%.txt | .venv/.python
	@echo "Installing a peer of the benchmarks into .venv-$* ..."
	@$(BIN)/python -m venv .venv-$*
	@.venv-$*/bin/pip install $(PIP_QUIET) --require-hashes -r requirements/$*.txt
	@touch $@

.cache/.flink: bench/peers/pom.xml | .venv/.server
	@echo "Fetching Flink's connectors with Maven ..."
	@$(BIN)/python -m bench.peers
	@mkdir -p .cache && touch $@
