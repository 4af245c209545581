# `make demo` and `make test` work from nothing: they make a virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test slow lint docs runtimes clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev
	touch $@

demo: $(VENV)/installed
	$(BIN)/caloforge demo --out caloforge-demo

# many small tests, two files at a time: a second thread of each only gets in the way
test slow: export OMP_NUM_THREADS = 1
TWO = --numprocesses 2 --dist loadfile

test: $(VENV)/installed
	$(BIN)/python -m pytest $(TWO)

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow $(TWO)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# every export in old and new versions of ONNX Runtime, each in an environment of its own
runtimes: export OMP_NUM_THREADS = 1
runtimes: $(VENV)/installed
	$(BIN)/python tools/runtime_matrix.py build/runtimes

docs: $(VENV)/installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

clean:
	rm -rf $(VENV) build caloforge-demo
