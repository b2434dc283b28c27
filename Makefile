# `make` lists the targets. Everything runs in a virtual environment of its own, .venv.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

# Python keeps what it has compiled, whatever the environment says: tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-lowest test-hydra14 torture lint format sanitize bench reproduce second second-report figure7 reproduce-check report gallery wheel clean

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 18

$(SETUP): pyproject.toml setup.py constraints.txt $(wildcard src/native/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(SETUP)

setup: $(SETUP)  ## make the virtual environment

demo: $(SETUP)  ## three networks on the Vicsek set: coarse, fine and finest curve
	$(BIN)/python -m fractal_ifs.train -m fractal=vicsek curve=1,4,6 budget=quick

# Three processes for two cores: many of the tests wait for other processes. Where one dies the rest would wait for its tests.
test: $(SETUP)  ## the tests that CI runs, on two cores
	$(BIN)/python -m pytest -m "not slow" --numprocesses 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-slow: $(SETUP)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

# Some packages in other versions, in a directory of their own: found before those of .venv, which stays as it is.
.lowest/.installed .hydra14/.installed: .%/.installed: constraints-%.txt $(SETUP)
	rm -rf .$*
	grep -v '^torch==' $< | $(BIN)/pip install --quiet --no-deps --only-binary :all: --target .$* -r /dev/stdin \
		|| { echo "$<: can't be installed; is there a connection?" >&2; exit 1; }
	touch $@

test-lowest: .lowest/.installed  ## some of the tests, with the lowest versions that pyproject.toml allows
	PYTHONPATH="$(abspath .lowest)" $(BIN)/python -m pytest -m "not slow" $(addprefix tests/test_,$(addsuffix .py,\
		config sweep launchers records report plot dashboard)) tests/test_images.py::test_fetching

test-hydra14: .hydra14/.installed  ## the tests of the command line and of sweeps, with Hydra 1.4
	PYTHONPATH="$(abspath .hydra14)" $(BIN)/python -m pytest -m "not slow" $(addprefix tests/test_,$(addsuffix .py,\
		config command_line sweep launchers foreign hydra doors package))

torture: $(SETUP)  ## 1,000 strikes at any file operation of commands of every kind, which must end as if undisturbed (about 2 h); STRIKES=60 SEED=7 ONLY=3
	$(BIN)/python tests/torture.py --strikes $(or $(STRIKES),1000) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

lint: $(SETUP)  ## ruff, clang-format, yamllint and pyright
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror src/native/* src/fractal_ifs/engines/*.cuh tests/*.c tests/*.cpp
	$(BIN)/yamllint --strict .
	$(BIN)/pyright

format: $(SETUP)  ## let ruff and clang-format format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i src/native/* src/fractal_ifs/engines/*.cuh tests/*.c tests/*.cpp

sanitize: $(SETUP)  ## the native engine under sanitizers of addresses, undefined behaviour and threads, and the cuda engine's kernel (4 min)
	PATH="$(abspath $(BIN)):$$PATH" sh tests/native_sanitize.sh

bench: $(SETUP)  ## time per step against Lightning, joblib, a bare PyTorch loop and JAX, side by side; of large sweeps; of learned points
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,bench]"
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/measures.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/learned.py

reproduce: $(SETUP)  ## train what docs/reproduction/results.csv still lacks: hours, niced; stop it at any time
	sed '/^#/d;/^$$/d' docs/reproduction/stages.txt | while read -r stage; do \
		nice $(BIN)/python -m fractal_ifs.train -m $$stage kept=docs/reproduction/results.csv logger=csv </dev/null || exit; \
	done

second: $(SETUP)  ## train what the second edition (docs/reproduction/second.txt) still lacks: hours, niced; stop it at any time
	sed '/^#/d;/^$$/d' docs/reproduction/second.txt | while read -r stage; do \
		nice $(BIN)/python -m fractal_ifs.train -m $$stage logger=csv </dev/null || exit; \
	done

figure7: $(SETUP)  ## train what Figure 7 (docs/reproduction/figure7.txt) still lacks: hours, niced; CIFAR10="data.dir=DIR data.verify=false" goes on with what is kept
	sed '/^#/d;/^$$/d' docs/reproduction/figure7.txt | while read -r stage; do \
		nice $(BIN)/python -m fractal_ifs.train -m $$stage $(CIFAR10) logger=csv </dev/null || exit; \
	done

second-report: $(SETUP)  ## write docs/reproduction/second from second.csv: the tables by four numbers, and what moved
	rm -rf build/second
	mkdir -p docs/reproduction/second
	for number in best final chosen train; do \
		$(BIN)/python -m fractal_ifs.report docs/reproduction/second.csv --number $$number --no-figures --output build/second || exit; \
		cp build/second/report.md docs/reproduction/second/$$number.md; \
	done
	for number in best final; do \
		$(BIN)/python -m fractal_ifs.report compare docs/reproduction/results.csv docs/reproduction/second.csv --number $$number \
			> docs/reproduction/second/moved_$$number.md || exit; \
	done

reproduce-check: $(SETUP)  ## train three of the kept runs again, each alone; WIDTH=20: none wider
	$(BIN)/python -m fractal_ifs.report check docs/reproduction/results.csv $(if $(WIDTH),--width $(WIDTH))

report: $(SETUP)  ## write docs/reproduction from the kept runs; RUNS=multirun: also from what is there, with new pictures
	$(BIN)/python -m fractal_ifs.report docs/reproduction/results.csv $(wildcard docs/reproduction/figure7.csv) $(RUNS) --output docs/reproduction

gallery: $(SETUP)  ## draw the pictures of docs/gallery.md again, by the commands of that page
	sed -n '/^```bash/,/^```/{/^```/d;p}' docs/gallery.md | PATH="$(abspath $(BIN)):$$PATH" bash -eu

wheel: $(SETUP)  ## a wheel in dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

clean:  ## remove the environment and what was built
	rm -rf $(VENV) .lowest .hydra14 build dist src/*.egg-info src/fractal_ifs/*.so
