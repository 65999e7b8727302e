# Everything starts here: `make demo` and `make test` do their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch comes from constraints.txt: bare `torch` would pull gigabytes of CUDA packages on Linux.
INSTALL := $(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: docs pictures setup demo test check bench faults calibration clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (about 2 GB on disk with the CPU build of torch, a minute or two) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) -e '.[dev]'
	@touch $@

demo: setup
	$(BIN)/ontogeny demo --out runs/demo

check: setup
	$(BIN)/ruff format --check src tests benchmarks tools examples
	$(BIN)/ruff check src tests benchmarks tools examples
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python tools/figures.py

# The site in docs/_build/html: offline, warnings are errors. Notebooks are executed and pictures drawn on the run of `make demo`.
docs: demo
	@$(INSTALL) -e '.[docs]'
	ONTOGENY_DEMO=$(CURDIR)/runs/demo OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html
	$(BIN)/python tools/check_links.py docs/_build/html
	@echo "site: docs/_build/html/index.html"

# The picture of the README and of the home page, from the run of `make demo`.
pictures: demo
	$(BIN)/ontogeny show runs/demo/trace emergence --out docs/pictures/emergence.svg

test: setup
	@$(BIN)/python -m compileall -q -j 2 src  # once for the commands that tests start, where Python writes no caches
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

# About 25 minutes. Peers are installed into .bench/ on first use.
bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py

# Crashes at every point at which a job writes, kills, full disks: some minutes. The tests try a sample of it.
faults: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults

# Error rates of the sentences by simulation: twenty minutes. docs/calibration.md holds the table; the tests run a small part of it.
calibration: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.simulation

clean:
	rm -rf runs build dist .mypy_cache .ruff_cache .hypothesis
