# Each target makes the virtual environment that it needs; only Python and make have to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
# What is imported is compiled then: to compile all that is installed takes as long as to install it.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
# Whatever the environment says: tests start many processes, which would all compile it again.
export PYTHONDONTWRITEBYTECODE :=
# Versions of ZODB that the tests are run with besides the newest one.
ZODBS := 5.8.1 6.0.1

.PHONY: demo docs environments test test-all test-strictly test-versions $(ZODBS:%=test-zodb-%) peers coverage \
	lint types fuzz mutation soak bench bench-quick bench-parts screenshot clean

demo: $(VENV)/.cli
	$(BIN)/zrs demo

test: $(VENV)/.test $(PEERS)/zodb-5.5.1/.installed
	$(BIN)/python -m pytest -q --numprocesses=auto -m "not long"

# All that `test` runs, and what takes its time: most of that is spent waiting for other processes.
CORES := $(shell getconf _NPROCESSORS_ONLN)
MANY := $(shell expr 2 '*' $(CORES))
test-all: test test-strictly test-versions peers $(VENV)/.bench
	$(BIN)/python -m pytest -q --numprocesses=$(MANY) --dist=worksteal -m long \
		--timeout=900

# As Python is strictest and laxest, in all processes: in its development mode (-X dev), where what is
# not closed is a warning, and warnings are errors; and without `assert` (-O). Those of the tests stay:
# pytest writes them anew. The coverage of all but the codec's own tests, which `coverage` measures,
# is measured here too; the process that reports it goes without -O, under which that takes minutes.
STRICT := $(BIN)/python -X dev -O//env:PYTHONDEVMODE=1//env:PYTHONOPTIMIZE=1
test-strictly: $(VENV)/.test $(PEERS)/zodb-5.5.1/.installed
	$(BIN)/python -m pytest -q -m "not long" --cov --cov-report=term \
		--dist=load --tx="$(MANY)*popen//python=$(STRICT)" \
		-W "ignore:assertions not in test modules:pytest.PytestConfigWarning"

# The storages with older versions of ZODB, by the tests of this project and by ZODB's own.
test-versions: $(ZODBS:%=test-zodb-%)

$(ZODBS:%=test-zodb-%): test-zodb-%: $(VENV)-zodb-%/.test
	$(<D)/bin/python -m pytest -q --numprocesses=auto -m "not long" tests/storage tests/suites

# All that have a directory of their own: they can be made side by side.
environments: $(VENV)/.test peers $(ZODBS:%=$(VENV)-zodb-%/.test)

# What tests/interop, tests/zeo and tests/zope run beside this package, in environments of their own.
peers: $(PEERS)/zodb-5.5.1/.installed $(PEERS)/zodb-6.4/.installed $(PEERS)/zope/.installed \
	$(PEERS)/zodbdgc/.installed

# The codec, each module by its own test file alone: 100 % of its branches.
coverage: $(VENV)/.test
	$(BIN)/python tests/codec_coverage.py

# All that makes cases from numbers, for so many hours (or a fraction), with numbers that no test has.
HOURS ?= 1
soak: $(VENV)/.test
	$(BIN)/python -m tests.soak --hours $(HOURS)

# The documents as a site, in build/docs. What would be missing or wrong on it is an error.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs build/docs

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint deploy/Containerfile

types: $(VENV)/.lint
	$(BIN)/mypy

# Each fuzz target under libFuzzer, by Atheris, which is made for Linux on x86-64. What reaches more
# than the corpus goes to build/fuzz.
FUZZ_SECONDS := 60
fuzz: $(VENV)/.fuzz
	for target in framing pickles primary secondary session; do \
		mkdir -p build/fuzz/$$target; \
		$(BIN)/python -m tests.fuzz.guided $$target -max_total_time=$(FUZZ_SECONDS) -max_len=1500 \
			-artifact_prefix=build/fuzz/$$target- build/fuzz/$$target \
			$$($(BIN)/python -m tests.fuzz.corpus $$target) || exit 1; \
	done

# Mutation tests of the codec, and of the sources and sinks of storages: their tests run on code with
# one change at a time. Fails if fewer of the changes make a test fail than tests/mutation.py requires.
mutation: $(VENV)/.mutation
	$(BIN)/python -m mutmut run
	$(BIN)/python tests/mutation.py

# Replication side by side with zc.zrs: a table, build/benchmarks/results.json, and the drawing.
bench: $(VENV)/.bench peers
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.drawing build/benchmarks/results.json docs/performance.svg

bench-quick: $(VENV)/.bench peers
	$(BIN)/python -m benchmarks --sizes quick --output build/benchmarks/quick

# The parts by themselves: the codec message by message, reading and applying.
bench-parts: $(VENV)/.bench
	$(BIN)/python -m pytest -q benchmarks/parts

# The picture of the status server's page, of nodes that run for so many minutes.
MINUTES := 20
screenshot: $(VENV)/.test $(VENV)/.docs
	$(BIN)/python -m tests.page.screenshot docs/status-page.png $(MINUTES)

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.cli: $(VENV)/.python pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[cli]'
	touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[test]'
	touch $@

$(VENV)-zodb-%/.test: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(INSTALL) --editable '.[test]' ZODB==$*
	touch $@

$(VENV)/.lint: $(VENV)/.python pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[test,lint]'
	touch $@

$(VENV)/.docs: $(VENV)/.python pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[docs]'
	touch $@

$(VENV)/.fuzz: $(VENV)/.python pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[fuzz]'
	touch $@

$(VENV)/.mutation: $(VENV)/.python pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[mutation]'
	touch $@

$(VENV)/.bench: $(VENV)/.python pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[bench]'
	touch $@

$(PEERS)/%/.installed: tests/interop/peers/%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python $(INSTALL) "$$(grep ^setuptools $<)"
	$(@D)/bin/python $(INSTALL) --no-build-isolation --use-pep517 --requirement $<
	touch $@

$(PEERS)/zope/.installed: tests/zope/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(INSTALL) --requirement $<
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-zodb-* $(PEERS)
	rm -rf build *.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis mutants
