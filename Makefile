# The whole project in a few words: `make demo` shows it, `make test` proves it.
# Everything is installed into .venv, from requirements/dev.txt, whose hashes are checked.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CSRC   := $(wildcard packetfs_compute/kernels/csrc/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint types bench sanitize lock servers clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(STAMP)  ## Watch it work: real bytes over HTTP, through Redis and Celery, every answer checked
	$(BIN)/packetfs demo

test: $(STAMP) servers  ## Run every test, and print the coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-fast: $(STAMP)  ## Run the tests that start no server of others; under a minute
	$(BIN)/python -m pytest -m "not integration"

lint: $(STAMP)  ## Check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)  ## Check types, strictly
	$(BIN)/mypy

bench: $(STAMP)  ## Measure the kernels against their peers
	$(BIN)/python benchmarks/kernels.py

lock: $(STAMP)  ## Pin the development environment anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --extra flower --extra dev setup.cfg requirements/dev.in --output-file requirements/dev.txt

# Servers that are no Python packages. Only root on Debian can install them unasked; elsewhere the tests that need one
# say so and are skipped, except in CI, where they fail.
servers:
	@if ! command -v nginx >/dev/null && [ ! -x /usr/sbin/nginx ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nginx-light >/dev/null; \
	  else echo "nginx is not installed: the tests against it are skipped (Debian: apt-get install nginx-light)"; fi; fi

$(STAMP): requirements/dev.txt setup.cfg setup.py pyproject.toml $(CSRC)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:  ## Remove what was installed and built
	rm -rf $(VENV) build *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f packetfs_compute/kernels/*.so
