# Everything a user needs is two words: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test check format docs bench peer clean
.DEFAULT_GOAL := help

help:  ## Lists the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Builds .venv with everything in it

# torch is pinned to a CPU build: an open range would pull gigabytes of CUDA packages.
# For a GPU, install the torch of your choice into .venv first.
$(STAMP): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu "torch==2.13.0"
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $(STAMP)

demo: setup  ## The whole method on a small simulated observatory: a table and an HTML report
	$(BIN)/poyo-ssl demo --output runs/demo

WORKERS ?= auto
test: setup  ## Runs the tests
	$(BIN)/pytest -n $(WORKERS) --dist loadfile $(PYTEST)

check: setup  ## Format, lint, types and spelling: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

format: setup  ## Rewrites the code in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup  ## Builds the documentation: docs/_build/html/index.html
	$(BIN)/pip install --quiet --editable ".[docs]"
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q docs docs/_build/html

DATA ?= ../shared/data
bench: setup peer  ## Reproduces the tables of docs/scores.md (an hour), times SSIM and encoders; benchmarks/results
	$(BIN)/python benchmarks/ssim.py
	$(BIN)/python benchmarks/encoder.py
	$(BIN)/python benchmarks/decoding.py --data $(DATA)

PEER := .peer
peer: $(PEER)/.installed  ## Builds .peer with torch-brain 0.1.2, whose model benchmarks/encoder.py runs beside ours

$(PEER)/.installed:
	test -d $(PEER) || $(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python -c "import torch" 2>/dev/null || $(PEER)/bin/pip install --quiet --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu "torch==2.13.0"
	$(PEER)/bin/pip install --quiet "torch-brain==0.1.2"
	touch $(PEER)/.installed

clean:  ## Removes .venv, .peer, runs/ and the built documentation
	rm -rf $(VENV) $(PEER) runs docs/_build docs/measured
