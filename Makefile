# One command each on a fresh machine with Python and make; the first one called builds the environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

ALGO ?= softac_v1
ENV ?= Walker2d-v4
STEPS ?=
JOBS ?= 2

# Where the oldest versions are tried, and further options of `uv pip install`: PyTorch's small build is enough
OLDEST ?= .venv-oldest
UV_FLAGS ?= --torch-backend=cpu

# Where the Zoo's tools are tried
ZOO_TOOLS ?= .venv-zoo-tools

# Code in Markdown has room for 88 characters beside the menu of the site
MARKDOWN := --line-length 88 --config "format.exclude = []" README.md $(shell find docs -name "*.md" -not -path "*/_build/*")

.PHONY: train test slow drills gate lint type format examples docs oldest zoo-tools clean

# torch comes first and by itself: with the version pinned, nothing later can replace it by a larger build
# The C library is built by the installation
$(VENV)/.installed: setup.cfg setup.py pyproject.toml constraints.txt $(wildcard sb3_softac/engines/native/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[tests,docs,lint]"
	touch $@

train: $(VENV)/.installed
	$(BIN)/python -m rl_zoo3.train --algo $(ALGO) --env $(ENV) --progress $(if $(STEPS),--n-timesteps $(STEPS))

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

slow: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m slow

drills: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m drill

# Trains every algorithm on a small task and fails if one learns worse than in the stored runs
gate: $(VENV)/.installed
	$(BIN)/python benchmarks/gate.py check --jobs $(JOBS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ruff format --check $(MARKDOWN)

type: $(VENV)/.installed
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/ruff format $(MARKDOWN)

# What the examples print and draw, on the site; after a change of an example. Only this needs these packages
examples: $(VENV)/.installed
	$(BIN)/python -m pip install jupytext nbclient ipykernel
	$(BIN)/python tools/record_examples.py

docs: $(VENV)/.installed
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# The lower bounds of setup.cfg, in an environment of their own
oldest:
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install uv
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --resolution lowest-direct $(UV_FLAGS) .
	$(OLDEST)/bin/python tools/smoke.py

# Each tool of RL Zoo with each algorithm, in an environment that has the package installed as users install it
zoo-tools:
	$(PYTHON) -m venv --clear $(ZOO_TOOLS)
	$(ZOO_TOOLS)/bin/python -m pip install --constraint constraints.txt torch
	$(ZOO_TOOLS)/bin/python -m pip install --constraint constraints.txt ".[plots]" wandb
	$(ZOO_TOOLS)/bin/python tools/zoo_tools.py

clean:
	rm -rf $(VENV) $(OLDEST) $(ZOO_TOOLS) build dist docs/_build *.egg-info
