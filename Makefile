# Needs Python 3.11 or newer, and make. `make` alone lists what there is.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=
# Those of the program's folders that are there and hold Python.
CODE := $(foreach d,agent benchmarks cli common controller tests tools toolset,$(if $(shell find $(d) -name '*.py' -print -quit 2>/dev/null),$(d)))
# Targets of their own.
LEFT_OUT := --ignore tests/matrix --ignore tests/n8n --ignore tests/scale
# Where the shell forbids to keep compiled modules, each of the thousand processes of a test run would compile its own.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup check lint prefetch compiled test test-variants test-n8n test-scale matrix demo bench stubs lock format servers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv as requirements.lock says

$(READY): requirements.lock pyproject.toml tools/bootstrap.py
	@$(PYTHON) tools/bootstrap.py

check: lint ## style, types, layout, wire contract, unit tests: under two minutes
	$(BIN)/pytest --numprocesses 2 tests/unit

lint: $(READY)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python -m tools.stubs --check

# What cannot be had has been said with its reason; the tests that need it then fail by themselves.
prefetch: $(READY)
	-@$(BIN)/python -m tools.servers get

# pytest rewrites and compiles each module of tests; in a fresh clone each of its processes would do that for itself.
compiled: $(READY)
	-@$(BIN)/pytest --collect-only --quiet --quiet $(LEFT_OUT) tests >/dev/null

# In the order that tests/conftest.py makes; four processes on two cores, since most tests wait for servers.
SIDE_BY_SIDE := --numprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY) ## check, and every test against real servers, in a version, form and moment or two
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint prefetch compiled
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not variant" $(LEFT_OUT) tests $(ARGS)

# tests/conftest.py refuses variants elsewhere in tests/unit, which take each process 1.5 s to collect.
VARIED := tests/acceptance tests/contract tests/integration tests/unit/cli

test-variants: $(READY) prefetch ## the same tests in all other versions, forms and moments
	$(BIN)/pytest $(SIDE_BY_SIDE) -m variant $(VARIED) $(ARGS)

test-n8n: $(READY) ## a real n8n from npm starts on what was imported; 2.4 GB the first time
	@$(BIN)/python -m tools.servers get n8n
	$(BIN)/pytest --numprocesses 2 tests/n8n $(ARGS)

test-scale: $(READY) ## a volume of a million small files, out and in; FILES=50000 for fewer
	TMPDIR=$${TMPDIR:-/tmp} $(BIN)/pytest --capture=no tests/scale $(ARGS)

matrix: $(READY) prefetch ## each version into each other, written to docs/matrix.md
	$(BIN)/pytest --numprocesses 2 --dist worksteal tests/matrix --write-matrix docs/matrix.md $(ARGS)

demo: $(READY) ## real databases, an export, a wipe, an import, a comparison
	@$(BIN)/python -m tools.demo $(ARGS)

bench: $(READY) ## measure speed and memory
	@$(BIN)/python -m benchmarks $(ARGS)

servers: $(READY) ## get the real servers that tests and demo need
	@$(BIN)/python -m tools.servers get $(ARGS)

stubs: $(READY) ## remake the Python stubs beside the proto files
	@$(BIN)/python -m tools.stubs

format: $(READY) ## lay out the code as `make check` wants it
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

lock: $(READY) ## remake requirements.lock from pyproject.toml; UPGRADE=1 takes newer releases
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --group dev $(if $(UPGRADE),--upgrade) pyproject.toml --output-file requirements.lock
