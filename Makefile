# Each target sets up what it needs and says what to install where something is missing. Second calls are quick:
# what was set up is remembered by stamp files in .venv/ and build/.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build bytecode demo test smoke crash soak exactly-once bench lint sanitize model stress fuzz clean

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet install
SOURCES := setup.py pyproject.toml $(wildcard ext/*) $(wildcard pythia_fast/_ext/*.pxd)

# A whole run of the tests is shared between processes: many tests wait, so there are twice as many as cores to run them.
# Each has brokers of its own, and gets one file after the other in the order of their names: with the long ones first.
TEST_PROCESSES ?= 4
SPREAD := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

help:
	@echo 'make demo      build, generate 5 million orders once, score them in a pool, draw a plot into demo-output/'
	@echo 'make test      every test, a Kafka broker included, then each Python 3.11 to 3.13 found on this machine'
	@echo 'make crash     the whole crash table: fault x moment x ordering x start method'
	@echo 'make soak      ten minutes at load with random kills (SOAK="--minutes 60")'
	@echo 'make exactly-once  kill -9 of a whole runtime over a million rows, then every output is counted'
	@echo 'make bench     the benchmarks, each with its ratio and its bar'
	@echo 'make lint      ruff, mypy --strict, cython-lint'
	@echo 'make sanitize  the tests of the extension under AddressSanitizer and UndefinedBehaviorSanitizer'
	@echo 'make model     every order of steps and deaths in the ring, with SPIN, and faults that it must find'
	@echo 'make stress    the ring under ThreadSanitizer, with delays and deaths (STRESS_SECONDS=20)'
	@echo 'make fuzz      fuzz the decoders for a minute (FUZZ_SECONDS=60)'
	@echo 'make smoke     only the last part of make test: wheel, install and a short run on each Python'
	@echo 'make build     the virtual environment .venv and the extension, in place'
	@echo 'make clean     remove what was built (not demo-output/)'

# --- environment: .venv with the runtime's dependencies, then with the developers' ---------------------------

$(VENV)/pyvenv.cfg:
	@ok=yes; scripts/need.sh compiler || ok=no; python=$$(scripts/find_python.sh) || ok=no; [ $$ok = yes ] || exit 1; \
		echo "setting up $(VENV) with $$python"; scripts/make_venv.sh "$$python" $(VENV)

$(VENV)/.run-stamp: pyproject.toml scripts/requirements.py | $(VENV)/pyvenv.cfg
	@$(PYTHON) scripts/requirements.py --build plot > $(VENV)/requirements.txt
	@$(PIP) -r $(VENV)/requirements.txt
	@touch $@

$(VENV)/.dev-stamp: $(VENV)/.run-stamp
	@echo 'installing what the tests need'
	@$(PYTHON) scripts/requirements.py --build plot dev > $(VENV)/requirements.txt
	@$(PIP) -r $(VENV)/requirements.txt
	@touch $@

# --- extension ------------------------------------------------------------------------------------------------

build/.stamp: $(SOURCES) $(VENV)/.run-stamp
	@scripts/need.sh compiler
	@echo 'building the extension'
	@mkdir -p build
	@$(PYTHON) setup.py --quiet build_ext --inplace > build/log.txt 2>&1 \
		|| { cat build/log.txt; exit 1; }
	@touch $@

build: build/.stamp

# The tests start hundreds of processes. Where Python is told to write no bytecode (PYTHONDONTWRITEBYTECODE, as in many
# containers), each of them would compile the whole package for itself, which takes as long as the rest of its start.
bytecode: | $(VENV)/pyvenv.cfg
	@$(PYTHON) -m compileall -q pythia_fast tests/support

# --- what one does with it --------------------------------------------------------------------------------------

demo: build/.stamp
	@$(PYTHON) -m pythia_fast demo $(DEMO)

test: build/.stamp $(VENV)/.dev-stamp bytecode
	@scripts/need.sh java maven redis rabbitmq
	$(PYTHON) -m pytest $(or $(PYTEST),$(SPREAD) tests)
	@$(if $(PYTEST),,$(MAKE) --no-print-directory smoke)

smoke: $(VENV)/.dev-stamp
	@scripts/smoke.sh

crash: build/.stamp $(VENV)/.dev-stamp bytecode
	PYTHIA_FAST_CRASH_TABLE=full $(PYTHON) -m pytest -q tests/crash

soak: build/.stamp $(VENV)/.dev-stamp
	$(PYTHON) scripts/soak.py $(SOAK)

exactly-once: build/.stamp $(VENV)/.dev-stamp
	@scripts/need.sh java maven
	$(PYTHON) scripts/exactly_once.py $(EXACTLY_ONCE)

bench: build/.stamp $(VENV)/.dev-stamp
	$(PYTHON) -m pythia_fast bench $(BENCH)

lint: $(VENV)/.dev-stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cython-lint ext pythia_fast/_ext

sanitize: $(VENV)/.dev-stamp
	@scripts/sanitize.sh $(or $(PYTEST),$(SPREAD))

model:
	@scripts/need.sh compiler spin
	@python=$$(scripts/find_python.sh) && "$$python" scripts/model.py $(MODEL)

stress:
	@scripts/need.sh clang
	@STRESS_SECONDS=$${STRESS_SECONDS:-20} scripts/stress.sh

fuzz: build/.stamp $(VENV)/.dev-stamp
	@scripts/need.sh clang
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" FUZZ_SECONDS=$${FUZZ_SECONDS:-60} fuzz/run.sh

clean:
	rm -rf build dist *.egg-info .cache/smoke $(VENV)
	rm -f pythia_fast/_ext/*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
