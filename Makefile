# make demo    learn a task in simulation and watch it       make test    the whole suite
# make lint    ruff and mypy                                  make bench   time what must be fast
# make quick   the suite without its slow part                make clean   remove what make made
# make envs    tests of the simulators that hold MuJoCo back, in a venv beside .venv
#
# The first target sets up .venv; again only after pyproject.toml or constraints.txt changed.
# PYTHON=/path/to/python3.11 chooses the interpreter, EXTRAS=sim what is installed.

SHELL := /bin/bash
VENV := .venv
RUN := $(VENV)/bin/python
EXTRAS ?= dev
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick envs lint format bench clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt | $(RUN)
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(RUN) -m ensurepip >/dev/null
	@echo "Installing lerobot[$(EXTRAS)] into $(VENV) (about a minute the first time) ..."
	@$(RUN) -m pip install -qq -c constraints.txt -e '.[$(EXTRAS)]'
	@bash .ci/renderer.sh $(RUN)
	@touch $@

# The oldest supported Python first: binary packages of everything exist for it.
$(RUN):
	@set -e; found=; \
	for name in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3 python); do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found="$$name"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'lerobot needs Python 3.11 or newer, and $(if $(PYTHON),$(PYTHON) is not one,none was found)'; \
	  echo 'Install one (Debian: apt-get install python3.11 python3.11-venv) or type: make PYTHON=/path/to/python3.11'; \
	  exit 2; \
	fi; \
	echo "Making $(VENV) with $$found ($$("$$found" --version))"; \
	"$$found" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'The venv module is missing. Debian: apt-get install python3-venv'; exit 2; }

demo: $(STAMP)
	@$(RUN) examples/demo.py

test: $(STAMP)
	@$(RUN) -m pytest -n 2 --dist worksteal $(ARGS)

quick: $(STAMP)
	@$(RUN) -m pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

envs: $(STAMP)
	@bash .ci/envs.sh -n 2 --dist worksteal $(ARGS)

lint: $(STAMP)
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy

format: $(STAMP)
	@$(RUN) -m ruff check --fix
	@$(RUN) -m ruff format

bench: $(STAMP)
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(RUN) $$file; done

clean:
	rm -rf $(VENV) $(VENV)-* build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
