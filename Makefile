# Every target sets up what it needs, once, in $FARSHORE_CACHE (~/.cache/farshore); a second run starts in seconds.
.PHONY: help demo test test-unit test-azure lint bench soak crds dev-up dev-down venv packages tools clean clean-cache
.DEFAULT_GOAL := help
.NOTPARALLEL:

PY := build/venv/bin/python

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: tools ## Protect, drill, move and bring home two real machines on this host; KEEP=1 leaves everything up
	@$(PY) -m tests.demo $(if $(KEEP),--keep)

test: tools ## Run all tests: unit, contract, azure, machine, cluster, e2e
	@$(PY) tests/run_suites.py

test-unit: venv ## Run the tests that take seconds
	@$(PY) -m pytest -q tests/unit

test-azure: tools ## Run the tests against the simulated Azure
	@$(PY) tests/run_suites.py azure

lint: venv ## Check style, types and the imports between packages
	@tests/setup/lint

bench: packages venv ## Measure beside restic, kopia, borg, rsync and qemu-img; QUICK=1 for a small run
	@FARSHORE_PACKAGES=tests/bench/debian-packages.txt tests/setup/packages
	@$(PY) -m tests.bench.run $(if $(QUICK),--quick)

soak: tools ## Load, kills with -9 and drills for half an hour (MINUTES=3: shorter), then the tests that take long
	@$(PY) -m tests.soak.run --minutes $(or $(MINUTES),30)
	@$(PY) -m pytest -v -m soak tests

crds: venv ## Generate the CRDs (crds/, chart) from the models in operator/farshore_operator/api
	@$(PY) -m farshore_operator.api.generate

dev-up: tools ## Start a Kubernetes control plane and Azurite, and say how to use them
	@$(PY) -m farshore_cli.main dev up

dev-down: venv ## Remove what dev-up or the demo left up
	@$(PY) -m farshore_cli.main dev down

venv: ## Make the virtual environment build/venv
	@tests/setup/venv

packages:
	@tests/setup/packages

tools: packages venv ## Build and fetch all that tests and demo run, ahead of time
	@$(PY) -m farshore_cli.main dev fetch

clean: ## Remove what was made in this tree
	@if [ -e build/dev ]; then $(MAKE) --no-print-directory dev-down; fi
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find operator engine tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-cache: ## Remove the cached tools: the next run builds and downloads them again
	@rm -rf "$${FARSHORE_CACHE:-$$HOME/.cache/farshore}"
