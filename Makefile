# `make demo` and `make test` work from nothing: they make a virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test slow lint docs runtimes oldest release clean

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

# the default tests with the oldest versions that pyproject.toml allows, but PyTorch, which is that of constraints.txt;
# old packages warn of what newer ones have dropped
OLDEST ?= build/oldest
oldest: export OMP_NUM_THREADS = 1
oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python -m pytest -W default $(TWO)

NOT_RESOLVED = ^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)\b

$(OLDEST)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade "pip>=25.1" uv
	$(OLDEST)/bin/uv pip compile --quiet --resolution lowest-direct --extra all --group test \
		--constraint constraints.txt --no-header --no-annotate pyproject.toml | grep -Ev '$(NOT_RESOLVED)' > $(OLDEST)/versions.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --requirement $(OLDEST)/versions.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

docs: $(VENV)/installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

# what goes to the package index: built, checked, and used from an empty environment
release: $(VENV)/installed
	rm -rf build/release
	$(BIN)/python -m pip install --quiet build twine
	$(BIN)/python -m build --outdir build/release/dist .
	$(BIN)/python -m twine check --strict build/release/dist/*
	$(PYTHON) -m venv build/release/venv
	build/release/venv/bin/python -m pip install --quiet build/release/dist/*.whl
	cd build/release && venv/bin/caloforge --version && venv/bin/caloforge data inspect sample:zn

clean:
	rm -rf $(VENV) build caloforge-demo
