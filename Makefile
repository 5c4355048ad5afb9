# `make` alone prints what there is to make. Every target sets up .venv first, when it is missing or out of date.

PYTHON ?= python3
SOURCE ?=
OUTPUT ?= runs/cookbook

VENV := .venv/bin/python
# Written last: its time says when .venv was whole, and it is older than the lock once that has changed.
READY := .venv/ready
PIP_INSTALL := $(VENV) -m pip install --quiet --disable-pip-version-check
# Empty where uv is missing.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)

.DEFAULT_GOAL := help
.PHONY: help cookbook test test-all lint lock .venv
.SILENT:
.DELETE_ON_ERROR:

help:
	echo 'make cookbook   the whole recipe, small, on the source code of this machine; the report is $(OUTPUT)/report.html'
	echo '                SOURCE=/path/to/repositories takes another folder, OUTPUT=DIR another place for the results'
	echo 'make test       the tests that take seconds;  make test-all  every test'
	echo 'make lint       ruff, mypy, and buildifier where it is installed'
	echo 'make lock       remakes requirements.txt after a change to pyproject.toml (with uv)'
	echo 'make .venv      only sets up the environment; PYTHON=python3.12 chooses the interpreter of a new one'

cookbook: $(READY)
	$(VENV) -m opencoder_jax cookbook $(if $(SOURCE),--source='$(SOURCE)') --output='$(OUTPUT)'

test: $(READY)
	$(VENV) -m pytest -m 'not slow'

test-all: $(READY)
	$(VENV) -m pytest

lint: $(READY)
	$(VENV) -m ruff check --quiet
	$(VENV) -m ruff format --check --quiet
	$(VENV) -m mypy --no-error-summary
	if command -v buildifier >/dev/null; then buildifier --mode=check --lint=warn BUILD MODULE.bazel; \
	else echo 'buildifier is not installed: BUILD and MODULE.bazel were not checked'; fi

# Pins that still fit stay as they are; `uv pip compile --upgrade …` takes the newest of everything.
lock:
	$(if $(UV),,$(error make lock needs uv: https://docs.astral.sh/uv))
	uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-annotate \
		pyproject.toml -o requirements.txt

.venv: $(READY)

$(VENV):
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null || { \
		echo "error: '$(PYTHON)' is not Python 3.11 or 3.12; name one: make PYTHON=python3.12 …" >&2; exit 1; }
ifdef UV
	uv venv --quiet --clear --python "$$(command -v $(PYTHON))" .venv
else
	$(PYTHON) -m venv --clear .venv
endif

# The packages come from the lock, with hashes; then the project itself, editable, without looking for dependencies.
$(READY): requirements.txt pyproject.toml | $(VENV)
	echo "setting up .venv with $(or $(UV),pip): the first time takes some minutes"
ifdef UV
	uv pip sync --quiet --python $(VENV) --require-hashes requirements.txt
	uv pip install --quiet --python $(VENV) --no-deps --no-build-isolation --editable .
else
	$(VENV) -m ensurepip >/dev/null
	$(PIP_INSTALL) --use-pep517 --require-hashes --requirement requirements.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
endif
	touch $@
