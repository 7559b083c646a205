# You need Python 3.11 or later and make. Everything else is downloaded into this folder, and Kafka into your user cache.
UV_VERSION := 0.13.9
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
RUN := .venv/bin
READY := .venv/.ready
COMPILED := .venv/.compiled
WATCHER := .tools/.watcher

.PHONY: demo test check bench chaos setup

demo: $(COMPILED)
	$(RUN)/rater demo

test: check $(WATCHER)
	$(RUN)/pytest
	RATER_PURE=1 $(RUN)/pytest -q tests/unit/domain tests/property

check: $(COMPILED)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

bench: $(COMPILED)
	$(RUN)/python -m tests.bench $(BENCH)

# Injects faults of every kind for some minutes. To repeat a failed run's schedule, give its seed: make chaos seed=7 minutes=2
chaos: $(COMPILED)
	$(RUN)/python -m tests.chaos $(if $(seed),--seed $(seed)) $(if $(minutes),--minutes $(minutes))

setup: $(COMPILED)

$(READY): pyproject.toml uv.lock .tools/uv-$(UV_VERSION)
	.tools/venv/bin/uv sync --quiet --frozen --all-extras --python .tools/venv/bin/python
	$(RUN)/python -m rater.embedded
	@touch $@

$(COMPILED): $(READY) $(wildcard rater/domain/*.py rater/domain/*/*.py rater/compiled/*.py)
	$(RUN)/python -m rater.compiled
	@touch $@

$(WATCHER): $(READY)
	$(RUN)/python -m tests.prometheus
	@touch $@

.tools/uv-$(UV_VERSION):
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or later not found; name one with PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv --clear .tools/venv
	.tools/venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@
