# `make` or `make help` lists the targets. Everything runs from .venv, which `make install` makes.

# Nobody wants to read which folder a make within make is in.
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
STAMP := .venv/.installed

# The first Python that ngrl supports and that can make an environment (Debian packs venv apart), else uv, which brings
# its own. `make install PYTHON=python3.13` chooses.
PYTHON = $(shell for python in python3.11 python3.12 python3.13 python3.10 python3 python; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	>/dev/null 2>&1 && echo "$$python" && break; done)
UV = $(shell command -v uv 2>/dev/null)
NO_PYTHON = ngrl needs Python 3.10, 3.11, 3.12 or 3.13 with its venv module, or uv, and found none: install one of them (Debian: python3-venv)

.DEFAULT_GOAL := help
.PHONY: help install lunar cartpole test test-learning check bench docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## make .venv from requirements.lock, once (3.5 GB)
	@:

$(STAMP): requirements.lock setup.py
	@sh tools/install.sh "$(or $(PYTHON),$(UV),$(error $(NO_PYTHON)))"

lunar: install ## train the natural-gradient DQN on LunarLander; ARGS='--seed=3' and the like are passed on
	@$(BIN)/python -m ngrl.launch --gin_file=gin/ngdqn_lunar.gin $(ARGS)

cartpole: install ## the same on CartPole-v1, about three minutes
	@$(BIN)/python -m ngrl.launch --gin_file=gin/ngdqn_cartpole_v1.gin $(ARGS)

# A third of the files each, until one has none left: what a file's tests share is made once. Three processes for two
# cores, since many tests wait for processes of their own.
test: install ## run the test suite without the learning runs
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not slow" $(ARGS)

test-learning: install ## run the learning runs that must reach a score (hours)
	@$(BIN)/python -m pytest -m slow $(ARGS)

check: install ## lint, formatting, types, the installed set and the documentation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python tools/check_installed.py
	@$(MAKE) docs

bench: install ## measure speed and memory; prints JSON
	@$(BIN)/python tools/bench.py $(ARGS)

docs: install ## build the documentation into site/; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

COMPILE = uv pip compile setup.py --extra dev --extra docs --group tf-agents --python-version 3.10 --quiet --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command 'make lock'

lock: ## compile the newest set and the oldest anew from setup.py and pyproject.toml (needs uv)
	$(COMPILE) --universal --upgrade --output-file requirements.lock
	$(COMPILE) --resolution lowest-direct --python-platform linux --upgrade --output-file requirements-oldest.lock

clean: ## remove caches and build products (not .venv, not runs)
	@rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find ngrl tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
