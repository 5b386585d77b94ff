# tmm-core: 'make' lists the targets. GNU make 3.81 or newer; everything it installs goes into .venv.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
ARGS   ?=

# The extension is built again when one of these changes.
ENGINE := $(wildcard src/tmm_core/*.pxd src/tmm_core/_core/*.pyx src/tmm_core/_core/*.pxi src/tmm_core/_core/*.pxd src/tmm_core/_core/*.h)

# Stamps in .venv: what is already there is neither installed nor built again.
VENV_READY := $(VENV)/.ready
BUILT      := $(VENV)/.built
INSTALLED  := $(VENV)/.installed
group       = $(VENV)/.group-$(1)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test build lint format types stubtest bench bench-quick bench-gateway fuzz prove evidence package wheel docs simulation clean distclean

help:  ## List the targets
	@echo "tmm-core: 'make demo' shows the Mechanism at work, 'make test' runs the tests; both work on a fresh clone."
	@echo "  Another Python: make PYTHON=python3.13 test      More arguments for pytest: make test ARGS='-k bucket -x'"
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  %-13s %s\n", $$1, $$2 }'

demo: $(INSTALLED) $(call group,demo)  ## Run the demonstration: a day that reaches DSP peak volume, through the real engine
	$(BIN)/tmm demo $(ARGS)

test: $(INSTALLED) $(call group,test)  ## Run the tests, all but those marked slow
	$(PYTEST) -m "not slow" $(ARGS)

build: $(INSTALLED)  ## Build the engine in place and install the package, editable

lint: $(call group,lint)  ## Check style, spelling and workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src/tmm_core
	$(BIN)/codespell
	$(BIN)/validate-pyproject pyproject.toml
	$(BIN)/zizmor --offline --quiet .github

format: $(call group,lint)  ## Lay out the Python code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: $(INSTALLED) $(call group,lint)  ## Check the types, strictly
	$(BIN)/mypy --strict src

stubtest: $(INSTALLED) $(call group,lint)  ## Compare the engine's .pyi with the engine
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml tmm_core._core.engine

bench: $(INSTALLED) $(call group,bench)  ## Run all benchmarks, peers in the same run (minutes; an idle machine)
	$(PYTEST) bench --benchmark-only --timeout 300 -p no:cacheprovider $(ARGS)

bench-quick: $(INSTALLED) $(call group,bench)  ## Run the benchmarks that have 'quick' in their name (seconds)
	$(PYTEST) bench --benchmark-only --timeout 300 -p no:cacheprovider -k quick -q $(ARGS)

bench-gateway: $(INSTALLED) $(call group,bench-gateway)  ## Measure what the middleware costs under uvicorn and granian (needs wrk)
	$(BIN)/python bench/gateway/throughput.py $(ARGS)

fuzz: $(INSTALLED) $(call group,test) $(call group,fuzz)  ## Fuzz the DUIS header reader for a minute (Linux, where atheris has a wheel)
	$(BIN)/python tests/gateway/fuzz_duis.py -max_total_time=60 $(ARGS)

bench-table: $(INSTALLED) $(call group,bench)  ## Run all benchmarks and write their table into bench/README.md
	$(PYTEST) bench --benchmark-only --timeout 300 -p no:cacheprovider --write-table -q $(ARGS)

prove: $(INSTALLED) $(call group,test) $(call group,prove) $(call group,package)  ## Run every test with many more examples, then the slow ones with their evidence (hours)
	TMM_HYPOTHESIS_PROFILE=deep $(PYTEST) --timeout=7200 -m "not slow" $(ARGS)
	$(BIN)/python tests/evidence.py

evidence: $(INSTALLED) $(call group,test) $(call group,prove) $(call group,package)  ## Run the slow tests (ARGS: those chosen) and write docs/evidence.json (an hour)
	$(BIN)/python tests/evidence.py $(ARGS)

package: $(INSTALLED) $(call group,test) $(call group,package)  ## Build sdist and wheel and check both
	$(PYTEST) tests/test_packaging.py -m slow $(ARGS)

wheel: $(VENV_READY) $(call group,package)  ## Build sdist and wheel into dist/
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python .ci/recompress.py dist/*.whl
	$(BIN)/python -m twine check --strict dist/*

docs: $(INSTALLED) $(call group,docs)  ## Build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

simulation: $(INSTALLED)  ## Play the shipped scenarios at a tenth of their volume into docs/simulation (half an hour)
	$(BIN)/python docs/make_simulation.py

clean:  ## Remove what was built, keep .venv
	rm -rf build dist docs/_build tmm-demo tmm-simulation htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .benchmarks
	rm -rf src/*.egg-info
	find src tests bench examples -name '__pycache__' -prune -exec rm -rf {} +
	find src \( -name '*.so' -o -name '*.pyd' -o -name '*.c' \) -type f -exec rm -f {} +
	rm -f $(BUILT) $(INSTALLED)

distclean: clean  ## Remove .venv and saved examples too
	rm -rf $(VENV) .hypothesis

$(VENV_READY): .ci/preflight.py
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "tmm-core: found no '$(PYTHON)': install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" .ci/preflight.py
	@test -x $(BIN)/python || { echo "Making $(VENV) with $$("$(PYTHON)" --version) ..."; "$(PYTHON)" -m venv $(VENV); }
	@$(PIP) install --quiet --upgrade "pip>=25.1"
	@touch $@

# One stamp a dependency group of pyproject.toml.
$(VENV)/.group-%: pyproject.toml $(VENV_READY)
	@echo "Installing what '$*' needs into $(VENV) ..."
	@$(PIP) install --quiet --group $*
	@touch $@

$(BUILT): $(ENGINE) setup.py $(call group,build)
	@echo "Building the engine (about half a minute; the compiler's words go to $(VENV)/build.log) ..."
	@$(BIN)/python setup.py build_ext --inplace >$(VENV)/build.log 2>&1 || { tail -n 40 $(VENV)/build.log >&2; \
	  echo "tmm-core: the engine was not built: mend what $(VENV)/build.log says, then run make again ('make clean' first if it does not help)" >&2; exit 1; }
	@touch $@

# The engine is newer than its sources by now, so this compiles nothing.
$(INSTALLED): $(BUILT) pyproject.toml
	@$(PIP) install --quiet --no-build-isolation --editable .
	@touch $@
