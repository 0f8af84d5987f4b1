# Every target does the set-up that it needs. Python 3.11 and a C compiler are all that must be there.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# CPU-only torch where pip would bring a CUDA build: make install PIP_FLAGS="--index-url URL" with the
# URL that pytorch.org's selector shows for "CPU".
PIP_FLAGS ?=

.PHONY: install demo test test-slow lint bench clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# Without what it asks for: it would bring opencv-python, which puts itself in the place of the headless one.
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps insightface
	touch $@

demo: install
	$(BIN)/hallo3 demo --output demo

test: install
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build demo outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
