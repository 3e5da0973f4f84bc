# make demo    set up, train a ViT on handwritten digits, look inside it
# make test    set up, run every test
# make soak    kill and spoil training runs for a quarter of an hour; SOAK="--kills 20000" for longer
# make check   format, lint, types
# make format  mend format and lint
# make bench   benchmarks, results to benchmarks/results

PYTHON ?= python3
BIN := .venv/bin
LOG := .venv/install.log
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib >/dev/null 2>&1 || true   # with all cores, which pip does not

SOAK ?=

.PHONY: demo test soak check format bench clean

demo: .venv/.demo
	@$(BIN)/vitreous train --preset digits --out demo/run
	@$(BIN)/vitreous inspect demo/run/model digits --out demo/report.html
	@echo "open demo/report.html in a browser"

test: .venv/.test
	@$(BIN)/python -m pytest -n 2 -q

soak: .venv/.test
	@$(BIN)/python tests/faults/soak.py $(SOAK)

check: .venv/.test
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy --no-error-summary
	@echo "format, lint and types: good"

format: .venv/.test
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: .venv/.test
	@$(BIN)/python benchmarks/inspect_cost.py
	@$(BIN)/python benchmarks/flow.py
	@$(BIN)/python benchmarks/load_cost.py
	@$(BIN)/python benchmarks/train_cost.py
	@$(BIN)/python benchmarks/few_shot.py
	@$(BIN)/python docs/make_cost.py

clean:
	rm -rf .venv demo

.venv/.pip:
	@echo "setting up .venv (about a minute, once)"
	@$(PYTHON) -m venv .venv
	@$(PIP) --upgrade "pip>=25.1" >$(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@touch $@

.venv/.demo: .venv/.pip pyproject.toml constraints.txt
	@$(PIP) -c constraints.txt -e ".[all]" >$(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@$(COMPILE)
	@touch $@

.venv/.test: .venv/.demo
	@echo "adding what the tests need"
	@$(PIP) -c constraints.txt --group lint --group test --group compat --group browser >$(LOG) 2>&1 || { cat $(LOG); exit 1; }
	@$(COMPILE)
	@touch $@
