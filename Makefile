# Each goal works in a fresh clone with git, make and python3 >= 3.11: see tools/setup.sh.
# All paths are relative, so that the checkout's own path may have spaces.

PY := .venv/bin/python
PIP_INSTALL := $(PY) -m pip --disable-pip-version-check install --quiet --compile
SOURCES := $(shell find rtlaunch -type f ! -name '*.pyc' ! -name '*.so') $(wildcard hatch_build.py LICENSE README.md)
export PYTHON

.DELETE_ON_ERROR:
.PHONY: help demo test test-rigs test-vm test-all test-unit side-by-side
.PHONY: lint lint-ruff lint-mypy lint-imports matrix bench mutants differential clean
.PHONY: setup-demo setup-test setup-rigs setup-lint setup-bench

help: ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile

demo: setup-demo .venv/installed ## see a program fault under attack, and not fault under rtlaunch
	@$(PY) examples/01-see-the-faults/demo.py --rtlaunch .venv/bin/rtlaunch

test: setup-test .venv/installed .venv/installed-test ## all tests but the rigs, on this machine's kernel
	$(PY) -m pytest --ignore=tests/rigs
	@echo "left out: tests/rigs (systemd, containers, clusters, a virtual machine): make test-rigs" >&2

test-rigs: setup-rigs .venv/installed .venv/installed-test ## the tests in a real systemd, container, cluster
	$(PY) -m pytest tests/rigs

test-vm: setup-rigs .venv/installed .venv/installed-test ## of these, the ones in a virtual machine, under another kernel
	$(PY) -m pytest tests/rigs/test_vm.py

side-by-side: setup-rigs .venv/installed .venv/installed-test ## a systemd service plain and behind rtlaunch, what its manager sees
	$(PY) -m pytest -q -s tests/rigs/test_side_by_side.py

test-all: setup-test setup-rigs .venv/installed .venv/installed-test ## all of them, as CI does
	$(PY) -m pytest

test-unit: setup-demo .venv/installed .venv/installed-test ## the tests that need neither privileges nor a kernel
	$(PY) -m pytest tests/unit

lint: lint-ruff lint-mypy lint-imports ## ruff, mypy --strict, import-linter

lint-ruff lint-mypy lint-imports: setup-lint .venv/installed .venv/installed-dev

lint-ruff:
	$(PY) -m ruff check
	$(PY) -m ruff format --check --quiet

lint-mypy:
	$(PY) -m mypy

lint-imports:
	$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-logo

matrix: setup-test .venv/installed .venv/installed-test ## every kind of program, way in and user: expected and found
	$(PY) -m tests.matrix

bench: setup-bench .venv/installed ## the budgets, measured; fails over one
	$(PY) -m bench

mutants: setup-test .venv/installed .venv/installed-test ## break the code on purpose; each break must be seen by a test
	$(PY) tests/mutants.py

differential: setup-test .venv/installed .venv/installed-test ## a million made files, judged by us and by execve; COUNT=N
	$(PY) -m tests.kernel.differential $(COUNT)

clean: ## remove all that was made here
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf rtlaunch/native/*.so rtlaunch/native/merged rtlaunch/native/split
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup-demo setup-test setup-rigs setup-lint setup-bench: setup-%:
	@sh tools/setup.sh $*

# Built in isolation: python-prctl wants setuptools. What follows is not, since hatchling is here then.
.venv/dependencies: pyproject.toml
	@echo "setup: rtlaunch's dependencies into .venv" >&2
	@$(PIP_INSTALL) 'hatchling>=1.27' .
	@touch $@

.venv/installed: .venv/dependencies $(SOURCES)
	@echo "setup: rtlaunch into .venv" >&2
	@$(PIP_INSTALL) --no-build-isolation --no-deps --force-reinstall .
	@touch $@

.venv/installed-%: .venv/dependencies
	@echo "setup: what the goal needs beside it ($*) into .venv" >&2
	@$(PIP_INSTALL) --no-build-isolation '.[$*]'
	@touch $@
