# `make` alone prints what there is to make. Every target sets up .venv first, when it is missing or out of date.

PYTHON ?= python3
SOURCE ?=
OUTPUT ?= runs/cookbook
# requirements-data.txt and requirements-train.txt are for machines that do only the one or the other.
LOCK ?= requirements.txt
# So many tests run side by side. A file's tests stay together: they share what is slow to set up.
WORKERS ?= 2

VENV := .venv/bin/python
# Written last: its time says when .venv was whole, and it is older than the lock once that has changed.
READY := .venv/$(LOCK).ready
# The processes that tests start don't compile the same sources again, whatever the shell has set.
TEST := PYTHONDONTWRITEBYTECODE= $(VENV) -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder
PIP_INSTALL := $(VENV) -m pip install --quiet --disable-pip-version-check
# Empty where uv is missing.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)

.DEFAULT_GOAL := help
.PHONY: help cookbook test test-all lint docs notebook lock build-file emulators .venv
.SILENT:
.DELETE_ON_ERROR:

help:
	echo 'make cookbook   the whole recipe, small, on the source code of this machine; the report is $(OUTPUT)/report.html'
	echo '                SOURCE=/path/to/repositories takes another folder, OUTPUT=DIR another place for the results'
	echo 'make test       the tests that take seconds;  make test-all  every test;  WORKERS=8 runs so many side by side'
	echo 'make lint       ruff, mypy, and buildifier where it is installed'
	echo 'make docs       the pages of docs/ and of all docstrings, in runs/docs'
	echo 'make notebook   runs docs/miniature.ipynb again and keeps what it prints and draws'
	echo 'make lock       remakes the requirements*.txt after a change to pyproject.toml (with uv)'
	echo 'make build-file remakes BUILD after a change of imports'
	echo 'make emulators  servers of S3 and of Google storage for the tests of buckets, in .emulators (with uv and go)'
	echo 'make .venv      only sets up the environment; PYTHON=python3.12 chooses the interpreter of a new one,'
	echo '                LOCK=requirements-data.txt or requirements-train.txt installs what half of the house needs'

cookbook: $(READY)
	$(VENV) -m opencoder_jax cookbook $(if $(SOURCE),--source='$(SOURCE)') --output='$(OUTPUT)'

test: $(READY)
	$(TEST) -m 'not slow'

test-all: $(READY)
	$(TEST)

lint: $(READY)
	$(VENV) -m ruff check --quiet
	$(VENV) -m ruff format --check --quiet
	$(VENV) -m mypy --no-error-summary
	if command -v buildifier >/dev/null; then buildifier --mode=check --lint=warn BUILD MODULE.bazel; \
	else echo 'buildifier is not installed: BUILD and MODULE.bazel were not checked'; fi

docs: $(READY)
	$(VENV) -m mkdocs build --quiet --strict

notebook: $(READY)
	$(VENV) -m tests.run_notebook docs/miniature.ipynb

# One lock for everything, then one for each half with the same pins. Pins that still fit stay as they are;
# `uv pip compile --upgrade …` takes the newest of everything.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate pyproject.toml
lock:
	$(if $(UV),,$(error make lock needs uv: https://docs.astral.sh/uv))
	$(COMPILE) --extra dev -o requirements.txt
	$(COMPILE) --extra data --extra build --constraint requirements.txt -o requirements-data.txt
	$(COMPILE) --extra train --extra huggingface --extra serving --extra build --constraint requirements.txt -o requirements-train.txt

build-file: $(READY)
	$(VENV) -m tests.make_build

# What is in their buckets is gone with them. Tests look here, or where S3_EMULATOR and GCS_EMULATOR say.
emulators:
	uv venv --quiet --clear .emulators
	uv pip install --quiet --python .emulators/bin/python 'moto[server]>=5.1'
	GOBIN="$(CURDIR)/.emulators/bin" go install github.com/fsouza/fake-gcs-server@latest

.venv: $(READY)

$(VENV):
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null || { \
		echo "error: '$(PYTHON)' is not Python 3.11 or 3.12; name one: make PYTHON=python3.12 …" >&2; exit 1; }
ifdef UV
	uv venv --quiet --clear --python "$$(command -v $(PYTHON))" .venv
else
	$(PYTHON) -m venv --clear .venv
endif

# The packages come from the lock, with hashes, and nothing besides; then the project itself, editable, without looking for dependencies.
$(READY): $(LOCK) pyproject.toml | $(VENV)
	echo "setting up .venv with $(or $(UV),pip): the first time takes some minutes"
	rm -f .venv/*.ready
ifdef UV
	uv pip sync --quiet --python $(VENV) --require-hashes $(LOCK)
	uv pip install --quiet --python $(VENV) --no-deps --no-build-isolation --editable .
else
	$(VENV) -m ensurepip >/dev/null
	$(PIP_INSTALL) --use-pep517 --no-deps --require-hashes --requirement $(LOCK)
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
endif
	touch $@
