# Every target that needs the virtual environment .venv/ creates it first if it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install walker test test-system test-all test-slow mutants lint bench docs clean

install: .venv/.installed

# EnvPool is optional: it has no wheel for some platforms, where environments run on Gymnasium.
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary envpool -e '.[envpool]' \
		|| echo "EnvPool has no wheel for this platform: environments will run on Gymnasium"
	touch $@

WALKER_STEPS ?= 300000
WALKER_RUN := outputs/Walker2d-v4/trpo/walker_$(shell date +%Y-%m-%d_%H-%M-%S)

walker: install
	$(BIN)/pgx train algo=trpo env=Walker2d-v4 trainer.total_steps=$(WALKER_STEPS) run_dir=$(WALKER_RUN)
	$(BIN)/pgx eval $(WALKER_RUN) --episodes 10
	@echo "metrics, checkpoints and TensorBoard events: $(WALKER_RUN)"
	@echo "view: $(BIN)/pgx tensorboard"

# The tests of a file share expensive fixtures, so one process runs them all. Files run in alphabetical order.
PARALLEL = --dist loadfile --no-loadscope-reorder
CORES := $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')

# Three tiers (tests/README.md): in one process; with processes, compilers, browsers; hours.
# scripts/mutate.py reads FAST_TESTS as well.
FAST_TESTS = not system and not slow

test: install
	$(BIN)/pytest -m "$(FAST_TESTS)" -n $(CORES) $(PARALLEL)

# Two processes more than cores, because most of these tests wait for processes that start.
test-system: install
	$(BIN)/pytest -m "system and not slow" -n $$(($(CORES) + 2)) $(PARALLEL)

test-all: test test-system

test-slow: install
	$(BIN)/pytest -m slow -n $(CORES) $(PARALLEL)

# Check that tests fail for each deliberate bug of scripts/mutations.
mutants: install
	$(BIN)/python scripts/mutate.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python scripts/bench.py

# Builds site/index.html; broken links are errors.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
