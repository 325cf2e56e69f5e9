# `make demo` and `make test` set up what they need, without root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-complete

.PHONY: demo test check bench proto proto-check setup clean test-unit test-integration test-system

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

proto: $(SETUP)
	$(BIN)/python tools/generate_protocols.py

proto-check: $(SETUP)
	$(BIN)/python tools/generate_protocols.py --check

check: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/generate_protocols.py --check
	$(BIN)/pytest -q tests/unit
