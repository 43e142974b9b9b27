# `make help` lists the targets. Needs python3 (3.10 or newer) and nothing else.
SHELL := /bin/bash
PYTHON ?= python3
ENV := .venv
PY := $(ENV)/bin/python
BUILD := build
# Runs of `make run` come first, then the committed ones (other seeds, the two finals).
FRESH := MNIST_RECORDS="$(CURDIR)/$(BUILD)/records:$(CURDIR)/records" MNIST_RUNS="$(CURDIR)/$(BUILD)/records"
# Unlike nbconvert's default template, this one keeps the figures' alternative texts.
TEMPLATE := classic

.DEFAULT_GOAL := help
.PHONY: help env run test lint unit nbval bench evidence notebooks clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(ENV)/installed  ## make the Python environment in .venv

$(ENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "python3 is too old: 3.10 or newer is needed; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "python3 lacks the venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(ENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

run: env  ## train all ten from scratch, execute the notebooks on the result into build/, print the verdict
	@mkdir -p $(BUILD)/notebooks
	$(PY) -m utils.sweep --models 1-10 --seeds 0 --store $(BUILD)/records
	$(FRESH) $(PY) -m nbconvert --log-level WARN --to notebook --execute --output-dir $(BUILD)/notebooks notebooks/*.ipynb
	$(PY) -m nbconvert --log-level WARN --to html --template $(TEMPLATE) $(BUILD)/notebooks/*.ipynb
	$(PY) -m utils.verdict --records $(BUILD)/records

test: env lint unit nbval  ## lint, unit tests, and the notebooks compared with their stored outputs

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

unit: env
	$(PY) -m pytest tests

nbval: env
	$(PY) -m pytest --nbval --nbval-cell-timeout=120 notebooks

bench: env  ## measure speed against the conventional pipeline and the goals, in one run; half an hour
	$(PY) -m benchmarks

evidence: env  ## train what records/ lacks (every committed seed, the search, the finals); over an hour
	$(PY) -m utils.sweep --models 1-10 --seeds 0-2 --store records
	$(PY) -m utils.search
	$(PY) -m utils.sweep --models 9-final,10-final,9-short --seeds 0-2 --store records
	$(PY) -m utils.sweep --models 1-original,2-original,3-original,4-original --store records
	$(PY) -m utils.sweep --models 9,9-short --seeds 3-4 --store records/engines/fast
	$(PY) -m utils.sweep --models 9,9-short --seeds 0-4 --engine reference --store records/engines/float32

notebooks: env  ## execute the notebooks in place and renew the README's figures, after records changed
	$(PY) -m nbconvert --log-level WARN --to notebook --execute --inplace notebooks/*.ipynb
	$(PY) -m utils.readme

clean:  ## remove the environment, the runs of `make run` and caches; committed records stay
	rm -rf $(ENV) $(BUILD) .pytest_cache .ruff_cache
