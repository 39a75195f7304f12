# Every target but help and clean first makes the environment, if it is not there yet.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= runs/demo
# One process more than cores: tests that wait for others leave a core idle.
JOBS ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')

BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-lock
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
TORCH = $(shell grep '^torch==' requirements-dev.lock)

.DEFAULT_GOAL := help
.PHONY: help venv demo test slow lint docs bench clean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile
	@echo "Another interpreter: make venv PYTHON=python3.12. Fewer processes: make test JOBS=1"

venv: $(STAMP) ## make the environment .venv from requirements-dev.lock, from nothing

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Thalweg needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make venv PYTHON=python3.12" >&2; exit 1; }
	@echo "[1/4] Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/4] Installing $(TORCH), the largest download"
	@$(PIP) $(TORCH)
	@echo "[3/4] Installing the rest of requirements-dev.lock"
	@$(PIP) --requirement requirements-dev.lock
	@echo "[4/4] Installing thalweg itself, editable"
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## train, branch and embed on scikit-learn's digits; prints where the report lies
	$(BIN)/thalweg reproduce --preset demo --out $(DEMO)

test: $(STAMP) ## the tests, the doctests and the blocks of the docs, on all cores
	$(BIN)/python -m pytest -q -n $(JOBS)

slow: $(STAMP) ## the tests that `make test` leaves out because they take long
	$(BIN)/python -m pytest -q -n $(JOBS) -m slow

lint: $(STAMP) ## style, formatting, types and the floors of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The variable silences an announcement of the theme.
docs: $(STAMP) ## build the pages into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html"

bench: $(STAMP) ## the measurements of speed and memory, each a ratio to a plain alternative
	$(BIN)/python -m benchmarks

clean: ## remove what tools leave behind; the environment and the runs stay
	rm -rf site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .bench
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
