PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TREES := model components pipelines tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo study test lint types floors pytest check lock bench image test-image test-cluster clean

# What builds images: docker where its engine answers, else podman.
ENGINE ?= $(shell docker info >/dev/null 2>&1 && echo docker || echo podman)
VERSION ?= $(shell git describe --tags --always --dirty)
REVISION ?= $(shell git rev-parse HEAD)$(if $(shell git status --porcelain),-dirty)
BASE ?= docker.io/library/python:3.11-slim-bookworm
PIP_CONF ?=
IMAGE_FLAGS ?=

help: ## Lists these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## Makes the virtual environment .venv from constraints.txt (once)

demo: $(READY) ## Runs the whole pipeline on this machine: data, training, report, bundle, promotion
	@$(BIN)/lavin run --name demo

study: $(READY) ## Measures loss and metrics over the model's size and the number of context pairs; docs/study.md has the results
	@$(BIN)/lavin study

test: lint types floors pytest ## Lint, types, floors and tests: what continuous integration runs

lint: $(READY)
	$(BIN)/ruff check $(TREES)
	$(BIN)/ruff format --check $(TREES)

types: $(READY)
	$(BIN)/mypy

floors: $(READY)
	$(BIN)/lint-imports

pytest: $(READY) $(VENV)/prometheus/promtool
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

check: test ## The same as make test

bench: $(READY) ## Measures; benchmarks/README.md says what
	@for bench in benchmarks/*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

image: ## Builds lavin-pipelines and lavin-serve; BASE= names the base image, PIP_CONF= a pip.conf for the build alone
	$(call build,pipeline,lavin-pipelines)
	$(call build,serve,lavin-serve)
	@echo "Push lavin-pipelines:$(VERSION), then: lavin upload --image REGISTRY/lavin-pipelines@sha256:DIGEST, the digest that the registry gave it"

define build
	DOCKER_BUILDKIT=1 $(ENGINE) build --target $(1) --tag $(2):$(VERSION) --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(REVISION) $(if $(PIP_CONF),--secret id=pip.conf$(,)src=$(PIP_CONF)) $(IMAGE_FLAGS) .
endef
, := ,

test-image: $(READY) ## Builds both images with podman from a debootstrap base and runs them without root, network or a writable disk
	LAVIN_TEST_IMAGE=1 $(BIN)/pytest -m image -s tests/image

test-cluster: $(READY) ## Runs jobs on the cluster that KUBECONFIG names, in a namespace of its own; IMAGE= the pipeline's image
	IMAGE=$(IMAGE) $(BIN)/pytest -m cluster -s tests/cluster

# Debian's Prometheus, unpacked without root; where it cannot be had, the tests that need it skip and say so.
$(VENV)/prometheus/promtool: tests/monitoring/fetch_prometheus.sh | $(READY)
	-@tests/monitoring/fetch_prometheus.sh $(VENV)/prometheus

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
