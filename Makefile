# Every command of the project; `make` alone lists them.
PYTHON ?= $(or $(shell command -v python3.11 2>/dev/null),python3)
BIN := .venv/bin
# In this order: what fails fast comes first.
TESTS ?= $(wildcard $(addprefix tests/,unit contract integration e2e chaos science))

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check protos lock bench compare-networks default-model accuracy ablation calibration images test-containers clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## Make .venv/ from the lock, with the command .venv/bin/granulo
	@$(PYTHON) scripts/setup.py

demo: setup ## Render, train, serve, segment, analyse (IMAGES='a.tif b.tif' PIXEL_SIZE=7.3 for your own images)
	@IMAGES='$(IMAGES)' PIXEL_SIZE='$(PIXEL_SIZE)' $(BIN)/python scripts/demo.py

test: setup ## Run all tests (TESTS='tests/unit' for a part)
	$(BIN)/python -m pytest -m 'not long' $(TESTS)

test-long: setup ## Run the tests that take minutes to hours
	$(BIN)/python -m pytest -m long $(TESTS)

check: setup ## Formatting, lint, types, import rules, generated code, buf, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(PYTHON) scripts/generate_protos.py --check
	$(PYTHON) scripts/generate_protos.py --lint
	$(BIN)/python scripts/audit.py

protos: ## Generate the Python code of the contract
	$(PYTHON) scripts/generate_protos.py

lock: setup ## Compile requirements.lock and locks/ (UPGRADE=1 for newer versions)
	$(BIN)/python scripts/lock.py $(if $(UPGRADE),--upgrade)

bench: setup ## Print the table of measured times
	$(BIN)/python benchmarks/bench.py

compare-networks: setup ## Train every network for the same time (MINUTES=15), score real micrographs
	$(BIN)/python benchmarks/compare_networks.py $(or $(OUT),comparison-output)

default-model: setup ## Make the network that comes with Granulo anew (QUICK=1, SEED=7, INSTALL=1)
	@QUICK='$(QUICK)' GPU='$(GPU)' SEED='$(SEED)' INSTALL='$(INSTALL)' OUT='$(OUT)' $(BIN)/python scripts/default_model.py

accuracy: setup ## Score the default model on the real micrographs of ../shared, with overlays
	$(BIN)/python benchmarks/accuracy.py $(or $(OUT),accuracy-output)

ablation: setup ## Train the quick default model without one part at a time (OUT=…, 11 minutes each)
	$(BIN)/python benchmarks/ablation.py $(or $(OUT),ablation-output)

calibration: setup ## Thresholds, confidence and polarity on renders
	$(BIN)/python benchmarks/calibration.py $(or $(OUT),calibration-output)

images: setup ## Build the container images with buildah or docker
	$(BIN)/python scripts/images.py

test-containers: setup ## Run the kind overlay with podman, with kills (root; buildah, podman, Ceph)
	$(BIN)/python tests/k8s/containers.py

clean: ## Remove caches and the environment
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
