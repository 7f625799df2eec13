# make demo    install what is missing, then run the whole line on the built-in data set
# make test    the suite but its long tests (make test-slow: those)
# make check   lint, types, layers, known faults of what is locked
# make stack-test   docker/compose.yaml for real, without containers: needs PostgreSQL, two minutes
# make chaos   kill, fill, damage and race a small run in every stage, and compare what comes out
# make fuzz    damaged and absurd input of every kind, for some minutes (TLD_FUZZ_EXAMPLES of each)
# make sbom    a bill of what is installed, as CycloneDX
# make ui      look at the demo's runs    make install only install
# make up      the whole service in containers (docker/compose.yaml); TLD_TARGET=cuda make up: with GPUs
# make serve   there, the trained model, with the same TLD_TARGET     make down     stop it, keep the data

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow stack-test chaos fuzz check sbom ui up serve down
install: .venv/installed

# Two packages are taken out again: the `dataclasses` backport, for which img2dataset asks and which shadows the standard
# library in some processes; and rfc3987-syntax, for which cyclonedx-bom asks and which costs each command that imports
# Prefect three seconds (jsonschema takes it where it is there, and its import builds a parser).
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 13) else \
	  f"tld needs Python 3.11 or 3.12, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.11 install")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip uninstall --quiet --yes dataclasses rfc3987-syntax
	@touch $@

demo: install
	$(BIN)/tld run conf/tiny.yaml

# A file of tests is one process's, those of few but long tests not the last; most wait for processes of their own, so one
# thread each is plenty.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  --no-loadscope-reorder

test: install
	$(PYTEST) -m "not slow"

test-slow: install
	$(PYTEST) -m slow

stack-test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tools/stack_test.py

# Faults, with a table of what each looks like; full and read-only disks need root, else they are skipped.
chaos: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos/faults_*.py --numprocesses=2 --dist=worksteal

# The suite tries a few inputs of each kind; this tries many, new ones each time.
TLD_FUZZ_EXAMPLES ?= 500
fuzz: install
	OMP_NUM_THREADS=1 TLD_FUZZ_EXAMPLES=$(TLD_FUZZ_EXAMPLES) $(BIN)/python -m pytest --numprocesses=2 \
	  --dist=worksteal --timeout=3600 tests/fuzz tests/data_catalog/url_table/test_dirty_tables.py tests/flows/serve/test_fuzz.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.audit_lock

# What is installed, for those who must know: CycloneDX
sbom: install
	$(BIN)/cyclonedx-py environment .venv --output-file sbom.json

ui: install
	$(BIN)/tld ui conf/tiny.yaml

up:
	docker/up.sh

serve:
	docker compose --file docker/compose.yaml $(if $(filter cuda,$(TLD_TARGET)),--file docker/compose.gpu.yaml) \
	  up --detach --wait serve

down:
	docker compose --file docker/compose.yaml --profile serve down
