# `make` alone lists the targets, with the text behind ## below.

PYTHON ?= python3
BIN := .venv/bin
# An index of torch's build for CPUs, 3.7 GB smaller than the one with CUDA; empty: torch as the package index has it.
TORCH_INDEX ?=
TORCH := $(shell grep '^torch==' requirements.lock)
# uv is faster than pip, where it is there.
PIP := $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,\
  $(BIN)/python -m pip install --quiet --disable-pip-version-check)

.PHONY: help demo demo-emoji install test check test-slow docs ui stack-test chaos fuzz sbom up serve down
help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/ready ## install what is missing, then run the whole line on the built-in data set, on a CPU
	$(BIN)/tld run conf/tiny.yaml

# Where the tars of the emoji are, and their text encoder: a folder if you have no network.
IMAGES ?= data/emoji
TEXT_ENCODER ?= sentence-transformers/all-MiniLM-L6-v2
demo-emoji: install ## train on emoji, which tools.emoji_tars makes, at IMAGES=FOLDER; 44 minutes on two cores with AMX
	$(BIN)/tld run conf/emoji.yaml 'download.images=$(IMAGES)' 'encode.text_encoder=$(TEXT_ENCODER)'

install: .venv/installed ## only install, into .venv, with the tools of development

# Both install what the lock files list and nothing else: packages ask for two that do harm (see there).
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 15) else \
	  f"tld needs Python 3.11 to 3.14, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.11 install")'
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url '$(TORCH_INDEX)' $(TORCH))
	$(PIP) --no-deps --requirement requirements.lock
	$(PIP) --constraint requirements.lock $(TORCH)
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed: .venv/ready requirements-dev.lock
	$(PIP) --no-deps --requirement requirements-dev.lock
	@touch $@

# A file of tests is one process's, those of few but long tests not the last; most wait for processes of their own, so one
# thread each is plenty.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  --no-loadscope-reorder

test: install ## the test suite, but for its long tests
	$(PYTEST) -m "not slow"

test-slow: install ## the long tests
	$(PYTEST) -m slow

stack-test: install ## docker/compose.yaml for real, without containers: needs PostgreSQL, two minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tools/stack_test.py

# Faults, with a table of what each looks like; full and read-only disks need root, else they are skipped.
chaos: install ## kill, fill, damage and race a small run in every stage, and compare what comes out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos/faults_*.py --numprocesses=2 --dist=worksteal

# The suite tries a few inputs of each kind; this tries many, new ones each time.
TLD_FUZZ_EXAMPLES ?= 500
fuzz: install ## damaged and absurd input of every kind, for some minutes (TLD_FUZZ_EXAMPLES of each)
	OMP_NUM_THREADS=1 TLD_FUZZ_EXAMPLES=$(TLD_FUZZ_EXAMPLES) $(BIN)/python -m pytest --numprocesses=2 \
	  --dist=worksteal --timeout=3600 tests/fuzz tests/data_catalog/url_table/test_dirty_tables.py tests/flows/serve/test_fuzz.py

MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

check: install ## lint, types, layers, declared packages, documentation, known faults of locked versions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python -m pytest --quiet tests/whole/test_docs.py
	$(MKDOCS)
	$(BIN)/python -m tools.audit_lock

docs: install ## build the documentation into site/
	$(MKDOCS)
	@echo "site/index.html; its search needs a server: $(BIN)/python -m http.server --directory site 8002"

sbom: install ## sbom.json: what is installed, with versions and licences, as CycloneDX
	$(BIN)/python -m tools.write_sbom

ui: .venv/ready ## look at the demo's runs in MLflow and Prefect
	$(BIN)/tld ui conf/tiny.yaml

up: ## start the whole service in containers (docker/compose.yaml); with GPUs: TLD_TARGET=cuda make up
	docker/up.sh

serve: ## there, serve the trained model, with the same TLD_TARGET
	docker compose --file docker/compose.yaml $(if $(filter cuda,$(TLD_TARGET)),--file docker/compose.gpu.yaml) \
	  up --detach --wait serve

down: ## stop the containers, keep the data
	docker compose --file docker/compose.yaml --profile serve down
