# `make help` lists the targets. Everything is installed from lock files with hashes.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE_STAMP := node_modules/.installed
WORKERS ?= 2
KILLS ?= 200
CORRUPTIONS ?= 10000
BATCHES ?= 100000
BENCH_OPTIONS = $(if $(FRESH),--fresh) $(if $(QUICK),--quick)

# Everything that is missing is named at once, before anything is installed.
define prerequisites
@missing=0; lack() { echo "missing prerequisite: $$1" >&2; missing=1; }; \
if ! command -v $(PYTHON) >/dev/null; then lack "$(PYTHON) (Python 3.11 or newer)"; \
elif ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
  lack "Python 3.11 or newer, $(PYTHON) is older"; \
elif ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
  lack "the venv module (Debian: apt install python3-venv)"; fi; \
if ! command -v node >/dev/null; then lack "node (Node 18 or newer)"; \
elif ! node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)'; then \
  lack "Node 18 or newer, this is $$(node --version)"; fi; \
command -v npm >/dev/null || lack "npm (it comes with Node)"; \
test $$missing = 0 || exit 3; \
case "$$(uname -sm)" in "Linux x86_64") ;; *) command -v anvil >/dev/null || \
  echo "note: local chains need Anvil 1.x on the PATH here; the packaged one is for Linux x86_64" >&2;; \
esac
endef

.PHONY: help setup run demo test check format contracts crash fuzz bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP) $(NODE_STAMP) ## install everything from the lock files

$(STAMP): requirements-dev.lock pyproject.toml
	$(prerequisites)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m solver.worker --compile
	@touch $@

$(NODE_STAMP): package.json package-lock.json
	$(prerequisites)
	npm ci --silent
	@touch $@

run: setup ## start the daemon on two local chains and stay up
	$(BIN)/thalweg run

demo: setup ## 20 intents from signature to settlement, then stop
	$(BIN)/thalweg demo

test: check ## check, then every test
	$(BIN)/python -m pytest -n $(WORKERS)

check: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

contracts: $(NODE_STAMP) ## compile the contracts into contracts/artifacts
	node contracts/build.mjs

crash: setup ## kill -9 the daemon KILLS times at random moments; resumable (FRESH=1 again), report in reports/crash.json
	$(BIN)/python -m benchmarks.crash --kills $(KILLS) $(if $(FRESH),--fresh)

fuzz: setup ## CORRUPTIONS false claims for the checker, BATCHES random batches against their promises and margin; resumable, reports/{fuzz,batches,margined}.json
	$(BIN)/python -m benchmarks.fuzz --corruptions $(CORRUPTIONS) --workers $(WORKERS)
	$(BIN)/python -m benchmarks.batches --batches $(BATCHES) --workers $(WORKERS) $(if $(FRESH),--fresh)
	$(BIN)/python -m benchmarks.margined --batches $(BATCHES) --workers $(WORKERS) $(if $(FRESH),--fresh)

bench: setup ## everything in docs/benchmarks.md, resumable (FRESH=1 again, QUICK=1 minutes, not into docs)
	$(BIN)/python -m benchmarks.routing $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.surplus $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.public $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.joint $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.manipulation $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.margin $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.margin_rows $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.volatility $(BENCH_OPTIONS)
	$(BIN)/python -m benchmarks.auctions $(if $(FRESH),--fresh) $(if $(QUICK),--rounds 5)
	$(BIN)/python -m benchmarks.bench $(if $(QUICK),--intents 200 --report reports/bench-quick.json)
	$(if $(QUICK),,$(BIN)/python -m benchmarks.report)

lock: $(STAMP) ## write the Python lock files again
	$(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet pip-tools
	for extra in "" "--extra dev"; do \
	  CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/lock/bin/pip-compile --quiet --strip-extras --allow-unsafe \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host $$extra \
	  -o requirements$${extra:+-dev}.lock pyproject.toml; done

clean: ## remove what setup, run and the tests made
	rm -rf $(VENV) node_modules data reports *.egg-info
