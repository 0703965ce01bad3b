# Each target makes the virtual environment that it needs; only Python and make have to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all coverage lint types clean

demo: $(VENV)/.cli
	$(BIN)/zrs demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -q --numprocesses=auto -m "not long" --cov --cov-report=term

# All that `test` runs, and what takes its time.
test-all: test
	$(BIN)/python -m pytest -q --numprocesses=auto -m long --timeout=900

# The codec, each module by its own test file alone: 100 % of its branches.
coverage: $(VENV)/.test
	$(BIN)/python tests/codec_coverage.py

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.lint
	$(BIN)/mypy

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.cli: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli]'
	touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(VENV)/.lint: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
