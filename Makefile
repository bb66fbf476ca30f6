# Everything a checkout can do.  `make demo` and `make test` need Python 3.11 or newer and a
# package index, and nothing else: each makes .venv and installs into it what it needs.

SHELL := /bin/sh
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=
# Tests run on as many processes as there are cores; ARGS="-n 0" runs them in one.
WORKERS := -n auto --maxprocesses 8 --dist worksteal
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
    if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
    then echo $$p; break; fi; done)

# $(call install,EXTRAS,MODULES): make the environment if there is none, or if the one there is
# does not work; then install unless the same has been installed there already.
define install
@test -n "$(PYTHON)" || { echo "facula needs Python 3.11 or newer on PATH" >&2; exit 1; }
@$(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || { \
    echo "making $(VENV)"; rm -rf $(VENV); \
    $(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv -q $(VENV); }
@key="$(CURDIR) $$(cksum < pyproject.toml)"; stamp=$(VENV)/.installed-$(subst $(comma),-,$(1)); \
if test "$$(cat $$stamp 2>/dev/null)" != "$$key" || ! $(PY) -c 'import $(2)' 2>/dev/null; then \
    echo "installing facula[$(1)] into $(VENV)"; \
    $(PY) -m pip install --quiet --disable-pip-version-check -e '.[$(1)]' && \
    echo "$$key" > $$stamp; \
fi
endef
comma := ,

.PHONY: help demo test slow lint types docs bench wheel clean

help:
	@echo "make demo    train on MNIST (ARGS='--epochs 2' for a short run), pictures in demo-output/"
	@echo "make test    the fast tests"
	@echo "make slow    the slow tests"
	@echo "make lint    ruff, import direction"
	@echo "make types   mypy"
	@echo "make docs    write docs/reference anew from the docstrings"
	@echo "make bench   every benchmark, with its peers, and docs/benchmarks.md (ARGS=--quick to try)"
	@echo "make wheel   the wheel, in dist/"
	@echo "make clean   remove what the others made"

demo:
	$(call install,demo,PIL$(comma) numpy$(comma) llvmlite$(comma) ml_dtypes$(comma) safetensors)
	@$(PY) -m facula demo $(ARGS)

test:
	$(call install,test,PIL$(comma) pytest$(comma) xdist$(comma) hypothesis$(comma) llvmlite)
	@$(PY) -m pytest $(WORKERS) $(ARGS)

slow:
	$(call install,test,PIL$(comma) pytest$(comma) xdist$(comma) hypothesis$(comma) llvmlite)
	@$(PY) -m pytest -m slow $(WORKERS) $(ARGS)

lint:
	$(call install,dev,ruff$(comma) mypy)
	@$(PY) -m ruff check .
	@$(PY) tools/check_imports.py

types:
	$(call install,dev,ruff$(comma) mypy)
	@$(PY) -m mypy

docs:
	$(call install,test,pytest)
	@$(PY) tools/make_reference.py

bench:
	$(call install,bench,PIL$(comma) llvmlite$(comma) torch$(comma) jax)
	@$(PY) benchmarks/report.py $(ARGS)

wheel:
	$(call install,dev,ruff)
	@$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf .venv .venv-ci build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
