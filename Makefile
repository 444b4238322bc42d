# The environment is .venv/; every target makes it first if it is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install walker test test-system test-all test-slow mutants lint bench docs clean

install: .venv/.installed

# EnvPool is taken where it has a wheel; pgx runs without it, on Gymnasium's own environments.
.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --only-binary envpool -e '.[envpool]' \
		|| echo "EnvPool has no wheel for this platform: environments will run on Gymnasium alone"
	touch $@

WALKER_STEPS ?= 300000
WALKER_RUN := outputs/Walker2d-v4/trpo/walker_$(shell date +%Y-%m-%d_%H-%M-%S)

walker: install
	$(BIN)/pgx train algo=trpo env=Walker2d-v4 trainer.total_steps=$(WALKER_STEPS) run_dir=$(WALKER_RUN)
	$(BIN)/pgx eval $(WALKER_RUN) --episodes 10
	@echo "metrics, checkpoints and TensorBoard events are in $(WALKER_RUN)"
	@echo "look at them with: $(BIN)/pgx tensorboard"

# A file's tests share what takes long to make: one process has them all, and the files go in the order of their names.
PARALLEL = --dist loadfile --no-loadscope-reorder
CORES := $(shell $(PYTHON) -c 'import os; print(os.cpu_count() or 1)')

# Three tiers (tests/README.md): in one process; with processes, compilers, browsers; hours.
test: install
	$(BIN)/pytest -m "not system and not slow" -n $(CORES) $(PARALLEL)

# Two processes more than there are cores: most of these tests wait for processes that start.
test-system: install
	$(BIN)/pytest -m "system and not slow" -n $$(($(CORES) + 2)) $(PARALLEL)

test-all: test test-system

test-slow: install
	$(BIN)/pytest -m slow -n $(CORES) $(PARALLEL)

# See that tests notice what is broken on purpose (scripts/mutations).
mutants: install
	$(BIN)/python scripts/mutate.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python scripts/bench.py

# site/index.html; a link that leads nowhere is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
