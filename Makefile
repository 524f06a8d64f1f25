# The developer's and the newcomer's interface; `make help` lists it.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test live check format bench clean

$(BIN)/streampose: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

run: $(BIN)/streampose  ## install, then watch the bundled clip (or CAMERA_URL=rtsp://…) and write out/
	$(BIN)/streampose run configs/cctv.yaml

test: $(BIN)/streampose  ## the whole test suite
	$(BIN)/python -m pytest

live: $(BIN)/streampose  ## five minutes of faults, overload and fuzz: the table of docs/live.md
	$(BIN)/python -m tests.live.table

check: $(BIN)/streampose  ## format, lint and strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(BIN)/streampose  ## rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BIN)/streampose  ## time the parts of the pipeline and the networks on this machine
	$(BIN)/streampose bench pipeline
	$(BIN)/streampose bench models

clean:  ## remove what was made here (not the environment)
	rm -rf out build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
