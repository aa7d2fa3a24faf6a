# llmproxy: `make serve` runs it, `make test` tests it; both do all their own set-up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: help serve test check lint format docs bench bench-routing labs test-engines test-gpu test-stalls engines clean

help:
	@echo "make serve                 two emulated backends, the proxy on :8080, the admin port on :8081"
	@echo "make serve CONFIG=my.yaml  the proxy with your configuration"
	@echo "make serve AUTOSCALE=1     emulated backends that the proxy starts and stops itself, from none to four"
	@echo "make test                  lint, types and all tests"
	@echo "make test-engines          the end-to-end tests against two real vLLM engines on the CPU"
	@echo "make test-gpu              the tests that read a real NVIDIA GPU of this machine"
	@echo "make test-stalls SEED=1    all tests while event loops are stalled at random, as a busy machine does it to them"
	@echo "make bench                 CPU and latency beside nginx, HAProxy and vllm-router"
	@echo "make labs                  how soon failures, reloads, shutdowns and leavers are dealt with, against bounds"
	@echo "make bench-routing         routing beside other systems' rules, on real traffic in virtual time"
	@echo "make docs                  regenerate the reference pages from the code"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "llmproxy needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Use make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "cannot make a virtual environment: install the venv module (Debian: apt-get install python3-venv)"; exit 1; }

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

$(DEV_STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[redis,jwt,gpu,dev]'
	@touch $(STAMP) $@

serve: $(STAMP)
ifdef CONFIG
# With its commands first on the path: a pool may start `llmproxy emulate` itself.
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec $(BIN)/llmproxy serve --config $(CONFIG)
else ifdef AUTOSCALE
	@exec $(BIN)/llmproxy demo --autoscale --backends 4
else
	@exec $(BIN)/llmproxy demo
endif

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(DEV_STAMP) lint
	@sh tests/needs.sh
	@# Beside each other: two cores do both in little more than the time of one.
	@sh tests/compiled.sh > .compiled.log 2>&1 & compiled=$$!; \
	status=0; $(BIN)/python -m pytest || status=$$?; \
	wait $$compiled || status=$$?; \
	cat .compiled.log; exit $$status

check: test

docs: $(DEV_STAMP)
	$(BIN)/python -m llmproxy.config.reference > docs/configuration.md
	$(BIN)/python -m llmproxy.telemetry.reference > docs/metrics.md

bench: $(DEV_STAMP)
	$(BIN)/python -m bench.install
	$(BIN)/python -m bench $(BENCH)

labs: $(DEV_STAMP)
	$(BIN)/python -m bench.labs $(LABS)

bench-routing: $(DEV_STAMP)
	$(BIN)/python -m bench.routing $(BENCH)

engines: $(DEV_STAMP)
	sh tests/engines/install.sh

test-engines: engines
	$(BIN)/python -m pytest tests/engines -m engines -o timeout=1200

test-gpu: $(DEV_STAMP)
	$(BIN)/python -m pytest tests/gpu -m gpu -rs -s

test-stalls: $(DEV_STAMP)
	STALLS=$(or $(SEED),1) PYTHONPATH="$(CURDIR)/tests/stalls" $(BIN)/python -m pytest -o timeout=900 $(TESTS)

clean:
	rm -rf $(VENV) build dist .compiled .compiled.log .mypy_cache .ruff_cache .pytest_cache .hypothesis
