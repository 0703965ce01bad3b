# Each target makes the virtual environment that it needs; only Python and make have to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers

.PHONY: demo test test-all peers coverage lint types clean

demo: $(VENV)/.cli
	$(BIN)/zrs demo

test: $(VENV)/.test $(PEERS)/zodb-5.5.1/.installed
	$(BIN)/python -m pytest -q --numprocesses=auto -m "not long" --cov --cov-report=term

# All that `test` runs, and what takes its time.
test-all: test peers
	$(BIN)/python -m pytest -q --numprocesses=auto -m long --timeout=900

# Those with whom tests/interop replicates, each in an environment of its own.
peers: $(PEERS)/zodb-5.5.1/.installed $(PEERS)/zodb-6.4/.installed

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

$(PEERS)/%/.installed: tests/interop/peers/%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep ^setuptools $<)"
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-build-isolation --use-pep517 --requirement $<
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
