# `make help` lists the targets. Needs python3 (3.10 or newer) and nothing else.
SHELL := /bin/bash
PYTHON ?= python3
ENV := .venv
PY := $(ENV)/bin/python
BUILD := build
# Runs of `make run` come first, then the committed ones (other seeds, the finals).
FRESH := MNIST_RECORDS="$(CURDIR)/$(BUILD)/records:$(CURDIR)/records" MNIST_RUNS="$(CURDIR)/$(BUILD)/records"
# Pages are made from records/ alone: a trial run in runs/ counts nowhere.
COMMITTED := MNIST_RECORDS="$(CURDIR)/records" MNIST_RUNS="$(CURDIR)/$(BUILD)/runs"
# Tests on all cores, each file on one.
CORES := -n auto --dist loadfile
# Without the kernel's warning that it talks to this machine unencrypted.
EXECUTE = $(PY) -m nbconvert --log-level WARN --to notebook --execute --ExecutePreprocessor.extra_arguments=--log-level=40
# Unlike nbconvert's default template, this one keeps the figures' alternative texts.
TEMPLATE := classic

# The notebooks run in this environment's kernel, whatever kernels the user has.
export JUPYTER_PATH := $(abspath $(ENV))/share/jupyter

# Remakes an environment whose Python is gone.
$(shell $(PY) -c '' 2>/dev/null || rm -f $(ENV)/installed)

.DEFAULT_GOAL := help
.PHONY: help env lab run test test-browser lint unit nbval site bench gpu evidence mutants notebooks clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-13s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(ENV)/installed  ## make the Python environment in .venv; SYSTEM=1 uses what the system has, such as a CPU-only torch

$(ENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "python3 is too old: 3.10 or newer is needed; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "python3 lacks the venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(PY) -c '' 2>/dev/null || rm -rf $(ENV)
	$(PYTHON) -m venv $(if $(SYSTEM),--system-site-packages) $(ENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(if $(SYSTEM),requirements.txt,requirements.lock)
	@touch $@

lab: env  ## open the notebooks in JupyterLab
	@$(PY) -m jupyter trust notebooks/*.ipynb appendix/*.ipynb >/dev/null
	$(PY) -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root)

run: env  ## train all ten from scratch, execute the notebooks on the result into build/, print the verdict
	@mkdir -p $(BUILD)/notebooks
	$(PY) -m study.sweep --seeds 0 --store $(BUILD)/records
	$(FRESH) $(EXECUTE) --output-dir $(BUILD)/notebooks notebooks/*.ipynb appendix/*.ipynb
	$(PY) -m nbconvert --log-level WARN --to html --template $(TEMPLATE) $(BUILD)/notebooks/*.ipynb
	$(PY) -m study.verdict --records $(BUILD)/records
	@echo "The pages of this run: $(BUILD)/notebooks/*.html"

test: env lint unit nbval  ## lint, unit tests, and the notebooks compared with their stored outputs

lint: env
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

unit: env
	$(PY) -m pytest $(CORES) tests --ignore tests/browser

nbval: env
	$(PY) -m pytest $(CORES) --nbval --nbval-cell-timeout=600 notebooks appendix

site: $(ENV)/site  ## build the study as pages, with a page to draw on, into build/site
	$(PY) -m tools.site

$(ENV)/site: $(ENV)/installed site/requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check -r site/requirements.txt
	@touch $@

test-browser: site  ## test the site and the notebooks in a real Chromium
	$(PY) -m pytest $(CORES) -rs tests/browser

bench: env  ## measure speed against the conventional pipeline, half an hour; QUICK=1 for eight minutes
	$(PY) -m benchmarks $(if $(QUICK),--quick)
	$(PY) -m tools.pages

gpu: env  ## time training on a CUDA device
	$(PY) -m benchmarks.gpu
	$(PY) -m tools.pages

evidence: env  ## train what records/ lacks of every run that the study wants, then measure all again
	$(PY) -m study.sweep --models all --store records
	$(PY) -m study.verdict --records records --verify

mutants: env  ## plant bugs, and check that a named test catches each
	$(PY) -m tools.mutants

notebooks: env  ## execute the notebooks in place and renew the pages' figures, after records changed
	rm -rf $(BUILD)/runs
	$(PY) -c 'import fast; fast.usable()'  # or the first live training would say that it compiles
	$(COMMITTED) $(EXECUTE) --ExecutePreprocessor.record_timing=False --inplace notebooks/*.ipynb appendix/*.ipynb
	$(PY) -m tools.pages

clean:  ## remove the environment, the runs of `make run` and caches; committed records stay
	rm -rf $(ENV) $(BUILD) .pytest_cache .ruff_cache
