# Everything a developer runs. Needs Python >= 3.11 and make, nothing else; the first run installs
# the rest into .venv, as requirements.lock pins it. `make PYTHON=python3.13 setup` chooses another
# Python.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
THIRD_PARTY := third_party/.written
CACHE := .cache
MODEL := $(CACHE)/smollm2

# Some tests and the bench compare with llama.cpp itself, whose prebuilt library npm brings; without
# it they skip.
ifneq ($(and $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),$(shell command -v npm)),)
LLAMA_CPP := $(CACHE)/llama.cpp
LLAMA_CPP_INSTALLED := $(LLAMA_CPP)/.installed
export QUANTD_LLAMA_CPP := $(CURDIR)/$(LLAMA_CPP)
endif

# Compiled numba kernels are kept between runs, and nothing here may reach a model hub.
export NUMBA_CACHE_DIR := $(CURDIR)/$(CACHE)/numba
export HF_HUB_OFFLINE := 1
# Trust the certificates that the machine trusts, as pip does; uv would bring its own list.
export UV_SYSTEM_CERTS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo test lint format spec pytest test-slow bench third_party generate baseline \
	lock model llama-cpp clean

help: ## print these targets
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(THIRD_PARTY) ## install everything into .venv

demo: setup model ## quantize a real model through the server, to GGUF Q4_K_M and to NF4
	$(BIN)/python tools/demo.py

test: lint spec pytest ## check style, types and spec, then run the fast tests

lint: setup ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup ## format Python code and the spec
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(BIN)/buf format --write proto

spec: setup ## lint the spec, compare it with the baseline, generated code and reasons with it
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf breaking proto --against proto/baseline.binpb
	$(BIN)/python tools/generate.py --check
	$(BIN)/python tools/reason_page.py --check

# One thread for each library: the tests start several processes, and sums must not depend on the
# machine.
pytest test-slow: export OMP_NUM_THREADS := 1
pytest test-slow: export QUANTD_TEST_MODEL := $(CURDIR)/$(MODEL)

pytest: setup model llama-cpp
	$(BIN)/pytest

test-slow: setup model llama-cpp ## run the slow tests
	$(BIN)/pytest -m slow

bench: setup model llama-cpp ## print the tables of measurements
	$(BIN)/python -m bench

third_party: $(THIRD_PARTY) ## write the .proto files that the spec imports into third_party/

generate: setup ## generate the Python code of the spec and the page of reason codes
	$(BIN)/python tools/generate.py
	$(BIN)/python tools/reason_page.py

baseline: setup ## accept the spec as it is now as what `buf breaking` compares with
	$(BIN)/buf build proto --exclude-source-info --output proto/baseline.binpb

lock: setup ## resolve requirements.lock again, keeping the versions that still fit
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --no-emit-package quantd-client \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet \
		--output-file requirements.lock

clean: ## remove everything that make made, .venv and downloads included
	rm -rf .venv $(CACHE) third_party .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -o -name '*.egg-info' | xargs rm -rf

$(INSTALLED): requirements.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "quantd needs Python >= 3.11, but $(PYTHON) is older or missing;" \
		"name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps \
		--editable clients/python --editable .
	touch $@

$(THIRD_PARTY): $(INSTALLED) tools/third_party_protos.py tools/proto_printer.py
	$(BIN)/python tools/third_party_protos.py
	touch $@

model: $(INSTALLED)
	$(BIN)/python tools/model.py $(MODEL)

llama-cpp: $(LLAMA_CPP_INSTALLED)
	@test -n "$(LLAMA_CPP)" || echo "skipping comparisons with llama.cpp: they need npm on Linux x86_64"

ifdef LLAMA_CPP
$(LLAMA_CPP_INSTALLED): tests/llama_cpp.py | $(INSTALLED)
	$(BIN)/python tests/llama_cpp.py --install $(LLAMA_CPP)
	touch $@
endif
