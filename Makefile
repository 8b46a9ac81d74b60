PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TREES := model components pipelines tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types floors pytest check lock bench clean

help: ## Lists these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY) ## Makes the virtual environment .venv from constraints.txt (once)

demo: $(READY) ## Runs the whole pipeline on this machine: data, training, report, bundle, promotion
	@$(BIN)/lavin run --name demo

test: lint types floors pytest ## Lint, types, floors and tests: what continuous integration runs

lint: $(READY)
	$(BIN)/ruff check $(TREES)
	$(BIN)/ruff format --check $(TREES)

types: $(READY)
	$(BIN)/mypy

floors: $(READY)
	$(BIN)/lint-imports

pytest: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

check: test ## The same as make test

bench: $(READY) ## Measures; benchmarks/README.md says what
	@for bench in benchmarks/*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

lock: ## Resolves constraints.txt afresh, from pyproject.toml alone
	rm -rf .lock-venv
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet "torch==2.13.0" -e '.[dev]'
	@echo "# Every version that the project is tested with; made by \`make lock\`. Used as: pip install --constraint constraints.txt -e '.[dev]'" > constraints.txt
	.lock-venv/bin/pip list --format=freeze --exclude-editable | grep -vE '^(pip|setuptools|wheel)==' | sed 's/+cpu//' >> constraints.txt
	rm -rf .lock-venv

clean: ## Removes the virtual environment, runs and outputs
	rm -rf $(VENV) runs outputs .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Set PYTHON=python3.12, for example." if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV) (a minute or two, once)"
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
